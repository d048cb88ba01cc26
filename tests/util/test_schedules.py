"""Learning rates against the original's sequences, and the corrected restarts."""

import json

import numpy as np
import pytest

from tests.golden import DATA, Golden
from util.schedules import CosineRestarts, WarmupStepDecay

GOLDEN = Golden("lr_schedules")
CASES = {case["name"]: case for case in GOLDEN.spec["cases"]}


def make(case, **kwargs):
    return CosineRestarts(case["eta_max"], case["eta_min"], case["Ti"], case["Tm"], case["batches_per_epoch"], **kwargs)


@pytest.mark.parametrize("name", CASES)
def test_sequence(name):
    case, rates, cycles, counters = CASES[name], [], [], []
    schedule = make(case)
    for _ in range(case["steps"]):
        rates.append(schedule.step())
        cycles.append(schedule.Ti)
        counters.append(schedule.counter)
    np.testing.assert_allclose(rates, GOLDEN.arrays[f"{name}.lr"], rtol=1e-12)
    np.testing.assert_array_equal(cycles, GOLDEN.arrays[f"{name}.Ti_after"])
    np.testing.assert_array_equal(counters, GOLDEN.arrays[f"{name}.counter_after"])


def test_state_continues_the_sequence():
    whole, first = make(CASES["E_nbpe_4_third"]), make(CASES["E_nbpe_4_third"])
    expected = [whole.step() for _ in range(60)]
    found = [first.step() for _ in range(25)]
    second = make(CASES["E_nbpe_4_third"])
    second.load_state_dict(first.state_dict())
    assert found + [second.step() for _ in range(35)] == expected


def test_sgdr_restarts_after_every_cycle():
    """With 37.5 batches per epoch, cycles of 1, 2 and 4 epochs end after 38, 75 and 150 steps."""
    schedule = make(CASES["A"], restarts="sgdr")
    rates = [schedule.step() for _ in range(300)]
    assert [step for step, rate in enumerate(rates) if rate == 1e-3] == [0, 38, 113, 263]


WARM_UP = json.loads((DATA / "warmup.json").read_text())


@pytest.mark.parametrize("case", WARM_UP["schedules"], ids=lambda case: str(case["lr_base"]))
def test_warm_up_of_the_original(case):
    rest = {"factor": case["decay_r"], "warm_up": case["warmup"]}
    schedule = WarmupStepDecay(case["lr_base"], case["epoch_steps"], case["decay_epochs"], **rest)
    rates = [schedule.step() for _ in case["lr_after_each_step"]]
    assert rates == pytest.approx(case["lr_after_each_step"], rel=1e-12)


def test_a_resumed_warm_up_goes_on_where_it_was():
    schedule = WarmupStepDecay(1e-3, 10)
    schedule.load_state_dict({"counter": 25})
    assert [schedule.step() for _ in range(10)] == pytest.approx(WARM_UP["resumed_from_step_25_lr1e3_es10"], rel=1e-12)
