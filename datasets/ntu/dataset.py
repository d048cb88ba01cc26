"""NTU RGB+D 60: eight video frames, a skeleton of two persons and an action per sample, from a store or a file tree."""

import hashlib
import json
import logging
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.ntu.names import ACTIONS, SUBJECTS, BadSample, missing_skeletons, parse_id
from datasets.ntu.skeleton import ABSENT_PERSON, MAX_PERSONS, NUM_JOINTS, Pose
from datasets.ntu.store import PREPARE, StoreSource
from datasets.ntu.tree import SKELETON_FOLDER, VIDEO_FOLDER, TreeSource, find_video_folder
from datasets.ntu.video import EMPTY, FRAME_SAMPLING, Crop, pick_slots, slots
from datasets.storage.frames import META_FILE
from util.cli import UserError, quoted
from util.hashes import short_hash

SPLITS = tuple(SUBJECTS)
FIELDS = ("rgb", "skeleton")
SMALL_SIZE = 64
SKELETON_FRAMES = 32
CHANNEL_ORDER = ("bgr", "rgb")
LISTED_IDS = 5

log = logging.getLogger("mdarts")


def open_ntu(
    source,
    split,
    *,
    small=False,
    augment=False,
    seed=0,
    views=0,
    num_frames=8,
    frame_sampling="original",
    channel_order="bgr",
    absent_person="minus_origin",
    keep_missing=False,
):
    """Open one split of NTU RGB+D 60.

    Args:
        source: Folder of a store made by ``prepare_ntu.py --out``, or of the originals' tree
            ``nturgb+d_rgb_256x256_30/<id>_rgb.avi, nturgb+d_skeletons/<id>.skeleton``; or what `open_source` opened.
        split: ``train`` (16 subjects), ``dev`` (4), ``train+dev``, ``train_exp`` (8 of train) or ``test`` (20).
        small: Keep only the first 64 samples.
        augment: Crop every video and skeleton to a random piece in time.
        seed: Seed of the random crops.
        views: Number of different crops of a sample; with 0 a new crop is drawn every epoch.
        num_frames: Frames per video, F.
        frame_sampling: ``original`` (the last of the 24 slots is always empty) or ``corrected``.
        channel_order: ``bgr`` (original) or ``rgb``.
        absent_person: What a missing person becomes: ``minus_origin`` (original) or ``zero``.
        keep_missing: Keep those of the 302 officially faulty skeletons that can be read.

    Returns:
        An `NTU` dataset.

    Raises:
        UserError: the split or an option is unknown, or the data are missing, unfinished, damaged or empty.
    """
    options = {
        "augment": bool(augment),
        "seed": int(seed),
        "views": int(views),
        "num_frames": int(num_frames),
        "frame_sampling": frame_sampling,
        "channel_order": channel_order,
        "absent_person": absent_person,
    }
    _check_options(split, options)
    source = open_source(Path(source)) if isinstance(source, (str, Path)) else source
    return NTU(source, split, options, small=small, keep_missing=keep_missing)


def _check_options(split, options):
    for name, value, choices in (
        ("split", split, SPLITS),
        ("frame_sampling", options["frame_sampling"], FRAME_SAMPLING),
        ("channel_order", options["channel_order"], CHANNEL_ORDER),
        ("absent_person", options["absent_person"], ABSENT_PERSON),
    ):
        if value not in choices:
            raise UserError(f"unknown NTU {name} {value!r}: choose one of {', '.join(choices)}")
    for name, least in (("seed", 0), ("views", 0), ("num_frames", 1)):
        if options[name] < least:
            raise UserError(f"{name} {options[name]}: must be {least} or more")


def open_source(folder):
    """Open ``folder`` (`Path`) as a `StoreSource` or a `TreeSource`.

    Raises:
        UserError: the folder contains neither, or it is damaged.
    """
    if (folder / META_FILE).is_file():
        return StoreSource(folder)
    if find_video_folder(folder) and (folder / SKELETON_FOLDER).is_dir():
        return TreeSource(folder)
    inner = folder / "dataset"
    hint = f"; {inner} holds a prepared store: pass that folder" if (inner / META_FILE).is_file() else ""
    if (folder / "settings.json").is_file():
        hint = "; it holds an unfinished store: run the same command again to finish it"
    raise UserError(
        f"no NTU data in {folder}{hint}; expected a store with {META_FILE} (make it with"
        f" `{PREPARE} --skeletons {SKELETON_FOLDER} --out {quoted(folder)}`), or {VIDEO_FOLDER}/ and"
        f" {SKELETON_FOLDER}/; or try small data: `python datasets/make_demo.py ntu --out DIR` (then pass DIR/dataset)"
    )


