"""Gated operations: which candidates run, the gradients of the gates, and how paths are drawn."""

import math

import pytest
import torch

from models.mmnas.architecture import Architecture
from models.mmnas.encoder_decoder import EncoderDecoder
from models.mmnas.space import DECODER_CANDIDATES, ENCODER_CANDIDATES, GatedOperation
from search.derive import argmax
from search.gates import SampledGates
from tests.mmnas_golden import active_operations
from tests.paths import active_of, draw, gates_of, set_path
from util.cli import UserError

torch.set_num_threads(1)
NAMES = ("self_att_16", "guided_att_16", "feed_forward", "skip_connect")


def gated(names=NAMES, alphas=None):
    torch.manual_seed(0)
    operation = GatedOperation(names, 32, 0.0)
    if alphas is not None:
        operation.alpha_logits.data = torch.tensor(alphas)
    return operation


def inputs():
    g = torch.Generator().manual_seed(1)
    return torch.randn(2, 5, 32, generator=g), torch.randn(2, 4, 32, generator=g)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def small(**options):
    torch.manual_seed(0)
    candidates = {"enc_candidates": ("self_att_16", "feed_forward"), "dec_candidates": NAMES}
    return EncoderDecoder.searched(32, 0.0, num_enc=2, num_dec=3, **{**candidates, **options})


@pytest.mark.parametrize(
    ("mode", "inactive", "involved"), [("single", (), [2]), ("full", (), [0, 1, 2, 3]), ("two", (1,), [1, 2])]
)
def test_only_involved_candidates_run_and_the_active_one_gives_the_value(mode, inactive, involved):
    operation, (x, y) = gated(), inputs()
    called = []
    for k, name in enumerate(NAMES):
        operation.operations[name].register_forward_hook(lambda *args, k=k: called.append((k, torch.is_grad_enabled())))
    set_path(operation.choice, mode, 2, inactive)
    out = operation(x, y)
    assert sorted(k for k, _ in called) == involved
    # The other candidates build no graph.
    assert all(with_graph == (k == 2) for k, with_graph in called)
    assert torch.equal(out, operation.operations[NAMES[2]](x, y))


@pytest.mark.parametrize(("mode", "inactive"), [("full", ()), ("two", (3,))])
def test_gate_gradients_are_those_of_the_weighted_sum(mode, inactive):
    """The definition by autograd: sum_k gate_k o_k with gate = 1 for the active one, inactive outputs detached."""
    operation, (x, y) = gated(), inputs()
    x.requires_grad_()
    set_path(operation.choice, mode, 1, inactive)
    operation(x, y).pow(3).sum().backward()
    involved = [1, *operation.choice.running()[1:]]
    gates = torch.zeros(4).index_fill(0, torch.tensor([1]), 1.0).requires_grad_()
    other = x.detach().clone().requires_grad_()
    outputs = {k: operation.operations[NAMES[k]](other, y) for k in involved}
    weights = list(operation.operations.parameters())
    total = sum(gates[k] * (out if k == 1 else out.detach()) for k, out in outputs.items())
    expected = torch.autograd.grad(total.pow(3).sum(), [gates, other, *weights], allow_unused=True)
    torch.testing.assert_close(operation.alpha_gate.grad, expected[0])
    torch.testing.assert_close(x.grad, expected[1])
    for weight, gradient in zip(weights, expected[2:], strict=True):
        assert (weight.grad is None) == (gradient is None)
        if gradient is not None:
            torch.testing.assert_close(weight.grad, gradient)
    assert operation.alpha_logits.grad is None


@pytest.mark.parametrize(("mode", "inactive"), [("full", ()), ("two", (3,))])
def test_alpha_gradient_is_that_of_gates_drawn_from_a_softmax(mode, inactive):
    """d/dalpha of sum_j g_j p_j(alpha) by autograd, over the involved candidates, is added to the gradient."""
    operation = gated(alphas=[0.3, -1.0, 0.8, 0.1])
    set_path(operation.choice, mode, 1, inactive)
    gates = torch.tensor([2.0, -3.0, 0.5, 4.0])
    operation.alpha_gate.grad = gates.clone()
    involved = sorted([1, *operation.choice.running()[1:]])
    alphas = operation.alpha_logits.detach().clone().requires_grad_()
    (alphas[involved].softmax(0) * gates[involved]).sum().backward()
    gates_of(operation.choice).finish_backward()
    torch.testing.assert_close(operation.alpha_logits.grad, alphas.grad)
    gates_of(operation.choice).finish_backward()
    torch.testing.assert_close(operation.alpha_logits.grad, 2 * alphas.grad)


