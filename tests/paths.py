"""Paths through searched networks of MMNas, drawn or set."""

from search.choice import Choice, Draw
from search.gates import SampledGates
from search.relaxation import ARCHITECTURE, WEIGHTS


def draw(space, mode, generator):
    """Draw the next path of a space or a choice: ``single`` as for weight steps, else as for architecture steps.

    Returns the `SampledGates`.
    """
    gates = SampledGates(generator, "full" if mode == "single" else mode)
    if isinstance(space, Choice):
        gates.choices = [space]
    else:
        gates.attach(space)
    gates.draw(WEIGHTS if mode == "single" else ARCHITECTURE)
    return gates


def set_path(choice, mode, active, inactive=()):
    """Choose what runs next; ``full`` needs no ``inactive``: it is all the others."""
    if mode == "full":
        inactive = [k for k in range(len(choice.candidates)) if k != active]
    choice.drawn = Draw((active,), (tuple(inactive),), gated=mode != "single")


def gates_of(*choices, mode="full"):
    """A `SampledGates` over choices whose paths are set."""
    gates = SampledGates(mode=mode)
    gates.choices = list(choices)
    return gates


def active_of(space):
    """Index of the active candidate of every choice."""
    return [choice.running()[0] for choice in space.choices()]
