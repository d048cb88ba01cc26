"""Synthetic scenes: what is drawn is found, every expression fits one shape, answers and captions are true."""

import json
import pickle
import random
import re
import shutil
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from datasets.demo import scene_files as files
from datasets.demo import scenes as demo_scenes
from datasets.demo.scene_pictures import make_scene
from datasets.demo.scene_words import captions, expressions, questions
from datasets.make_demo import main as make_demo
from datasets.regions import open_regions
from datasets.regions.pixels import PixelRegions, object_boxes
from util.cli import UserError

torch.set_num_threads(1)
SIZES = {"train": 12, "scored": 4, "matched": 3}


@pytest.fixture(scope="module")
def scenes():
    return [make_scene(3, number) for number in range(1, 201)]


# An interpreter of its own: it reads words, and knows nothing of how they were made.

WORDS = {"little": "small", "big": "large", "object": "shape"}
RELATIONS = {
    " to the left of ": (0, -1),
    " left of ": (0, -1),
    " to the right of ": (0, 1),
    " right of ": (0, 1),
    " above ": (1, -1),
    " over ": (1, -1),
    " below ": (1, 1),
    " under ": (1, 1),
}
EXTREMES = {
    "leftmost": (0, -1),
    "furthest to the left": (0, -1),
    "rightmost": (0, 1),
    "furthest to the right": (0, 1),
    "topmost": (1, -1),
    "highest": (1, -1),
    "nearest to the top": (1, -1),
    "bottommost": (1, 1),
    "lowest": (1, 1),
    "nearest to the bottom": (1, 1),
}


def middle(thing, axis):
    return (thing.box[axis] + thing.box[axis + 2]) / 2


def interpret(text, things):
    """The things that a text without article fits."""
    text = re.sub(r"^(the|a) ", "", text)
    for words in (" next to ", " closest to "):
        if words in text:
            first, second = text.split(words)
            (anchor,) = interpret(second, things)
            middles = np.array([[middle(one, 0), middle(one, 1)] for one in things])
            distances = np.hypot(*(middles - middles[things.index(anchor)]).T)
            fitting = interpret(first, things)
            pairs = sorted((d, one) for d, one in zip(distances, things, strict=True) if one in fitting and d)
            near, *far = pairs
            assert all(d - near[0] >= 12 for d, _ in far), text
            return [near[1]]
    for words, (axis, sign) in RELATIONS.items():
        if words in text:
            first, second = text.split(words)
            (anchor,) = interpret(second, things)
            apart = [one for one in interpret(first, things) if one is not anchor]
            distances = [sign * (middle(one, axis) - middle(anchor, axis)) for one in apart]
            assert all(abs(distance) >= 8 for distance in distances), text
            return [one for one, distance in zip(apart, distances, strict=True) if distance > 0]
    for words, (axis, sign) in EXTREMES.items():
        if words in text:
            left = interpret(" ".join(text.replace(words, " ").split()), things)
            left.sort(key=lambda one: -sign * middle(one, axis))
            assert abs(middle(left[0], axis) - middle(left[1], axis)) >= 8, text
            return left[:1]
    wanted = {WORDS.get(word, word) for word in text.replace(" that is ", " ").split()} - {"shape"}
    return [one for one in things if wanted <= {one.size, one.colour, one.shape}]


def test_every_shape_is_one_region_with_its_true_box(scenes):
    counts = Counter()
    for scene in scenes:
        found = {tuple(box) for box in object_boxes(scene.picture).tolist()}
        assert found == {thing.box for thing in scene.things}
        counts[len(scene.things)] += 1
    assert set(counts) == {3, 4, 5, 6}


