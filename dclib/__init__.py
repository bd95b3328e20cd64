"""DeepConnection: happy or unhappy couples in photos, and what the network looked at."""

__version__ = "0.1.0"

from dclib.model import DeepConnection
from dclib.pmt import power_mean_transform
from dclib.spp import spatial_pyramid_pool

__all__ = ["DeepConnection", "power_mean_transform", "spatial_pyramid_pool"]
