"""NTU RGB+D 60: videos, skeletons and actions."""

from datasets import lazy_exports

__getattr__ = lazy_exports(__name__, "dataset", {"open_ntu": "dataset", "NTU": "dataset", "SPLITS": "dataset"})
