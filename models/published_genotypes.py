"""Reads the pickles in which the original BM-NAS code stores genotypes; nothing in them can run."""

import io
import pickle
import pickletools
from collections import namedtuple
from typing import Any

_LARGEST = 2**20
_Genotype = namedtuple("_Genotype", "edges steps concat")
_StepGenotype = namedtuple("_StepGenotype", "inner_edges inner_steps inner_concat")


class _GenotypeUnpickler(pickle.Unpickler):
    """Knows the originals' two tuple classes; whatever else a file names is refused, not imported."""

    _classes = {  # noqa: RUF012 - a constant
        ("models.search.darts.genotypes", "Genotype"): _Genotype,
        ("models.search.darts.genotypes", "StepGenotype"): _StepGenotype,
    }

    def find_class(self, module, name):
        try:
            return self._classes[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no genotype needs; it was not run") from None


def _unpickle(data):
    if len(data) > _LARGEST:
        raise ValueError(f"it has {len(data)} bytes; a genotype has a few hundred")
    for opcode, argument, _ in pickletools.genops(data):
        # An absurd memo index makes the C reader allocate as much memory.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and (argument or 0) > len(data):
            raise ValueError("its memo indices are absurd")
    return _GenotypeUnpickler(io.BytesIO(data)).load()


def read_published(data: bytes) -> dict[str, Any]:
    """Return the fields of a pickled genotype as `FusionGenotype.from_dict` takes them.

    Raises:
        Exception: of almost any kind, for a damaged or a foreign pickle.
    """
    value = _unpickle(data)
    if not isinstance(value, _Genotype):
        raise ValueError("the pickle holds something else (the original writes None when no epoch had a score above 0)")
    return {**value._asdict(), "steps": [step._asdict() for step in value.steps]}
