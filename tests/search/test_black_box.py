"""Black-box strategies, without training anything: proposals, mutations, aging, objectives."""

import math
import random
from types import SimpleNamespace

import pytest

from models.bmnas.genotype_space import FusionSpace
from models.genotypes import ordered_eligible_pairs
from search.black_box import BlackBox, Evolution, RandomTrainings
from search.pareto import crowding_distances, dominates, ranks, sorted_fronts
from search.strategies import BLACK_BOXES, black_box_class, black_box_of, build_strategy, check_black_box
from util.cli import UserError

SIZES = {"steps": 3, "multiplier": 2, "node_steps": 2, "node_multiplier": 1}
OPERATIONS = ("Sum", "ConcatFC", "LinearGLU")


def space(**changed):
    return FusionSpace(OPERATIONS, 5, SIZES, **changed)


class Numbers:
    """The space of integers; a mutation adds or subtracts 1, or changes nothing."""

    def __init__(self, mutation=True, most=1000):
        self.mutation, self.most = mutation, most

    def sample(self, rng):
        return rng.randrange(self.most)

    def mutate(self, rng, genotype):
        return genotype + rng.choice((-1, 1)) if self.mutation else genotype


def run(black_box, trainings, score=lambda number: (-abs(number - 500.0),)):
    for _ in range(trainings):
        number = black_box.ask()
        black_box.tell(number, score(number))
    return [told.genotype for told in black_box.history]


def changes(before, after):
    """Numbers of edges, operations and inner edges in which two genotypes differ."""
    pairs = [zip(before.edges, after.edges, strict=True)]
    operations, inner = [], []
    for one, other in zip(before.steps, after.steps, strict=True):
        operations += zip(one.inner_steps, other.inner_steps, strict=True)
        inner += zip(one.inner_edges, other.inner_edges, strict=True)
    return tuple(sum(a != b for a, b in found) for found in (pairs[0], operations, inner))


@pytest.mark.parametrize("chain", [False, True])
def test_a_mutation_changes_one_decision_and_stays_in_the_space(chain):
    own, seen = space(chain=chain), set()
    for seed in range(60):
        rng = random.Random(seed)
        before = own.sample(rng)
        after = own.mutate(rng, before)
        after.check(OPERATIONS, 5)
        edges, operations, inner = changes(before, after)
        assert (edges, operations, inner).count(0) == 2
        seen.add((bool(edges), bool(operations)))
        # One edge changes, which may swap the order of its pair; the inner edges of a first step are swapped.
        before_pairs, after_pairs = (
            [(g.edges[2 * k][1], g.edges[2 * k + 1][1]) for k in range(3)] for g in (before, after)
        )
        moved = [set(a) ^ set(b) for a, b in zip(before_pairs, after_pairs, strict=True) if a != b]
        assert len(moved) == bool(edges) and all(len(states) == 2 for states in moved)
        assert operations <= 1 and inner <= 2
        for step, pair in enumerate(after_pairs):
            assert pair in ordered_eligible_pairs(5, step, after_pairs[:step], chain)
    assert seen == {(True, False), (False, True), (False, False)}


def test_mutations_reach_the_whole_space():
    small = FusionSpace(("Sum", "ConcatFC"), 3, {"steps": 1, "multiplier": 1, "node_steps": 1, "node_multiplier": 1})
    rng, genotype = random.Random(0), small.sample(random.Random(1))
    seen = {str(genotype)}
    for _ in range(300):
        genotype = small.mutate(rng, genotype)
        seen.add(str(genotype))
    assert len(seen) == 3 * 2 * 2  # pairs of features, operations, orders


def test_nothing_to_change_is_no_mutation():
    sizes = {"steps": 1, "multiplier": 1, "node_steps": 1, "node_multiplier": 1}
    only = FusionSpace(("Sum",), 2, sizes)
    assert only.mutate(random.Random(0), only.sample(random.Random(0))).edges == (("skip", 0), ("skip", 1))


def test_without_mutation_the_best_of_the_first_population_wins():
    for seed in range(5):
        evolution = Evolution(Numbers(mutation=False), seed, population=8, tournament=3)
        found = run(evolution, 60)
        first = found[:8]
        assert set(found) == set(first) and len(found) == 60
        assert max(evolution.history, key=lambda told: told.values).genotype == min(first, key=lambda n: abs(n - 500))


def test_evolution_improves_and_a_random_search_does_not_move():
    evolved = run(Evolution(Numbers(), 3, population=6, tournament=4), 200)
    drawn = run(RandomTrainings(Numbers(), 3), 200)
    assert evolved[:6] == drawn[:6]  # the first population is that of random search

    def distance(numbers):
        return sum(abs(number - 500) for number in numbers[-50:])

    assert distance(evolved) < 0.2 * distance(drawn)


