"""EgoGesture: clips of colour and depth frames of hand gestures, which are cropped and scaled while they are read."""

import hashlib
import logging
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from datasets.ego.annotation import ANNOTATION_FILE, OFFICIAL_COUNTS, read_annotation, refuse_faults
from datasets.ego.frames import (
    CHANNELS,
    FIELDS,
    META_FILE,
    FrameFolders,
    PreparedFrames,
    centre_begin,
    centre_crop,
    decode,
    draw_crop,
    pixels,
    random_begin,
    random_crop,
    sample_generator,
    take_frames,
)
from util.cli import UserError, quoted
from util.hashes import short_hash

SPLITS = {
    "train": ("training",),
    "dev": ("validation",),
    "train+dev": ("training", "validation"),
    "test": ("testing",),
}
SMALL_SIZE = 64
logger = logging.getLogger("mdarts")


def open_ego(
    datadir,
    split,
    *,
    annotation=None,
    small=False,
    augment=False,
    seed=0,
    views=0,
    sample_size=112,
    sample_duration=32,
    skip_invalid=False,
):
    """Open one split of EgoGesture.

    Args:
        datadir: A folder made by ``prepare_ego.py``, or the official one with ``SubjectXX`` in it.
        split: ``train``, ``dev``, ``train+dev`` or ``test``.
        annotation: The annotation file; None for the one in ``datadir``.
        small: Keep only the first 64 clips.
        augment: Use a random first frame and a random crop for each clip and epoch; otherwise the middle of both.
        seed: Seed of the random draws.
        views: With 0 every epoch has new draws; with K the draws of the first K epochs are repeated.
        sample_size: Height and width of the returned frames in pixels, S.
        sample_duration: Number of returned frames, T.
        skip_invalid: Leave out clips that are invalid in the annotation or whose frames are missing, and list them in
            ``skipped``.

    Returns:
        An `EgoGesture` dataset.

    Raises:
        UserError: the split is unknown, a number is out of range, or the data are missing, unfinished or faulty.
    """
    if split not in SPLITS:
        raise UserError(f"unknown EgoGesture split {split!r}: choose one of {', '.join(SPLITS)}")
    for name, value, least in (("sample_size", sample_size, 1), ("sample_duration", sample_duration, 1)):
        if value < least:
            raise UserError(f"--{name} {value}: must be {least} or more")
    if views < 0:
        raise UserError(f"{views} views: must be 0 (new ones in every epoch) or more")
    frames, annotation = find_data(Path(datadir), annotation)
    label_names, clips, skipped = _usable_clips(frames, annotation, split, skip_invalid)
    if skipped:
        logger.warning("%s: %s clips of split %s are left out, first %s", datadir, len(skipped), split, skipped[0])
    options = {"size": sample_size, "duration": sample_duration}
    if augment:
        options |= {"seed": seed, "views": views}
    return EgoGesture(split, frames, clips[:SMALL_SIZE] if small else clips, label_names, skipped, options)


def find_data(folder, annotation):
    """Find the frames in ``folder`` (`Path`) and their annotation.

    Returns:
        (`FrameFolders` or `PreparedFrames`, path of the annotation).

    Raises:
        UserError: frames or annotation are missing or unfinished.
    """
    if (folder / META_FILE).is_file():
        frames = PreparedFrames(folder)
        return frames, Path(annotation or frames.annotation)
    if (folder / "rgb" / "journal.jsonl").is_file():
        raise UserError(
            f"{folder} is not finished: run the same `python datasets/prepare_ego.py --dir EGOGESTURE --out"
            f" {quoted(folder)}` again, it goes on where it stopped"
        )
    if any(path.is_dir() for path in folder.glob("Subject*")):
        path = Path(annotation or folder / ANNOTATION_FILE)
        if path.is_file():
            return FrameFolders(folder), path
        raise UserError(
            f"no annotation {path}: give --annotation FILE ({ANNOTATION_FILE}), or make it with"
            f" `python datasets/prepare_ego.py --dir {quoted(folder)} --labels labels-final-revised1`"
        )
    inner = next((folder / name for name in ("dataset", "images") if (folder / name).is_dir()), None)
    hint = f"; perhaps it is {inner}" if inner else ""
    raise UserError(
        f"no EgoGesture data in {folder}{hint}; expected {folder}/SubjectXX/SceneY/Color/rgbK/000001.jpg, ... and"
        f" Depth/depthK/000001.jpg, ..., or a folder made with `python datasets/prepare_ego.py --dir EGOGESTURE --out"
        f" {folder}`; small data to try: `python datasets/make_demo.py ego --out DIR` (then pass DIR/dataset)"
    )


def _usable_clips(frames, path, split, skip_invalid):
    """Returns label names, list of the split's usable clips, and list of `Fault` of the clips that are left out."""
    annotation = read_annotation(path)
    known = {fault.name: fault for fault in frames.known_faults()}
    faults = [fault for fault in annotation.faults if fault.name not in known]
    candidates = [clip for subset in SPLITS[split] for clip in annotation.subset(subset)]
    clips, skipped = [], [known[clip.name] for clip in candidates if clip.name in known]
    for clip in candidates:
        if clip.name not in known:
            fault = frames.fault(clip)
            clips.append(clip) if fault is None else faults.append(fault)
    if not skip_invalid:
        refuse_faults(faults, path, "fix that, or leave such clips out with --skip_invalid")
    skipped += faults
    if not clips:
        wanted = " or ".join(SPLITS[split])
        reason = f"no {wanted} clip"
        if candidates:
            reason = f"none of its {len(candidates):,} clips can be used, {skipped[0]}"
        official = sum(OFFICIAL_COUNTS[subset] for subset in SPLITS[split])
        raise UserError(f"{path}: split {split} is empty: {reason}; the official annotation has {official:,} clips")
    return annotation.label_names, clips, skipped


