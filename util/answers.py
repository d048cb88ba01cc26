"""The VQA toolkit's normalisation of short answers, used for the answer vocabulary and by the metric."""

import functools
import json
import re
from pathlib import Path

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS)}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

DIGIT_COMMA = re.compile(r"\d,\d")
# The toolkit also intends to keep a period after a digit, but its lookbehind is misspelt and never matches.
PERIOD = re.compile(r"\.(?!\d)")
# The toolkit passes a flag (re.UNICODE, value 32) where `re.sub` expects the maximum number of replacements.
MAX_PERIODS = 32


@functools.cache
def contractions() -> dict[str, str]:
    """Lower-case spelling without apostrophe -> spelling with it (BSD 2-Clause data of the VQA toolkit).

    Keys with capitals never match, since words are lower-cased before the look-up. They are kept as they are.
    """
    path = Path(__file__).with_name("vqa_contractions.json")
    return json.loads(path.read_text(encoding="utf-8"))["map"]


def strip_punctuation(text: str) -> str:
    """The punctuation pass of the toolkit.

    Each of ``; / [ ] " { } ( ) = + \\ _ - > < @ ` , ? !`` is deleted if it is next to a space anywhere in ``text``, or
    if ``text`` contains a comma between digits; otherwise it is replaced by a space. Then the first 32 periods that are
    not followed by a digit are deleted. Case and other characters do not change.
    """
    result = text
    number = DIGIT_COMMA.search(text)
    for mark in PUNCTUATION:
        if mark in text:
            beside_space = f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if beside_space or number else " ")
    return PERIOD.sub("", result, count=MAX_PERIODS)


def normalise_words(text: str) -> str:
    """The digit and article pass of the toolkit.

    The text is lower-cased, the words none and zero to ten become digits, articles are removed, apostrophes are added
    to contractions, and words are separated by single spaces.
    """
    table = contractions()
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(table.get(word, word) for word in words if word not in ARTICLES)


def normalise_answer(text: str) -> str:
    """Canonical form of an answer in the answer vocabulary: both passes, then commas are removed.

    An article alone becomes "".
    """
    return normalise_words(strip_punctuation(text)).replace(",", "")
