"""The monitor of a search: when it stops a run, and when a stopped run continues."""

from types import SimpleNamespace

import pytest

from search.monitor import ArchitectureMonitor


class Genotype:
    """A genotype that consists of a letter."""

    def __init__(self, letter):
        self.letter = letter

    def __eq__(self, other):
        return isinstance(other, Genotype) and self.letter == other.letter

    def to_dict(self):
        return {"letter": self.letter}

    @classmethod
    def from_dict(cls, state):
        return cls(state["letter"])


class Net:
    letter = "a"
    genotype_class = Genotype

    def genotype(self):
        return Genotype(self.letter)

    def probabilities(self):
        return {}


def stops(letters, patience, start=0, watch=None, first=0):
    """Epochs in which the monitor stops the search, if each epoch has the genotype of its letter; and the monitor."""
    net = Net()
    watch = watch or ArchitectureMonitor(net, lambda *_: [], patience, start)
    found = []
    for epoch, letter in enumerate(letters, start=first):
        watch.net.letter = letter
        if watch.record(epoch)["stop"]:
            found.append(epoch)
    return found, watch


@pytest.mark.parametrize(
    ("letters", "patience", "start", "expected"),
    [
        ("aaaaa", 0, 0, []),
        ("aaaaa", 2, 0, [2, 3, 4]),
        ("abaaa", 2, 0, [4]),
        ("aaaaaaa", 2, 3, [5, 6]),  # up to epoch 3 an unchanged genotype does not count
        ("aaaaabb", 1, 4, [6]),
    ],
)
def test_it_asks_for_a_stop_once_patience_is_used_up(letters, patience, start, expected):
    assert stops(letters, patience, start)[0] == expected


def resumed(patience, before, run, start=0):
    """A monitor that continues from the state of another one, with another patience."""
    watch = ArchitectureMonitor(Net(), lambda *_: [], patience, start)
    watch.load_state_dict(before)
    watch.reconsider(run)
    return watch


@pytest.mark.parametrize(("patience", "stopped"), [(2, True), (1, True), (3, False), (0, False)])
def test_a_stop_holds_for_as_long_as_patience_is_used_up(patience, stopped):
    _, before = stops("aaa", 2)
    run = SimpleNamespace(stopped=True, longer=False)
    resumed(patience, before.state_dict(), run)
    assert run.stopped == stopped


def test_a_longer_patience_goes_on_counting():
    _, before = stops("aaa", 2)
    watch = resumed(4, before.state_dict(), SimpleNamespace(stopped=True, longer=False))
    assert stops("aaa", 4, watch=watch, first=3)[0] == [4, 5]


def test_a_run_that_was_made_longer_counts_anew():
    _, before = stops("aaa", 2)
    run = SimpleNamespace(stopped=False, longer=True)
    watch = resumed(2, before.state_dict(), run)
    found, watch = stops("aaa", 2, watch=watch, first=3)
    assert found == [4, 5] and not run.stopped and watch.unchanged == 5, "the log tells how long it has stood at all"


def test_a_state_of_version_0_1_0_is_read():
    before = {"genotype": {"letter": "a"}, "unchanged": 4}
    watch = resumed(3, before, SimpleNamespace(stopped=False, longer=False), start=4)
    assert stops("aaaa", 3, watch=watch, first=5)[0] == [7, 8], "before epoch 4 it said nothing then either"
