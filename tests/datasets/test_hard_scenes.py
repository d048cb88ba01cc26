"""Hard synthetic scenes: answers are true and balanced, features carry the attributes, files say what they are."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from datasets.demo import scenes as demo_scenes
from datasets.demo.scene_pictures import make_scene
from datasets.demo.scene_reasoning import reasoning_questions
from datasets.demo.scene_regions import FEATURE_SIZE, WIDTH_OF_ATTRIBUTES, scene_features
from datasets.regions import open_regions
from datasets.vqa import open_vqa
from util.cli import UserError

SIDES = {"left of": (0, -1), "right of": (0, 1), "above": (1, -1), "below": (1, 1)}
OUTER = {"leftmost": (0, -1), "rightmost": (0, 1), "topmost": (1, -1), "bottommost": (1, 1)}
NAMES = {"color": "colour", "shape": "shape", "size": "size"}


# An interpreter of its own: it reads words, and knows nothing of how they were made.


def fits(words, things):
    """The things that words like ``large red crosses`` fit."""
    wanted = {re.sub("^crosses$", "cross", word) for word in words.split()}
    wanted = {word[:-1] if word.endswith("s") and word != "cross" else word for word in wanted} - {"object"}
    return [one for one in things if wanted <= {one.size, one.colour, one.shape}]


def ahead(one, other, side):
    axis, sign = SIDES[side]
    distance = sign * (one.centre[axis] - other.centre[axis])
    assert abs(distance) >= 8
    return distance > 0


def one_of(words, things):
    """The one thing that a description with or without a place fits."""
    if " next to the " in words:
        words, other = words.split(" next to the ")
        (anchor,) = fits(other, things)
        rest = [one for one in fits(words, things) if one is not anchor]
        return min(rest, key=lambda one: np.hypot(*np.subtract(one.centre, anchor.centre)))
    for side in SIDES:
        if f" {side} the " in words:
            words, other = words.split(f" {side} the ")
            (anchor,) = fits(other, things)
            (found,) = (one for one in fits(words, things) if one is not anchor and ahead(one, anchor, side))
            return found
    first, _, rest = words.partition(" ")
    if first in OUTER:
        axis, sign = OUTER[first]
        return max(fits(rest, things), key=lambda one: sign * one.centre[axis])
    (found,) = fits(words, things)
    return found


def answer(text, things):
    """The answer to a question; the kind is told by its first words."""
    if asked := re.fullmatch(r"what (\w+) is the (.*)\?", text):
        return getattr(one_of(asked[2], things), NAMES[asked[1]])
    if asked := re.fullmatch(r"how many (.*) are there\?", text):
        return str(len(fits(asked[1], things)))
    if asked := re.fullmatch(r"how many (.*) are (left of|right of|above|below) the (.*)\?", text):
        (anchor,) = fits(asked[3], things)
        return str(sum(ahead(one, anchor, asked[2]) for one in fits(asked[1], things) if one is not anchor))
    if asked := re.fullmatch(r"are there more (.*) than (.*)\?", text):
        return "yes" if len(fits(asked[1], things)) > len(fits(asked[2], things)) else "no"
    if asked := re.fullmatch(r"does the (.*) have the (\w+) of the (.*)\?", text):
        values = {getattr(fits(words, things)[0], NAMES[asked[2]]) for words in (asked[1], asked[3])}
        return "yes" if len(values) == 1 else "no"
    asked = re.fullmatch(r"is there a (.*) (left of|right of|above|below) a (.*)\?", text)
    pairs = [(one, other) for one in fits(asked[1], things) for other in fits(asked[3], things) if one is not other]
    return "yes" if [pair for pair in pairs if ahead(*pair, asked[2])] else "no"


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(1, number) for number in range(1, 121)]


def test_answers_are_true_and_balanced(scenes):
    answers = {}
    for scene in scenes:
        for text, given in reasoning_questions(random.Random(scene.number), scene):
            assert answer(text, scene.things) == given, text
            assert len(text.split()) <= 14  # the network reads no more
            answers.setdefault(" ".join(text.split()[:2]), Counter())[given] += 1
    assert set(answers) == {"what color", "what shape", "what size", "how many", "are there", "does the", "is there"}
    for kind in ("are there", "does the", "is there"):
        assert min(answers[kind].values()) > 0.35 * sum(answers[kind].values())
    assert max(answers["how many"].values()) < 0.5 * sum(answers["how many"].values())
    everything = sum(answers.values(), Counter())
    assert max(everything.values()) < 0.25 * everything.total()


def test_features_tell_attributes_and_follow_from_the_seed(scenes):
    features, boxes = scene_features(scenes[0], 7)
    assert features.shape == (len(scenes[0].things), FEATURE_SIZE) and features.dtype == np.float32
    assert boxes.tolist() == [list(thing.box) for thing in scenes[0].things]
    again, _ = scene_features(scenes[0], 7)
    assert np.array_equal(features, again) and not np.array_equal(features, scene_features(scenes[0], 8)[0])
    # Things of equal attributes differ by noise alone.
    known = {}
    for scene in scenes:
        for thing, row in zip(scene.things, scene_features(scene, 7)[0], strict=True):
            known.setdefault(thing[:3], []).append(row[:WIDTH_OF_ATTRIBUTES])
    spreads = [np.std(rows, axis=0).mean() for rows in known.values() if len(rows) > 10]
    means = np.stack([np.mean(rows, axis=0) for rows in known.values()])
    assert 0.2 < np.mean(spreads) < 0.4 and means.std(axis=0).mean() > 1


def test_the_hard_level_is_prepared_and_called_synthetic(tmp_path):
    out = tmp_path / "hard"
    sizes = {"train": 12, "scored": 3, "matched": 1, "level": "hard"}
    meta = demo_scenes.make(out, **sizes)
    assert meta["synthetic"] and meta["settings"]["level"] == "hard" and meta["tasks"] == ["vqa"]
    data = open_vqa(out / "vqa", "train", min_answer_count=1)
    assert data.synthetic and "synthetic" in data.description and data.feature_size == FEATURE_SIZE
    loaded = open_regions(out / "vqa" / "store").load(0)
    assert np.allclose(loaded.features, scene_features(make_scene(0, 1), 0)[0], atol=1e-2)
    with pytest.raises(UserError, match="other settings"):
        demo_scenes.make(out, **{**sizes, "level": "plain"})
    with pytest.raises(UserError, match="--level hard has only questions"):
        demo_scenes.make(tmp_path / "other", **sizes, tasks=("vgd",))
