"""Region features of images: files, stores, batches, and the networks that make them."""

from datasets import lazy_exports

_NAMES = {"open_regions": "reading", "read_batch": "reading", "rows_of": "reading", "pack_regions": "packing"}
__getattr__ = lazy_exports(__name__, "reading", _NAMES)
