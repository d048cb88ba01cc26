"""Damage for files: bits flipped, ends cut, pieces lost or doubled; of JSON and the like fields dropped or swapped."""

import contextlib
import copy
import os
import signal

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# More of them: FUZZ_EXAMPLES=200 python -m pytest tests/test_damaged_files.py
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
OTHERS = (None, True, -1, 0, 2**70, 1.5, 1e308, float("nan"), float("inf"), "", "x", "7", "\ud83d", [], [[]], [0], {})
SECONDS = 30


def examples(count):
    """Settings of a test: ``count`` examples, always the same ones, or as many as the environment asks for."""
    return settings(
        max_examples=EXAMPLES or count,
        derandomize=not EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


@st.composite
def damaged_bytes(draw, data):
    """Other bytes: some bits of ``data`` flipped, its end cut off, or a piece of it lost, doubled or zeroed."""
    kind = draw(st.sampled_from(("flip", "cut", "lose", "double", "zero")))
    start = draw(st.integers(0, max(0, len(data) - 1)))
    end = start + draw(st.integers(1, 40))
    if kind == "cut":
        return data[:start]
    if kind == "lose":
        return data[:start] + data[end:]
    if kind == "double":
        return data[:end] + data[start:]
    changed = bytearray(data)
    if kind == "zero":
        changed[start:end] = bytes(len(changed[start:end]))
        return bytes(changed)
    for place in [start, *draw(st.lists(st.integers(0, max(0, len(data) - 1)), max_size=2))]:
        if place < len(changed):
            changed[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)


@st.composite
def damaged_value(draw, value):
    """A copy of nested dicts and lists in which one entry is dropped, doubled, or of another type or value."""
    changed = copy.deepcopy(value)
    places = list(_places(changed))
    if not places or draw(st.integers(0, 19)) == 0:
        return draw(st.sampled_from(OTHERS))
    # Few entries lie near the top, and these matter most.
    depth = draw(st.integers(1, max(depth for *_, depth in places)))
    holder, key, _ = draw(st.sampled_from([place for place in places if place[2] == depth]))
    kind = draw(st.sampled_from(("drop", "swap", "swap", "double")))
    if kind == "drop":
        del holder[key]
    elif kind == "double" and isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    else:
        holder[key] = copy.deepcopy(draw(st.sampled_from(OTHERS)))
    return changed


def _places(value, depth=1):
    """Every (container, key, depth) in nested dicts and lists."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key, depth
        yield from _places(value[key], depth + 1)


@contextlib.contextmanager
def no_hang():
    """Fail where the block takes longer than `SECONDS`."""

    def stop(*_):
        raise AssertionError(f"takes longer than {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
