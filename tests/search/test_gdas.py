"""GDAS in both spaces: the draws, the outputs of a drawn network, and the gradients of the logits."""

import re

import pytest
import torch

from engine.training import DivergedError
from models.bmnas.cells import FusionCell
from models.mmnas.encoder_decoder import EncoderDecoder
from search.choice import Choice
from search.gdas import GDAS
from search.loops import check_logits
from search.relaxation import ARCHITECTURE, WEIGHTS
from search.strategies import build_strategy
from util.cli import UserError

SIZES = {"steps": 2, "multiplier": 2, "node_steps": 2, "node_multiplier": 1}
C, L = 4, 3


class Logits(torch.nn.Module):
    """A space of one choice."""

    def __init__(self, values):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(values, dtype=torch.float64))
        rows = self.logits if self.logits.dim() == 1 else self.logits[0]
        self.choice = Choice("one", [f"op{k}" for k in range(len(rows))], self, "logits")

    def choices(self):
        return [self.choice]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def cell():
    torch.manual_seed(0)
    return FusionCell.mixed(3, C, L, 0.0, **SIZES).eval()


def encoder_decoder():
    torch.manual_seed(0)
    names = ("self_att_16", "guided_att_16", "feed_forward")
    sizes = {"num_enc": 2, "num_dec": 3, "enc_candidates": names[::2], "dec_candidates": names}
    return EncoderDecoder.searched(32, 0.0, **sizes).eval()


def test_frequencies_of_draws_are_the_probabilities():
    space = Logits([[1.0, 0.0, -1.0], [0.0, 2.0, 0.5]])
    gdas, draws = GDAS(generator()).attach(space), 4000
    counts = torch.zeros(2, 3, dtype=torch.float64)
    for _ in range(draws):
        gdas.draw(WEIGHTS)
        for row, active in enumerate(space.choice.drawn.active):
            counts[row, active] += 1
    # Five standard deviations of a frequency.
    assert (counts / draws - space.choice.probabilities()).abs().max() < 5 * 0.5 / draws**0.5


@pytest.mark.parametrize("temperature", [10.0, 0.7])
def test_gradient_is_the_softmax_jacobian_with_the_noise_held(temperature):
    """Agrees with finite differences of softmax((log p + G) / tau) . outputs, in float64, over the drawn candidate."""
    space = Logits([0.3, -1.0, 0.8, 0.1])
    gdas = GDAS(generator(3), temperature=(temperature, temperature)).attach(space)
    gdas.draw(ARCHITECTURE)
    outputs = torch.tensor([1.5, -2.0, 0.7, 3.0], dtype=torch.float64)
    candidates = [lambda k=k: outputs[k].view(1) for k in range(4)]
    out = gdas.combine(space.choice, candidates, space.logits)
    (active,) = space.choice.running()
    assert out.item() == outputs[active].item()
    out.sum().backward()
    (noise,) = gdas._noises["one"]

    def soft(logits):
        return (((logits.log_softmax(0) + noise) / temperature).softmax(0)[active] * outputs[active]).item()

    for k in range(4):
        step = torch.zeros(4, dtype=torch.float64).index_fill(0, torch.tensor([k]), 1e-6)
        expected = (soft(space.logits.detach() + step) - soft(space.logits.detach() - step)) / 2e-6
        assert space.logits.grad[k].item() == pytest.approx(expected, abs=1e-7)


def test_a_drawn_path_of_a_cell_computes_what_its_operations_do():
    """The forward pass uses the drawn edges and operations with weight one, and runs no other operation."""
    net = cell()
    gdas = GDAS(generator(1)).attach(net)
    features = [torch.randn(2, C, L, generator=generator(k)) for k in range(3)]
    for _ in range(5):
        gdas.draw(WEIGHTS)
        called = []
        hooks = [
            operation.register_forward_hook(lambda *args, key=(i, step, name), log=called: log.append(key))
            for i, node in enumerate(net.nodes)
            for step, operations in enumerate(node.ops)
            for name, operation in operations.items()
        ]
        out = net(features)
        for hook in hooks:
            hook.remove()
        expected = [
            (i, step, node.choice.candidates[active])
            for i, node in enumerate(net.nodes)
            for step, active in enumerate(node.choice.drawn.active)
        ]
        assert called == expected
        assert torch.equal(out, by_hand(net, features))


def by_hand(net, features):
    """The cell's output for drawn edges and operations: sums of the states whose edge is skip."""
    from torch.nn import functional as F

    skip_first = net.edges.choice.candidates.index("skip")

    def mixed(edges, states, step):
        start = sum(edges.counts[:step])
        drawn = edges.choice.drawn.active[start : start + edges.counts[step]]
        return sum(float(active == skip_first) * state for active, state in zip(drawn, states, strict=True))

    states = list(features)
    for step, node in enumerate(net.nodes):
        x = mixed(net.edges, states, step)
        inner = [x, x]
        for k, operations in enumerate(node.ops):
            y = mixed(node.edges, inner, k)
            inner.append(operations[node.choice.candidates[node.choice.drawn.active[k]]](y, y))
        states.append(node.norm(inner[-1] + x))
    return F.relu(net.norm(torch.cat(states[-net.multiplier :], dim=1))).flatten(1)


