"""DeepConnection: happy or unhappy couples in photos, and what the network looked at.

Where things are, in the order of imports: a module uses those before it, never those after it.

    files extras colab                            small things that many need
    pictures frames                               pictures and films in, as arrays
    data drawn demo                               the folder of couples; drawn ones
    scrape                                        pictures from the web into such a folder
    augment                                       from a picture to the network's input
    spp pmt config model checkpoint               the network, and the folder that keeps it
    intervals evaluate predictions                its answers to a folder of couples, as a table
    ranking metrics evaluation                    numbers, with their n and interval
    precision training train                      learning
    studies crossval report                       what needs several networks; a report on one
    gradcam evidence explain                      looking inside
    assess timeline photo film_state video live   one photo, film or camera, one answer
    plots                                         figures of all that
    pages widgets                                 what is read in a browser, or clicked
"""

__version__ = "0.1.0"

from dclib.model import DeepConnection
from dclib.pmt import power_mean_transform
from dclib.spp import spatial_pyramid_pool

__all__ = ["DeepConnection", "power_mean_transform", "spatial_pyramid_pool"]
