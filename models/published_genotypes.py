"""Reads genotype pickles of the original BM-NAS code without running any code in them."""

import io
import pickle
import pickletools
from collections import namedtuple
from typing import Any

_MAX_BYTES = 2**20
_Genotype = namedtuple("_Genotype", "edges steps concat")
_StepGenotype = namedtuple("_StepGenotype", "inner_edges inner_steps inner_concat")


class _GenotypeUnpickler(pickle.Unpickler):
    """Accepts the two tuple classes of the original code. Any other name raises an error and is not imported."""

    _classes = {  # noqa: RUF012 - a constant
        ("models.search.darts.genotypes", "Genotype"): _Genotype,
        ("models.search.darts.genotypes", "StepGenotype"): _StepGenotype,
    }

    def find_class(self, module, name):
        try:
            return self._classes[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, which does not belong in a genotype; it was not run"
            ) from None


def _unpickle(data):
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it has {len(data)} bytes, but a genotype has a few hundred")
    for opcode, argument, _ in pickletools.genops(data):
        # A huge memo index would make the C unpickler allocate that much memory.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(data):
            raise ValueError("its memo indices are too large")
    return _GenotypeUnpickler(io.BytesIO(data)).load()


def read_published(data: bytes) -> dict[str, Any]:
    """Read a pickled genotype.

    Args:
        data: Contents of the file.

    Returns:
        The fields as a dict, in the form that `FusionGenotype.from_dict` reads.

    Raises:
        Exception: the pickle is damaged or is not a genotype; almost any class of exception.
    """
    value = _unpickle(data)
    if not isinstance(value, _Genotype):
        raise ValueError("the pickle holds something else (the original writes None when no epoch had a score above 0)")
    return {**value._asdict(), "steps": [step._asdict() for step in value.steps]}