def test_a_drawn_path_of_an_encoder_decoder_is_its_fixed_network():
    net = encoder_decoder()
    gdas = GDAS(generator(2)).attach(net)
    x, y = torch.randn(2, 5, 32, generator=generator(7)), torch.randn(2, 4, 32, generator=generator(8))
    gdas.draw(ARCHITECTURE)
    drawn = {choice.key: torch.zeros(len(choice.candidates)) for choice in net.choices()}
    for choice in net.choices():
        drawn[choice.key][choice.running()[0]] = 1.0
    architecture = net.discretise(drawn)
    fixed = EncoderDecoder.fixed(architecture, 32, 0.0).eval()
    state = {}
    for key, value in net.state_dict().items():
        side, number, member, *rest = key.split(".")
        if rest[0] == "operations" and rest[1] == getattr(architecture, side)[int(number)][0]:
            state[".".join([side, number, member, *rest[2:]])] = value
    fixed.load_state_dict(state)
    found = net(x, y)
    for ours, theirs in zip(found, fixed(x, y), strict=True):
        assert torch.equal(ours, theirs)
    (found[0].pow(3).sum() + found[1].pow(3).sum()).backward()
    assert all(choice.logits.grad.any() and choice.gates.grad is None for choice in net.choices())


@pytest.mark.parametrize("make", [cell, encoder_decoder])
def test_equal_generators_draw_equal_paths_and_resume(make):
    first, second = make(), make()
    one, other = GDAS(generator(5)).attach(first), GDAS(generator(9)).attach(second)
    one.draw(WEIGHTS)
    other.load_state_dict(one.state_dict())
    for _ in range(3):
        one.draw(ARCHITECTURE)
        torch.rand(3)
        other.draw(ARCHITECTURE)
        assert [c.drawn for c in first.choices()] == [c.drawn for c in second.choices()]


def test_the_temperature_falls_linearly_and_cold_weights_are_one_hot():
    space = Logits([0.3, -1.0, 0.8, 0.1])
    gdas, seen = GDAS(generator(), temperature=(8.0, 2.0)).attach(space), []
    for epoch in range(4):
        gdas.begin_epoch(epoch, 4)
        seen.append(gdas.temperature)
    assert seen == [8.0, 6.0, 4.0, 2.0]
    gdas.begin_epoch(0, 1)
    assert gdas.temperature == 8.0


def test_decided_candidates_run_alone_and_give_no_gradient():
    net = cell()
    gdas = GDAS(generator()).attach(net)
    gdas.decide()
    for choice in net.choices():
        weights = gdas.weights(choice, choice.logits)
        assert not weights.requires_grad and torch.equal(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert torch.equal(weights.argmax(-1), choice.logits.argmax(-1))


def test_options_are_checked():
    gdas = build_strategy("gdas", None, 0, ["temperature=(5.0, 0.5)"])
    assert (gdas.first, gdas.last) == (5.0, 0.5)
    for option, message in (
        (
            "tau=3",
            r"gdas has no 'tau'; its options and defaults: temperature=\(10.0, 0.1\), gumbel_samples=1, pairs=False",
        ),
        ("temperature=hot", "expected a value like temperature="),
        ("temperature=(1.0,)", "expected 2 numbers"),
    ):
        with pytest.raises(UserError, match=message):
            build_strategy("gdas", None, 0, [option])
    with pytest.raises(UserError, match="the published strategy has no options"):
        build_strategy("published", None, 0, ["temperature=(5.0, 0.5)"])


@pytest.mark.parametrize(
    ("strategy", "option", "message"),
    [
        ("gdas", "temperature=(0,0)", "temperature=(0, 0): both temperatures must be greater than 0"),
        ("gdas", "temperature=(10,0)", "temperature=(10, 0): both temperatures must be greater than 0"),
        ("gdas", "temperature=(1e999,1)", "temperature=(1e999,1): expected 2 numbers"),
        ("gdas", "temperature=('a',1)", "temperature=('a',1): expected 2 numbers"),
        ("drnas", "kl=-1", "kl=-1: it must be at least 0"),
        ("drnas", "kl=1e999", "kl=1e999: expected a finite number"),
    ],
)
def test_options_out_of_range_are_named(strategy, option, message):
    with pytest.raises(UserError, match=re.escape(f"--strategy_option {message}")):
        build_strategy(strategy, None, 0, [option])


def test_logits_that_are_not_finite_end_the_search():
    check_logits([Logits([1.0, 2.0]).choice], epoch=3)
    with pytest.raises(DivergedError, match="the architecture logits of one are not finite after epoch 3"):
        check_logits([Logits([1.0, 2.0]).choice, Logits([1.0, float("nan")]).choice], epoch=3)
