"""Visual grounding: RefCOCO, RefCOCO+ and RefCOCOg."""

from datasets import lazy_exports

__getattr__ = lazy_exports(__name__, "dataset", {"open_vgd": "dataset", "VGD": "dataset", "MAX_TOKENS": "dataset"})