def test_pictures_show_what_the_words_name(scenes):
    """Colours, sizes and shapes measured in the picture: the share of the box that a shape fills tells the shape."""
    shares = {"square": 1.0, "circle": np.pi / 4, "triangle": 0.5, "cross": 5 / 9}
    for scene in scenes[:40]:
        for thing in scene.things:
            x1, y1, x2, y2 = thing.box
            part = scene.picture[y1:y2, x1:x2].astype(int)
            centre = part[(y2 - y1) // 2, (x2 - x1) // 2]
            inside = (np.abs(part - centre) <= 1).all(axis=2)
            red, green, blue = centre
            colour = {
                "red": red > 190 and green < 80,
                "green": green > 140 and red < 80,
                "blue": blue > 190 and red < 80,
                "yellow": red > 190 and green > 190,
                "purple": blue > 140 and 120 < red < 180,
            }
            assert [name for name, is_it in colour.items() if is_it] == [thing.colour]
            assert thing.size == ("large" if x2 - x1 > 25 else "small")
            assert abs(inside.mean() - shares[thing.shape]) < 0.1
            # A triangle is wider below, a cross is not.
            rows = inside.sum(axis=1)
            assert (thing.shape == "triangle") == (rows[-2] - rows[1] > 0.5 * (x2 - x1))


def test_scenes_follow_from_seed_and_number():
    one, again = make_scene(0, 5), make_scene(0, 5)
    assert one.things == again.things
    assert np.array_equal(one.picture, again.picture)
    for other in (make_scene(1, 5), make_scene(0, 6)):
        assert not np.array_equal(one.picture, other.picture)


def test_expressions_fit_exactly_one_shape(scenes):
    kinds, nearest, needed, total = Counter(), 0, 0, 0
    for scene in scenes:
        for target in scene.things:
            found = expressions(random.Random(scene.number), target, scene.things, 3)
            assert len(set(found)) == len(found)
            for text in found:
                assert interpret(text, scene.things) == [target], text
                assert 1 <= len(text.split()) <= 14
                near = " next to " in text or " closest to " in text
                relation = near or any(words in f" {text} " for words in RELATIONS)
                place = any(words in text for words in EXTREMES)
                kinds["relation" if relation else "place" if place else "attributes"] += 1
                nearest += near
                total += 1
                alone = [word for word in (target.size, target.colour, target.shape) if word in text]
                needed += relation or place or all(len(interpret(word, scene.things)) > 1 for word in alone)
    assert min(kinds.values()) > 0.2 * total
    assert nearest > 0.1 * total
    # No single word gives the right shape away.
    assert needed > 0.6 * total


def test_captions_are_true_and_name_every_shape(scenes):
    for scene in scenes:
        five = captions(random.Random(scene.number), scene)
        assert len(set(five)) == 5
        assert max(len(text.split()) for text in five) <= 50
        for text in (five[0], five[1], five[4]):
            named = Counter()
            for count, size, colour, shape in re.findall(
                r"(a|two|three|four|five|six) (small |large )?(red|green|blue|yellow|purple) (\w+?)(?:e?s)?\b", text
            ):
                shape = {"squar": "square", "circl": "circle", "triangl": "triangle", "cros": "cross"}.get(shape, shape)
                number = {"a": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}[count]
                named[size.strip() if text is five[0] else None, colour, shape] += number
            expected = Counter(
                (thing.size if text is five[0] else None, thing.colour, thing.shape) for thing in scene.things
            )
            assert named == expected, text
        places = re.findall(r"a (\w+) (\w+) in the ((?:top|middle|bottom)(?: left| centre| right)?)", five[2])
        assert Counter(places) == Counter((thing.colour, thing.shape, ninth(thing)) for thing in scene.things)
        for size, colour, shape, words, other in re.findall(
            r"a (\w+) (\w+) (\w+) ((?:to the )?left of|(?:to the )?right of|above|over|below|under) a (\w+ \w+)",
            five[3],
        ):
            axis, sign = RELATIONS[f" {words} "]
            firsts = [one for one in scene.things if one[:3] == (size, colour, shape)]
            seconds = interpret(other, scene.things)
            assert any(sign * (middle(a, axis) - middle(b, axis)) >= 8 for a in firsts for b in seconds), five[3]
        assert f"{scene.background} background" in five[0]


def ninth(thing):
    row = ("top", "middle", "bottom")[int(middle(thing, 1) // 40)]
    column = (" left", " centre", " right")[int(middle(thing, 0) * 3 // 160)]
    return "middle" if row + column == "middle centre" else row + column


def test_answers_are_true_and_balanced(scenes):
    answers = {}
    for scene in scenes:
        for text, answer in questions(random.Random(scene.number), scene):
            assert text.endswith("?")
            assert check_answer(text.rstrip("?"), scene.things) == answer, text
            answers.setdefault(" ".join(text.split()[:2]), Counter())[answer] += 1
    assert set(answers) == {"what color", "what shape", "what size", "how many", "is there", "is the"}
    for kind in ("is there", "is the", "what size"):
        assert min(answers[kind].values()) > 0.4 * sum(answers[kind].values())
    assert set(answers["what color"]) == {"red", "green", "blue", "yellow", "purple"}
    assert set(answers["what shape"]) == {"circle", "square", "triangle", "cross"}
    assert max(answers["how many"].values()) < 0.45 * sum(answers["how many"].values())


def check_answer(text, things):
    asked = re.match(r"what (color|shape|size) is the (.*)", text)
    if asked:
        (one,) = interpret(asked[2], things)
        return {"color": one.colour, "shape": one.shape, "size": one.size}[asked[1]]
    asked = re.match(r"how many (.*?) are there", text)
    if asked:
        singular = {"red shapes": "red", "crosses": "cross"}.get(asked[1], re.sub("( shape)?s$", "", asked[1]))
        return str(len(interpret(singular, things)))
    asked = re.match(r"is there (a .*)", text)
    if asked:
        return "yes" if interpret(asked[1], things) else "no"
    words = next(words for words in RELATIONS if words in text)
    first, _ = re.sub("^is the ", "", text).split(words)
    (subject,) = interpret(first, things)
    return "yes" if interpret(re.sub("^is the ", "", text), things) == [subject] else "no"


# The files


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes") / "out"
    demo_scenes.make(folder, **SIZES)
    return folder


def test_refcoco_files(made):
    folder = made / "refer" / "refcoco"
    instances = json.loads((folder / "instances.json").read_text())
    with open(folder / "refs(unc).p", "rb") as file:
        refs = PlainUnpickler(file).load()
    assert instances["info"]["synthetic"] is True
    boxes = {one["id"]: one for one in instances["annotations"]}
    assert len(boxes) == len(instances["annotations"])
    images = {one["id"]: one for one in instances["images"]}
    assert Counter(ref["split"] for ref in refs).keys() == {"train", "val", "testA", "testB"}
    assert {ref["image_id"] for ref in refs} == set(images) == set(range(1, 25))
    sent_ids = [sentence["sent_id"] for ref in refs for sentence in ref["sentences"]]
    assert sent_ids == list(range(len(sent_ids)))
    for ref in refs:
        image, annotation = images[ref["image_id"]], boxes[ref["ann_id"]]
        assert annotation["image_id"] == ref["image_id"]
        assert annotation["category_id"] == ref["category_id"]
        assert (made / "images" / image["file_name"]).is_file()
        assert ref["sent_ids"] == [sentence["sent_id"] for sentence in ref["sentences"]]
        things = make_scene(0, ref["image_id"]).things
        for sentence in ref["sentences"]:
            assert sentence["tokens"] == sentence["sent"].split()
            (target,) = interpret(sentence["sent"], things)
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == target.box
    splits = {split: {ref["image_id"] for ref in refs if ref["split"] == split} for split in ("train", "val", "testA")}
    assert not any(one & other for one, other in pairwise(splits.values()))


class PlainUnpickler(pickle.Unpickler):
    """Takes plain containers alone."""

    def find_class(self, module, name):
        raise AssertionError(f"{module}.{name} in the pickle")


def test_flickr_files(made):
    raw = made / "itm_raw"
    content = json.loads((raw / "dataset_flickr30k.json").read_text())
    assert content["info"]["synthetic"] is True
    images = {one["imgid"]: one for one in content["images"]}
    assert len(images) == 12 + 3 + 3
    for split, count in (("train", 12), ("dev", 3), ("test", 3)):
        texts = (raw / "f30k_precomp" / f"{split}_caps.txt").read_text().splitlines()
        ids = [int(line) for line in (raw / "f30k_precomp" / f"{split}_ids.txt").read_text().split()]
        assert len(texts) == 5 * count
        ids = np.repeat(ids, 5).tolist() if split == "train" else ids
        assert all(len(set(ids[start : start + 5])) == 1 for start in range(0, 5 * count, 5))
        for imgid, text in zip(ids, texts, strict=True):
            assert text in [sentence["raw"] for sentence in images[imgid]["sentences"]]
            assert images[imgid]["split"] == {"dev": "val"}.get(split, split)


def test_features_of_all_pictures(made):
    source = open_regions(made / "vqa" / "store")
    assert source.ids.tolist() == list(range(1, 25))
    for row in (0, 23):
        expected, boxes = PixelRegions(demo_scenes.FEATURE_SIZE)(make_scene(0, row + 1).picture)
        loaded = source.load(row)
        assert np.allclose(loaded.features, expected, atol=1e-3)
        assert np.array_equal(loaded.boxes, boxes)


def test_prepared_data_say_that_they_are_synthetic(made):
    from datasets.itm import open_itm
    from datasets.vgd import open_vgd
    from datasets.vqa import open_vqa

    opened = [open_vqa(made / "vqa", split, min_answer_count=1) for split in ("train", "val", "test")]
    opened += [open_vgd(made / "vgd", "refcoco", split) for split in ("train", "val", "testA", "testB")]
    opened += [open_itm(made / "itm", "flickr", split) for split in ("train", "dev", "test")]
    for data in opened:
        assert data.synthetic is True
        assert "synthetic" in data.description
        assert len(data) > 5


def test_same_command_again(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    demo_scenes.make(made, **SIZES)
    assert "already up to date" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}


def test_script_makes_chosen_tasks_and_says_what_comes_next(tmp_path, capsys):
    out = tmp_path / "out"
    flags = ["--train", "3", "--scored", "2", "--matched", "1", "--tasks", "itm"]
    make_demo(["scenes", "--out", str(out), *flags])
    assert capsys.readouterr().out.splitlines()[-1] == f"next: python search_itm.py --demo --data {out / 'itm'}"
    assert not (out / "vgd").exists()
    assert len(list((out / "images").iterdir())) == 3 + 3 * 2
    # What was deleted is made again.
    shutil.rmtree(out / "itm")
    make_demo(["scenes", "--out", str(out), *flags])
    assert (out / "itm" / "flickr" / "store").is_dir()


def test_an_interrupted_run_is_gone_on_with(tmp_path, monkeypatch, made):
    def dies(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(demo_scenes, "_prepare", dies)
        with pytest.raises(KeyboardInterrupt):
            demo_scenes.make(tmp_path / "out", **SIZES, tasks=("vqa",))
    assert json.loads((tmp_path / "out" / "meta.json").read_text())["complete"] is False
    meta = demo_scenes.make(tmp_path / "out", **SIZES, tasks=("vqa",))
    assert (meta["complete"], meta["synthetic"], meta["tasks"]) == (True, True, ["vqa"])
    for name in ("images", "vqa/annotations"):
        for path in (tmp_path / "out" / name).iterdir():
            assert path.read_bytes() == (made / name / path.name).read_bytes()
    # Another task is added to what is there.
    pictures = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
    monkeypatch.setattr(demo_scenes, "_prepare", lambda *args: None)
    assert demo_scenes.make(tmp_path / "out", **SIZES, tasks=("vgd", "vqa"))["tasks"] == ["vqa", "vgd"]
    assert pictures == {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "images").iterdir()}
    assert (tmp_path / "out" / files.REFER / "refcoco" / "instances.json").read_bytes() == (
        made / files.REFER / "refcoco" / "instances.json"
    ).read_bytes()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--train", "0"], "--train 0: must be 1 or more"),
        (["--scored", "3", "--matched", "4"], "--matched 4: must be at most --scored 3"),
        (["--seed", "-1"], "--seed -1: must be 0 or more"),
        (["--workers", "0"], "--workers 0: must be 1 or more"),
    ],
)
def test_numbers_that_cannot_be(tmp_path, flags, words):
    with pytest.raises(UserError) as error:
        make_demo(["scenes", "--out", str(tmp_path / "out"), *flags])
    assert str(error.value) == words
    assert not (tmp_path / "out").exists()


def test_other_data_are_left_alone(tmp_path, made):
    with pytest.raises(UserError, match=r"scenes with other settings .*choose another --out"):
        demo_scenes.make(made, **SIZES, seed=1)
    (tmp_path / "vgd").mkdir()
    with pytest.raises(UserError, match="contains vgd of other data, which are not replaced; choose another --out"):
        demo_scenes.make(tmp_path, **SIZES)
    assert [path.name for path in tmp_path.iterdir()] == ["vgd"]
    # Results of runs may lie there before the data do.
    (tmp_path / "vgd").rename(tmp_path / "runs")
    assert demo_scenes.make(tmp_path, **SIZES, tasks=("vqa",))["complete"] is True
