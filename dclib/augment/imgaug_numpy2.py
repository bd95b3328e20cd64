"""imgaug 0.4.0 (2020) on today's NumPy: import `ia` and `iaa` from here.

imgaug reads three names that NumPy has removed since: `np.sctypes` while it is imported, `np.bool`
and `np.complex` later on. The first is lent for the import only; the three imgaug modules that read
the others get a proxy of NumPy that has them. NumPy itself is left as it was.
"""

import types
from typing import Any

import numpy as np

from dclib.files import extra


class _NumPyOf2020(types.ModuleType):
    """NumPy with the two names that it had in 2020."""

    bool, complex = np.bool_, complex

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)


_lent = "sctypes" not in vars(np)
if _lent:
    vars(np)["sctypes"] = {
        "int": [np.int8, np.int16, np.int32, np.int64],
        "uint": [np.uint8, np.uint16, np.uint32, np.uint64],
        "float": [np.float16, np.float32, np.float64, np.longdouble],
    }
try:
    with extra("augment"):
        import imgaug as ia
        import imgaug.augmentables.polys
        import imgaug.augmenters as iaa
        import imgaug.augmenters.meta
        import imgaug.parameters
finally:
    if _lent:
        del vars(np)["sctypes"]

for _module in (imgaug.parameters, imgaug.augmenters.meta, imgaug.augmentables.polys):
    _module.np = _NumPyOf2020("numpy")

__all__ = ["ia", "iaa"]
