"""DeepConnection: happy or unhappy couples in photos, and what the network looked at.

Where things are, in the order of imports: a room uses those above it, never those below it.

    files rules                    whole files; what a value must be, on command lines too
    colab                          the machine, and the workspace that all notebooks share
    pictures                       pictures and films, in and out, as screens show them
    framing                        where faces are, what a network looks at, where its cells look
    data drawn                     the folder of couples and its loaders; drawn couples and films
    plots web                      what all figures, and all panels, share
    spp pmt model checkpoint       the network, and the folder that keeps it
    predict                        ask a network: logits, feature map, log-odds in words
    augment                        notebook 02: from a picture to 48 and more
    evaluate                       notebook 04: numbers, each with its n and interval
    scrape                         notebook 01: pictures from the web into such a folder
    train                          notebook 03: learning, and studies of several networks
    explain                        notebooks 05 and 06: looking inside; each method as a sketch
    photo                          notebook 07: one photo, one answer
    video                          notebook 08: a film or a camera, an answer every moment

In a room, `plots` draws, `panel` (or `panels`) is clicked, `__main__` is its command.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["DeepConnection", "power_mean_transform", "spatial_pyramid_pool"]

if TYPE_CHECKING:
    from dclib.model import DeepConnection
    from dclib.pmt import power_mean_transform
    from dclib.spp import spatial_pyramid_pool
else:  # so that type checkers still know which names there are

    def __getattr__(name):
        """Import the network once it is asked for (PEP 562): gathering pictures needs no torch."""
        homes = dict(zip(__all__, ("model", "pmt", "spp")))
        if name not in homes:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"dclib.{homes[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
