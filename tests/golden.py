"""Reads the golden fixtures in `tests/data`: weights from a rule, inputs from seeds, outputs as arrays or summaries."""

import json
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / "data"
RTOL, ATOL = 1e-4, 1e-5


def _generator(seed):
    return np.random.Generator(np.random.PCG64(seed))


def fill_tensor(key, shape, dtype="float32"):
    """The value that the fixtures' rule gives the state-dict entry ``key``."""
    if dtype == "int64":
        return torch.zeros(shape, dtype=torch.int64)
    values = _generator(zlib.crc32(key.encode())).standard_normal(tuple(shape))
    parts = key.split(".")
    norm_weight = parts[-1] == "weight" and len(parts) > 1 and (len(shape) == 1 or parts[-2] == "ln")
    if key.endswith("running_var"):
        values = 1 + 0.1 * np.abs(values)
    elif norm_weight:
        values = 1 + 0.1 * values
    else:
        values = values / np.sqrt(max(1, int(np.prod(shape[1:]))))
    return torch.from_numpy(np.asarray(values, np.float32))


def normal(seed, shape):
    """A seeded standard normal input."""
    return torch.from_numpy(_generator(seed).standard_normal(tuple(shape)).astype(np.float32))


def arch_values(name, shape):
    """The value of the architecture parameter ``name``."""
    return normal(zlib.crc32(name.encode()), shape)


class Golden:
    """One fixture: ``spec`` is its JSON, ``state`` its filled state dict."""

    def __init__(self, name):
        self.spec = json.loads((DATA / f"{name}.json").read_text())
        arrays = DATA / f"{name}.npz"
        self.arrays = dict(np.load(arrays)) if arrays.exists() else {}
        self.state = {key: fill_tensor(key, shape, dtype) for key, shape, dtype in self.spec.get("state_dict", [])}

    def inputs(self):
        """The fixture's inputs, in order."""
        return [normal(entry["seed"], entry["shape"]) for entry in self.spec["inputs"]]

    def assert_output(self, name, value, rtol=RTOL, atol=ATOL):
        """Compare a tensor with the stored output ``name``, whole or by its summary."""
        value = value.detach().double().numpy()
        if name in self.arrays:
            np.testing.assert_allclose(value, self.arrays[name], rtol=rtol, atol=atol)
            return
        assert list(value.shape) == list(self.arrays[f"{name}.shape"])
        np.testing.assert_allclose(value.ravel()[:64], self.arrays[f"{name}.first64"], rtol=rtol, atol=atol)
        np.testing.assert_allclose(value.mean(), self.arrays[f"{name}.mean"], rtol=rtol, atol=atol)
        np.testing.assert_allclose(value.std(), self.arrays[f"{name}.std"], rtol=rtol, atol=atol)
