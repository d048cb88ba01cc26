"""A mixture that draws nothing, in both spaces: every candidate runs, or only the strongest."""

import pytest
import torch

from models.bmnas.cells import FusionCell
from models.mmnas.encoder_decoder import EncoderDecoder
from search.drnas import DrNAS
from search.gates import SampledGates
from search.gdas import GDAS
from search.random_shared import RandomShared
from search.relaxation import ARCHITECTURE, WEIGHTS, SoftmaxMixture
from search.second_order import SecondOrder


class Sharper(SoftmaxMixture):
    """One of a user's own, which draws nothing either."""

    def weights(self, choice, logits):
        return (2 * logits).softmax(-1)


@pytest.mark.parametrize("kind", [SoftmaxMixture, Sharper, SecondOrder, DrNAS, SampledGates, GDAS, RandomShared])
def test_whether_every_candidate_runs_is_what_runs_in_a_step(kind):
    cell = FusionCell.mixed(3, 4, 3, 0.0, steps=1, multiplier=1, node_steps=1, node_multiplier=1)
    if kind is SampledGates:  # its choices have one row, and gates
        cell = EncoderDecoder.searched(64, 0.0, num_enc=1, num_dec=1)
    strategy = kind(torch.Generator().manual_seed(0)).attach(cell)
    strategy.draw(WEIGHTS)
    running = [len(choice.running()) == len(choice.candidates) for choice in cell.choices()]
    assert strategy.runs_all == all(running) == any(running)
    assert cell.uses_all_weights() == strategy.runs_all if kind is not SampledGates else True


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
