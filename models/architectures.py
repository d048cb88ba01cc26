"""Architectures that MMNas finds: which operations every block of encoder and decoder holds, and their JSON files.

Two files hold them. ``arch.json`` is the original's: ``{"epoch0": {"enc": [["self_att_64"], ...], "dec": [...]},
...}``, one key for each epoch of a search; the published ones hold "epoch0" alone. ``genotype.json`` holds the one
architecture that a run selected, ``{"format": "mmnas architecture", "enc": [...], "dec": [...]}``. Both are read
everywhere, by name or from the run folder that they lie in.
"""

import itertools
import json
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from util.cli import UserError
from util.files import read_json, write_text

logger = logging.getLogger("mdarts")

FORMAT = "mmnas architecture"
# Of a run folder, the first that is there: every epoch's, or the selected one.
FILE_NAMES = ("arch.json", "genotype.json")
LETTERS = {"self_att_64": "S", "rel_self_att_64": "R", "guided_att_64": "G", "feed_forward": "F"}
_EPOCH = re.compile(r"epoch(\d+)")


@dataclass(frozen=True)
class Architecture:
    """The operations of a network.

    Attributes:
        enc, dec: For each block of encoder and decoder the tuple of its operations' names; their outputs are summed.
    """

    enc: tuple
    dec: tuple

    def names(self):
        """The names that occur."""
        return {name for block in (*self.enc, *self.dec) for name in block}

    def to_dict(self):
        """Return a JSON-ready dict, what ``genotype.json`` holds; `from_dict` reads it back to an equal object."""
        return {"format": FORMAT, **self.blocks()}

    def blocks(self):
        """What the original's files hold of an epoch: ``{"enc": [[name, ...], ...], "dec": [...]}``."""
        return {side: [list(block) for block in getattr(self, side)] for side in ("enc", "dec")}

    @classmethod
    def from_dict(cls, value):
        """Build an architecture from the form of `to_dict` or `blocks`.

        Raises:
            ValueError: it has another form.
        """
        if not isinstance(value, dict) or not {"enc", "dec"} <= value.keys():
            raise ValueError('an object with the fields "enc" and "dec" was expected')
        if value.get("format", FORMAT) != FORMAT:
            raise ValueError(f"its format is {value['format']!r}; {FORMAT!r} was expected")
        return cls(*(_blocks(side, value[side]) for side in ("enc", "dec")))

    def sizes(self):
        """Numbers of blocks by the names of their flags: enc_blocks and dec_blocks."""
        return {"enc_blocks": len(self.enc), "dec_blocks": len(self.dec)}

    def to_svg(self, title=""):
        """Return the picture of this network as SVG text."""
        from models.mmnas.drawing import architecture_svg

        return architecture_svg(self, title)

    def _repr_svg_(self):
        """Show the picture in IPython and Jupyter."""
        return self.to_svg()

    def __str__(self):
        sides = (
            " ".join("+".join(LETTERS.get(n, n) for n in block) for block in side) for side in (self.enc, self.dec)
        )
        return "enc {} | dec {}".format(*sides)


def load_architecture(path, epoch=None):
    """Read an architecture from a file of ours or of the original, and check that it can be built.

    Args:
        path: The JSON file, or a run folder that holds one of `FILE_NAMES`.
        epoch: Which epoch of a search; None takes the only one, or the last and says so in the log. A file with a
            single architecture has epoch 0, like the published ones.

    Raises:
        UserError: the file is missing, has another form, or lacks the epoch, or an operation is unknown.
    """
    path = _file(path)
    architecture, epoch = read_architecture(path, epoch)
    check_architecture(architecture, f'{path} ("epoch{epoch}")')
    return architecture