def test_alpha_gradient_needs_gate_gradients():
    with pytest.raises(RuntimeError, match="run backward"):
        gates_of(gated().choice).finish_backward()


def test_rescale_keeps_the_others_probabilities():
    operation = gated(alphas=[0.3, -1.0, 0.8, 0.1])
    before, gates = operation.choice.probabilities(), gates_of(operation.choice, mode="two")
    set_path(operation.choice, "two", 1, (3,))
    operation.alpha_gate.grad = torch.ones(4)
    gates.finish_backward()
    operation.alpha_logits.data[[1, 3]] += torch.tensor([0.4, -0.2])
    gates.finish_step()
    after = operation.choice.probabilities()
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]])
    torch.testing.assert_close(after[1] / after[3], before[1] / before[3] * math.exp(0.6))
    gates.finish_step()
    torch.testing.assert_close(operation.choice.probabilities(), after)


def test_full_needs_no_rescale():
    operation = gated(alphas=[0.3, -1.0, 0.8, 0.1])
    set_path(operation.choice, "full", 1)
    operation.alpha_gate.grad, gates = torch.ones(4), gates_of(operation.choice)
    gates.finish_backward()
    operation.alpha_logits.data += 1.0
    gates.finish_step()
    torch.testing.assert_close(operation.alpha_logits.data, torch.tensor([1.3, 0.0, 1.8, 1.1]))


class TestSampling:
    ALPHAS = (1.0, 0.0, -1.0, 0.5)

    @pytest.mark.parametrize("mode", ["single", "full"])
    def test_active_follows_the_probabilities(self, mode):
        operation, g, draws = gated(alphas=self.ALPHAS), generator(), 4000
        counts = torch.zeros(4)
        for _ in range(draws):
            draw(operation.choice, mode, g)
            active, *inactive = operation.choice.running()
            counts[active] += 1
            assert inactive == ([] if mode == "single" else sorted({0, 1, 2, 3} - {active}))
        # Five standard deviations of a frequency.
        assert (counts / draws - operation.choice.probabilities()).abs().max() < 5 * 0.5 / draws**0.5

    def test_two_draws_a_pair_then_the_active_one_of_it(self):
        operation, g, draws = gated(alphas=self.ALPHAS), generator(), 4000
        p = operation.choice.probabilities().tolist()
        counts = torch.zeros(4, 4)
        for _ in range(draws):
            draw(operation.choice, "two", g)
            active, other = operation.choice.running()
            counts[active, other] += 1
        expected = torch.zeros(4, 4)
        for a in range(4):
            for b in set(range(4)) - {a}:
                pair = p[a] * p[b] / (1 - p[a]) + p[b] * p[a] / (1 - p[b])
                expected[a, b] = pair * p[a] / (p[a] + p[b])
        assert (counts / draws - expected).abs().max() < 5 * 0.5 / draws**0.5

    def test_extreme_alphas(self):
        operation = gated(alphas=[300.0, 0.0, -300.0, 0.0])
        draw(operation.choice, "two", generator())
        active, other = operation.choice.running()
        assert active == 0 and other in (1, 3)

    def test_a_single_candidate(self):
        operation, (x, y) = gated(("feed_forward",)), inputs()
        for mode in ("single", "full", "two"):
            draw(operation.choice, mode, generator())
            assert torch.equal(operation(x, y), operation.operations["feed_forward"](x, y))

    def test_equal_generators_draw_equal_paths_whatever_else_is_drawn(self):
        first, second = small(), small()
        a, b = generator(5), generator(5)
        seen = set()
        for step in range(20):
            mode = ("single", "full", "two")[step % 3]
            draw(first, mode, a)
            torch.rand(step)
            draw(second, mode, b)
            assert [choice.drawn for choice in first.choices()] == [choice.drawn for choice in second.choices()]
            seen.add(tuple(active_of(first)))
        assert len(seen) > 10

    def test_state_is_that_of_the_instance(self):
        first, second = gated(), gated()
        set_path(first.choice, "full", 3)
        assert second.choice.running() == (0,) and not second.choice.drawn.gated