class EgoGesture(Dataset):
    """One split of EgoGesture as a map-style dataset; made by `open_ego`.

    Attributes:
        split: Name of the split.
        num_labels: Number of gestures.
        label_names: Names of the gestures.
        ids: numpy array of str (N,), the clips' names in the annotation.
        labels: numpy int64 (N,).
        skipped: list of `Fault` of the clips that are left out.
        fingerprint: Short hex string that changes with the content, and with every option that affects `read`.
        identity: Short hex string that changes with the content only: it is the same for a copy of the data elsewhere,
            and for other options.
        description: What the data are.
        synthetic: Whether they are synthetic.
    """

    def __init__(self, split, frames, clips, label_names, skipped, options):
        self.split = split
        self.label_names, self.num_labels = label_names, len(label_names)
        self.skipped = skipped
        self.description, self.synthetic = frames.description, frames.synthetic
        self.labels = np.array([clip.label for clip in clips], dtype=np.int64)
        self._frames, self._clips = frames, clips
        self.size, self.duration = options["size"], options["duration"]
        self.augment, self.seed, self.views = "seed" in options, options.get("seed", 0), options.get("views", 0)
        content = f"{frames.fingerprint(clips)} {self.labels.tolist()} {label_names} {sorted(options.items())}"
        self.fingerprint = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    @cached_property
    def identity(self):
        """See the class docstring."""
        return short_hash(self._frames.identity(self._clips), self.label_names, self.ids, self.labels)

    @property
    def ids(self):
        return np.array([clip.name for clip in self._clips])

    def __len__(self):
        return len(self._clips)

    def read(self, indices, only=FIELDS, without=(), epoch=0):
        """Read one batch; inputs that are not needed are not decoded.

        Args:
            indices: Clip numbers.
            only: Inputs to read.
            without: Inputs to leave out.
            epoch: Epoch whose random draws to use, one number or one per clip; ignored without augmentation.

        Returns:
            dict of label int64 (B,), index int64 (B,) and the wanted inputs: rgb uint8 (B, 3, T, S, S), depth uint8
            (B, 1, T, S, S). Pixel values are not normalised.

        Raises:
            UserError: a frame is missing, or is not a complete image.
            IndexError: an index is out of range.
        """
        rows = np.asarray(indices, dtype=np.int64).copy()
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"index out of range for {len(self)} clips")
        epochs = np.broadcast_to(np.asarray(epoch, dtype=np.int64), rows.shape)
        shown = [self._draw(row, each) for row, each in zip(rows.tolist(), epochs.tolist(), strict=True)]
        batch = {"index": torch.from_numpy(rows), "label": torch.from_numpy(self.labels[rows])}
        for field in FIELDS:
            if field in only and field not in without:
                shape = (len(rows), CHANNELS[field], self.duration, self.size, self.size)
                batch[field] = torch.empty(shape, dtype=torch.uint8)
                for out, row, draw in zip(batch[field].numpy(), rows.tolist(), shown, strict=True):
                    out[:] = self._read_clip(field, self._clips[row], *draw)
        return batch

    def _draw(self, row, epoch):
        """Positions (T,) of the frames to return, and the crop; None for the crop in the middle."""
        length = self._clips[row].length
        if not self.augment:
            return take_frames(length, centre_begin(length, self.duration), self.duration), None
        rng = sample_generator(self.seed, epoch % self.views if self.views else epoch, row)
        return take_frames(length, random_begin(length, self.duration, rng), self.duration), draw_crop(rng)

    def _read_clip(self, field, clip, positions, crop):
        """Read the frames of one input: uint8 (channels, T, S, S); a frame that is repeated is decoded once."""
        used, places = np.unique(positions, return_inverse=True)
        frames = np.empty((len(used), CHANNELS[field], self.size, self.size), dtype=np.uint8)
        for frame, position in zip(frames, used.tolist(), strict=True):
            image = self._decode(field, clip, position)
            frame[:] = pixels(centre_crop(image, self.size) if crop is None else random_crop(image, crop, self.size))
        return frames[places].transpose(1, 0, 2, 3)

    def _decode(self, field, clip, position):
        try:
            return decode(self._frames.jpeg(clip, field, position), field)
        except (OSError, ValueError) as error:
            reason = (error.strerror or error) if isinstance(error, OSError) else error
            name = self._frames.name(clip, field, position)
            raise UserError(f"{name} cannot be read ({reason}); {self._frames.remedy()}") from None

    def __getitems__(self, indices):
        """One batch with all inputs, for a loader with an identity ``collate_fn``.

        ``indices`` may have the attribute ``epoch``.
        """
        return self.read(indices, epoch=getattr(indices, "epoch", 0))

    def __getitem__(self, index):
        """One clip: the dict of `read` without the batch axis."""
        return {key: value[0] for key, value in self.read([index]).items()}

    def distinct(self, field):
        """Number the distinct inputs of ``field``: equal numbers mean equal inputs.

        Returns:
            int64 (N, V) for each clip and view; V is 1 without augmentation, else ``views``. None if every epoch has
            new draws.
        """
        if self.augment and not self.views:
            return None
        views = self.views if self.augment else 1
        return np.arange(len(self) * views, dtype=np.int64).reshape(len(self), views)
