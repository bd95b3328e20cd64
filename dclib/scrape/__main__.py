"""Gather couples from the command line; the same as notebook 01.

python -m dclib.scrape data/collected data/couples --contact me@my-university.edu
python -m dclib.scrape data/collected data/couples --forget https://...
"""

import argparse
import sys
from pathlib import Path

from dclib.data import DRAWN
from dclib.scrape.collect import collect, make_plan
from dclib.scrape.commons import Commons
from dclib.scrape.fetch import Fetcher
from dclib.scrape.gallery import CONTACT, Gallery
from dclib.scrape.html import HtmlGallery
from dclib.scrape.openverse import Openverse
from dclib.scrape.queries import load_queries
from dclib.scrape.settle import describe, forget, make_dataset
from dclib.shortcuts import measure_pictures, probe

SOURCES = {"openverse": Openverse, "commons": Commons, "html": HtmlGallery}


def main():
    parser = argparse.ArgumentParser(prog="python -m dclib.scrape", description="Gather couples.")
    parser.add_argument("collection", type=Path, help="folder for manifest and pictures")
    parser.add_argument("dataset", type=Path, help="folder to make for training")
    parser.add_argument("--contact", default="", help="your e-mail address or web page")
    parser.add_argument("--queries", type=Path, default=Path("data/queries.toml"))
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=["openverse", "commons"])
    parser.add_argument("--per-query", type=int, default=100, help="pictures (default 100)")
    parser.add_argument("--demo", action="store_true", help="the drawn gallery on this computer")
    parser.add_argument("--forget", metavar="WHAT", help="remove a URL or sha256 for good")
    args = parser.parse_args()
    try:
        if args.forget:
            n = forget(args.collection, args.forget, args.dataset)
            print(f"Removed {n} pictures; they will not be fetched again.")
        elif args.demo:
            with Gallery() as gallery:
                plan = make_plan((HtmlGallery(name=DRAWN), gallery.queries))
                run(args, plan, Fetcher(CONTACT, rate=100, opening=gallery.opening))
        else:
            kinds = {name: "pages" if name == "html" else "phrases" for name in args.sources}
            asked = [(SOURCES[name](), load_queries(args.queries, kinds[name])) for name in kinds]
            run(args, make_plan(*asked), Fetcher(args.contact))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. Run the same command again to go on.")


def run(args, plan, fetcher):
    rows = collect(args.collection, plan, fetcher, args.per_query)
    print(describe(rows))
    print(make_dataset(args.collection, args.dataset))
    print(probe(measure_pictures(args.dataset)))


if __name__ == "__main__":
    main()
