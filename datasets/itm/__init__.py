"""Image-text matching: Flickr30K and COCO."""

from datasets import lazy_exports

__getattr__ = lazy_exports(__name__, "dataset", {"open_itm": "dataset", "ITM": "dataset", "MAX_TOKENS": "dataset"})
