"""Gather couples from the command line, as notebook 01 does, or divide pictures of one's own.

python -m dclib.scrape data/collected data/couples --contact me@my-university.edu
python -m dclib.scrape data/collected data/couples --forget https://...
python -m dclib.scrape --divide data/my_pictures data/mine
"""

import argparse
from pathlib import Path

from dclib.rules import argument, sentences
from dclib.scrape.collect import collect
from dclib.scrape.dataset import claim, describe, forget, make_dataset, split_folder
from dclib.scrape.queries import open_sources


def main() -> None:
    """Gather pictures into a data set, forget one, or divide a folder, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m dclib.scrape", description="Gather couples.")
    parser.add_argument("collection", type=Path, help="folder for manifest and pictures")
    parser.add_argument("dataset", type=Path, help="folder to make for training, or to add to")
    parser.add_argument("--contact", default="", help="your e-mail address or web page")
    parser.add_argument("--queries", type=Path, default=Path("data/queries.toml"))
    sources = '"gallery" (drawn, no network), or of openverse, commons and html, joined by +'
    parser.add_argument("--sources", default="openverse+commons", help=sources)
    most = "pictures (default 100)"
    parser.add_argument("--per-query", type=argument(int, 1, 100_000), default=100, help=most)
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--forget", metavar="WHAT", help="remove a URL, sha256 or file for good")
    divide = "ask nobody: divide happy/ and unhappy/ of the first folder into the other"
    instead.add_argument("--divide", action="store_true", help=divide)
    parser.add_argument(
        "--seed", type=argument(int, 0, 2**32 - 1), default=0, help="of --divide (default 0)"
    )
    args = parser.parse_args()
    with sentences(stopped="Stopped. Run the same command again to go on."):
        _run(args)


def _run(args: argparse.Namespace) -> None:
    if args.divide:
        print(split_folder(args.collection, args.dataset, seed=args.seed))
        return
    if args.forget is not None:
        n = forget(args.collection, args.forget, args.dataset)
        print(f"Removed {n}, copies included; they will not be fetched again.")
        return
    opened = open_sources(args.sources, args.contact, args.queries)
    with opened as (plan, fetcher), claim(args.dataset):  # before the work, not after it
        print(describe(collect(args.collection, plan, fetcher, args.per_query)))
        print(make_dataset(args.collection, args.dataset))
    from dclib.evaluate.probe import measure_pictures, probe  # needs scikit-learn

    print(probe(measure_pictures(args.dataset)))


if __name__ == "__main__":
    main()