def test_unknown_mode_and_candidates_named_twice():
    with pytest.raises(ValueError, match="'full_v2' is not one of full, two"):
        SampledGates(mode="full_v2")
    with pytest.raises(ValueError, match="named twice"):
        gated(("feed_forward", "feed_forward"))


class TestEncoderDecoder:
    def test_start_prefers_an_mcan_like_network(self):
        net = small()
        enc, dec = net.probabilities()["encoder"], net.probabilities()["decoder"]
        assert [max(row, key=row.get) for row in enc.values()] == ["self_att_16", "feed_forward"]
        assert [max(row, key=row.get) for row in dec.values()] == ["self_att_16", "guided_att_16", "feed_forward"]
        e = math.e
        assert enc["block 1"]["self_att_16"] == pytest.approx(e / (e + 1 / e))
        assert dec["block 2"]["guided_att_16"] == pytest.approx(e / (e + 3 / e))

    def test_uniform_start(self):
        assert not any(choice.logits.any() for choice in small(start="uniform").choices())
        with pytest.raises(ValueError, match="neither mcan nor uniform"):
            small(start="normal")

    def test_a_family_without_candidates_starts_undecided(self):
        net = small(dec_candidates=("feed_forward", "skip_connect"))
        assert [bool(choice.logits.any()) for choice in net.choices()] == [True, True, False, False, True]

    def test_searched_and_fixed_agree(self):
        """The chosen path computes what the fixed network of its architecture computes with the same weights."""
        net = small()
        for choice in net.choices():
            size = len(choice.candidates)
            choice.logits.data = torch.randn(size, generator=generator(size))
        gates_of(*net.choices()).decide()
        architecture = argmax(net)
        fixed = EncoderDecoder.fixed(architecture, 32, 0.0)
        state = {}
        for key, value in net.state_dict().items():
            side, number, member, *rest = key.split(".")
            if rest[0] == "operations" and rest[1] == getattr(architecture, side)[int(number)][0]:
                state[".".join([side, number, member, *rest[2:]])] = value
        fixed.load_state_dict(state)
        x, y = inputs()
        for ours, theirs in zip(net(x, y), fixed(x, y), strict=True):
            assert torch.equal(ours, theirs)
        assert fixed.gated() == [] and fixed.probabilities() == {} and argmax(fixed) == architecture

    def test_operations_of_a_block_are_summed(self):
        block = ("self_att_16", "feed_forward")
        net = EncoderDecoder.fixed(Architecture((block,), (("guided_att_16",),)), 32, 0.0)
        x, y = inputs()
        encoded, decoded = net(x, y)
        torch.testing.assert_close(encoded, net.enc[0][0](x) + net.enc[0][1](x))
        torch.testing.assert_close(decoded, net.dec[0][0](y, encoded))
        assert argmax(net).enc == (block,)

    def test_the_decoder_sees_the_final_words(self):
        net = small(start="uniform")
        seen = []
        for block in net.dec:
            block.register_forward_pre_hook(lambda module, args: seen.append(args[1]))
        x, y = inputs()
        encoded, _ = net(x, y)
        assert len(seen) == 3 and all(words is encoded for words in seen)

    def test_gradients_of_all_blocks(self):
        net, (x, y) = small(), inputs()
        gates = draw(net, "full", generator(3))
        out = net(x, y)
        (out[0].pow(3).sum() + out[1].pow(3).sum()).backward()
        gates.finish_backward()
        assert all(choice.logits.grad.any() for choice in gates.choices)
        assert (
            len(gates.choices) == 5 and len(net.running()) == 2 * 2 + 3 * 4 and len(list(active_operations(net))) == 5
        )

    @pytest.mark.parametrize("name", ["guided_att_16", "rel_self_att_16"])
    def test_the_encoder_takes_no_operation_that_needs_regions(self, name):
        with pytest.raises(UserError, match=f"{name} needs regions"):
            small(enc_candidates=(name,))

    def test_published_candidates_by_default(self):
        net = EncoderDecoder.searched(64, 0.0, num_enc=1, num_dec=1)
        assert [gated.names for gated in net.gated()] == [ENCODER_CANDIDATES, DECODER_CANDIDATES]
        assert net.can_use_relation and not net.depends_on_padding
