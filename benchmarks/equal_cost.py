"""The random search that costs as much as a strategy: its trainings, its result, and how likely it does as well.

A cost is measured in trainings: the seconds of a search divided by those of a training. It is k + f with a whole number
k. The random search of this cost makes k trainings, and with probability f one more, so it costs k + f on average, and
no result jumps if a measured cost changes a little. Its result is computed exactly from a table of trainings.
"""

import itertools
import math
import random
import statistics

import numpy as np

EXACT, DRAWS = 14, 20_000


def at_least_one(trainings):
    """The cost of the random search that a cost is compared with.

    A random search needs at least one training, so costs below one training count as one. So does an unknown cost
    (None).
    """
    return 1.0 if trainings is None else max(1.0, trainings)


def best_of(results, trainings):
    """Distribution of the result of a random search, which selects by dev among ``trainings`` of the ``results``.

    Args:
        results: (dev, test) of every training that may be drawn; all are equally likely, and none is drawn twice. Those
            with equal dev scores are equally likely to be selected.
        trainings: At least 1. k + f stands for k, and with probability f one more; the maximum is all of them.

    Returns:
        dict test score -> probability.
    """
    if trainings < 1 or not results:
        raise ValueError(f"{trainings} of {len(results)} trainings; at least one was expected")
    count = min(trainings, len(results))
    whole = math.floor(count)
    found = {}
    for number_of, share in ((whole, 1 - (count - whole)), (whole + 1, count - whole)):
        for test, probability in _best_of(results, number_of) if share else ():
            found[test] = found.get(test, 0.0) + share * probability
    return found


def _best_of(results, count):
    """Yield (test, probability that the result is the best on dev among ``count`` of them) for every result."""
    ways, below = math.comb(len(results), count), 0
    for _, equal in itertools.groupby(sorted(results), key=lambda result: result[0]):
        tests = [test for _, test in equal]
        upto = below + len(tests)
        # Of the ways to take `count`, those whose best on dev is one of these.
        own = (math.comb(upto, count) - math.comb(below, count)) / ways / len(tests)
        yield from ((test, own) for test in tests if own)
        below = upto


def expected(found):
    """Mean of a distribution that `best_of` returns."""
    return math.fsum(test * probability for test, probability in found.items())


def chance(tests, found, unit):
    """Exact two-sided p of the hypothesis that a strategy does no better or worse than a random search.

    It is twice the probability that equally many random searches have a sum of results at least as good, or at least as
    bad, whichever is smaller. It is also valid for skewed results.

    Args:
        tests: Results of the strategy's searches.
        found: For each of them, the distribution of the random search on the same trainings, see `best_of`.
        unit: All results are whole multiples of this number.
    """
    total, first = np.ones(1), 0
    for own in found:
        steps = [round(test / unit) for test in own]
        one = np.bincount([step - min(steps) for step in steps], list(own.values()))
        total, first = np.convolve(total, one), first + min(steps)
    place = sum(round(test / unit) for test in tests) - first
    better, worse = total[max(place, 0) :].sum(), total[: max(place + 1, 0)].sum()
    return min(1.0, 2 * float(min(better, worse)))


def sign_flip(differences):
    """Two-sided p of the sign-flip test of n paired differences: at least 2 / 2^n; exact up to `EXACT`, else drawn."""
    observed, count = abs(sum(differences)) - 1e-12, len(differences)
    signs = itertools.product((1, -1), repeat=count)
    if count > EXACT:
        rng = random.Random(0)
        # The observed signs are one of the draws, so that p is never 0.
        signs = itertools.chain([(1,) * count], (rng.choices((1, -1), k=count) for _ in range(DRAWS)))
    extreme = [abs(sum(s * d for s, d in zip(own, differences, strict=True))) >= observed for own in signs]
    return sum(extreme) / len(extreme)


def spread(values, digits=2):
    """Mean ± standard deviation, as text."""
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def trainings_text(trainings):
    """A number of trainings as text: 50, 1.43."""
    return f"{trainings:.2f}".rstrip("0").rstrip(".")


def p_text(p):
    """A p-value as text, ``-`` for None."""
    return "-" if p is None else f"{p:.3f}" if p >= 0.0005 else "< 0.001"
