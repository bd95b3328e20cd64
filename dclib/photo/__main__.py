"""Ask the network about photos from the command line.

python -m dclib.photo holiday.heic wedding.jpg
"""

import argparse
from pathlib import Path

from dclib.checkpoint import load_checkpoint
from dclib.photo import predict_photo
from dclib.pictures import PictureError
from dclib.rules import sentences


def main() -> None:
    """The command `python -m dclib.photo`; exit status 1 if a photo could not be read."""
    parser = argparse.ArgumentParser(
        prog="python -m dclib.photo",
        description="Happy or unhappy, as the network sees it; not a finding about two people.",
    )
    parser.add_argument("photos", type=Path, nargs="+", metavar="PHOTO")
    parser.add_argument("--checkpoint", type=Path, help="default: the network inside the package")
    args = parser.parse_args()
    with sentences():
        checkpoint = load_checkpoint(args.checkpoint)
    print(checkpoint)
    unread = False
    for photo in args.photos:
        try:
            print(f"\n{photo.name}: {predict_photo(photo, checkpoint)}")
        except (PictureError, OSError) as error:
            unread = True
            print(f"\n{photo.name}: {error}")
    raise SystemExit(unread)


if __name__ == "__main__":
    main()
