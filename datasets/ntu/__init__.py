"""NTU RGB+D 60: videos, skeletons and actions."""

from datasets import lazy_exports

_NAMES = {"open_ntu": "dataset", "open_source": "dataset", "NTU": "dataset", "SPLITS": "dataset"}
__getattr__ = lazy_exports(__name__, "dataset", _NAMES)
