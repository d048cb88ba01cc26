"""The VQA toolkit's normalisation of short answers, for answer classes and for the metric."""

import functools
import json
import re
from pathlib import Path

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
NUMBER_WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(NUMBERS)}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'

DIGIT_COMMA = re.compile(r"\d,\d")
# The toolkit wants to keep a period after a digit as well, but its lookbehind is misspelt and never holds.
PERIOD = re.compile(r"\.(?!\d)")
# The toolkit passes a flag (re.UNICODE, of value 32) where the number of replacements belongs.
MOST_PERIODS = 32


@functools.cache
def contractions() -> dict[str, str]:
    """dict of lower-case spellings without apostrophe -> with it (BSD 2-Clause data of the VQA toolkit).

    Keys with capitals never match, since words are lower-cased before the look-up; they are kept as they came.
    """
    path = Path(__file__).with_name("vqa_contractions.json")
    return json.loads(path.read_text(encoding="utf-8"))["map"]


def strip_punctuation(text: str) -> str:
    """The punctuation pass.

    Each of ``; / [ ] " { } ( ) = + \\ _ - > < @ ` , ? !`` is deleted where it stands beside a space anywhere in
    ``text``, or where ``text`` has a comma between digits, and becomes a space otherwise. Then the first 32
    periods that no digit follows go. Case and other characters stay.
    """
    result = text
    number = DIGIT_COMMA.search(text)
    for mark in PUNCTUATION:
        if mark in text:
            beside_space = f"{mark} " in text or f" {mark}" in text
            result = result.replace(mark, "" if beside_space or number else " ")
    return PERIOD.sub("", result, count=MOST_PERIODS)


def normalise_words(text: str) -> str:
    """The digit and article pass.

    Lower case, number words none, zero to ten as digits, no articles, apostrophes put into contractions, single spaces.
    """
    table = contractions()
    words = (NUMBER_WORDS.get(word, word) for word in text.lower().split())
    return " ".join(table.get(word, word) for word in words if word not in ARTICLES)


def normalise_answer(text: str) -> str:
    """What makes two answers the same class: both passes, then no commas. An article alone becomes ''."""
    return normalise_words(strip_punctuation(text)).replace(",", "")
