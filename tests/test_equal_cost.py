"""The random search of equal cost, on tables that can be counted by hand."""

import itertools
import statistics

import pytest

from benchmarks.equal_cost import at_least_one, best_of, chance, expected, p_text, sign_flip, trainings_text

# (dev, test) of five networks; two are equal on dev.
FIVE = [(3, 15), (1, 10), (4, 5), (2, 20), (3, 25)]


def expected_of(trainings):
    return expected(best_of(FIVE, trainings))


def test_a_random_search_on_five_networks_by_hand():
    assert expected_of(1) == pytest.approx((15 + 10 + 5 + 20 + 25) / 5)
    # Of ten pairs four have the best network, in five others a network with dev 3 is taken, in one that with dev 2.
    assert best_of(FIVE, 2) == pytest.approx({5: 0.4, 15: 0.25, 25: 0.25, 20: 0.1})
    assert expected_of(4) == pytest.approx((4 * 5 + 1 * 20) / 5)
    assert expected_of(5) == expected_of(5.5) == expected_of(100) == 5


def test_all_orders_of_trainings_are_counted():
    for count in range(1, 6):
        orders = itertools.permutations(FIVE, count)
        assert expected_of(count) == pytest.approx(
            statistics.mean(max(order, key=lambda one: one[0])[1] for order in orders)
        )


def test_a_part_of_a_training_is_a_chance_of_one_more():
    assert expected_of(1.25) == pytest.approx(0.75 * expected_of(1) + 0.25 * expected_of(2))
    assert sum(best_of(FIVE, 2.7).values()) == pytest.approx(1)
    for count in (2, 3, 4, 5):
        for near in (count - 1e-9, count + 1e-9):
            assert expected_of(near) == pytest.approx(expected_of(count), abs=1e-6)


def test_a_search_costs_at_least_a_training():
    assert [at_least_one(cost) for cost in (1.4, 0.8, 0, None)] == [1.4, 1, 1, 1]
    for wrong in ((FIVE, 0.9), ([], 1)):
        with pytest.raises(ValueError, match="at least one"):
            best_of(*wrong)


def test_p_is_the_chance_that_random_searches_are_together_as_good():
    coin, good = {0: 0.5, 1: 0.5}, {0: 0.25, 1: 0.75}
    assert chance([1, 1, 1], [coin] * 3, 1) == chance([0, 0, 0], [coin] * 3, 1) == 2 / 8
    assert chance([1, 0], [coin] * 2, 1) == 1
    # Random searches that are mostly good: being above their mean says little, which the signs alone do not see.
    assert chance([1, 1, 1], [good] * 3, 1) == pytest.approx(2 * 0.75**3) and sign_flip([0.25] * 3) == 2 / 8
    assert chance([1, 0], [good, coin], 1) == 1 and chance([2], [coin], 1) == 0
    # Results that differ by rounding alone are one.
    assert chance([0.3], [{0.1 + 0.2: 0.5, 0.3: 0.25, 0.2: 0.25}], 0.1) == 1


def test_the_sign_flip_test():
    many = sign_flip([1.0] * 10 + [-1.0] * 10)
    assert many == 1 and 0 < sign_flip([1.0] * 20) < 0.001
    assert sign_flip([1.0, 2.0, 3.0]) == 2 / 8
    assert sign_flip([1.0, -1.0]) == 1
    assert sign_flip([3.0, 1.0, -1.0]) == 6 / 8


def test_trainings_and_p_as_text():
    assert [p_text(p) for p in (None, 0.0321, 0.00051, 0.0)] == ["-", "0.032", "0.001", "< 0.001"]
    assert [trainings_text(count) for count in (50, 1.0, 1.426, 2.5)] == ["50", "1", "1.43", "2.5"]
