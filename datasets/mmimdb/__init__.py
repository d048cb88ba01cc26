"""MM-IMDB: posters, plot vectors and genres of films."""

from datasets import lazy_exports

_NAMES = {"open_mmimdb": "dataset", "MMIMDB": "dataset", "SPLITS": "dataset", "OFFICIAL_COUNTS": "dataset"}
__getattr__ = lazy_exports(__name__, "dataset", _NAMES)
