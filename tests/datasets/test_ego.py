"""The EgoGesture reader: the original's transforms to the byte, both forms on disk alike, draws from the seed alone."""

import json
import logging
import pickle
import random
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from datasets.ego import frames, open_ego
from datasets.prepare_ego import prepare
from engine.loading import EpochBatchSampler, Indices
from tests.datasets.ego_files import CLIPS, LABELS, clips_of, frame_path, one_line, write_annotation, write_tree
from tests.golden import Golden
from util.cli import UserError

MEAN = np.array([114.7748, 107.7354, 99.475], dtype=np.float32)[:, None, None]
SMALL = {"sample_size": 12, "sample_duration": 16}


def identity(batch):
    return batch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The official tree of seven clips, and the same packed."""
    folder = tmp_path_factory.mktemp("ego")
    write_tree(folder / "raw")
    prepare(folder / "raw", folder / "packed", workers=1)
    return {"raw": folder / "raw", "packed": folder / "packed"}


@pytest.fixture
def raw(made, tmp_path):
    """A copy of the tree that a test may damage."""
    return shutil.copytree(made["raw"], tmp_path / "raw")


@pytest.fixture
def packed(made, tmp_path):
    """A copy of the packed data that a test may damage."""
    return shutil.copytree(made["packed"], tmp_path / "packed")


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for key, value in batch.items():
        assert value.dtype == other[key].dtype, key
        assert torch.equal(value, other[key]), key


# The original's transforms


def test_frames_are_chosen_as_in_the_original():
    spec = Golden("ego_transforms").spec
    for case in spec["temporal_center"]:
        begin = frames.centre_begin(case["n"], 32)
        assert (case["first"] + frames.take_frames(case["n"], begin, 32)).tolist() == case["selected"]
    for case in spec["temporal_random"]:
        begin = frames.random_begin(case["n"], 32, random.Random(case["python_random_seed"]))
        assert (case["first"] + frames.take_frames(case["n"], begin, 32)).tolist() == case["selected"]


def test_pixels_equal_the_original():
    golden = Golden("ego_transforms")
    array = np.random.Generator(np.random.PCG64(5)).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    colour, grey = Image.fromarray(array), Image.fromarray(array[..., 0])
    outputs = {
        "eval.rgb": frames.centre_crop(colour, 112),
        "eval.depth": frames.centre_crop(grey, 112),
    }
    for number, case in enumerate(golden.spec["spatial"]):
        crop = frames.draw_crop(random.Random(case["python_random_seed"]))
        assert crop == (case["scale"], case["tl_x"], case["tl_y"])
        outputs[f"train.rgb.{number}"] = frames.random_crop(colour, crop, 112)
    for name, image in outputs.items():
        values = frames.pixels(image)
        assert values.dtype == np.uint8
        values = values - MEAN[: len(values)]
        # Exact in every pixel of the sample; the mean and the deviation of all leave no room for others.
        assert np.array_equal(values.ravel()[:64], golden.arrays[f"{name}.first64"])
        golden.assert_output(name, torch.from_numpy(values), rtol=1e-12, atol=1e-9)


def expected_clip(folder, field, colour, start, positions, change):
    """The frames of one clip, made with Pillow from the files: uint8 (channels, T, S, S)."""
    frames = []
    for position in positions:
        image = Image.open(frame_path(folder, colour, field, start + int(position)))
        array = np.asarray(change(image.convert("RGB" if field == "rgb" else "L")))
        frames.append(array.reshape(*array.shape[:2], -1).transpose(2, 0, 1))
    return np.stack(frames, axis=1)


@pytest.mark.parametrize("form", ["raw", "packed"])
@pytest.mark.parametrize("split", ["train", "dev", "train+dev", "test"])
def test_evaluation_shows_the_middle(made, form, split):
    dataset = open_ego(made[form], split, **SMALL)
    rows = clips_of(split)
    assert len(dataset) == len(rows)
    batch = dataset.read(range(len(rows)))
    assert batch["label"].tolist() == [label for _, _, label, _, _ in rows]
    assert (batch["label"].dtype, batch["index"].dtype) == (torch.int64, torch.int64)
    assert batch["index"].tolist() == list(range(len(rows)))

    def middle(image):
        # 26 x 20 pixels: the smaller edge becomes 12, the other one int(12 * 26 / 20) = 15; round(1.5) = 2.
        return image.resize((15, 12), Image.Resampling.BILINEAR).crop((2, 0, 14, 12))

    for row, (_, colour, _, start, length) in enumerate(rows):
        first = max(0, length // 2 - 8)
        positions = [first + i % min(16, length - first) for i in range(16)]
        for field, channels in (("rgb", 3), ("depth", 1)):
            assert batch[field].shape == (len(rows), channels, 16, 12, 12)
            assert batch[field].dtype == torch.uint8
            expected = expected_clip(made["raw"], field, colour, start, positions, middle)
            assert np.array_equal(batch[field][row].numpy(), expected)


@pytest.mark.parametrize("form", ["raw", "packed"])
def test_training_draws_once_per_clip_for_both_inputs(made, form):
    dataset = open_ego(made[form], "train", augment=True, seed=3, **SMALL)
    batch = dataset.read([3, 0, 1], epoch=5)
    scales = (1, 0.84089641525, 0.7071067811803005, 0.5946035574934808, 0.4999999999911653)
    for place, row in enumerate([3, 0, 1]):
        _, colour, _, start, length = clips_of("train")[row]
        rng = random.Random(f"3 5 {row}")
        first = rng.randint(0, max(0, length - 17))
        positions = [first + i % min(16, length - first) for i in range(16)]
        side = int(20 * scales[rng.randint(0, 4)])
        left, top = rng.random() * (26 - side), rng.random() * (20 - side)

        def cut(image, left=left, top=top, side=side):
            box = [round(edge) for edge in (left, top, left + side, top + side)]
            return image.crop(box).resize((12, 12), Image.Resampling.BILINEAR)

        for field in ("rgb", "depth"):
            expected = expected_clip(made["raw"], field, colour, start, positions, cut)
            assert np.array_equal(batch[field][place].numpy(), expected)


def test_draws_follow_seed_epoch_and_clip_alone(made):
    dataset = open_ego(made["packed"], "train", augment=True, seed=3, **SMALL)
    random.seed(0)
    whole = dataset.read([0, 1, 2, 3], epoch=np.array([4, 5, 4, 6]))
    random.seed(1)
    for index, epoch in ((2, 4), (1, 5), (3, 6)):
        assert_same(dataset.read([index], epoch=epoch), {key: value[index : index + 1] for key, value in whole.items()})
    assert_same(dataset.__getitems__(Indices([1], 5)), dataset.read([1], epoch=5))
    assert_same(dataset.__getitems__([1]), dataset.read([1], epoch=0))
    assert_same(dataset[1], {key: value[0] for key, value in dataset.read([1], epoch=0).items()})
    others = [dataset.read([1], epoch=epoch)["rgb"] for epoch in range(6)]
    assert len({other.numpy().tobytes() for other in others}) == 6
    other_seed = open_ego(made["packed"], "train", augment=True, seed=4, **SMALL)
    assert not torch.equal(other_seed.read([1], epoch=5)["rgb"], others[5])


def test_views_repeat_the_first_epochs(made):
    anew = open_ego(made["packed"], "train", augment=True, **SMALL)
    views = open_ego(made["packed"], "train", augment=True, views=2, **SMALL)
    for epoch in range(5):
        assert_same(views.read([1, 3], epoch=epoch), anew.read([1, 3], epoch=epoch % 2))
    assert anew.distinct("rgb") is None
    assert views.distinct("depth").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert views.distinct("rgb").dtype == np.int64
    fixed = open_ego(made["packed"], "train", seed=1, **SMALL)
    assert fixed.distinct("rgb").tolist() == [[0], [1], [2], [3]]
    assert_same(fixed.read([1], epoch=0), fixed.read([1], epoch=7))


# Reading


@pytest.mark.parametrize("form", ["raw", "packed"])
def test_only_what_is_wanted_is_decoded_and_nothing_twice(made, form, monkeypatch):
    dataset = open_ego(made[form], "train", **SMALL)
    whole = dataset.read([0, 2])
    decoded = []

    def decode(data, field):
        decoded.append(field)
        return genuine(data, field)

    genuine = frames.decode
    monkeypatch.setattr("datasets.ego.dataset.decode", decode)
    assert_same(dataset.read([0, 2], only=("depth",)), {key: whole[key] for key in ("index", "label", "depth")})
    # Clip 0 has five frames in all; of clip 2 sixteen of twenty are shown.
    assert decoded == ["depth"] * 21
    assert_same(dataset.read([0, 2], without=("depth",)), {key: whole[key] for key in ("index", "label", "rgb")})
    assert decoded[21:] == ["rgb"] * 21
    assert_same(dataset.read([0, 2], without=("rgb", "depth")), {key: whole[key] for key in ("index", "label")})
    assert len(decoded) == 42


@pytest.mark.parametrize("form", ["raw", "packed"])
def test_indices_out_of_range(made, form):
    dataset = open_ego(made[form], "dev", **SMALL)
    for index in (2, -1):
        with pytest.raises(IndexError):
            dataset.read([index])
    assert dataset.read([])["rgb"].shape == (0, 3, 16, 12, 12)


@pytest.mark.parametrize("form", ["raw", "packed"])
def test_pickle_and_workers_give_the_same(made, form):
    dataset = open_ego(made[form], "train+dev", augment=True, **SMALL)
    before = dataset.read([0, 5], epoch=1)
    packed = pickle.dumps(dataset)
    assert len(packed) < 4000
    again = pickle.loads(packed)
    assert_same(again.read([0, 5], epoch=1), before)
    assert again.fingerprint == dataset.fingerprint
    sampler = EpochBatchSampler(len(dataset), 2, shuffle=True, seed=0)
    sampler.epoch = 1
    plain, worked = (
        list(DataLoader(dataset, batch_sampler=sampler, collate_fn=identity, num_workers=workers)) for workers in (0, 2)
    )
    assert len(plain) == 3
    for one, other in zip(plain, worked, strict=True):
        assert_same(one, other)
        assert_same(one, dataset.read(one["index"], epoch=1))


@pytest.mark.parametrize("form", ["raw", "packed"])
def test_attributes(made, form):
    dataset = open_ego(made[form], "train+dev")
    assert dataset.split == "train+dev"
    assert (dataset.num_labels, dataset.label_names) == (3, LABELS)
    assert dataset.ids.tolist() == [clip[0] for clip in CLIPS[:6]]
    assert dataset.labels.tolist() == [0, 1, 2, 0, 1, 0]
    assert (dataset.description, dataset.synthetic, dataset.skipped) == ("EgoGesture", False, [])
    assert dataset.read([0])["rgb"].shape == (1, 3, 32, 112, 112)


def test_words_about_other_data(raw):
    (raw / "about.json").write_text(json.dumps({"description": "synthetic things", "synthetic": True}))
    dataset = open_ego(raw, "dev")
    assert (dataset.description, dataset.synthetic) == ("synthetic things", True)
    (raw / "about.json").write_text("[]")
    with pytest.raises(UserError) as error:
        open_ego(raw, "dev")
    one_line(error, "about.json", "fix or delete it")


@pytest.mark.parametrize("form", ["raw", "packed"])
def test_small_keeps_the_first_64(made, tmp_path, form):
    clips = [(f"Subject03/Scene1/Color/rgb1_{i}", "training", "wave", 1 + i % 20, 30) for i in range(70)]
    folder = shutil.copytree(made["raw"], tmp_path / "raw")
    write_annotation(folder, [*clips, *CLIPS[4:]])
    if form == "packed":
        prepare(folder, tmp_path / "packed", workers=1)
        folder = tmp_path / "packed"
    whole, small = open_ego(folder, "train", **SMALL), open_ego(folder, "train", small=True, **SMALL)
    assert (len(whole), len(small)) == (70, 64)
    assert whole.fingerprint != small.fingerprint
    assert small.ids.tolist() == [clip[0] for clip in clips[:64]]
    assert_same(whole.read([63, 0]), small.read([63, 0]))


def test_fingerprint_follows_content_and_options(made, raw, tmp_path):
    train = {}
    for name, options in {
        "plain": {},
        "other size": {"sample_size": 13},
        "other duration": {"sample_duration": 17},
        "augmented": {"augment": True},
        "other seed": {"augment": True, "seed": 1},
        "views": {"augment": True, "views": 2},
    }.items():
        train[name] = open_ego(made["packed"], "train", **(SMALL | options)).fingerprint
    assert len(set(train.values())) == 6
    assert open_ego(made["packed"], "train", seed=9, **SMALL).fingerprint == train["plain"]
    assert open_ego(made["packed"], "train+dev", **SMALL).fingerprint not in train.values()
    assert int(train["plain"], 16) >= 0
    # One frame of a training clip changes, then a label, then the bounds of a clip.
    shutil.copy(raw / "Subject03/Scene1/Color/rgb1/000009.jpg", raw / "Subject03/Scene1/Color/rgb1/000010.jpg")
    labels, bounds = [list(clip) for clip in CLIPS], [list(clip) for clip in CLIPS]
    labels[0][2], bounds[1][4] = "knock", "48"
    seen = {train["plain"]}
    for number, clips in enumerate((CLIPS, labels, bounds)):
        write_annotation(raw, clips)
        prepare(raw, tmp_path / str(number), workers=1)
        seen.add(open_ego(tmp_path / str(number), "train", **SMALL).fingerprint)
        assert (
            open_ego(tmp_path / str(number), "test", **SMALL).fingerprint
            == open_ego(made["packed"], "test", **SMALL).fingerprint
        )
    assert len(seen) == 4


def test_fingerprint_of_folders_follows_sizes_and_times(raw):
    before = open_ego(raw, "dev").fingerprint
    assert open_ego(raw, "dev").fingerprint == before
    path = raw / "Subject01/Scene2/Depth/depth1/000003.jpg"
    path.write_bytes(path.read_bytes() + b"\0")
    assert open_ego(raw, "dev").fingerprint != before
    assert open_ego(raw, "test").fingerprint == open_ego(raw, "test").fingerprint


# Faults


def test_unknown_split_and_impossible_sizes(made):
    with pytest.raises(UserError) as error:
        open_ego(made["raw"], "valid")
    one_line(error, "'valid'", "train, dev, train+dev, test")
    for options, words in (
        ({"sample_size": 0}, "--sample_size 0"),
        ({"sample_duration": 0}, "--sample_duration 0"),
        ({"views": -1}, "-1 views"),
    ):
        with pytest.raises(UserError) as error:
            open_ego(made["raw"], "dev", **options)
        one_line(error, words)


def test_missing_data_says_what_is_expected_and_how_to_get_it(tmp_path):
    with pytest.raises(UserError) as error:
        open_ego(tmp_path, "dev")
    demo = "`python datasets/make_demo.py ego --out DIR`"
    one_line(error, f"{tmp_path}/SubjectXX/SceneY/Color/rgbK/000001.jpg", "prepare_ego.py --dir EGOGESTURE", demo)
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError) as error:
        open_ego(tmp_path, "dev")
    one_line(error, f"perhaps it is {tmp_path / 'images'}")


def test_missing_annotation(raw, tmp_path):
    (raw / "egogestureall_but_None.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(UserError) as error:
        open_ego(raw, "dev")
    one_line(error, f"no annotation {raw / 'egogestureall_but_None.json'}", "--annotation FILE", "--labels")
    assert len(open_ego(raw, "dev", annotation=tmp_path / "elsewhere.json")) == 2
    with pytest.raises(UserError) as error:
        open_ego(raw, "dev", annotation=tmp_path / "nowhere.json")
    one_line(error, f"no annotation {tmp_path / 'nowhere.json'}")


DAMAGE = {
    "colour folder": ("Subject03/Scene1/Color/rgb2", "the folder", "is missing"),
    "depth folder": ("Subject03/Scene1/Depth/depth2", "the folder", "is missing"),
    "first frame": ("Subject03/Scene1/Color/rgb2/000020.jpg", "000020.jpg is missing (1 of 20 frames)"),
    "middle frame": ("Subject03/Scene1/Depth/depth2/000030.jpg", "000030.jpg is missing (1 of 20 frames)"),
    "last frame": ("Subject03/Scene1/Depth/depth2/000039.jpg", "000039.jpg is missing (1 of 20 frames)"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_missing_frames(raw, damage, caplog):
    place, *words = DAMAGE[damage]
    path = raw / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError) as error:
        open_ego(raw, "train", **SMALL)
    one_line(error, "egogestureall_but_None.json", "2 clips", "rgb2_3", place, "--skip_invalid", *words)
    assert len(open_ego(raw, "dev")) == 2
    with caplog.at_level(logging.WARNING, logger="mdarts"):
        dataset = open_ego(raw, "train", skip_invalid=True, **SMALL)
    assert "2 clips of split train are left out, first Subject03/Scene1/Color/rgb2_3" in caplog.text
    assert dataset.ids.tolist() == [CLIPS[0][0], CLIPS[1][0]]
    assert [fault.name for fault in dataset.skipped] == [CLIPS[2][0], CLIPS[3][0]]
    assert words[-1] in dataset.skipped[0].reason
    assert_same(dataset.read([1]), open_ego(raw, "train", skip_invalid=True, **SMALL).read([1]))


def test_an_annotation_that_goes_beyond_the_frames(raw):
    write_annotation(raw, [*CLIPS[4:], ("Subject03/Scene1/Color/rgb1_9", "training", "wave", "55", "999999999")])
    with pytest.raises(UserError) as error:
        open_ego(raw, "train")
    one_line(error, "1 clip cannot be used", "000061.jpg is missing (999,999,939 of 999,999,945 frames)")


def test_a_split_without_clips(raw):
    write_annotation(raw, CLIPS[:4])
    with pytest.raises(UserError) as error:
        open_ego(raw, "test")
    one_line(error, "split test is empty: no testing clip", "4,977")
    shutil.rmtree(raw / "Subject03")
    with pytest.raises(UserError) as error:
        open_ego(raw, "train", skip_invalid=True)
    one_line(error, "split train is empty: none of its 4 clips can be used", CLIPS[0][0], "is missing")


@pytest.mark.parametrize("what", ["cut", "text", "gone"])
def test_a_frame_that_cannot_be_read(raw, what):
    dataset = open_ego(raw, "test", **SMALL)
    path = raw / "Subject02/Scene1/Depth/depth1/000030.jpg"
    if what == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-100] if what == "cut" else b"no image")
    with pytest.raises(UserError) as error:
        dataset.read([0])
    reason = {"cut": "truncated", "text": "(not a readable image", "gone": "No such file"}[what]
    one_line(error, str(path), reason, f"prepare_ego.py --dir {raw}", "--skip_invalid")
    assert dataset.read([0], without=("depth",))["rgb"].shape == (1, 3, 16, 12, 12)


def test_a_packed_frame_that_cannot_be_read(packed):
    dataset = open_ego(packed, "test", **SMALL)
    with open(packed / "rgb" / "frames.bin", "r+b") as file:
        file.write(bytes((packed / "rgb" / "frames.bin").stat().st_size))
    with pytest.raises(UserError) as error:
        dataset.read([0])
    one_line(error, "frame 23 of Subject02/Scene1/Color/rgb1_7", str(packed / "rgb"), f"--out {packed}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "other"}, ["not an ego-store of version 1"]),
        ({"version": 2}, ["not an ego-store of version 1"]),
        ({"skipped": None}, ["meta.json lacks"]),
        ({"annotation": None}, ["meta.json lacks"]),
    ],
)
def test_meta_that_does_not_fit(packed, change, words):
    meta = json.loads((packed / "meta.json").read_text())
    (packed / "meta.json").write_text(json.dumps(meta | change))
    with pytest.raises(UserError) as error:
        open_ego(packed, "dev")
    one_line(error, *words, "prepare_ego.py")


def test_packed_data_that_are_not_finished(packed):
    (packed / "meta.json").unlink()
    with pytest.raises(UserError) as error:
        open_ego(packed, "dev")
    one_line(error, f"{packed} is not finished", f"--out {packed}", "goes on where it stopped")


def test_packed_data_with_a_cut_store(packed):
    path = packed / "depth" / "frames.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError) as error:
        open_ego(packed, "dev")
    one_line(error, str(path), f"prepare_ego.py --dir EGOGESTURE --out {packed}")


def test_packed_data_with_another_annotation(packed, tmp_path):
    clips = [list(clip) for clip in CLIPS]
    clips[0][3:], clips[1][0] = ("2", "6"), "Subject03/Scene1/Color/rgb1_99"
    path = write_annotation(tmp_path, clips)
    with pytest.raises(UserError) as error:
        open_ego(packed, "train", annotation=path)
    one_line(error, "2 clips", f"{packed} has frames of it other than 2 to 6", "--skip_invalid")
    dataset = open_ego(packed, "train", annotation=path, skip_invalid=True)
    assert dataset.ids.tolist() == [CLIPS[2][0], CLIPS[3][0]]
    assert "is not among the clips of" in dataset.skipped[1].reason
