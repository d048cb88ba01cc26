"""MM-IMDB: posters, plot vectors and genres of films."""

from datasets import lazy_exports

_NAMES = ("open_mmimdb", "open_mmimdb_splits", "MMIMDB", "SPLITS", "OFFICIAL_COUNTS")
__getattr__ = lazy_exports(__name__, "dataset", dict.fromkeys(_NAMES, "dataset"))
