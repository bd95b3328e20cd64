"""Draw couples from the command line.

python -m dclib.drawn data/demo --n 3000 --seed 0
"""

import argparse
import sys
from pathlib import Path

from dclib.data import splits_of
from dclib.drawn.couples import render_couples
from dclib.drawn.scenes import SHORTCUTS


def main() -> None:
    """The command `python -m dclib.drawn`; ends with one sentence where it cannot draw."""
    parser = argparse.ArgumentParser(prog="python -m dclib.drawn", description="Draw couples.")
    parser.add_argument("root", type=Path, help="folder to create")
    parser.add_argument("--n", type=int, default=3000, help="number of pictures (default 3000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=256, help="pixels a side (default 256)")
    parser.add_argument("--shortcut", choices=SHORTCUTS, help="plant a fault for audits to find")
    args = parser.parse_args()
    try:
        root = render_couples(args.root, args.n, args.seed, args.size, shortcut=args.shortcut)
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    counts = {split: len(list((root / split).glob("*/*.jpg"))) for split in splits_of(root)}
    print(f"{root}: {', '.join(f'{name} {count}' for name, count in counts.items())} drawings")


if __name__ == "__main__":
    main()