def read_architecture(path, epoch=None):
    """As `load_architecture`, without a check of the operations, which takes torch.

    Returns:
        (`Architecture`, its epoch).
    """
    path = _file(path)
    epochs = _architectures(path)
    if epoch is None:
        epoch = max(epochs)
        if len(epochs) > 1:
            logger.info("%s holds %d epochs; taking the last, epoch %d (--ARCH_EPOCH)", path, len(epochs), epoch)
    if epoch not in epochs:
        raise UserError(f"{path} has no epoch {epoch}; --ARCH_EPOCH can be {_ranges(epochs)}")
    try:
        return Architecture.from_dict(epochs[epoch]), epoch
    except ValueError as error:
        raise UserError(f'{path}: "epoch{epoch}" is not an architecture: {error}') from None


def check_architecture(architecture, source):
    """Check that a network can be built.

    Args:
        architecture: The `Architecture`.
        source: File or flag that it comes from, for the message.

    Raises:
        UserError: an operation is unknown, or one in the encoder needs regions.
    """
    from models.mmnas.operations import OPERATIONS, check_encoder

    for name in sorted(architecture.names()):
        if name not in OPERATIONS:
            raise UserError(f"{source} names the unknown operation {name!r}; known: {', '.join(OPERATIONS)}")
    try:
        check_encoder(name for block in architecture.enc for name in block)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def add_epoch(path, epoch, architecture):
    """Write ``architecture`` as that of ``epoch`` into the file ``path``, atomically; other epochs stay.

    Raises:
        UserError: the file cannot be written, or is there and is no architecture file.
    """
    epochs = _epochs(path, read_json(path)) if Path(path).exists() else {}
    epochs[epoch] = architecture.blocks()
    write_text(path, _text(epochs))


def repeated(architecture, num_enc, num_dec):
    """An architecture of other sizes that repeats the blocks of ``architecture`` from the first on."""
    sides = ((architecture.enc, num_enc), (architecture.dec, num_dec))
    return Architecture(*(tuple(itertools.islice(itertools.cycle(side), count)) for side, count in sides))


def random_architecture(rng, enc_candidates, dec_candidates, num_enc, num_dec):
    """Draw one operation for every block, all candidates equally likely: the random baseline.

    Args:
        rng: A `random.Random`.
        enc_candidates, dec_candidates: Names to draw from.
        num_enc, num_dec: Numbers of blocks.
    """
    enc = tuple((rng.choice(enc_candidates),) for _ in range(num_enc))
    return Architecture(enc, tuple((rng.choice(dec_candidates),) for _ in range(num_dec)))


def _blocks(side, value):
    if not isinstance(value, list) or not value:
        raise ValueError(f'"{side}" is {_short(value)}; a list of blocks was expected')
    for number, block in enumerate(value):
        if not isinstance(block, list) or not block or not all(isinstance(name, str) for name in block):
            raise ValueError(f'"{side}"[{number}] is {_short(block)}; a list of operation names was expected')
    return tuple(tuple(block) for block in value)


def _short(value):
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _file(path):
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in FILE_NAMES if (path / name).exists()), path / FILE_NAMES[0])
    if not path.exists():
        raise UserError(
            f"{path} does not exist; --ARCH_PATH takes an architecture file (arch/*.json, genotype.json) or a run "
            "folder that holds one"
        )
    return path


def _architectures(path):
    """Epoch -> architecture, as plain data, of a file of either kind."""
    value = read_json(path)
    if isinstance(value, dict) and "steps" in value:
        raise UserError(f"{path} is a genotype of BM-NAS; train it with main_darts_found_*.py --genotype {path}")
    return {0: value} if isinstance(value, dict) and {"enc", "dec"} <= value.keys() else _epochs(path, value)


def _epochs(path, value):
    if not isinstance(value, dict) or not value or not all(_EPOCH.fullmatch(key) for key in value):
        raise UserError(
            f'{path} is not an architecture file: an object with keys "epoch0", "epoch1", ..., or with "enc" and "dec" '
            "was expected"
        )
    return {int(_EPOCH.fullmatch(key)[1]): architecture for key, architecture in value.items()}


def _ranges(numbers):
    """Sorted numbers in words: 1-4, 7."""
    ranges = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def _text(epochs):
    """JSON with one line for each epoch: a search has hundreds."""
    lines = [f'  "epoch{epoch}": {json.dumps(value)}' for epoch, value in sorted(epochs.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"
