"""Pictures and recordings of a prepared folder: they are decoded, reduced, stored once, and read by memory map.

media/<modality>/blobs.bin      pictures as JPEG, recordings as 16-bit samples
media/<modality>/journal.jsonl  one line per stored file; an interrupted preparation goes on where it stopped
media/<modality>/index.npy      position of each used file in blobs.bin
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datasets.own.manifest import prepare_command
from datasets.storage.blobs import BlobReader, BlobWriter, Schema, save_array
from datasets.storage.pictures import BadImage, open_picture
from datasets.storage.workers import map_tasks
from util.progress import progress

MEDIA = Schema("blobs.bin", "journal.jsonl", {"rate": int})
MEDIA_FOLDER, INDEX_FILE = "media", "index.npy"
INDEX_DTYPE = np.dtype([("offset", "<i8"), ("bytes", "<i8"), ("crc", "<u4"), ("rate", "<i4")])
JPEG_QUALITY = 95
# Maximum side of a JPEG picture in pixels.
MAX_SIDE = 65_500
FULL_SCALE = 32_768


class BadFile(Exception):
    """A picture or recording that cannot be read; the message is a predicate without its name ("has no sound")."""


class _Task(NamedTuple):
    key: str
    kind: str
    source: Any
    setting: int


class MediaWriter(BlobWriter):
    """Stores the pictures or recordings of one modality; resumes an unfinished store.

    Args:
        folder: The prepared folder.
        name: The modality.
        kind: ``picture`` or ``audio``.
        setting: Maximum pixels of a picture's shorter side, or samples per second (0: as in the file).
    """

    schema = MEDIA

    def __init__(self, folder: Path | str, name: str, kind: str, setting: int) -> None:
        super().__init__(Path(folder) / MEDIA_FOLDER / name)
        self.name, self.kind, self.setting = name, kind, setting

    def key_of(self, source: str | bytes) -> str:
        """Key under which a file is stored; it changes with the file and with ``setting``.

        The key of bytes depends on their content, that of a path on the path, size and modification time.

        Raises:
            BadFile: there is no such file.
        """
        if isinstance(source, bytes):
            stamp = hashlib.blake2b(source, digest_size=16).hexdigest()
        else:
            try:
                status = os.stat(source)
            except OSError as error:
                raise BadFile(f"cannot be opened ({error.strerror})") from None
            stamp = f"{source} {status.st_size} {status.st_mtime_ns}"
        return f"{stamp} {self.setting}"

    def store(self, sources: Iterable[tuple[str, Any]], count: int, workers: int) -> Iterator[tuple[str, str]]:
        """Store those files that are not stored yet, in the given order, for any number of processes.

        Args:
            sources: Pairs (key, path or bytes).
            count: Number of pairs, for the progress bar.
            workers: Number of processes that decode.

        Yields:
            (key, reason) of each file that cannot be read.
        """
        tasks = (_Task(key, self.kind, source, self.setting) for key, source in sources if key not in self.entries)
        shown = progress(_in_order(tasks, workers), self.name, total=count, unit="file")
        for task, result in shown:
            if isinstance(result, tuple):
                self.append(task.key, result[0], rate=result[1])
            else:
                yield task.key, result or "crashes the process that decodes it"

    def write_index(self, keys: Sequence[str]) -> str:
        """Write the index of the files ``keys``, in this order; returns a hash of their content."""
        self.sync()
        index = np.zeros(len(keys), INDEX_DTYPE)
        for row, key in enumerate(keys):
            entry = self.entries[key]
            index[row] = entry["offset"], entry["bytes"], entry["crc"], entry["rate"]
        save_array(self.folder / INDEX_FILE, index)
        content = np.stack([index["bytes"], index["crc"].astype(np.int64), index["rate"].astype(np.int64)])
        return hashlib.blake2b(content.tobytes(), digest_size=8).hexdigest()


def _in_order(tasks, workers):
    """Yield (task, result) in the order of the tasks, so that a store does not depend on the speed of processes."""
    order: dict[Any, None] = {}

    def noted():
        for task in tasks:
            order[task.key] = None
            yield task

    finished = {}
    for task, result in map_tasks(_decode, noted(), workers):
        finished[task.key] = task, result
        while order and (first := next(iter(order))) in finished:
            del order[first]
            yield finished.pop(first)


def _decode(task):
    """(bytes to store, sampling rate or 0 for pictures), or the reason why the file cannot be read."""
    try:
        if task.kind == "picture":
            return encode_picture(task.source, task.setting), 0
        return encode_audio(task.source, task.setting)
    except BadFile as reason:
        return str(reason)


def _opened(source):
    return io.BytesIO(source) if isinstance(source, bytes) else source


def encode_picture(source: str | bytes, size: int) -> bytes:
    """Encode a picture, as a viewer shows it, as JPEG whose shorter side has at most ``size`` pixels.

    Bytes of a PNG that is small enough are returned unchanged: they come from arrays, whose values JPEG would alter.

    Raises:
        BadFile: the picture cannot be read.
    """
    from PIL import Image

    if isinstance(source, bytes) and _is_plain_png(source, size):
        return source
    try:
        picture = open_picture(_opened(source))
    except BadImage as reason:
        raise BadFile(str(reason)) from None
    scale = min(1, size / min(picture.size), MAX_SIDE / max(picture.size))
    if scale < 1:
        picture = picture.resize([max(1, round(scale * side)) for side in picture.size], Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return buffer.getvalue()


def _is_plain_png(data, size):
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            plain = picture.format == "PNG" and picture.mode in ("L", "RGB") and min(picture.size) <= size
            if plain:
                picture.load()  # raises if it is damaged
            return plain and not {"transparency", "exif"} & set(picture.info)
    except Exception:  # the fault is reported when it is opened like any other picture
        return False


def decode_picture(data: Any) -> np.ndarray:
    """Decode a stored picture: uint8 (H, W, 3), RGB."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("RGB"))


