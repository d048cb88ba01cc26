"""Computes the features of frozen backbones once per sample and caches them, in memory or on disk.

Features are computed with the same network, precision, inputs and number of samples at a time as without the cache. On
a CPU the results are equal bit for bit; a GPU may choose another algorithm and round differently.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from engine.loading import build_loader
from util.arrays import NpyFile, NpyWriter
from util.cli import UserError
from util.code import code_digest, versions
from util.distributed import barrier, from_rank_0, rank
from util.files import make_public, read_json, write_fault, write_json
from util.locks import locked
from util.memory import available_memory
from util.nested import to_device
from util.progress import progress

if TYPE_CHECKING:
    from engine.updates import Precision
    from models.backbone_net import UnimodalNet
    from models.bmnas.fusion_net import FusionNet
    from tasks.task import LabelledData

logger = logging.getLogger("mdarts")

# Features may use this fraction of the free memory or disk space.
_SHARE = 0.5
_MANIFEST = "manifest.json"
# Part of the key of cached features. Increase it when the content or format of the files changes.
_VERSION = 3
# Libraries that compute features or decode the inputs.
_LIBRARIES = ("torchvision", "opencv-python", "opencv-python-headless", "pillow")
# Attributes of a module that do not affect what it computes.
_IDLE = {*vars(torch.nn.Module()), "source"}
# Number of samples per forward pass, by device type. Small batches suit the caches of a CPU.
_BATCH = {"cpu": 8, "cuda": 64}


class CachedFeatures(Dataset):
    """A data set whose batches contain backbone features instead of some raw inputs.

    Args:
        dataset: The raw data set, with a method ``read(indices, without, epoch)``.
        features: Name of a backbone -> for each feature an array (distinct inputs, ...), or None if it is not kept.
        rows: Name of a backbone -> row of ``features`` for each sample and view, int64 (samples, views). Epoch e reads
            view e modulo the number of views.
        unread: Names of inputs that nothing reads.
        in_memory: Whether everything is in memory, so that loading processes would not save time.
    """

    def __init__(
        self,
        dataset: LabelledData,
        features: Mapping[str, Sequence[Any]],
        rows: Mapping[str, np.ndarray],
        unread: Iterable[str],
        in_memory: bool,
    ) -> None:
        self.dataset, self.features, self.rows, self.in_memory = dataset, features, rows, in_memory
        self._without = {*features, *unread}
        self._length = len(next(iter(rows.values())))

    def __len__(self) -> int:
        return self._length

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Any]:
        epoch = getattr(indices, "epoch", 0)
        batch = self.dataset.read(indices, without=self._without, epoch=epoch)
        for name, arrays in self.features.items():
            rows = self.rows[name][indices, epoch % self.rows[name].shape[1]]
            batch[f"{name}_features"] = [None if a is None else torch.from_numpy(a[rows]) for a in arrays]
        return batch


class FeatureCache:
    """Wraps data sets so that features of a network's frozen backbones are computed once and cached.

    Args:
        net: A `BackboneNet` on ``device``, whose backbones have their final weights.
        mode: ``auto``, ``ram``, ``disk`` or ``off``.
        folder: Folder of cached features for ``disk``, with one subfolder per key.
        device: Device of the network.
        precision: Precision of the run, see `engine.updates.Precision`.
        num_workers: Maximum number of data loading processes.
    """

    def __init__(
        self,
        net: FusionNet | UnimodalNet,
        mode: str,
        folder: Path | str,
        device: torch.device,
        precision: Precision,
        num_workers: int,
    ) -> None:
        self.net, self.mode, self.folder = net, mode, Path(folder)
        self.device, self.precision, self.num_workers = device, precision, num_workers
        # Which backbones are frozen, and which of their features the fusion reads.
        self._cacheable = net.cacheable()
        self._needed = {name: net.needed(name) for name in net.backbones}
        self._about: dict[tuple[str, type], list[Any]] = {}

    def __call__(self, datasets: Mapping[str, LabelledData]) -> dict[str, LabelledData | CachedFeatures]:
        """The data sets by the same names, with cached features, or as they are where nothing can be cached."""
        needed = [name for name in self.net.backbones if self._needed[name]]
        names = [name for name in self._cacheable if name in needed]
        if self.mode == "off" or not names:
            return dict(datasets)
        distinct = {split: {name: dataset.distinct(name) for name in names} for split, dataset in datasets.items()}
        # An input that is drawn again in every epoch has no distinct ones.
        inputs = {
            split: {name: _Inputs(datasets[split], name, rows) for name, rows in own.items() if rows is not None}
            for split, own in distinct.items()
        }
        places = {one: self._place(one) for own in inputs.values() for one in own.values()}
        stored = self._stored(places)
        unread = set(self.net.backbones).difference(needed)
        cached: dict[str, LabelledData | CachedFeatures] = {}
        for split, dataset in datasets.items():
            found = {name: self._features(one, places[one], *stored[one]) for name, one in inputs[split].items()}
            features = {name: arrays for name, (arrays, where) in found.items() if where != "off"}
            # Inputs that stay raw are read from files and decoded for every batch.
            raw = set(needed) - set(getattr(dataset, "quick", ())) - set(names)
            in_memory = not raw and len(found) == len(names) and all(where == "ram" for _, where in found.values())
            rows = {name: inputs[split][name].rows for name in features}
            cached[split] = CachedFeatures(dataset, features, rows, unread, in_memory) if features else dataset
        return cached

    def _place(self, inputs):
        """The folder for features of these inputs."""
        return self.folder / f"{inputs.dataset.split}-{inputs.name}-{self._key(inputs, len(inputs))}"

    def _features(self, inputs, place, stored, shapes):
        """Features of distinct inputs, and where they are kept: ``ram``, ``disk`` or ``off``."""
        name, split, count = inputs.name, inputs.dataset.split, len(inputs)
        if shapes is None:
            shapes = self.net.feature_shapes(inputs.__getitems__(range(min(2, count))), name)
        kept = frozenset(index % len(shapes) for index in self._needed[name])
        sizes = [4 * count * int(np.prod(shape)) for shape in shapes]
        where = self.mode
        if where == "auto":
            where = "disk" if stored else self._choose(sum(sizes[index] for index in kept), sum(sizes))
        size = sum(sizes) if where == "disk" else sum(sizes[index] for index in kept)
        text = "features of %s, %s: %s (%s bytes for %d distinct inputs)"
        logger.info(text, name, split, where, f"{size:,}", count)
        if where == "off":
            return None, where
        if where == "ram":
            arrays = [np.empty((count, *s), np.float32) if i in kept else None for i, s in enumerate(shapes)]
            self._fill(arrays, inputs)
            return arrays, where
        if not stored:
            self._write(place, inputs, shapes)
        return [NpyFile(place / f"{i}.npy") if i in kept else None for i in range(len(shapes))], where

    def _stored(self, places):
        """For each folder, whether it has features, and their shapes without the first axis, or None if unknown."""
        present = from_rank_0([(place / _MANIFEST).exists() for place in places.values()])
        stored: dict[_Inputs, tuple[bool, Any]] = {}
        for (inputs, place), there in zip(places.items(), present, strict=True):
            stored[inputs] = there, None
            if there:
                with contextlib.suppress(UserError, LookupError, TypeError, ValueError):
                    shapes = read_json(place / _MANIFEST)["shapes"]
                    stored[inputs] = there, [tuple(map(int, shape)) for shape in shapes] or None
        return stored

    def _choose(self, memory_size, disk_size):
        """Where ``auto`` keeps features: ``ram``, ``disk`` or ``off``, the same on all ranks."""
        # In memory, every process on this machine has its own copy.
        copies = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        if from_rank_0(copies * memory_size <= _SHARE * available_memory()):
            return "ram"
        return "disk" if from_rank_0(disk_size <= _SHARE * _free_disk(self.folder)) else "off"

    @torch.no_grad()
    def _fill(self, arrays, inputs):
        mode = self.net.training
        self.net.eval()
        batch_size = _BATCH.get(self.device.type, 8)
        loader = build_loader(
            inputs, batch_size, shuffle=False, seed=0, num_workers=self.num_workers, device=self.device, all_ranks=True
        )
        start = 0
        for batch in progress(loader, f"{inputs.name} features, {inputs.dataset.split}", disable=rank() > 0):
            batch = to_device(batch, self.device)
            with self.precision.autocast():
                features = self.net.extract(batch, inputs.name)
            stop = start + len(features[0])
            for array, feature in zip(arrays, features, strict=True):
                if array is not None:
                    with self._keeping():
                        array[start:stop] = feature.float().cpu().numpy()
            start = stop
        self.net.train(mode)

    def _write(self, place, inputs, shapes):
        """Compute features into ``place`` on rank 0. The folder is given its name once it is complete."""
        if rank() == 0:
            # One run computes the features, and other runs that need the same ones wait.
            waiting = f"another run is computing the features of {place.name}; waiting for it"
            with contextlib.ExitStack() as lock:
                with self._keeping():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    lock.enter_context(locked(self.folder / f".{place.name}.lock", waiting=waiting))
                if not (place / _MANIFEST).exists():
                    self._fill_folder(place, inputs, shapes)
        barrier()

    @contextlib.contextmanager
    def _keeping(self):
        """Turn errors of writing features into a `UserError`. It must not wrap code that computes features."""
        try:
            yield
        except OSError as error:
            remedy = "use --cache_dir DIR or --cache_features off"
            raise UserError(f"cannot store features in {self.folder}: {write_fault(error, remedy)}") from None

    def _fill_folder(self, place, inputs, shapes):
        for left_over in (place, *self.folder.glob(f".{place.name}-*")):
            shutil.rmtree(left_over, ignore_errors=True)
        with self._keeping():
            temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=self.folder))
            make_public(temporary)
        try:
            with contextlib.ExitStack() as files:
                paths = (temporary / f"{i}.npy" for i in range(len(shapes)))
                with self._keeping():
                    made = [NpyWriter(path, (len(inputs), *shape)) for path, shape in zip(paths, shapes, strict=True)]
                    arrays = [files.enter_context(file) for file in made]
                self._fill(arrays, inputs)
            with self._keeping():
                facts = {"split": inputs.dataset.split, "backbone": inputs.name, "shapes": shapes}
                write_json(temporary / _MANIFEST, facts)
                temporary.rename(place)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def _key(self, inputs, count):
        """Hash of all that features depend on: data, backbone (weights, code), pool, precision, libraries, device."""
        about = (inputs.name, type(inputs.dataset))
        if about not in self._about:  # the same for every split
            self._about[about] = self._backbone_facts(*about)
        (*facts, installed), parts = self._about[about]
        data = [inputs.dataset.fingerprint, count, self.net.pool, self.precision.amp, torch.__version__]
        digest = hashlib.sha256(json.dumps([*facts, *data, installed, self.device.type], default=str).encode())
        for module in parts:
            # The state dict would lack non-persistent buffers.
            for tensor in (*module.parameters(), *module.buffers()):
                digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def _backbone_facts(self, name, kind):
        """All that features depend on in a backbone besides its weights, and the modules that contain the weights.

        Args:
            name: Name of the backbone.
            kind: Class of the data set.
        """
        backbone = self.net.backbones[name]
        parts = backbone.modules_of(len(backbone.channels))
        inner = [module for part in parts for module in part.modules()]
        # Settings: strides, epsilons, ... Dropout is left out, since it has no effect in evaluation mode.
        dropout, plain = torch.nn.modules.dropout._DropoutNd, (bool, int, float, str, tuple, type(None))
        settings = [
            {key: value for key, value in vars(module).items() if isinstance(value, plain) and key not in _IDLE}
            for module in (backbone, *inner)
            if not isinstance(module, dropout)
        ]
        facts = [
            _VERSION,
            type(backbone).__name__,
            getattr(backbone, "settings", None),
            settings,
            code_digest([*map(type, backbone.modules()), kind]),
            code_digest([next(kind for kind in type(self.net).__mro__ if "extract" in vars(kind))]),
            versions(_LIBRARIES),
        ]
        return facts, parts


class _Inputs(Dataset):
    """The D distinct raw inputs of one backbone, in order.

    Args:
        dataset: The raw data set.
        name: Name of the backbone, and of the batch entry that it reads.
        distinct: Which distinct input each sample has, for each view (the epoch in which it is drawn), int64 (N, V).

    Attributes:
        rows: int64 (N, V), the position in this data set of the input of each sample and view.
    """

    def __init__(self, dataset, name, distinct):
        _, first, inverse = np.unique(distinct, return_index=True, return_inverse=True)
        self.dataset, self.name, self.rows = dataset, name, inverse.reshape(distinct.shape)
        self.samples, self.views = np.unravel_index(first, distinct.shape)

    def __len__(self):
        return len(self.samples)

    def __getitems__(self, indices):
        rows = list(indices)
        return self.dataset.read(self.samples[rows], only=[self.name], epoch=self.views[rows])


def _free_disk(folder):
    """Number of free bytes on the disk of ``folder``; 0 if the folder cannot be created or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free if os.access(folder, os.W_OK) else 0
    except OSError:
        return 0
