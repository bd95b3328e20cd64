"""Draw couples from the command line, or compose them of photographed faces.

python -m dclib.drawn data/demo --n 3000 --seed 0
python -m dclib.drawn data/composed --faces data/faces --n 3000 --seed 0
"""

import argparse
from pathlib import Path

from dclib.data import splits_of
from dclib.drawn.couples import render_couples
from dclib.drawn.scenes import SHORTCUTS
from dclib.rules import argument, sentences


def main() -> None:
    """The command `python -m dclib.drawn`; ends with one sentence where it cannot draw."""
    parser = argparse.ArgumentParser(prog="python -m dclib.drawn", description="Draw couples.")
    add = parser.add_argument
    add("root", type=Path, help="folder to create")
    add("--n", type=argument(int, 6, 1e6), default=3000, help="number of pictures (default 3000)")
    add("--seed", type=argument(int, 0, 2**31 - 1), default=0)
    add("--size", type=argument(int, 16, 4096), help="pixels a side of a drawing (default 256)")
    add("--shortcut", choices=SHORTCUTS, help="plant a fault into drawings for audits to find")
    add("--faces", type=Path, help="compose couples of the photographs in this folder instead")
    args = parser.parse_args()
    if args.faces and (args.size or args.shortcut):
        parser.error("--size and --shortcut are for drawings, not for --faces")
    with sentences():
        if args.faces:
            from dclib.drawn.composed import compose_couples  # which needs OpenCV

            root = compose_couples(args.faces, args.root, args.n, args.seed)
        else:
            size = args.size or 256
            root = render_couples(args.root, args.n, args.seed, size, shortcut=args.shortcut)
    counts = {split: len(list((root / split).glob("*/*.jpg"))) for split in splits_of(root)}
    what = "composed pictures" if args.faces else "drawings"
    print(f"{root}: {', '.join(f'{name} {count}' for name, count in counts.items())} {what}")


if __name__ == "__main__":
    main()
