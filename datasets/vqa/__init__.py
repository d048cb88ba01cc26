"""Visual question answering: VQA v2 and other data in its form."""

from datasets import lazy_exports

__getattr__ = lazy_exports(__name__, "dataset", {"open_vqa": "dataset", "VQA": "dataset", "MAX_TOKENS": "dataset"})
