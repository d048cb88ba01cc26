"""A mixture that draws nothing, in both spaces: every candidate runs, or only the strongest."""

import torch

from models.bmnas.cells import FusionCell
from models.mmnas.encoder_decoder import EncoderDecoder
from search.mixture import SoftmaxMixture
from search.relaxation import ARCHITECTURE


def test_a_mixture_in_the_space_of_mmnas():
    torch.manual_seed(0)
    names = ("self_att_16", "feed_forward")
    space = EncoderDecoder.searched(32, 0.0, num_enc=1, num_dec=1, enc_candidates=names, dec_candidates=names).eval()
    mixture = SoftmaxMixture().attach(space)
    assert space.choices()[0].running() == (0, 1)
    words = torch.randn(2, 3, 32)
    gated = space.gated()[0]
    outputs = [operation(words) for operation in gated.operations.values()]
    weights = gated.alpha_logits.softmax(0)
    torch.testing.assert_close(space.encode(words), weights[0] * outputs[0] + weights[1] * outputs[1])
    mixture.decide()
    torch.testing.assert_close(space.encode(words), outputs[int(gated.alpha_logits.argmax())])
    mixture.draw(ARCHITECTURE)
    space.encode(words).sum().backward()
    assert gated.alpha_logits.grad.abs().sum() > 0


def test_the_published_mixture_keeps_every_candidate():
    cell = FusionCell.mixed(3, 4, 3, 0.0, steps=1, multiplier=1, node_steps=2, node_multiplier=1)
    mixture = SoftmaxMixture().attach(cell)
    mixture.draw(ARCHITECTURE)
    assert all(choice.drawn is None for choice in cell.choices())
