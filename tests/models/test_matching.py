"""Matching: captions encoded once and images projected once give the scores of complete forward passes."""

import pytest
import torch

from models.mmnas.architecture import load_architecture
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.fast_layers import PaddedSide
from models.mmnas.heads import MatchingHead
from models.mmnas.matching import Captions, MatchingNet
from models.mmnas.net import MultimodalNet
from models.mmnas.published import from_published
from tests.mmnas_golden import ARCHITECTURES, PACKED, WAYS, Golden, filled, path_weights, sped_up
from tests.paths import draw

CONVOLUTION = ("sep_conv_3", "self_att_64")
UNIFIED = ("uniimg_att_64", "rel_self_att_64", "guided_att_64")


def build(architecture="mmnas_itm", way=PACKED, dropout=0.0, **searched):
    torch.manual_seed(1)
    if searched or architecture is None:
        encoder_decoder = EncoderDecoder.searched(64, dropout, num_enc=2, num_dec=4, start="uniform", **searched)
    else:
        encoder_decoder = EncoderDecoder.fixed(load_architecture(ARCHITECTURES / f"{architecture}.json"), 64, dropout)
    return sped_up(MatchingNet(encoder_decoder, MatchingHead(64, dropout), (30, 16), region_size=12), way)


def triples(size=3, regions=5, words=7):
    """A batch of training samples with uneven numbers of regions and words."""
    g = torch.Generator().manual_seed(3)
    counts = torch.randint(1, regions + 1, (size, 2), generator=g)
    counts[0, 0] = regions
    real = torch.arange(regions) < counts[..., None]
    corners = torch.rand(size, 2, regions, 2, generator=g) * 50
    boxes = torch.cat([corners, corners + 1 + torch.rand(size, 2, regions, 2, generator=g) * 50], -1) * real[..., None]
    lengths = torch.randint(1, words + 1, (size, 2), generator=g)
    lengths[0, 1] = words
    tokens = torch.randint(1, 30, (size, 2, words), generator=g) * (torch.arange(words) < lengths[..., None])
    features = torch.randn(size, 2, regions, 12, generator=g) * real[..., None]
    batch = {"regions": features, "boxes": boxes, "counts": counts, "tokens": tokens}
    return batch | {"label": torch.ones(size), "index": torch.arange(size)}


def pairs_of(batch, image, caption):
    """The batch of pairs that the original passes through its complete network."""
    found = {name: batch[name][:, image] for name in ("regions", "boxes", "counts")}
    return found | {"tokens": batch["tokens"][:, caption], "label": batch["label"]}


def whole(net, batch):
    """The three scores, from three complete forward passes."""
    passes = [MultimodalNet.forward(net, pairs_of(batch, *pair)) for pair in ((0, 0), (0, 1), (1, 0))]
    return torch.stack(passes, dim=1)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mmnas_itm", "mcan", "mmnas_vgd"])
def test_three_scores_and_gradients_are_those_of_three_passes(name, way):
    net, batch = build(name, way), triples()
    scores, expected = net(batch), whole(net, batch)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    assert scores.std() > 1e-3
    weights, parameters = torch.rand(3, 3, generator=torch.Generator().manual_seed(2)), path_weights(net)
    ours, theirs = (torch.autograd.grad((value * weights).sum(), parameters) for value in (scores, expected))
    for parameter, one, other in zip(parameters, ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * (1 + float(parameter.numel()) ** 0.5))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["single", "full", "two"])
def test_a_searched_network_gives_the_same_scores_and_gate_gradients(mode, way):
    net, batch = build(None, way), triples()
    draw(net, mode, torch.Generator().manual_seed(5))
    scores, expected = net(batch), whole(net, batch)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    if mode != "single":
        gates = [gated.alpha_gate for gated in net.encoder_decoder.gated()]
        for one, other in zip(*(torch.autograd.grad(value.sum(), gates) for value in (scores, expected)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("candidates", [{}, {"enc_candidates": CONVOLUTION, "dec_candidates": UNIFIED}])
def test_pairs_of_parts_encoded_at_different_times(candidates, way):
    net = build(None, way, **candidates).eval()
    draw(net, "single", torch.Generator().manual_seed(8))
    batch = {name: value.flatten(0, 1) for name, value in triples().items() if name not in ("label", "index")}
    first, last = net.encode(batch["tokens"][:2]), net.encode(batch["tokens"][2:])
    captions, images = Captions.joined([first, last]), net.project(batch)
    image, caption = torch.tensor([5, 0, 0, 3, 3]), torch.tensor([1, 1, 5, 0, 2])
    found = net.match(images, captions, image, caption)
    chosen = {name: value[image] for name, value in batch.items() if name != "tokens"}
    expected = MultimodalNet.forward(net, chosen | {"tokens": batch["tokens"][caption]})
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["mmnas_itm", "mcan"])
def test_several_images_of_each_caption(name, way):
    net = build(name, way).eval()
    batch = {key: value.flatten(0, 1) for key, value in triples().items() if key not in ("label", "index")}
    images, captions = net.project(batch), net.encode(batch["tokens"])
    image, caption = torch.tensor([[0, 3, 3], [5, 1, 0]]), torch.tensor([4, 1])
    expected = net.match(images, captions, image.flatten(), caption.repeat_interleave(3)).view(2, 3)
    torch.testing.assert_close(net.match(images, captions, image, caption), expected, rtol=0, atol=1e-6)
    net.train()  # the same without dropout, through the code that training uses
    torch.testing.assert_close(net.match(images, captions, image, caption), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_caption_without_words_is_scored_as_in_a_whole_forward(way):
    net, batch = build(way=way).eval(), pairs_of(triples(), 0, 0)
    batch["tokens"][1] = 0
    found = net.match(net.project(batch), net.encode(batch["tokens"]), torch.arange(3), torch.arange(3))
    torch.testing.assert_close(found, net(batch), rtol=0, atol=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_a_region_of_zeros_counts_in_every_way_of_scoring(way):
    net, batch = build(way=way), triples()
    own = batch["counts"][0, 0]
    batch["regions"][0, 0, own - 1] = 0.0
    mask = PaddedSide.of(net.project(pairs_of(batch, 0, 0)).mask).mask
    assert (~mask[0]).sum() == own
    scores = net(batch)
    torch.testing.assert_close(scores, whole(net, batch), rtol=0, atol=1e-6)
    fewer = batch | {"counts": batch["counts"].clone()}
    fewer["counts"][0, 0] -= 1
    assert (net(fewer)[0, :2] - scores[0, :2]).abs().min() > 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_the_released_network_by_its_fixture(way):
    golden = Golden("full_itm_mmnas_h128")
    plain, batch = golden.network(), golden.batch()
    net = MatchingNet(plain.encoder_decoder, plain.head, (40, 300))
    net.load_state_dict(from_published(filled(golden.spec["state_dict"])))
    net = sped_up(net.eval(), way)
    rows = torch.arange(len(batch["tokens"]))
    with torch.no_grad():
        golden.assert_output("out", net.match(net.project(batch), net.encode(batch["tokens"]), rows, rows))


@pytest.mark.parametrize("way", WAYS)
def test_reduced_precision_keeps_less_and_scores_the_same(way):
    net, batch = build(way=way).eval(), pairs_of(triples(), 0, 0)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        captions = net.encode(batch["tokens"])
        found = net.match(net.project(batch), captions, torch.arange(3), torch.arange(3))
        expected = net(batch)
    assert captions.states.dtype == torch.bfloat16 and found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-3)
