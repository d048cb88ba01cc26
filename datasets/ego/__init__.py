"""EgoGesture: colour and depth frames of hand gestures."""

from datasets import lazy_exports

__getattr__ = lazy_exports(__name__, "dataset", {"open_ego": "dataset", "EgoGesture": "dataset", "SPLITS": "dataset"})
