"""Names of NTU RGB+D 60: sample ids, subjects of the splits, actions, and samples without a complete skeleton."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

OFFICIAL_COUNT = 56880
NUM_ACTIONS = 60
NUM_SUBJECTS = 40
VIDEO_ENDING = "_rgb.avi"
SKELETON_ENDING = ".skeleton"

_DEV = (2, 5, 9, 14)
_TRAIN = (1, 4, 8, 13, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38)
SUBJECTS = {
    "train": frozenset(_TRAIN),
    "dev": frozenset(_DEV),
    "train+dev": frozenset(_TRAIN + _DEV),
    "train_exp": frozenset((1, 8, 15, 17, 19, 27, 31, 35)),
    "test": frozenset((3, 6, 7, 10, 11, 12, 20, 21, 22, 23, 24, 26, 29, 30, 32, 33, 36, 37, 39, 40)),
}

# The names that the makers of the data use, in the order A001 to A060.
ACTIONS = (
    *("drink water", "eat meal/snack", "brushing teeth", "brushing hair", "drop", "pickup", "throw"),
    *("sitting down", "standing up (from sitting position)", "clapping", "reading", "writing", "tear up paper"),
    *("wear jacket", "take off jacket", "wear a shoe", "take off a shoe", "wear on glasses", "take off glasses"),
    *("put on a hat/cap", "take off a hat/cap", "cheer up", "hand waving", "kicking something"),
    *("put something inside pocket / take out something from pocket", "hopping (one foot jumping)", "jump up"),
    *("make a phone call/answer phone", "playing with phone/tablet", "typing on a keyboard"),
    *("pointing to something with finger", "taking a selfie", "check time (from watch)", "rub two hands together"),
    *("nod head/bow", "shake head", "wipe face", "salute", "put the palms together"),
    *("cross hands in front (say stop)", "sneeze/cough", "staggering", "falling", "touch head (headache)"),
    *("touch chest (stomachache/heart pain)", "touch back (backache)", "touch neck (neckache)"),
    *("nausea or vomiting condition", "use a fan (with hand or paper)/feeling warm"),
    *("punching/slapping other person", "kicking other person", "pushing other person"),
    *("pat on back of other person", "point finger at the other person", "hugging other person"),
    *("giving something to other person", "touch other person's pocket", "handshaking"),
    *("walking towards each other", "walking apart from each other"),
)

_PATTERN = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})", re.ASCII)


class BadSample(Exception):
    """A file that cannot be used as a sample; the message is a predicate without the file's name ("has no frames")."""


class SampleName(NamedTuple):
    """The numbers in a sample's id, ``SsssCcccPpppRrrrAaaa``, all counted from 1."""

    setup: int
    camera: int
    subject: int
    replication: int
    action: int

    @property
    def id(self):
        """The id, 20 characters."""
        return "S{:03d}C{:03d}P{:03d}R{:03d}A{:03d}".format(*self)


def parse_id(text):
    """Parse the id ``text``; returns a `SampleName`.

    Raises:
        BadSample: it is not an id of NTU RGB+D 60.
    """
    match = _PATTERN.fullmatch(text)
    if not match:
        raise BadSample("is not named SsssCcccPpppRrrrAaaa")
    name = SampleName(*map(int, match.groups()))
    if not 1 <= name.action <= NUM_ACTIONS:
        raise BadSample(f"has action {name.action}; NTU RGB+D 60 has 1 to {NUM_ACTIONS} (more belong to NTU RGB+D 120)")
    if not 1 <= name.subject <= NUM_SUBJECTS:
        raise BadSample(f"has subject {name.subject}; NTU RGB+D 60 has 1 to {NUM_SUBJECTS}")
    return name


@cache
def missing_skeletons():
    """Ids of the 302 samples whose skeletons the makers of the data list as missing or incomplete: frozenset of str."""
    path = Path(__file__).with_name("missing_skeletons.txt")
    return frozenset(path.read_text(encoding="ascii").split())


def list_ids(folder, ending):
    """Ids of the files in ``folder`` whose names end in ``ending``, in lower or upper case.

    Returns:
        Sorted list of the ids of NTU RGB+D 60, and a dict file name -> reason why the file is not one of them.
    """
    ids, bad, suffix = set(), {}, Path(f"x{ending}").suffix
    for path in sorted(Path(folder).iterdir()):
        if path.name.startswith(".") or path.suffix.lower() != suffix:
            continue
        try:
            if not path.name.endswith(_spellings(ending)):
                raise BadSample(f"is not named SsssCcccPpppRrrrAaaa{ending}")
            name = parse_id(path.name[: -len(ending)]).id
            if name in ids:
                raise BadSample("is there twice, in lower case and in upper case")
            ids.add(name)
        except BadSample as reason:
            bad[path.name] = str(reason)
    return sorted(ids), dict(sorted(bad.items()))


def file_of(folder, name, ending):
    """Path of the file of the id ``name``; its ending may be upper-case. The lower-case path if there is no file."""
    paths = [Path(folder) / f"{name}{spelling}" for spelling in _spellings(ending)]
    return next((path for path in paths if path.exists()), paths[0])


def _spellings(ending):
    stem, dot, suffix = ending.rpartition(".")
    return ending, f"{stem}{dot}{suffix.upper()}", ending.upper()
