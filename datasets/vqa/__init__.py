"""Visual question answering: VQA v2 and other data in its form."""

from datasets import lazy_exports

EXPORTS = ("open_vqa", "open_vqa_parts", "VQA", "MAX_TOKENS")
__getattr__ = lazy_exports(__name__, "dataset", dict.fromkeys(EXPORTS, "dataset"))
