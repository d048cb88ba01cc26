"""Matching data: training samples with their negatives, and images and captions by themselves."""

import copy

import numpy as np
import pytest
import torch

from datasets.itm import open_itm
from datasets.itm.negatives import Negatives, hardest, other_captions, other_images
from datasets.prepare_itm import main
from engine.loading import Indices
from tests.datasets.itm_files import FIRST, photo_of, write_flickr
from tests.datasets.vqa_files import FEATURE_SIZE, refusal, region_arrays
from tests.mmnas_golden import Golden
from util.hashed_draws import hashed_integers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    raw = write_flickr(tmp_path_factory.mktemp("itm"))
    main([*raw.flags, "--float32"])
    return raw.out


@pytest.fixture
def data(folder):
    return open_itm(folder, "flickr", "train", seed=3)


def features_of(image, split="train"):
    return region_arrays(photo_of(FIRST[split] + image), None or 2 + photo_of(FIRST[split] + image) % 3, FEATURE_SIZE)


def test_a_training_batch(data):
    batch = data.read([0, 11, 34], epoch=2)
    images, captions = data.negatives.of(np.array([0, 11, 34]), 3, 2)
    both = np.stack([[0, 2, 6], images], axis=1)
    assert batch["regions"].shape[:2] == (3, 2) and batch["boxes"].shape == (*batch["regions"].shape[:3], 4)
    for row, pair in enumerate(both):
        for place, image in enumerate(pair):
            count = int(batch["counts"][row, place])
            arrays = features_of(image)
            assert count == arrays["bbox"].shape[0]
            np.testing.assert_array_equal(batch["regions"][row, place, :count].numpy(), arrays["x"].T)
            assert not batch["regions"][row, place, count:].any()
            assert batch["image_size"][row, place].tolist() == [400, arrays["image_w"]]
    texts = data.captions(np.array([[0, 11, 34], captions]).T.ravel())
    assert torch.equal(batch["tokens"], texts.view(3, 2, -1))
    assert batch["label"].tolist() == [1, 1, 1] and batch["index"].tolist() == [0, 11, 34]
    assert set(data.read([1], without=("regions",))) == {"tokens", "label", "index"}
    assert data.read([])["regions"].shape[:2] == (0, 2)


def test_padding_and_cuts(folder, data):
    whole = open_itm(folder, "flickr", "train", padding="full", max_tokens=9).read([0])
    assert whole["regions"].shape == (1, 2, 36, FEATURE_SIZE) and whole["tokens"].shape == (1, 2, 9)
    assert data.captions(np.array([0])).shape == (1, 6)
    assert open_itm(folder, "flickr", "train", max_regions=2).read([0])["counts"].max() == 2


def test_which_negative_depends_on_seed_epoch_and_caption_alone(folder, data):
    again = open_itm(folder, "flickr", "train", seed=3)
    assert torch.equal(data.read([4, 20], epoch=5)["tokens"], again.__getitems__(Indices([4, 20], 5))["tokens"])
    rows = np.arange(35)
    of_epochs = np.array([data.negatives.of(rows, 3, epoch) for epoch in range(40)])
    assert all(set(of_epochs[:, 0, row]) == set(data.negatives.images[row].tolist()) for row in rows)
    one, other = (open_itm(folder, "flickr", "train", seed=seed).negatives for seed in (0, 1))
    assert not torch.equal(one.images, other.images)


def test_two_parts_share_their_negatives(data):
    train, held_out = data.taken(("first", 0.8)), data.taken(("last", 0.2))
    assert (len(train), len(held_out)) == (25, 10) and train.num_images == 7
    assert train.fingerprint != held_out.fingerprint != data.fingerprint
    assert torch.equal(held_out.read([0])["tokens"][:, 0], data.read([25])["tokens"][:, 0])
    data.negatives.set(np.full((7, 5), 30), np.full((35, 5), 4))
    assert held_out.negatives.of(np.array([7]), 0, 0)[0] == 4 and data.negatives.images.is_shared()


def test_a_loader_that_outlives_an_epoch_sees_new_tables(data):
    from engine.loading import build_loader

    loader = build_loader(data, 35, shuffle=False, seed=0, num_workers=1, device=torch.device("cpu"))
    assert loader.num_workers == 1
    for image in (1, 5):
        data.negatives.set(np.full((7, 5), 5 * image), np.full((35, 5), image))
        (batch,) = loader
        assert torch.equal(batch["counts"][:, 1], data.images(np.full(35, image))["counts"])
        words = data.captions(np.array([5 * image]))
        negative, count = batch["tokens"][:, 1], words.shape[1]
        assert (negative[:, :count] == words).all() and not negative[:, count:].any()


def test_drawn_negatives_belong_to_others_evenly():
    captions = other_captions((1, 2), np.arange(6), 4000, 6)
    images = other_images((1, 2), np.arange(30), 800, 6)
    assert (captions // 5 != np.arange(6)[:, None]).all() and captions.min() == 0 and captions.max() == 29
    assert (images != np.arange(30)[:, None] // 5).all()
    counts = np.stack([np.bincount(row, minlength=30) for row in captions])
    assert (np.abs(counts[counts > 0] - 160) < 6 * 160**0.5).all() and (counts > 0).sum() == 6 * 25
    np.testing.assert_array_equal(other_captions((1, 2), np.array([4]), 4000, 6)[0], captions[4])


def test_hashed_integers_are_even_and_independent():
    drawn = hashed_integers((7, 0), np.arange(20000), 2, 10)
    counts = np.bincount(drawn[:, 0] * 10 + drawn[:, 1], minlength=100)
    assert abs(counts - 200).max() < 6 * 200**0.5
    other = hashed_integers((7, 1), np.arange(20000), 2, 10)
    assert abs((drawn == other).mean() - 0.1) < 0.01


def test_the_hardest_as_the_original():
    golden = Golden("itm")
    found = hardest(golden.arrays["hn_scores"], golden.arrays["hn_idx"], 5)
    np.testing.assert_array_equal(found, golden.arrays["hn_sel"])


def test_tables_are_kept_and_restored():
    first, second = Negatives(4, 5), Negatives(4, 5)
    first.draw(0, 9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert torch.equal(first.images, second.images) and torch.equal(first.captions, second.captions)
    assert second.images.is_shared()


def test_refusals(folder):
    refusal(lambda: open_itm(folder, "flickr", "val"), "'val'", "train, dev, test")
    refusal(lambda: open_itm(folder, "coco", "train"), "coco/meta.json is missing", "--dataset coco")
    refusal(lambda: open_itm(folder, "flickr", "train", feature_size=7), "width 12", "expects 7")
