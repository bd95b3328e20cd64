"""Pictures a second from a site on this computer, against img2dataset and icrawler.

    python benchmarks/scrape.py [--peers PYTHON] [--n 500] [--repeats 3]

`--peers` is the interpreter of an environment in which img2dataset and icrawler are installed (they
need other versions than we do). Same pictures, same number of connections, politeness off for all;
the tools take turns, each in a fresh process, imports not counted. Writes results/scrape.json.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONNECTIONS = 16
SELF, CHILDREN = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN
RESULTS = Path(__file__).parent / "results" / "scrape.json"
WHAT = {
    "dclib": "robots.txt, opt-outs, decode, fingerprints, re-encode, a manifest row a picture",
    "img2dataset": "opt-out headers, decode, re-encode, a JSON file a picture",
    "icrawler": "writes the bytes as they come, checks nothing",
}


def run_dclib(urls, folder):
    from dclib.scrape.collect import collect
    from dclib.scrape.fetch import Fetcher, Hosts
    from dclib.scrape.sources import Candidate, Listing, host

    class Everything:
        name, api, pace = "benchmark", True, 0.0

        def start(self, text):
            return urls[0].rpartition("/media")[0] + "/search"

        def parse(self, page):
            return Listing([Candidate(url, licence="by") for url in urls], None)

    address, port = host(urls[0]).split(":")
    fetcher = Fetcher("nobody@gallery.invalid", opening=(address, int(port)))
    fetcher.hosts = Hosts(rate=1e6, connections=CONNECTIONS)
    plan = [(Everything(), "happy", "all")]
    start = time.perf_counter()
    collect(folder, plan, fetcher, workers=CONNECTIONS, progress=False)
    return time.perf_counter() - start, len(list(folder.glob("pool/*.jpg")))


def run_img2dataset(urls, folder):
    import img2dataset

    (folder / "urls.txt").write_text("\n".join(urls))
    start = time.perf_counter()
    img2dataset.download(
        url_list=str(folder / "urls.txt"),
        output_folder=str(folder / "out"),
        processes_count=1,
        thread_count=CONNECTIONS,
        image_size=1024,
        resize_mode="keep_ratio",
        resize_only_if_bigger=True,
        encode_quality=92,
        number_sample_per_shard=len(urls),
        enable_wandb=False,
    )
    return time.perf_counter() - start, len(list(folder.glob("out/*/*.jpg")))


def run_icrawler(urls, folder):
    from icrawler.builtin import UrlListCrawler

    (folder / "urls.txt").write_text("\n".join(urls))
    crawler = UrlListCrawler(
        downloader_threads=CONNECTIONS, storage={"root_dir": str(folder / "out")}, log_level=40
    )
    start = time.perf_counter()
    crawler.crawl(str(folder / "urls.txt"))
    return time.perf_counter() - start, len(list(folder.glob("out/*.jpg")))


TOOLS = {"dclib": run_dclib, "img2dataset": run_img2dataset, "icrawler": run_icrawler}


def run_one(name):
    """In a child process: URLs from standard input, the result as the last line."""
    urls = sys.stdin.read().split()
    with tempfile.TemporaryDirectory() as folder:
        seconds, n = TOOLS[name](urls, Path(folder))
    peaks = [resource.getrusage(who).ru_maxrss for who in (SELF, CHILDREN)]
    print(json.dumps({"seconds": seconds, "n": n, "peak_mib": max(peaks) / 1024}))


def serve(n):
    """In a child process: a gallery with its files ready; prints its URLs, then waits."""
    from dclib.scrape.gallery import Gallery

    with Gallery(n=n) as site:
        fine = [drawing for drawing in site.drawings if not drawing.trap]
        for drawing in fine:
            site.jpeg(drawing)
        print(*(site.url + drawing.media for drawing in fine), flush=True)
        sys.stdin.read()


def measure(python, name, urls):
    done = subprocess.run(
        [python, "-W", "ignore", __file__, "--one", name],
        input="\n".join(urls),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "OMP_NUM_THREADS": "1"},
    )
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=sys.executable, help="python with the other tools")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--one", choices=TOOLS, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return run_one(args.one)
    if args.serve:
        return serve(args.n)
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", "--n", str(args.n)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    urls = server.stdout.readline().split()
    runs = {name: [] for name in TOOLS}
    for _ in range(args.repeats):
        for name in TOOLS:
            python = sys.executable if name == "dclib" else args.peers
            runs[name].append(measure(python, name, urls))
    server.communicate("")
    write(runs, len(urls), args.peers)


def write(runs, n, peers):
    from machine import machine, versions

    results = {}
    for name, taken in runs.items():
        rates = [run["n"] / run["seconds"] for run in taken]
        results[name] = {
            "pictures_per_s": round(statistics.median(rates), 1),
            "range": [round(min(rates), 1), round(max(rates), 1)],
            "kept": taken[0]["n"],
            "peak_mib": round(max(run["peak_mib"] for run in taken)),
            "does": WHAT[name],
        }
    for result in results.values():
        peer = results["img2dataset"]["pictures_per_s"]
        result["ratio_to_img2dataset"] = round(result["pictures_per_s"] / peer, 2)
    report = {"machine": machine(), "pictures": n, "connections": CONNECTIONS}
    report |= {
        "repeats": len(runs["dclib"]),
        "versions": versions(["requests", "urllib3", "pillow"]),
    }
    report["versions"] |= peer_versions(peers)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(report | {"results": results}, indent=1) + "\n")
    print(RESULTS.read_text())


def peer_versions(python):
    code = "from importlib.metadata import version as v; "
    code += "print(*(f'{n}={v(n)}' for n in ('img2dataset', 'icrawler')))"
    done = subprocess.run([python, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return dict(pair.split("=") for pair in done.stdout.split())


if __name__ == "__main__":
    main()
