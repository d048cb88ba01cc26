"""Harder questions about synthetic scenes: most are about several shapes and how they relate; answers are one word.

The kinds are: an attribute of a shape that is identified by its other attributes (two questions); the number of shapes
that fit a description; the number of these on one side of another shape; an attribute of the shape on one side of
another, or next to it; whether there are more shapes of one description than of another; whether two shapes share an
attribute; whether a shape of one description is on one side of a shape of another description; an attribute of the
outermost of several shapes (two questions). Positions are as unambiguous as in `scene_words`, so that the picture
always determines the answer. The same question may occur twice.
"""

import random
from collections.abc import Sequence

from datasets.demo.scene_pictures import COLOURS, SHAPES, Scene, Thing
from datasets.demo.scene_words import (
    ATTRIBUTES,
    CLEAR,
    DIRECTIONS,
    NEXT_SHARE,
    Description,
    ahead,
    beside,
    descriptions,
    nearest,
)

# Everything has only one wording, so that a few questions are enough to learn the words.
BESIDE = {"left": "left of", "right": "right of", "above": "above", "below": "below"}
OUTERMOST = {"left": "leftmost", "right": "rightmost", "above": "topmost", "below": "bottommost"}
ASKED = {"colour": "color", "shape": "shape", "size": "size"}
# Descriptions by one attribute, which counts and comparisons are about.
KINDS = [Description(colour=colour) for colour in COLOURS] + [Description(shape=shape) for shape in SHAPES]
# Draws of a question before its kind is left out for a scene.
TRIES = 30
Pair = tuple[str, str]


def reasoning_questions(draw: random.Random, scene: Scene) -> list[Pair]:
    """Make up to ten pairs (question, answer) about a scene; within a kind, answers are balanced.

    Args:
        draw: `random.Random`.
        scene: The `Scene`.
    """
    simple = (_attribute, _attribute, _count)
    makers = (*simple, _count_beside, _attribute_beside, _more, _same, _exists_beside, _attribute_outermost)
    makers = (*makers, _attribute_outermost)
    found = []
    for make in makers:
        # The answer is chosen before the question: otherwise most answers would be those that fit most scenes.
        wish = draw.random()
        proposals = (make(draw, scene.things, wish) for _ in range(TRIES))
        found.append(next((pair for pair in proposals if pair), None))
    return list(filter(None, found))


def _plural(kind: Description) -> str:
    if kind.shape is None:
        return f"{kind.colour} objects"
    return {"cross": "crosses"}.get(kind.shape, f"{kind.shape}s")


def _words(description: Description) -> str:
    return " ".join(word for word in (description.size, description.colour, description.shape or "object") if word)


def _anchor(draw: random.Random, things: Sequence[Thing], without: tuple[str, ...] = ()) -> tuple[Thing, str] | None:
    """A random thing and one of the shortest descriptions (in words, not empty) that fit it alone; None without one."""
    thing = draw.choice(things)
    known = [one for one in descriptions(thing) if any(one) and len(one.matches(things)) == 1]
    known = [one for one in known if not any(getattr(one, name) for name in without)]
    lengths = [sum(map(bool, one)) for one in known]
    shortest = [one for one, length in zip(known, lengths, strict=True) if length == min(lengths)]
    return (thing, _words(draw.choice(shortest))) if shortest else None


def _attribute(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    name = ATTRIBUTES[int(len(ATTRIBUTES) * wish)]
    named = _anchor(draw, things, (name,))
    return named and (f"what {ASKED[name]} is the {named[1]}?", getattr(named[0], name))


def _count(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    kind = draw.choice(KINDS)
    number = len(kind.matches(things))
    return (f"how many {_plural(kind)} are there?", str(number)) if number == int(4 * wish) else None


def _count_beside(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    named = _anchor(draw, things)
    if named is None:
        return None
    kind, direction = draw.choice(KINDS), draw.choice(list(DIRECTIONS))
    fitting = [thing for thing in kind.matches(things) if thing is not named[0]]
    there = beside(fitting, named[0], direction)
    if there is None or len(there) != int(4 * wish):
        return None
    where = BESIDE[direction]
    return f"how many {_plural(kind)} are {where} the {named[1]}?", str(len(there))


def _attribute_beside(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    named = _anchor(draw, things)
    if named is None:
        return None
    anchor, words = named
    rest = [thing for thing in things if thing is not anchor]
    target, name = draw.choice(rest), ATTRIBUTES[int(len(ATTRIBUTES) * wish)]
    # Descriptions that fit several things, so that the position is needed to answer.
    fitting = [one for one in descriptions(target) if getattr(one, name) is None and len(one.matches(rest)) > 1]
    if not fitting:
        return None
    chosen = draw.choice(fitting)
    if draw.random() < NEXT_SHARE:
        where, fits = "next to", [nearest(chosen.matches(rest), anchor)]
    else:
        direction = draw.choice(list(DIRECTIONS))
        where, fits = BESIDE[direction], beside(chosen.matches(rest), anchor, direction)
    if fits != [target]:
        return None
    return f"what {ASKED[name]} is the {_words(chosen)} {where} the {words}?", getattr(target, name)


def _more(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    first, second = draw.sample(KINDS, 2)
    counts = [len(kind.matches(things)) for kind in (first, second)]
    answer = "yes" if counts[0] > counts[1] else "no"
    # With none of either kind, the answer would not need a comparison.
    if not all(counts) or answer != ("yes" if wish < 0.5 else "no"):
        return None
    return f"are there more {_plural(first)} than {_plural(second)}?", answer


def _same(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    name = draw.choice(ATTRIBUTES)
    first, second = (_anchor(draw, things, (name,)) for _ in range(2))
    if first is None or second is None or first[0] is second[0]:
        return None
    answer = "yes" if getattr(first[0], name) == getattr(second[0], name) else "no"
    if answer != ("yes" if wish < 0.5 else "no"):
        return None
    return f"does the {first[1]} have the {ASKED[name]} of the {second[1]}?", answer


def _exists_beside(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    first, second = draw.sample(KINDS, 2)
    direction = draw.choice(list(DIRECTIONS))
    pairs = [(one, other) for one in first.matches(things) for other in second.matches(things) if one is not other]
    distances = [ahead(one, other, direction) for one, other in pairs]
    answer = "yes" if any(distance > 0 for distance in distances) else "no"
    clear = pairs and all(abs(distance) >= CLEAR for distance in distances)
    if not clear or answer != ("yes" if wish < 0.5 else "no"):
        return None
    names = [f"{kind.colour} object" if kind.colour else kind.shape for kind in (first, second)]
    return f"is there a {names[0]} {BESIDE[direction]} a {names[1]}?", answer


def _attribute_outermost(draw: random.Random, things: Sequence[Thing], wish: float) -> Pair | None:
    target, name = draw.choice(things), ATTRIBUTES[int(len(ATTRIBUTES) * wish)]
    fitting = [one for one in descriptions(target) if getattr(one, name) is None and len(one.matches(things)) > 1]
    if not fitting:
        return None
    chosen, direction = draw.choice(fitting), draw.choice(list(DIRECTIONS))
    others = [thing for thing in chosen.matches(things) if thing is not target]
    if min(ahead(target, other, direction) for other in others) < CLEAR:
        return None
    return f"what {ASKED[name]} is the {OUTERMOST[direction]} {_words(chosen)}?", getattr(target, name)
