"""Architectures of MMNas, the operations in every block of encoder and decoder, and their JSON files.

There are two kinds of file. ``arch.json`` has the original's format, ``{"epoch1": {"enc": [["self_att_64"], ...],
"dec": [...]}, ...}``, with one key per epoch of a search; keys count from 1: "epoch1" is epoch 0 of the log. The
published files have "epoch0" only. ``genotype.json`` contains the one architecture that a run selected, ``{"format":
"mmnas architecture", "enc": [...], "dec": [...]}``. Either can be named everywhere, as a file or as the run folder that
contains it.
"""

import itertools
import json
import logging
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from util.cli import UserError
from util.files import read_json, write_text

logger = logging.getLogger("mdarts")

FORMAT = "mmnas architecture"
# Architecture files of a run folder, in the order in which they are looked for: all epochs, and the selected one.
FILE_NAMES = ("arch.json", "genotype.json")
LETTERS = {"self_att_64": "S", "rel_self_att_64": "R", "guided_att_64": "G", "feed_forward": "F"}
_EPOCH = re.compile(r"epoch(\d+)")


@dataclass(frozen=True)
class Architecture:
    """The operations of an encoder-decoder.

    Attributes:
        enc, dec: For each block of the encoder and of the decoder, the names of its operations. A block sums their
            outputs; searched and published architectures have one operation per block.
    """

    enc: tuple[tuple[str, ...], ...]
    dec: tuple[tuple[str, ...], ...]

    def names(self) -> set[str]:
        """The names of all operations that occur."""
        return {name for block in (*self.enc, *self.dec) for name in block}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``genotype.json``, from which `from_dict` builds an equal architecture."""
        return {"format": FORMAT, **self.blocks()}

    def blocks(self) -> dict[str, list[list[str]]]:
        """Return the entry of one epoch in the original's files: ``{"enc": [[name, ...], ...], "dec": [...]}``."""
        return {side: [list(block) for block in getattr(self, side)] for side in ("enc", "dec")}

    @classmethod
    def from_dict(cls, value: Any) -> "Architecture":
        """Build an architecture from the result of `to_dict` or `blocks`.

        Raises:
            ValueError: ``value`` has another form.
        """
        if not isinstance(value, dict) or not {"enc", "dec"} <= value.keys():
            raise ValueError('an object with the fields "enc" and "dec" was expected')
        if value.get("format", FORMAT) != FORMAT:
            raise ValueError(f"its format is {value['format']!r}; {FORMAT!r} was expected")
        return cls(*(_blocks(side, value[side]) for side in ("enc", "dec")))

    def sizes(self) -> dict[str, int]:
        """Numbers of blocks, keyed by their flags: enc_blocks and dec_blocks."""
        return {"enc_blocks": len(self.enc), "dec_blocks": len(self.dec)}

    def to_svg(self, title: str = "") -> str:
        """Return the picture of this network as SVG text."""
        from models.mmnas.drawing import architecture_svg

        return architecture_svg(self, title)

    def keep_epoch(self, folder: Path, epoch: int) -> str:
        """Add it to ``arch.json`` in a search's ``folder`` as that of ``epoch``, from 0; returns a title.

        Raises:
            UserError: the file cannot be written or is damaged.
        """
        path = folder / FILE_NAMES[0]
        if epoch == 0 and path.exists():  # left by an attempt that was killed in its first epoch
            path.unlink()
        add_epoch(path, epoch + 1, self)
        return f"epoch {epoch} (--ARCH_EPOCH {epoch + 1})"

    def _repr_svg_(self) -> str:
        """Show the picture in IPython and Jupyter."""
        return self.to_svg()

    def __str__(self) -> str:
        sides = (
            " ".join("+".join(LETTERS.get(n, n) for n in block) for block in side) for side in (self.enc, self.dec)
        )
        return "enc {} | dec {}".format(*sides)


def load_architecture(path: str | Path, epoch: int | None = None) -> Architecture:
    """Read an architecture from a file of ours or of the original, and check that it can be built.

    Args:
        path: The JSON file, or a run folder that contains one of `FILE_NAMES`.
        epoch: Epoch of a search. None: the only epoch, or the last of several, which is then logged. The architecture
            of ``genotype.json`` is epoch 0, as in the published files.

    Raises:
        UserError: the file is missing, has another form, or lacks the epoch, or an operation is unknown.
    """
    path = _file(path)
    architecture, epoch = read_architecture(path, epoch)
    check_architecture(architecture, f'{path} ("epoch{epoch}")')
    return architecture


def read_architecture(path: str | Path, epoch: int | None = None) -> tuple[Architecture, int]:
    """As `load_architecture`, but without checking the operations, which would import torch.

    Returns:
        The `Architecture` and its epoch.

    Raises:
        UserError: the file is missing, has another form, or lacks the epoch.
    """
    path = _file(path)
    epochs = _architectures(path)
    if epoch is None:
        epoch = max(epochs)
        if len(epochs) > 1:
            message = "%s has %d epochs; using the last, epoch %d (--ARCH_EPOCH), which is epoch %d of the search's log"
            logger.info(message, path, len(epochs), epoch, epoch - 1)
    if epoch not in epochs:
        raise UserError(f"{path} has no epoch {epoch}; --ARCH_EPOCH can be {_ranges(epochs)}")
    try:
        return Architecture.from_dict(epochs[epoch]), epoch
    except ValueError as error:
        raise UserError(f'{path}: "epoch{epoch}" is not an architecture: {error}') from None


