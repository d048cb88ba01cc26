"""The NTU dataset: store and tree give what the original would, by name, by seed, and with clear errors."""

import logging
import os
import pickle
import shutil
from argparse import Namespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from datasets.ntu import SPLITS, open_ntu, open_source
from datasets.ntu.names import ACTIONS, SUBJECTS, missing_skeletons, parse_id
from datasets.ntu.skeleton import Pose, read_skeleton
from datasets.ntu.video import Crop, slots
from datasets.prepare_ntu import prepare_store
from tasks import ntu
from tests.datasets.ntu_files import level, write_mjpg, write_raw
from util.cli import UserError

LENGTHS = {
    "S001C001P001R001A001": 40,
    "S001C001P001R001A003": 7,
    "S001C001P001R002A003": 80,
    "S001C001P002R001A002": 24,
    "S001C001P003R001A002": 30,
    "S001C001P004R001A001": 50,
    "S001C001P006R001A005": 31,
}
MISSING = sorted(name for name in missing_skeletons() if parse_id(name).subject in SUBJECTS["test"])[:2]
TRAIN = [name for name in LENGTHS if parse_id(name).subject in SUBJECTS["train"]]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store and a tree of the same samples, two of them on the official list: one empty, one readable."""
    folder = tmp_path_factory.mktemp("ntu")
    videos, skeletons = write_raw(folder, LENGTHS | dict.fromkeys(MISSING, 9), persons=1)
    (skeletons / f"{MISSING[0]}.skeleton").write_text("0\n")
    prepare_store(videos, skeletons, folder / "store", size=32, workers=1)
    shutil.copytree(videos, folder / "tree" / "nturgb+d_rgb_256x256_30")
    shutil.copytree(skeletons, folder / "tree" / "nturgb+d_skeletons")
    return {"store": folder / "store", "tree": folder / "tree", "skeletons": skeletons}


@pytest.fixture
def tree(made, tmp_path):
    """A copy of the tree that a test may damage."""
    return shutil.copytree(made["tree"], tmp_path / "tree")


def assert_same(batch, other):
    assert batch.keys() == other.keys()
    for key, value in batch.items():
        assert value.dtype == other[key].dtype, key
        assert torch.equal(value, other[key]), key


def levels(frames):
    return frames.double().mean(dim=(1, 2, 3)).round().long().tolist()


def error_of(action, *words):
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    for word in words:
        assert str(word) in str(error.value)


@pytest.mark.parametrize("form", ["store", "tree"])
def test_splits_by_subject(made, form):
    expected = {split: [name for name in LENGTHS if parse_id(name).subject in SUBJECTS[split]] for split in SPLITS}
    for split in SPLITS:
        dataset = open_ntu(made[form], split)
        assert dataset.ids.tolist() == expected[split] != []
        assert len(dataset) == len(expected[split])
        assert dataset.dropped == MISSING * (split == "test")
        assert (dataset.split, dataset.unpaired, dataset.synthetic) == (split, [], False)
        batch = dataset.read(range(len(dataset)), only=())
        assert batch["label"].tolist() == [parse_id(name).action - 1 for name in expected[split]]
        assert batch.keys() == {"label", "index"}


@pytest.mark.parametrize("form", ["store", "tree"])
@pytest.mark.parametrize("sampling", ["original", "corrected"])
def test_evaluation_batch(made, form, sampling):
    dataset = open_ntu(made[form], "train", frame_sampling=sampling)
    batch = dataset.read([2, 0, 1])
    height, width = (32, 32) if form == "store" else (32, 48)
    assert batch["rgb"].shape == (3, 8, height, width, 3)
    assert batch["skeleton"].shape == (3, 3, 32, 25, 2)
    assert [batch[key].dtype for key in ("rgb", "skeleton", "label", "index")] == [
        *(torch.uint8, torch.float32, torch.int64, torch.int64),
    ]
    assert batch["index"].tolist() == [2, 0, 1]
    for row, index in enumerate((2, 0, 1)):
        name = TRAIN[index]
        numbers = slots(LENGTHS[name], sampling)[[0, 3, 6, 9, 13, 16, 19, 23]]
        wanted = [0 if number < 0 else level(number) for number in numbers]
        assert np.allclose(levels(batch["rgb"][row]), wanted, atol=2)
        for frame, number in zip(batch["rgb"][row], numbers, strict=True):
            assert number >= 0 or not frame.any()
        pose = Pose(read_skeleton(made["skeletons"] / f"{name}.skeleton")).frames(np.arange(LENGTHS[name]))
        stretched = torch.nn.functional.interpolate(
            torch.from_numpy(pose).reshape(1, len(pose), 150).permute(0, 2, 1), 32, mode="linear"
        )
        stretched = stretched[0].reshape(2, 25, 3, 32).permute(2, 3, 1, 0)
        assert torch.allclose(batch["skeleton"][row], stretched, atol=1e-5)


@pytest.mark.parametrize("form", ["store", "tree"])
def test_augmented_batch(made, form):
    dataset = open_ntu(made[form], "train", augment=True, seed=3)
    for epoch in (0, 5):
        batch = dataset.read([2, 0], epoch=epoch)
        for row, index in enumerate((2, 0)):
            length = LENGTHS[TRAIN[index]]
            crop = Crop(3, epoch, index)
            begin, end = crop.slots
            numbers = [slots(length)[begin + int(place)] for place in np.linspace(0, end - begin - 1, 8)]
            wanted = [0 if number < 0 else level(number) for number in numbers]
            assert np.allclose(levels(batch["rgb"][row]), wanted, atol=2)
            whole = Pose(read_skeleton(made["skeletons"] / f"{TRAIN[index]}.skeleton"))
            piece = whole.frames(np.arange(*crop.skeleton(length)))
            stretched = torch.nn.functional.interpolate(
                torch.from_numpy(piece).reshape(1, len(piece), 150).permute(0, 2, 1), 32, mode="linear"
            )
            stretched = stretched[0].reshape(2, 25, 3, 32).permute(2, 3, 1, 0)
            assert torch.allclose(batch["skeleton"][row], stretched, atol=1e-5)


def test_augmentation_depends_on_seed_epoch_and_sample_alone(made):
    dataset = open_ntu(made["store"], "train", augment=True, seed=1)
    whole = dataset.read([0, 1, 2, 2], epoch=np.array([4, 4, 4, 9]))
    np.random.seed(99)
    torch.manual_seed(99)
    for row, (index, epoch) in enumerate([(0, 4), (1, 4), (2, 4), (2, 9)]):
        alone = dataset.read([index], epoch=epoch)
        for field in ("rgb", "skeleton"):
            assert torch.equal(alone[field][0], whole[field][row])
            assert torch.equal(dataset.read([index], only=(field,), epoch=epoch)[field][0], whole[field][row])
    assert not torch.equal(whole["skeleton"][2], whole["skeleton"][3])
    other = open_ntu(made["store"], "train", augment=True, seed=2).read([2], epoch=4)
    assert not torch.equal(other["skeleton"][0], whole["skeleton"][2])


def test_without_augmentation_the_epoch_is_ignored(made):
    dataset = open_ntu(made["store"], "train", seed=1)
    assert_same(dataset.read([0, 2], epoch=0), dataset.read([0, 2], epoch=7))


def test_loader_hands_the_epoch_over(made):
    class Indices(list):
        epoch = 6

    dataset = open_ntu(made["store"], "train", augment=True)
    assert_same(dataset.__getitems__(Indices([0, 2])), dataset.read([0, 2], epoch=6))
    assert_same(dataset.__getitems__([0, 2]), dataset.read([0, 2], epoch=0))
    one = dataset[2]
    assert torch.equal(one["rgb"], dataset.read([2])["rgb"][0])
    assert one["label"].shape == ()


def test_views_repeat(made):
    dataset = open_ntu(made["store"], "train", augment=True, views=3)
    assert_same(dataset.read([0, 2], epoch=1), dataset.read([0, 2], epoch=7))
    drawn = open_ntu(made["store"], "train", augment=True)
    assert_same(dataset.read([0, 2], epoch=1), drawn.read([0, 2], epoch=1))
    assert drawn.distinct("rgb") is None and drawn.distinct("skeleton") is None


def test_distinct_inputs_are_told_apart_exactly(made):
    plain = open_ntu(made["store"], "train")
    assert plain.distinct("rgb").tolist() == plain.distinct("skeleton").tolist() == [[0], [1], [2], [3]]
    dataset = open_ntu(made["store"], "train", augment=True, views=12)
    assert np.array_equal(dataset.distinct("skeleton"), np.arange(48).reshape(4, 12))
    numbers = dataset.distinct("rgb")
    assert (numbers.shape, numbers.dtype) == ((4, 12), np.int64)
    assert sorted(set(numbers.ravel().tolist())) == list(range(numbers.max() + 1))
    assert numbers.max() + 1 <= 4 * 7
    seen = {}
    for view in range(12):
        batch = dataset.read(range(4), only=("rgb",), epoch=view)
        for index in range(4):
            frames = seen.setdefault(int(numbers[index, view]), batch["rgb"][index])
            assert torch.equal(frames, batch["rgb"][index])
    assert len(seen) == numbers.max() + 1


def test_channel_order(tmp_path):
    import cv2

    videos, skeletons = write_raw(tmp_path, {"S001C001P001R001A001": 30})
    path = videos / "S001C001P001R001A001_rgb.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 30, (32, 32))
    for _ in range(30):
        video.write(np.full((32, 32, 3), (200, 100, 20), dtype=np.uint8))
    video.release()
    prepare_store(videos, skeletons, tmp_path / "store", size=32, workers=1)
    for order, expected in (("bgr", [200, 100, 20]), ("rgb", [20, 100, 200])):
        frames = open_ntu(tmp_path / "store", "train", channel_order=order).read([0])["rgb"][0, 0]
        assert np.allclose(frames.double().mean(dim=(0, 1)), expected, atol=4)


def test_absent_person_and_number_of_frames(made):
    minus, zero = (open_ntu(made["store"], "train", absent_person=way) for way in ("minus_origin", "zero"))
    minus, zero = minus.read([0])["skeleton"], zero.read([0])["skeleton"]
    assert torch.equal(minus[..., 0], zero[..., 0])
    assert minus[..., 1].all() and not zero[..., 1].any()
    assert open_ntu(made["store"], "train", num_frames=3).read([0])["rgb"].shape == (1, 3, 32, 32, 3)


def test_labels_cover_all_data(made):
    dataset = open_ntu(made["store"], "dev")
    assert dataset.num_labels == max(parse_id(name).action for name in (*LENGTHS, *MISSING)) == 8
    assert dataset.label_names == list(ACTIONS[:8])


@pytest.mark.parametrize("form", ["store", "tree"])
def test_missing_skeletons_are_dropped_or_kept_where_readable(made, form, caplog):
    with caplog.at_level(logging.INFO, "mdarts"):
        dataset = open_ntu(made[form], "test")
    told = [record for record in caplog.records if "official list" in record.message]
    assert len(told) == 1 and told[0].levelno == logging.INFO and dataset.dropped[0] in told[0].message
    kept = open_ntu(made[form], "test", keep_missing=True)
    assert set(kept.ids) == set(dataset.ids) | {MISSING[1]}
    assert MISSING[1] not in kept.dropped
    assert kept.read(range(len(kept)))["skeleton"].shape[0] == len(kept)
    assert kept.fingerprint != dataset.fingerprint


def test_small_keeps_the_first_64(tmp_path, made):
    names = [f"S001C001P001R{number:03d}A001" for number in range(1, 71)]
    folder = tmp_path / "tree"
    for part in ("nturgb+d_rgb_256x256_30", "nturgb+d_skeletons"):
        (folder / part).mkdir(parents=True)
    video = write_mjpg(tmp_path / "one.avi", 5)
    for name in names:
        shutil.copy(video, folder / "nturgb+d_rgb_256x256_30" / f"{name}_rgb.avi")
        shutil.copy(made["skeletons"] / f"{TRAIN[0]}.skeleton", folder / "nturgb+d_skeletons" / f"{name}.skeleton")
    whole, small = open_ntu(folder, "train"), open_ntu(folder, "train", small=True)
    assert (len(whole), small.ids.tolist()) == (70, names[:64])
    assert small.fingerprint != whole.fingerprint


def test_partners_are_found_by_name(tree, caplog):
    whole = open_ntu(tree, "train").read([1, 2])
    (tree / "nturgb+d_skeletons" / f"{TRAIN[0]}.skeleton").unlink()
    (tree / "nturgb+d_rgb_256x256_30" / "S001C001P006R001A005_rgb.avi").unlink()
    (tree / "nturgb+d_rgb_256x256_30" / "copy_rgb.avi").touch()
    with caplog.at_level(logging.INFO, "mdarts"):
        dataset = open_ntu(tree, "train")
    assert dataset.unpaired == [TRAIN[0], "S001C001P006R001A005", "copy_rgb.avi"]
    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and "3 samples" in warnings[0] and TRAIN[0] in warnings[0]
    assert dataset.ids.tolist() == TRAIN[1:]
    part = dataset.read([0, 1])
    for field in ("rgb", "skeleton", "label"):
        assert torch.equal(part[field], whole[field])


OPTIONS = [
    {"augment": True},
    {"augment": True, "seed": 1},
    {"augment": True, "views": 2},
    {"num_frames": 4},
    {"frame_sampling": "corrected"},
    {"channel_order": "rgb"},
    {"absent_person": "zero"},
]


@pytest.mark.parametrize("form", ["store", "tree"])
def test_splits_share_what_is_opened(made, form, monkeypatch):
    opened = []
    monkeypatch.setattr(ntu, "open_source", lambda folder: opened.append(folder) or open_source(folder))
    args = Namespace(datadir=made[form], small_dataset=False, seed=0, augment_views=0, keep_missing=False)
    args = Namespace(**vars(args), frame_sampling="original", channel_order="bgr", absent_person="zero")
    data = ntu.open_splits(args, ("train", "dev"))
    assert opened == [made[form]] and all(split == one.split for split, one in data.items())
    alone = ntu.TASK.open_split(args, "dev")
    assert (alone.identity, alone.fingerprint) == (data["dev"].identity, data["dev"].fingerprint)
    assert alone.identity != data["train"].identity


@pytest.mark.parametrize("form", ["store", "tree"])
def test_fingerprint_follows_options(made, form):
    prints = [open_ntu(made[form], "train", **options).fingerprint for options in ({}, *OPTIONS)]
    prints += [open_ntu(made[form], split).fingerprint for split in ("dev", "test")]
    assert len(set(prints)) == len(prints)
    assert open_ntu(made[form], "train", seed=1, views=4).fingerprint == prints[0]
    assert int(prints[0], 16) >= 0


def test_fingerprint_follows_content(tmp_path):
    train, dev = set(), set()
    for change in ("none", "video", "skeleton"):
        folder = tmp_path / change
        videos, skeletons = write_raw(folder, LENGTHS)
        if change == "video":
            write_mjpg(videos / f"{TRAIN[1]}_rgb.avi", 7, start=1)
        if change == "skeleton":
            path = skeletons / f"{TRAIN[1]}.skeleton"
            path.write_text(path.read_text().replace("0.1", "0.2"))
        prepare_store(videos, skeletons, folder / "store", size=32, workers=1)
        train.add(open_ntu(folder / "store", "train").fingerprint)
        dev.add(open_ntu(folder / "store", "dev").fingerprint)
    assert (len(train), len(dev)) == (3, 1)


@pytest.mark.parametrize("form", ["store", "tree"])
def test_pickle_is_small_and_reads_on(made, form):
    dataset = open_ntu(made[form], "train", augment=True)
    before, ids = dataset.read([0, 2]), dataset.ids
    packed = pickle.dumps(dataset)
    assert len(packed) < 4000
    again = pickle.loads(packed)
    assert_same(again.read([0, 2]), before)
    assert np.array_equal(again.ids, ids)
    assert again.fingerprint == dataset.fingerprint


@pytest.mark.parametrize("form", ["store", "tree"])
def test_workers_give_the_same_batches(made, form):
    dataset = open_ntu(made[form], "train", augment=True)
    plain, worked = (
        list(DataLoader(dataset, batch_size=3, collate_fn=lambda batch: batch, num_workers=workers))
        for workers in (0, 2)
    )
    assert [batch["index"].tolist() for batch in plain] == [[0, 1, 2], [3]]
    for one, other in zip(plain, worked, strict=True):
        assert_same(one, other)


def test_index_out_of_range(made):
    dataset = open_ntu(made["store"], "train")
    for index in (4, -1):
        with pytest.raises(IndexError):
            dataset.read([index])


def test_missing_data_says_what_is_expected_and_how_to_get_it(tmp_path, made):
    prepare = f"`python datasets/prepare_ntu.py --dir nturgb+d_rgb --skeletons nturgb+d_skeletons --out {tmp_path}`"
    error_of(
        lambda: open_ntu(tmp_path, "dev"),
        *(tmp_path, "meta.json", "nturgb+d_rgb_256x256_30/", prepare, "`python datasets/make_demo.py ntu --out DIR`"),
    )
    shutil.copytree(made["store"], tmp_path / "dataset")
    error_of(lambda: open_ntu(tmp_path, "dev"), f"{tmp_path / 'dataset'} holds a prepared store: pass that folder")
    (tmp_path / "dataset" / "meta.json").unlink()
    error_of(lambda: open_ntu(tmp_path / "dataset", "dev"), "unfinished store: run the same command again to finish it")


def test_a_split_without_samples(tmp_path):
    videos, skeletons = write_raw(tmp_path, {"S001C001P001R001A001": 5})
    prepare_store(videos, skeletons, tmp_path / "store", size=32, workers=1)
    error_of(lambda: open_ntu(tmp_path / "store", "dev"), "no sample of split dev", "2, 5, 9, 14")


@pytest.mark.parametrize(
    ("split", "options", "words"),
    [
        ("valid", {}, ["'valid'", "train, dev, train+dev, train_exp, test"]),
        ("dev", {"frame_sampling": "all"}, ["frame_sampling 'all'", "original, corrected"]),
        ("dev", {"channel_order": "gbr"}, ["channel_order 'gbr'", "bgr, rgb"]),
        ("dev", {"absent_person": "nan"}, ["absent_person 'nan'", "minus_origin, zero"]),
        ("dev", {"views": -1}, ["views -1"]),
        ("dev", {"seed": -1}, ["seed -1"]),
        ("dev", {"num_frames": 0}, ["num_frames 0"]),
    ],
)
def test_unknown_options(made, split, options, words):
    error_of(lambda: open_ntu(made["store"], split, **options), *words)


def test_damaged_files_of_a_tree_are_named(tree):
    dataset = open_ntu(tree, "train")
    video = tree / "nturgb+d_rgb_256x256_30" / f"{TRAIN[2]}_rgb.avi"
    content = video.read_bytes()
    for damaged in (b"", content[: len(content) // 2]):
        video.write_bytes(damaged)
        error_of(lambda: dataset.read([2]), video, "prepare_ntu.py", "--skip_invalid")
    write_mjpg(video, 30, size=(64, 64))
    error_of(lambda: dataset.read([2]), video, "(64, 64, 3), others have (32, 48, 3)")
    skeleton = tree / "nturgb+d_skeletons" / f"{TRAIN[1]}.skeleton"
    skeleton.write_text("0\n")
    error_of(lambda: dataset.read([1]), skeleton, "has 0 frames", "--skip_invalid")


def test_damaged_image_of_a_store_is_named(made, tmp_path):
    store = shutil.copytree(made["store"], tmp_path / "store")
    path = store / "frames.bin"
    path.write_bytes(bytes(path.stat().st_size))
    dataset = open_ntu(store, "train")
    error_of(lambda: dataset.read([0]), path, f"damaged image in sample {TRAIN[0]}", "prepare_ntu.py")


@pytest.mark.parametrize("name", ["skeletons.bin", "skeleton_names.npy", "skeleton_index.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_skeletons_of_a_store_are_named(made, tmp_path, name, damage):
    store = shutil.copytree(made["store"], tmp_path / "store")
    path = store / name
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError) as error:
        open_ntu(store, "train")
    assert str(store) in str(error.value) and "make it again with `python datasets/prepare_ntu.py" in str(error.value)


@pytest.mark.parametrize("name", ["skeletons.bin", "skeleton_index.npy", "frames.bin"])
def test_a_store_cut_short_while_it_is_open_is_named(made, tmp_path, name):
    store = shutil.copytree(made["store"], tmp_path / "store")
    dataset = open_ntu(store, "train")
    dataset.read([0])
    os.truncate(store / name, 0)
    error_of(lambda: dataset.read([0]), store / name, "was cut short while it was open", "prepare_ntu.py")


def test_several_trees(tree):
    (tree / "nturgb+d_rgb_256x256_30").rename(tree / "nturgb+d_rgb_128x128_30")
    assert len(open_ntu(tree, "train")) == 4
    (tree / "nturgb+d_rgb_64x64_30").mkdir()
    error_of(lambda: open_ntu(tree, "train"), "keep only one of them")
