"""Gather couples from the command line; the same as notebook 01.

python -m dclib.scrape data/collected data/couples --contact me@my-university.edu
python -m dclib.scrape data/collected data/couples --forget https://...
"""

import argparse
import sys
from pathlib import Path

from dclib.scrape.collect import collect
from dclib.scrape.dataset import describe, forget, make_dataset
from dclib.scrape.queries import open_sources


def main() -> None:
    """Gather pictures into a data set, or forget one, as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m dclib.scrape", description="Gather couples.")
    parser.add_argument("collection", type=Path, help="folder for manifest and pictures")
    parser.add_argument("dataset", type=Path, help="folder to make for training")
    parser.add_argument("--contact", default="", help="your e-mail address or web page")
    parser.add_argument("--queries", type=Path, default=Path("data/queries.toml"))
    parser.add_argument(
        "--sources",
        default="openverse+commons",
        help='"gallery" (drawn, no network), or of openverse, commons and html those to ask, '
        "joined by +",
    )
    parser.add_argument("--per-query", type=int, default=100, help="pictures (default 100)")
    parser.add_argument("--forget", metavar="WHAT", help="remove a URL, sha256 or file for good")
    args = parser.parse_args()
    try:
        if args.forget is not None:
            n = forget(args.collection, args.forget, args.dataset)
            print(f"Removed {n}, copies included; they will not be fetched again.")
            return
        with open_sources(args.sources, args.contact, args.queries) as (plan, fetcher):
            print(describe(collect(args.collection, plan, fetcher, args.per_query)))
        print(make_dataset(args.collection, args.dataset))
        from dclib.evaluate.probe import measure_pictures, probe

        print(probe(measure_pictures(args.dataset)))
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped. Run the same command again to go on.")


if __name__ == "__main__":
    main()