def encode_audio(source: str | bytes, rate: int) -> tuple[bytes, int]:
    """Convert a recording, or the sound of a video, to 16-bit samples of one channel.

    Channels are averaged after resampling.

    Args:
        source: A file that FFmpeg can read, or its bytes.
        rate: Samples per second; 0 keeps the rate of the file.

    Returns:
        (bytes of the samples, samples per second).

    Raises:
        BadFile: the file cannot be read, or has no sound.
    """
    import av

    try:
        with av.open(_opened(source)) as file:
            if not file.streams.audio:
                raise BadFile("has no sound")
            stream = file.streams.audio[0]
            rate = rate or int(stream.rate)
            resampler, pieces = av.AudioResampler(format="fltp", rate=rate), []
            for frame in file.decode(stream):
                pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(frame)]
            pieces += [piece.to_ndarray().mean(0) for piece in resampler.resample(None)]
    except (av.FFmpegError, ValueError, OSError) as error:
        raise BadFile(f"is not a readable recording ({' '.join(str(error).split())})") from None
    samples = np.concatenate(pieces) if pieces else np.zeros(0)
    if not samples.size:
        raise BadFile("has no sound, or too little of it")
    return np.clip(np.rint(samples * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1).astype("<i2").tobytes(), rate


def decode_audio(data: Any, rate: int) -> tuple[np.ndarray, int]:
    """Decode a stored recording: (float32 (samples,) in -1..1, samples per second)."""
    return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(FULL_SCALE), rate


class MediaReader(BlobReader):
    """Reads the stored pictures or recordings of one modality.

    Args:
        folder: The prepared folder.
        name: The modality.
        kind: ``picture`` or ``audio``.

    Raises:
        UserError: files are missing or damaged.
    """

    schema = MEDIA

    def __init__(self, folder: Path | str, name: str, kind: str) -> None:
        remedy = f"{prepare_command(folder)} --overwrite"
        super().__init__(Path(folder) / MEDIA_FOLDER / name, remedy)
        self.kind = kind
        ends = self._index["offset"] + self._index["bytes"]
        self._bytes = int(ends.max(initial=0))

    @cached_property
    def _index(self):
        from util.arrays import DamagedArray, read_array

        try:
            index = read_array(self.folder / INDEX_FILE, mapped=False)
        except DamagedArray as reason:
            raise self._damaged(INDEX_FILE, str(reason)) from None
        if index.dtype != INDEX_DTYPE:
            raise self._damaged(INDEX_FILE, "is not the index of stored pictures or recordings")
        return index

    def __len__(self) -> int:
        return len(self._index)

    def encoded(self, row: int) -> bytes:
        """The stored bytes of row ``row`` of the index.

        Raises:
            UserError: the bytes have changed since they were stored.
        """
        begin, size = int(self._index["offset"][row]), int(self._index["bytes"][row])
        data = self._data[begin : begin + size].tobytes()
        if zlib.crc32(data) != self._index["crc"][row]:
            raise self._damaged(MEDIA.data, f"is damaged at number {row}")
        return data

    def read(self, row: int) -> Any:
        """Decode the file at row ``row`` of the index; see `decode_picture` and `decode_audio`.

        Raises:
            UserError: the stored file is damaged.
        """
        try:
            if self.kind == "picture":
                return decode_picture(self.encoded(row))
            return decode_audio(self.encoded(row), int(self._index["rate"][row]))
        except (OSError, ValueError, SyntaxError):
            raise self._damaged(MEDIA.data, f"is damaged at number {row}") from None