def check_architecture(architecture: Architecture, source: str | Path) -> None:
    """Check that a network can be built from an architecture.

    Args:
        architecture: The `Architecture`.
        source: File or flag that it comes from, for the message.

    Raises:
        UserError: an operation is unknown, or an operation of the encoder needs regions.
    """
    from models.mmnas.operations import OPERATIONS, check_encoder

    for name in sorted(architecture.names()):
        if name not in OPERATIONS:
            raise UserError(f"{source} names the unknown operation {name!r}; known: {', '.join(OPERATIONS)}")
    try:
        check_encoder(name for block in architecture.enc for name in block)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def add_epoch(path: str | Path, epoch: int, architecture: Architecture) -> None:
    """Add the architecture of an epoch to the file ``path``, atomically. Other epochs are kept.

    Raises:
        UserError: the file cannot be written, or it exists and is not an architecture file.
    """
    epochs = _epochs(path, read_json(path)) if Path(path).exists() else {}
    epochs[epoch] = architecture.blocks()
    write_text(path, _text(epochs))


def repeated(architecture: Architecture, num_enc: int, num_dec: int) -> Architecture:
    """Resize an architecture to ``num_enc`` and ``num_dec`` blocks by repeating its blocks from the first."""
    sides = ((architecture.enc, num_enc), (architecture.dec, num_dec))
    return Architecture(*(tuple(itertools.islice(itertools.cycle(side), count)) for side, count in sides))


def random_architecture(
    rng: random.Random, enc_candidates: Sequence[str], dec_candidates: Sequence[str], num_enc: int, num_dec: int
) -> Architecture:
    """Draw one operation for every block, with equally likely candidates: the random baseline.

    Args:
        rng: Source of randomness.
        enc_candidates, dec_candidates: Names of the operations to draw from.
        num_enc, num_dec: Numbers of blocks.
    """
    enc = tuple((rng.choice(enc_candidates),) for _ in range(num_enc))
    return Architecture(enc, tuple((rng.choice(dec_candidates),) for _ in range(num_dec)))


class ArchitectureSpace:
    """All architectures of given sizes as a space to sample and mutate, for black-box searches (`search.black_box`).

    Args:
        enc_candidates, dec_candidates, num_enc, num_dec: See `random_architecture`.
    """

    def __init__(
        self, enc_candidates: Sequence[str], dec_candidates: Sequence[str], num_enc: int, num_dec: int
    ) -> None:
        self.candidates = {"enc": tuple(enc_candidates), "dec": tuple(dec_candidates)}
        self.sizes = (num_enc, num_dec)

    def sample(self, rng: random.Random) -> Architecture:
        """Draw a random architecture."""
        return random_architecture(rng, *self.candidates.values(), *self.sizes)

    def mutate(self, rng: random.Random, genotype: Architecture) -> Architecture:
        """Replace the operation of one block by another candidate. All such changes are equally likely."""
        changes = [
            (side, number, name)
            for side, names in self.candidates.items()
            for number, block in enumerate(getattr(genotype, side))
            for name in names
            if block != (name,)
        ]
        if not changes:
            return genotype
        side, number, name = rng.choice(changes)
        blocks = getattr(genotype, side)
        return replace(genotype, **{side: (*blocks[:number], (name,), *blocks[number + 1 :])})


def _blocks(side: str, value: Any) -> tuple[tuple[str, ...], ...]:
    if not isinstance(value, list) or not value:
        raise ValueError(f'"{side}" is {_short(value)}; a list of blocks was expected')
    for number, block in enumerate(value):
        if not isinstance(block, list) or not block or not all(isinstance(name, str) for name in block):
            raise ValueError(f'"{side}"[{number}] is {_short(block)}; a list of operation names was expected')
    return tuple(tuple(block) for block in value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _file(path: str | Path) -> Path:
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in FILE_NAMES if (path / name).exists()), path / FILE_NAMES[0])
    if not path.exists():
        raise UserError(
            f"{path} does not exist; --ARCH_PATH takes an architecture file (arch/*.json, genotype.json) or a run "
            "folder that contains one"
        )
    return path


def _architectures(path: Path) -> dict[int, Any]:
    """Read a file of either kind: epoch -> architecture, as plain data."""
    value = read_json(path)
    if isinstance(value, dict) and "steps" in value:
        raise UserError(f"{path} is a genotype of BM-NAS; train it with main_darts_found_*.py --genotype {path}")
    return {0: value} if isinstance(value, dict) and {"enc", "dec"} <= value.keys() else _epochs(path, value)


def _epochs(path: str | Path, value: Any) -> dict[int, Any]:
    if not isinstance(value, dict) or not value or not all(_EPOCH.fullmatch(key) for key in value):
        raise UserError(
            f'{path} is not an architecture file: an object with keys "epoch0", "epoch1", ..., or with "enc" and "dec" '
            "was expected"
        )
    return {int(_EPOCH.fullmatch(key)[1]): architecture for key, architecture in value.items()}


def _ranges(numbers: Iterable[int]) -> str:
    """Format numbers as sorted ranges: 1-4, 7."""
    ranges = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _text(epochs: dict[int, Any]) -> str:
    """JSON text with one line per epoch, since a search has hundreds of them."""
    lines = [f'  "epoch{epoch}": {json.dumps(value)}' for epoch, value in sorted(epochs.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"
