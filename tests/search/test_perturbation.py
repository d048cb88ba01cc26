"""Perturbation-based selection: closed forms on linear supernets, dead operations, coordinate search, continuation."""

import json
from types import SimpleNamespace

import pytest
import torch

from search.choice import Choice
from search.derive import FILE_NAME, Derivation
from search.drnas import DrNAS
from search.gates import SampledGates
from search.gdas import GDAS
from search.perturbation import perturbation
from search.random_shared import RandomShared
from search.relaxation import WEIGHTS, SoftmaxMixture
from tests.search.small_spaces import cell, drawn_genotype, encoder_decoder, features, found_cell, generator


class Linear(torch.nn.Module):
    """Rows of candidates with constant outputs; the output of the network is the sum over the rows."""

    def __init__(self, logits, outputs):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor(logits))
        self.outputs = torch.tensor(outputs)
        self.choice = Choice("one", [f"op{k}" for k in range(self.logits.shape[1])], self, "logits")

    def choices(self):
        return [self.choice]

    def discretise(self, scores):
        return scores["one"].argmax(-1).tolist()

    def score(self):
        total = 0.0
        for row, outputs in enumerate(self.outputs):
            candidates = [lambda o=o: o.view(1) for o in outputs]
            total += self.choice.relaxation.combine(self.choice, candidates, self.logits, row=row)
        return (total.item(),)


@pytest.mark.parametrize("make", [lambda: SoftmaxMixture(), lambda: DrNAS(generator())])
def test_on_a_linear_supernet_the_largest_weighted_output_is_kept(make):
    """Masking candidate k lowers the score by w_k o_k, whose maximum need not have the largest logit or output."""
    space = Linear([[1.0, 0.0, -2.0], [0.0, 0.0, 0.0]], [[1.0, 4.0, 5.0], [1.0, 3.0, 2.0]])
    mixture = make().attach(space)
    found, visits = perturbation(space, mixture, space.score, generator())
    assert found == [1, 1] and len(visits) == 2 and space.choice.relaxation is mixture
    weights = space.choice.probabilities()
    assert found == (weights * space.outputs).argmax(-1).tolist()


def test_the_visits_tell_the_closed_form_loss():
    space = Linear([[0.5, 0.0]], [[1.0, 4.0]])
    found, (visit,) = perturbation(space, SoftmaxMixture().attach(space), space.score, generator())
    p = space.choice.probabilities()[0]
    whole = (p * torch.tensor([1.0, 4.0])).sum()
    assert found == [1] and visit == f"one row 0: op1 ({whole:.4f} with all, {p[0]:.4f} without)"


@pytest.mark.parametrize("kind", [SoftmaxMixture, GDAS])
def test_a_dead_operation_is_never_kept_where_one_lives(kind):
    """The outputs of all operations that are not dead lower the score."""
    space = Linear([[5.0, 0.0, 0.0]], [[0.0, -1.0, -2.0]])
    relaxation = kind(generator()).attach(space)
    assert perturbation(space, relaxation, space.score, generator())[0] == [1]
    dead = Linear([[0.0, 1.0]], [[0.0, 0.0]])
    assert perturbation(dead, SoftmaxMixture().attach(dead), dead.score, generator())[0][0] in (0, 1)


def test_of_one_candidate_it_is_kept():
    space = Linear([[0.0], [0.0]], [[1.0], [0.0]])
    assert perturbation(space, SoftmaxMixture().attach(space), space.score, generator())[0] == [0, 0]


def loss_of(net, target=0.3):
    """A smooth score of a cell."""
    with torch.no_grad():
        return (-float((net(features()) - target).pow(2).mean()),)


def test_a_mixture_of_a_cell_keeps_what_scored_best_without_its_rivals():
    net = cell()
    mixture = SoftmaxMixture().attach(net)
    found, visits = perturbation(net, mixture, lambda: loss_of(net), generator(1))
    assert len(visits) == 2 * 2 + 2 + 2 * 2, "operations, pairs of the cell, pairs of the steps"
    assert found.steps[0].inner_steps[0] in net.nodes[0].choice.candidates
    again, _ = perturbation(net, mixture, lambda: loss_of(net), generator(1))
    assert again == found
    found_cell(net, found)(features())


@pytest.mark.parametrize("options", [{"pairs": True}, {}, None])
def test_coordinate_search_scores_the_network_that_it_derives(options):
    net = cell(steps=3)
    made = RandomShared(generator(2)) if options is None else GDAS(generator(2), **options)
    made.attach(net).draw(WEIGHTS)
    found, visits = perturbation(net, made, lambda: loss_of(net), generator(4))
    assert found == drawn_genotype(net) and len(visits) == 3 + 3 * 2 + 3 * 2
    torch.testing.assert_close(net(features()), found_cell(net, found)(features()), rtol=0, atol=0)


def test_coordinate_search_improves_a_network_of_single_paths():
    net = encoder_decoder()
    SampledGates(generator()).attach(net)
    x, y = torch.randn(2, 5, 32, generator=generator(7)), torch.randn(2, 4, 32, generator=generator(8))

    def score():
        with torch.no_grad():
            return (-float(net(x, y)[1].pow(3).sum()),)

    before = score()
    gates = SampledGates(generator()).attach(net)
    found, visits = perturbation(net, gates, score, generator())
    assert score() > before and len(visits) == 5
    assert [block[0] for block in (*found.enc, *found.dec)] == [
        choice.candidates[choice.drawn.active[0]] for choice in net.choices()
    ]


class Interrupted(Exception):
    pass


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.space = cell()

    def __getattr__(self, name):
        return getattr(self.space, name) if name in ("choices", "relax", "discretise") else super().__getattr__(name)

    def forward(self, x):
        return self.space(x)


@pytest.mark.parametrize("strategy", [lambda: SoftmaxMixture(), lambda: RandomShared(generator(5), draws=6)])
def test_an_interrupted_derivation_goes_on_to_the_same_architecture(tmp_path, strategy):
    def derive(folder, limit=None):
        net, calls = Net(), []
        relaxation = strategy().attach(net)
        relaxation.name = "some"

        def scorer(scored):
            if len(calls) == limit:
                raise Interrupted
            calls.append(1)
            return {"accuracy": 0.5, "loss": -loss_of(scored)[0]}

        run = SimpleNamespace(folder=folder, epoch=3, write=lambda name, text: (folder / name).write_text(text))
        best = {"net": net.state_dict(), "epoch": 2}
        found, told = Derivation("perturbation", scorer, "accuracy", 1)(run, net, relaxation, best)
        return found, told, len(calls)

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, told, count = derive(tmp_path / "a")
    with pytest.raises(Interrupted):
        derive(tmp_path / "b", limit=20)
    assert len(json.loads((tmp_path / "b" / FILE_NAME).read_text())["scores"]) == 20
    again, told_again, rest = derive(tmp_path / "b")
    assert again == whole and told_again == told and rest == count - 20 and told["scored"] == count
