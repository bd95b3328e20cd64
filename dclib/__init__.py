"""DeepConnection: happy or unhappy couples in photos, and what the network looked at.

Where things are. A line imports from the lines above it, never from those below:

    files extras colab                           small things that many need
    pictures frames timeline                     pictures and films in, as arrays
    data drawn demo                              the folder of couples; drawn ones
    augment                                      from a picture to the network's input
    spp pmt config model checkpoint              the network, and the folder that keeps it
    evaluate predictions metrics evaluation      numbers, with their n and interval
    scrape                                       pictures from the web into such a folder
    precision training train                     learning
    crossval report studies                      what needs several networks
    gradcam evidence explain                     looking inside
    assess photo film_state video                one photo or film, one answer
    plots                                        figures of all that
    pages widgets                                what is read in a browser, or clicked
"""

__version__ = "0.1.0"

from dclib.model import DeepConnection
from dclib.pmt import power_mean_transform
from dclib.spp import spatial_pyramid_pool

__all__ = ["DeepConnection", "power_mean_transform", "spatial_pyramid_pool"]