class NTU(Dataset):
    """One split of NTU RGB+D 60 as a map-style dataset; video frames are uint8 as decoded, not normalised.

    Attributes:
        split: Name of the split.
        num_labels: Largest action number of all data, not only of this split.
        label_names: List of that many names.
        ids: numpy array of str (N,).
        unpaired: Names of videos without skeleton, skeletons without video, and files with other names.
        dropped: Ids left out because the official list declares their skeleton missing or incomplete.
        frame_shape: ``(H, W, 3)``.
        fingerprint: Short hex string that changes with the content and the options.
        identity: Short hex string that changes with the content only: it is the same for a copy of the data elsewhere,
            and for other options.
        description: What the data are.
        synthetic: Whether they are synthetic.
    """

    def __init__(self, source, split, options, *, small=False, keep_missing=False):
        self._source = source
        self.split = split
        self.options = dict(options)
        self.unpaired = source.unpaired
        self._log_names("lack a video or skeleton, or have another name, and are left out", self.unpaired, log.warning)
        if not source.names:
            raise UserError(f"{source.folder} has no sample with both a video and a skeleton; check its file names")
        self._choose(small, keep_missing)
        self.description, self.synthetic = source.description, source.synthetic
        self.frame_shape = tuple(source.frame_shape)
        self._set_fingerprint()

    def _log_names(self, what, names, say):
        if names:
            more = ", ..." if len(names) > LISTED_IDS else ""
            listed = ", ".join(names[:LISTED_IDS])
            say("%s: %s samples %s: %s%s", self._source.folder, f"{len(names):,}", what, listed, more)

    def _choose(self, small, keep_missing):
        """Set the rows of the source that belong to the split, their labels, and the names of the labels."""
        source, faulty = self._source, missing_skeletons()
        chosen, self.dropped, top = [], [], 0
        for row, (text, name) in enumerate(zip(source.names, self._parse(source.names), strict=True)):
            top = max(top, name.action)
            if name.subject not in SUBJECTS[self.split]:
                continue
            if text in faulty and not (keep_missing and source.has_frames(row)):
                self.dropped.append(text)
            else:
                chosen.append((row, name.action - 1))
        self.dropped += [
            text
            for text, name in zip(source.missing, self._parse(source.missing), strict=True)
            if name.subject in SUBJECTS[self.split]
        ]
        self.dropped.sort()
        self._log_names("have faulty skeletons by the official list and are left out", self.dropped, log.info)
        if not chosen:
            subjects = ", ".join(map(str, sorted(SUBJECTS[self.split])))
            raise UserError(f"{source.folder} has no sample of split {self.split} (subjects {subjects})")
        table = np.array(chosen[:SMALL_SIZE] if small else chosen, dtype=np.int32)
        self._rows, self._labels = table[:, 0], table[:, 1].astype(np.uint8)
        self.num_labels = top
        names = list(source.label_names or ACTIONS)
        self.label_names = (names + [f"action {number + 1}" for number in range(len(names), top)])[:top]

    def _parse(self, texts):
        """Parse the ids ``texts``: list of `SampleName`."""
        names = []
        try:
            for text in texts:
                names.append(parse_id(text))
        except BadSample as reason:
            raise UserError(f"{self._source.folder} contains the sample {text[:40]!r}, which {reason}") from None
        return names

    def _set_fingerprint(self):
        options = dict(self.options)
        if not options["augment"]:
            options |= {"seed": 0, "views": 0}
        self._content = self._source.fingerprint(self._rows)
        facts = [self._content, self.num_labels, sorted(options.items())]
        self.fingerprint = hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()

    @cached_property
    def identity(self):
        """See the class docstring."""
        content = self._content if self._source.by_content else self._source.identity(self._rows)
        return short_hash(content, self.num_labels, self.ids, self._labels)

    def __len__(self):
        return len(self._rows)

    @cached_property
    def ids(self):
        return np.array([self._source.names[row] for row in self._rows])

    def read(self, indices, only=FIELDS, without=(), epoch=0):
        """Read one batch, restricted to the inputs that are needed.

        Args:
            indices: Sample numbers.
            only: Inputs to read.
            without: Inputs to leave out.
            epoch: Number that determines the random crops, or an int array with one number per sample.

        Returns:
            dict of label int64 (B,), index int64 (B,) and the wanted inputs: rgb uint8 (B, F, H, W, 3) with zeros for
            empty frames, skeleton float32 (B, 3, 32, 25, 2).

        Raises:
            UserError: a file is damaged.
            IndexError: an index is out of range.
        """
        rows = np.asarray(indices, dtype=np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index out of range for {len(self)} samples")
        wanted = [field for field in FIELDS if field in only and field not in without]
        epochs = np.broadcast_to(np.asarray(epoch, dtype=np.int64), rows.shape)
        shapes = {
            "rgb": ((self.options["num_frames"], *self.frame_shape), np.uint8),
            "skeleton": ((3, SKELETON_FRAMES, NUM_JOINTS, MAX_PERSONS), np.float32),
        }
        arrays = {field: np.empty((len(rows), *shapes[field][0]), shapes[field][1]) for field in wanted}
        for position, (index, moment) in enumerate(zip(rows.tolist(), epochs.tolist(), strict=True)):
            crop = self._crop(index, moment)
            for field, array in arrays.items():
                self._fill(field, array[position], index, crop)
        batch = {field: torch.from_numpy(array) for field, array in arrays.items()}
        batch["label"] = torch.from_numpy(self._labels[rows].astype(np.int64))
        batch["index"] = torch.from_numpy(rows)
        return batch

    @cached_property
    def _random(self):
        return np.random.RandomState()

    def _crop(self, index, epoch):
        if not self.options["augment"]:
            return None
        view = epoch % self.options["views"] if self.options["views"] else epoch
        return Crop(self.options["seed"], view, index, self._random)

    def _fill(self, field, target, index, crop):
        row = self._rows[index]
        try:
            if field == "rgb":
                self._fill_frames(target, row, crop)
            else:
                pose = Pose(self._source.skeleton(row), self.options["absent_person"])
                piece = crop.skeleton(len(pose)) if crop else (0, len(pose))
                target[:] = pose.resized(SKELETON_FRAMES, *piece)
        except BadSample as reason:
            path = self._source.video_path(row) if field == "rgb" else self._source.skeleton_path(row)
            raise UserError(
                f"{path} {reason}; fetch the file again, or make the data without faulty files:"
                f" `{PREPARE} --skip_invalid` (see --help)"
            ) from None

    def _fill_frames(self, target, row, crop):
        sampling, kept = self.options["frame_sampling"], crop.slots if crop else ()
        picked = pick_slots(self.options["num_frames"], *kept)
        chosen, images = self._source.images(row, lambda length: slots(length, sampling)[picked])
        step = -1 if self.options["channel_order"] == "rgb" else 1
        for frame, number in zip(target, chosen.tolist(), strict=True):
            frame[:] = 0 if number == EMPTY else images[number][..., ::step]

    def distinct(self, field):
        """Number the distinct inputs of ``field``: equal numbers mean equal inputs.

        Returns:
            int64 (N, V), numbered 0, 1, 2, ..., for each sample and view; V is 1 without augmentation, else
            ``views``. None if a new crop is drawn every epoch.
        """
        views = self.options["views"] if self.options["augment"] else 1
        if not views:
            return None
        numbers = np.arange(len(self) * views, dtype=np.int64).reshape(len(self), views)
        if field != "rgb" or views == 1:
            return numbers
        # A crop of a video begins at one of seven slots, so different views often have the same frames.
        seed, random = self.options["seed"], self._random
        begins = [[Crop(seed, view, index, random).slots[0] for view in range(views)] for index in range(len(self))]
        same = np.array(begins) + 24 * np.arange(len(self))[:, None]
        return np.unique(same, return_inverse=True)[1].reshape(numbers.shape).astype(np.int64)

    def __getitems__(self, indices):
        """One batch with all inputs; a list of indices from our sampler has the epoch as an attribute."""
        return self.read(indices, epoch=getattr(indices, "epoch", 0))

    def __getitem__(self, index):
        """One sample as in epoch 0: the dict of `read` without the batch axis."""
        return {key: value[0] for key, value in self.read([index]).items()}

    def __getstate__(self):
        return {name: value for name, value in self.__dict__.items() if name not in ("ids", "_random")}
