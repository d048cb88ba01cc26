"""Data of your own: tables and arrays with any modalities, prepared once and read by memory map."""

from datasets import lazy_exports

_NAMES = {"open_own": "dataset", "read_manifest": "manifest", "Manifest": "manifest", "OwnData": "dataset"}
__getattr__ = lazy_exports(__name__, None, _NAMES)
