"""Scoring all pairs and mining hard negatives, against whole forwards of every single pair."""

import numpy as np
import pytest
import torch

from datasets.itm import open_itm
from datasets.itm.negatives import hardest, other_captions, other_images
from datasets.prepare_itm import main
from engine.updates import Precision
from metrics.retrieval import retrieval_scores
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.heads import MatchingHead
from models.mmnas.matching import MatchingNet
from tasks import itm_mining, itm_pairs
from tasks.itm_mining import Mining
from tasks.itm_pairs import PairScorer, Retrieval
from tests.datasets.itm_files import write_flickr
from tests.datasets.vqa_files import FEATURE_SIZE
from tests.paths import draw


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    raw = write_flickr(tmp_path_factory.mktemp("itm"))
    main([*raw.flags, "--float32"])
    return raw.out


@pytest.fixture
def data(folder):
    return open_itm(folder, "flickr", "train", seed=5)


@pytest.fixture
def net(data):
    torch.manual_seed(0)
    encoder_decoder = EncoderDecoder.searched(64, 0.5, num_enc=2, num_dec=4, start="uniform")
    draw(encoder_decoder, "single", torch.Generator().manual_seed(5))
    # So that scores of different pairs are well apart.
    found = MatchingNet(encoder_decoder, MatchingHead(64, 0.5), (len(data.vocabulary), 16), FEATURE_SIZE)
    with torch.no_grad():
        found.head.proj.weight.mul_(20)
        found.embedding.weight.mul_(5)
    return found


def build(net, data, pairs=7, hold=1000):
    return PairScorer(net, data, torch.device("cpu"), Precision(), pairs=pairs, hold=hold)


def every_pair(net, data):
    """Scores (n, 5 n) the originals' way: every pair a forward of the whole network."""
    net.eval()
    rows, captions = np.arange(data.num_images), np.arange(5 * data.num_images)
    batches = ({**data.images(np.full(len(captions), row)), "tokens": data.captions(captions)} for row in rows)
    with torch.no_grad():
        found = torch.stack([net(batch) for batch in batches])
    net.train()
    return found.numpy()


@pytest.mark.parametrize(("pairs", "hold"), [(7, 1000), (1000, 10), (1, 3)])
def test_every_score_whatever_the_blocks(net, data, pairs, hold):
    expected = every_pair(net, data)
    assert expected.std() > 0.01
    found = build(net, data, pairs, hold).matrix(np.arange(7), "train")
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert net.training


def test_each_caption_is_encoded_once_and_each_image_projected_once(net, data, monkeypatch):
    seen = {"encode": 0, "project": 0}
    encode, project = net.encode, net.project
    monkeypatch.setattr(net, "encode", lambda x: (seen.update(encode=seen["encode"] + len(x)), encode(x))[1])
    monkeypatch.setattr(
        net, "project", lambda x: (seen.update(project=seen["project"] + len(x["counts"])), project(x))[1]
    )
    build(net, data).matrix(np.arange(7), "train")
    assert seen == {"encode": 35, "project": 7}


def test_retrieval_of_a_split(net, data):
    scorer = Retrieval(lambda net: build(net, data), "train", fold=3)
    expected = every_pair(net, data)
    found = scorer(net)
    whole, folds = retrieval_scores(expected), retrieval_scores(expected, 3)
    assert found == pytest.approx(whole | {f"0K {name}": value for name, value in folds.items()})


@pytest.mark.parametrize("hold", [1000, 12])
def test_mining_keeps_the_hardest_of_what_was_drawn(net, data, hold):
    mining = Mining(build(net, data, hold=hold), 5, candidates=9)
    path, state = [choice.drawn for choice in net.choices()], torch.get_rng_state()
    facts = mining(3)
    assert [choice.drawn for choice in net.choices()] == path
    assert net.training and torch.equal(torch.get_rng_state(), state)
    assert facts["mining"]["pairs"] == 9 * 42 and facts["mining"]["seconds"] > 0
    draw(net, "single", torch.Generator().manual_seed(5 * 1_000_003 + 3))
    scores = every_pair(net, data)
    captions, images = other_captions((5, 3), np.arange(7), 9, 7), other_images((5, 3), np.arange(35), 9, 7)
    of_images = hardest(np.take_along_axis(scores, captions, 1), captions, 5)
    of_captions = hardest(np.take_along_axis(scores.T, images, 1), images, 5)
    # By their scores, since two of a row may be equal up to rounding.
    for table, expected, matrix in (
        (data.negatives.captions, of_images, scores),
        (data.negatives.images, of_captions, scores.T),
    ):
        np.testing.assert_allclose(*(np.take_along_axis(matrix, t, 1) for t in (table.numpy(), expected)), atol=1e-5)
        assert (table.numpy() == expected).mean() > 0.9


@pytest.mark.parametrize("processes", [2, 9])
def test_processes_mine_and_score_as_one(net, data, monkeypatch, processes):
    """Nine have more processes than the split has images: some shares are empty."""
    scorer = build(net, data, hold=12)
    whole, _ = itm_mining.mine(scorer, (5, 1), candidates=6)
    matrix, parts, shares = scorer.matrix(np.arange(7), "train"), [], []
    monkeypatch.setattr(itm_mining, "gather", lambda value: parts.append(value) or [value])
    monkeypatch.setattr(itm_pairs, "world_size", lambda: processes)
    for rank in range(processes):
        monkeypatch.setattr(itm_pairs, "rank", lambda rank=rank: rank)
        itm_mining.mine(scorer, (5, 1), candidates=6)
        shares.append(scorer.matrix(itm_pairs.own_share(7), "train"))
    for table, of_parts in zip(whole, zip(*parts, strict=True), strict=True):
        np.testing.assert_array_equal(np.concatenate(of_parts), table)
    np.testing.assert_allclose(np.concatenate(shares), matrix, atol=1e-5)


@pytest.mark.parametrize(
    ("start", "every", "period_from", "mined"),
    [
        (3, 2, "start", [3, 5, 7]),
        (3, 2, "zero", [4, 6]),
        # As published: both ways are the same.
        (3, 1, "start", [3, 4, 5, 6, 7]),
        (3, 1, "zero", [3, 4, 5, 6, 7]),
        (0, 3, "start", [0, 3, 6]),
    ],
)
def test_which_epochs_are_mined(net, data, monkeypatch, start, every, period_from, mined):
    tables = data.negatives.captions.numpy().copy(), data.negatives.images.numpy().copy()
    monkeypatch.setattr(itm_mining, "mine", lambda *args, **options: (tables, 1))
    mining = Mining(build(net, data), 5, candidates=5, start=start, every=every, period_from=period_from)
    assert [epoch for epoch in range(8) if mining(epoch)] == mined


def test_when_tables_are_drawn_mined_and_kept(net, data):
    turns = {"start": 1, "every": 2, "period_from": "zero"}
    mining, seen = Mining(build(net, data, pairs=100), 5, candidates=5, **turns), []
    for epoch in range(4):
        facts = mining(epoch)
        seen.append((bool(facts), data.negatives.images.clone()))
    assert [mined for mined, _ in seen] == [False, False, True, False]
    assert torch.equal(seen[0][1], seen[1][1]) and torch.equal(seen[2][1], seen[3][1])
    assert not torch.equal(seen[1][1], seen[2][1])
    data.negatives.draw(5, 0)
    assert torch.equal(data.negatives.images, seen[0][1])
    mining.load_state_dict({"captions": data.negatives.captions.clone(), "images": seen[2][1]})
    assert torch.equal(data.negatives.images, seen[2][1])