def test_the_oldest_leaves_even_if_it_is_the_best():
    evolution = Evolution(Numbers(mutation=False, most=10**9), 0, population=2, tournament=2)
    for number, value in ((1, 9.0), (2, 1.0), (3, 2.0)):
        evolution.tell(number, (value,))
    assert evolution.ask() == 3  # the better of 2 and 3


def test_a_genotype_is_trained_once_while_there_are_others():
    found = run(RandomTrainings(Numbers(most=20), 0), 15)
    assert len(set(found)) == 15
    assert len(run(RandomTrainings(Numbers(most=2), 0), 5)) == 5


def test_what_is_proposed_depends_on_seed_and_history_alone():
    one, other, third = (Evolution(space(), seed, population=3, tournament=2) for seed in (0, 0, 1))
    for number in range(8):
        proposed = one.ask()
        assert one.ask() == proposed == other.ask()
        random.random()
        one.tell(proposed, (float(number % 3),))
        other.tell(proposed, (float(number % 3),))
    resumed = Evolution(space(), 0, population=3, tournament=2)
    for told in one.history:
        resumed.tell(*told)
    assert resumed.ask() == one.ask()
    assert third.ask() != Evolution(space(), 0).ask()


def test_fronts_and_crowding():
    values = [(1.0, 5.0), (2.0, 4.0), (3.0, 1.0), (1.0, 4.0), (2.0, 4.0), (0.0, 0.0)]
    assert dominates((2.0, 4.0), (1.0, 4.0)) and not dominates((2.0, 4.0), (2.0, 4.0))
    assert sorted_fronts(values) == [[0, 1, 2, 4], [3], [5]]
    line = [(0.0, 4.0), (1.0, 3.0), (3.0, 1.0), (4.0, 0.0)]
    assert crowding_distances(line) == [math.inf, 1.5, 1.5, math.inf]
    assert crowding_distances([(-math.inf, 1.0), (-math.inf, 1.0)]) == [math.inf, math.inf]
    keys = ranks(values)
    assert max(range(6), key=keys.__getitem__) in (0, 2) and min(range(6), key=keys.__getitem__) == 5
    assert ranks([(3.0,), (1.0,)]) == [(3.0,), (1.0,)] and ranks([]) == []


def test_with_two_objectives_the_parent_is_of_the_front():
    """1 has the best score; 2 is the younger of the front's ends, which are least crowded; 4 is dominated."""
    told = {1: (1.0, -10.0), 3: (0.95, -5.0), 2: (0.9, -1.0), 4: (0.8, -20.0)}
    for objectives, parent in ((1, 1), (2, 2)):
        evolution = Evolution(Numbers(mutation=False), 0, population=4, tournament=4)
        for number, values in told.items():
            evolution.tell(number, values[:objectives])
        assert evolution.ask() == parent


def test_flags_of_the_other_kind_of_search_are_refused():
    sizes = {"budget": 4, "training_epochs": 3, "population": 3, "tournament": 2, "epochs": 30}
    args = SimpleNamespace(strategy="evolution", **sizes)
    check_black_box(args, {"budget": 4})
    assert args.epochs == 12
    with pytest.raises(UserError, match=r"--epochs: --strategy evolution trains candidates.*--training_epochs"):
        check_black_box(args, {"epochs": 3})
    with pytest.raises(UserError, match="--tournament 4 is more than the --population of 3"):
        check_black_box(SimpleNamespace(**{**vars(args), "tournament": 4}), {})
    with pytest.raises(UserError, match="--budget is for --strategy evolution and random, not for gdas"):
        check_black_box(SimpleNamespace(**{**vars(args), "strategy": "gdas"}), {"budget": 4})
    assert sorted(BLACK_BOXES) == ["evolution", "random"]


class Own(BlackBox):
    """A user's own strategy; tests name it module:Class."""

    def __init__(self, space, seed, tournament=1):
        super().__init__(space, seed)
        self.tournament = tournament


def test_a_strategy_of_ones_own_is_told_from_a_relaxation():
    assert black_box_class(f"{__name__}:Own") is Own and black_box_class("evolution") is Evolution
    assert not any(black_box_class(name) for name in ("published", "gdas", "search.gdas:GDAS"))
    sizes = {"budget": 4, "training_epochs": 3, "population": 9, "tournament": 2, "epochs": 30, "seed": 0}
    args = SimpleNamespace(strategy=f"{__name__}:Own", **sizes)
    check_black_box(args, {"budget": 4})
    assert args.epochs == 12 and black_box_of(args, Numbers(mutation=False)).tournament == 2
    with pytest.raises(UserError, match="trains candidates one by one, which this script does not"):
        build_strategy(args.strategy, Evolution, 0)
