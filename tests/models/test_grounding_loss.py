"""Targets and loss of grounding, against the original's numbers (fixture ``vgd_targets``) and their definitions."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.mmnas.architecture import Architecture
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.heads import GroundingHead
from models.mmnas.layers import LayerNorm
from models.mmnas.losses import GroundingLoss, grounding_targets
from models.mmnas.net import MultimodalNet
from tests.mmnas_golden import WAYS, Golden, generator, sped_up
from util.boxes import STDS

GOLDEN = Golden("vgd_targets")
CASES = GOLDEN.spec["cases"]


def batch_of(*numbers, length=100):
    """The cases ``numbers`` of the fixture as a batch padded to ``length`` regions."""
    boxes, counts, labels = torch.zeros(len(numbers), length, 4), [], []
    for row, number in enumerate(numbers):
        own = torch.from_numpy(GOLDEN.arrays[f"boxes{number}"])
        boxes[row, : len(own)] = own
        counts.append(len(own))
        x, y, w, h = CASES[number]["ref_bbox_xywh"]
        labels.append([x, y, x + w, y + h])
    sizes = torch.tensor([[480.0, 640.0]] * len(numbers))
    labels = torch.tensor(labels, dtype=torch.float64)
    return {"boxes": boxes, "counts": torch.tensor(counts), "label": labels, "image_size": sizes}


def outputs_of(batch_size=3):
    g = generator(54)
    scores = F.log_softmax(torch.from_numpy(g.standard_normal((batch_size, 100)).astype(np.float32)), -1)
    return scores, torch.from_numpy(2 * g.standard_normal((batch_size, 100, 4)).astype(np.float32))


@pytest.mark.parametrize("number", range(len(CASES)))
def test_targets_of_the_original(number):
    case = CASES[number]
    batch = batch_of(number)
    scores, offsets, positive = grounding_targets(batch, case["scores_loss"], case["overlap_threshold"])
    np.testing.assert_allclose(scores[0].numpy(), GOLDEN.arrays[f"scores{number}"], rtol=1e-6)
    assert np.array_equal(positive[0].numpy(), GOLDEN.arrays[f"bmask{number}"] > 0)
    assert int(positive.sum()) == case["n_positive"] and positive.any() == GOLDEN.arrays[f"smask{number}"][0]
    # Beyond the image's own boxes the fixture's offsets are zeros; ours are not used there.
    own = case["n_boxes"]
    expected = GOLDEN.arrays[f"tbox{number}"][:own]
    np.testing.assert_allclose(offsets[0, :own].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_loss_of_the_original():
    expected, batch = GOLDEN.spec["loss_batch_of_cases_0_2_3"], batch_of(0, 2, 3)
    loss = GroundingLoss()
    total = loss(outputs_of(), loss.prepare(batch))
    assert float(total) == pytest.approx(expected["total"], rel=1e-5)
    scores = GroundingLoss(balance=0.0)
    assert float(scores(outputs_of(), scores.prepare(batch))) == pytest.approx(expected["kld_avg"], rel=1e-5)


def test_logits_loss_by_definition():
    """Binary cross entropy over all regions, summed, divided by the batch size."""
    batch = batch_of(0, 2, 3)
    logits, offsets = outputs_of()
    loss = GroundingLoss("bce", balance=0.0)
    targets = grounding_targets(batch, "bce")[0]
    assert set(targets.unique().tolist()) == {0.0, *np.float32([0.8, 0.9, 1.0]).tolist()}
    chances = logits.double().sigmoid()
    expected = -(targets * chances.log() + (1 - targets) * (1 - chances).log()).sum() / 3
    assert float(loss((logits, offsets), loss.prepare(batch))) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("scores_loss", ["kld", "bce"])
@pytest.mark.parametrize("cut", [1, 2])
def test_however_a_batch_is_cut_the_loss_is_the_same(scores_loss, cut):
    batch = batch_of(0, 2, 3)
    loss = GroundingLoss(scores_loss)
    prepared, outputs = loss.prepare(batch), outputs_of()
    total = 0.0
    for part in (slice(0, cut), slice(cut, 3)):
        rows = {name: value[part] for name, value in prepared.items()}
        total += float(loss(tuple(one[part] for one in outputs), rows)) * len(rows["label"]) / 3
    assert total == pytest.approx(float(loss(outputs, prepared)), rel=1e-6)


def test_numbers_are_those_of_all_ranks(monkeypatch):
    """Two ranks, with cases 0 and 2 and with case 3, give the loss of a single rank with all three."""
    loss, outputs = GroundingLoss(), outputs_of()
    whole = float(loss(outputs, loss.prepare(batch_of(0, 2, 3))))
    shares, total = ((slice(0, 2), batch_of(0, 2)), (slice(2, 3), batch_of(3))), 0.0
    sums = []
    for _, batch in shares:
        monkeypatch.setattr("models.mmnas.losses.sum_over_ranks", lambda own: sums.append(own) or own)
        loss.prepare(batch)
    monkeypatch.setattr("models.mmnas.losses.sum_over_ranks", lambda own: sum(sums))
    for rows, batch in shares:
        own = loss(tuple(one[rows] for one in outputs), loss.prepare(batch))
        total += float(own) * len(batch["label"]) / 3
    assert total == pytest.approx(whole, rel=1e-6)


@pytest.mark.parametrize("prepared", [True, False])
def test_no_positive_region_is_no_loss(prepared):
    """In this case the original divides 0 by 0 and destroys the weights."""
    batch, loss = batch_of(3), GroundingLoss()
    outputs = tuple(one[:1].clone().requires_grad_() for one in outputs_of())
    value = loss(outputs, loss.prepare(batch) if prepared else batch)
    value.backward()
    assert float(value.detach()) == 0 and all(not one.grad.any() and one.grad.isfinite().all() for one in outputs)


def test_boxes_without_area_do_not_spoil_the_targets():
    batch = {"boxes": torch.tensor([[[5.0, 5, 5, 5], [0, 0, 0, 0]]]), "counts": torch.tensor([1])}
    scores, _, positive = grounding_targets(batch | {"label": torch.tensor([[5.0, 5, 5, 5]])}, "kld", 0.5, "continuous")
    assert scores.tolist() == [[0, 0]] and not positive.any()


def test_evaluation_does_not_depend_on_the_batches():
    loss, outputs = GroundingLoss(), outputs_of()
    whole = float(loss(outputs, batch_of(0, 2, 3)))
    alone = [float(loss(tuple(one[i : i + 1] for one in outputs), batch_of(n))) for i, n in enumerate((0, 2, 3))]
    assert whole == pytest.approx(sum(alone) / 3, rel=1e-6)
    # A single sample is a complete batch.
    assert alone[0] == pytest.approx(float(loss(tuple(one[:1] for one in outputs), loss.prepare(batch_of(0)))))


def test_padding_changes_no_loss():
    """40 boxes in a batch of 40 or of 100: the scores of padding are too small to count, its targets are zero."""
    torch.manual_seed(0)
    head = GroundingHead(32, 0.0).eval()
    x, y = torch.randn(1, 3, 32), torch.randn(1, 40, 32)
    values = {}
    for length in (40, 100):
        padded, mask = F.pad(y, (0, 0, 0, length - 40)), torch.arange(length)[None] >= 40
        for scores_loss in ("kld", "bce"):
            head.scores_loss, loss = scores_loss, GroundingLoss(scores_loss)
            batch, outputs = batch_of(2, length=length), head(x, padded, None, mask)
            values.setdefault(scores_loss, []).append(loss(outputs, loss.prepare(batch)).item())
            torch.testing.assert_close(outputs[0][:, :40], head(x, y)[0])
    for short, long in values.values():
        assert short == pytest.approx(long, rel=1e-5) and np.isfinite(short)


def test_padding_counts_where_it_is_scored_as_in_the_original():
    torch.manual_seed(0)
    head = GroundingHead(32, 0.0, padded_regions="score").eval()
    ignoring = GroundingHead(32, 0.0).eval()
    ignoring.load_state_dict(head.state_dict())
    assert head.reads_padding and not ignoring.reads_padding and isinstance(head.proj_norm, LayerNorm)
    x, y, mask = torch.randn(2, 3, 32), torch.randn(2, 5, 32), torch.tensor([[False] * 3 + [True] * 2] * 2)
    scored, ignored = head(x, y, None, mask)[0], ignoring(x, y, None, mask)[0]
    torch.testing.assert_close(scored.exp().sum(1), torch.ones(2))
    torch.testing.assert_close(ignored[:, :3].exp().sum(1), torch.ones(2))
    assert (ignored[:, 3:] < -1e8).all() and (scored[:, 3:] > -20).all()
    # Without padding, both settings give the same result.
    for one, other in zip(head(x, y), ignoring(x, y), strict=True):
        assert torch.equal(one, other)


def test_offsets_are_in_deviations():
    """The ground truth is moved by half the box's width, and twice as high."""
    boxes = torch.tensor([[[0.0, 0.0, 9.0, 9.0]]])
    batch = {"boxes": boxes, "counts": torch.tensor([1]), "label": torch.tensor([[5.0, -5.0, 14.0, 14.0]])}
    offsets = grounding_targets(batch)[1][0, 0]
    expected = torch.tensor([0.5, 0.0, 0.0, np.log(2.0)]) / torch.tensor(STDS)
    torch.testing.assert_close(offsets, expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scores_loss", ["kld", "bce"])
@pytest.mark.parametrize("way", WAYS)
def test_a_positive_region_whose_features_are_zeros(scores_loss, way):
    """Network, relations, targets and loss use the same mask, so a region of zeros is treated like any other."""
    torch.manual_seed(0)
    encoder_decoder = EncoderDecoder.fixed(Architecture((("self_att_16",),), (("rel_self_att_16",),)), 32, 0.0)
    head = GroundingHead(32, 0.0, scores_loss=scores_loss, hidden=8)
    net = sped_up(MultimodalNet(encoder_decoder, head, (11, 6), region_size=9), way)
    boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 20, 49, 49], [0, 0, 0, 0]]])
    regions = torch.rand(1, 3, 9).masked_fill(torch.tensor([False, True, True])[None, :, None], 0.0)
    batch = {"regions": regions, "boxes": boxes, "counts": torch.tensor([2]), "tokens": torch.tensor([[3, 4]])}
    batch |= {"label": boxes[:, 1], "image_size": torch.tensor([[60.0, 60.0]])}
    loss = GroundingLoss(scores_loss)
    batch = loss.prepare(batch)
    assert batch["positive"].tolist() == [[False, True, False]]
    scores, offsets = net(batch)
    value = loss((scores, offsets), batch)
    value.backward()
    assert 0 < value < 20 and net.head.proj_reg.weight.grad.any()
    assert scores[0, 1] > -20 > scores[0, 2]
