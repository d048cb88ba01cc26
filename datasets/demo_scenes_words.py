"""Words about synthetic scenes: descriptions of shapes, where they are, and expressions that fit exactly one of them.

Places compare the centres of boxes. Whatever an expression rests on is clear: centres that it tells apart lie at least
`CLEAR` pixels apart in that direction, and the nearest of several is at least `NEARER` pixels closer than the others.
Where exactly one shape is left of another, it is the leftmost of its kind; only ``next to`` cannot be answered without
a look at the other shape.
"""

import math
from itertools import combinations
from typing import NamedTuple

ATTRIBUTES = ("size", "colour", "shape")
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
ANY_SHAPE = ("shape", "object")
CLEAR, NEARER = 8, 12
# Axis (0 across, 1 down) and sign of each direction: of two centres the one with the larger sign * coordinate.
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
BESIDE = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
NEXT = ("next to", "closest to")
# Share of the expressions by a neighbour that name the next one.
NEXT_SHARE = 0.3
OUTERMOST = {
    "left": ("leftmost {}", "{} furthest to the left"),
    "right": ("rightmost {}", "{} furthest to the right"),
    "above": ("topmost {}", "highest {}", "{} nearest to the top"),
    "below": ("bottommost {}", "lowest {}", "{} nearest to the bottom"),
}
# How often an expression names attributes alone, an outermost place, or a place beside another shape.
SHARES = (0.3, 0.2, 0.5)
# Weight of descriptions by number of attributes, from 0 to 3: where one tells a shape apart, more are often named.
RICHNESS = (0.5, 1, 3, 2)
# Proposals of a kind before another kind is drawn, and draws of a kind per expression.
TRIES, MOST_ROUNDS = 12, 3


class Description(NamedTuple):
    """Attributes that are named; None for those that are not."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def fits(self, thing):
        """Whether a `Thing` has every named attribute."""
        size, colour, shape = self
        return size in (None, thing.size) and colour in (None, thing.colour) and shape in (None, thing.shape)

    def matches(self, things):
        """The `Thing` of ``things`` that it fits."""
        return [thing for thing in things if self.fits(thing)]

    def words(self, draw, nouns=ANY_SHAPE):
        """The description in words, without an article; one of ``nouns`` where no shape is named."""
        size = draw.choice(SIZE_WORDS[self.size]) if self.size else None
        noun = self.shape or draw.choice(nouns)
        return " ".join(word for word in (size, self.colour, noun) if word)


def describe(thing, names):
    """The `Description` of a thing by the attributes ``names``."""
    return Description(**{name: getattr(thing, name) for name in names})


def descriptions(thing):
    """Every `Description` of a thing, the empty one first."""
    return [describe(thing, names) for count in range(4) for names in combinations(ATTRIBUTES, count)]


def unique_description(draw, thing, things, without=()):
    """A random `Description` that fits this one of ``things`` alone, or None; ``without``: attributes not to name."""
    fitting = [one for one in descriptions(thing) if len(one.matches(things)) == 1]
    return _pick(draw, [one for one in fitting if not any(getattr(one, name) for name in without)])


def _pick(draw, choices):
    if not choices:
        return None
    return draw.choices(choices, [RICHNESS[sum(name is not None for name in one)] for one in choices])[0]


def ahead(thing, other, direction):
    """How many pixels the centre of ``thing`` lies further in a direction than that of ``other``."""
    axis, sign = DIRECTIONS[direction]
    return sign * (thing.centre[axis] - other.centre[axis])


def beside(candidates, anchor, direction):
    """Those of ``candidates`` that are clearly on that side of ``anchor``; None where one of them is neither nor."""
    distances = [ahead(one, anchor, direction) for one in candidates]
    if any(abs(distance) < CLEAR for distance in distances):
        return None
    return [one for one, distance in zip(candidates, distances, strict=True) if distance > 0]


def expressions(draw, target, things, count):
    """Up to ``count`` different expressions (lower case, no punctuation) that each fit ``target`` alone.

    Args:
        draw: `random.Random`.
        target: One of ``things``.
        things: The `Thing` of a scene.
        count: Number of expressions.

    Returns:
        List of str; shorter, even empty, where none was found in a fixed number of tries.
    """
    found = []
    makers = (_by_attributes, _by_outermost_place, _by_neighbour)
    for _ in range(MOST_ROUNDS * count):
        if len(found) == count:
            break
        make = draw.choices(makers, SHARES)[0]
        proposals = (make(draw, target, things) for _ in range(TRIES))
        text = next((text for text in proposals if text and text not in found), None)
        if text:
            found.append(text)
    return [text if draw.random() < 0.5 else f"the {text}" for text in found]


def _by_attributes(draw, target, things):
    chosen = unique_description(draw, target, things)
    if chosen is None:
        return None
    if chosen.colour and draw.random() < 0.25:
        return f"{chosen._replace(colour=None).words(draw)} that is {chosen.colour}"
    return chosen.words(draw)


def _by_outermost_place(draw, target, things):
    chosen = _pick(draw, [one for one in descriptions(target) if len(one.matches(things)) > 1])
    if chosen is None:
        return None
    direction = draw.choice(list(DIRECTIONS))
    others = [thing for thing in chosen.matches(things) if thing is not target]
    if min(ahead(target, other, direction) for other in others) < CLEAR:
        return None
    return draw.choice(OUTERMOST[direction]).format(chosen.words(draw))


def nearest(candidates, anchor):
    """The one of ``candidates`` that is clearly closest to ``anchor``, or None."""
    order = sorted(candidates, key=lambda one: math.dist(one.centre, anchor.centre))
    distances = [math.dist(one.centre, anchor.centre) for one in order[:2]]
    return order[0] if distances[-1] - distances[0] >= NEARER else None


def _by_neighbour(draw, target, things):
    anchor = draw.choice(things)
    name = None if anchor is target else unique_description(draw, anchor, things)
    if name is None:
        return None
    # Only where the place is needed: several shapes fit the description alone.
    rest = [thing for thing in things if thing is not anchor]
    chosen = _pick(draw, [one for one in descriptions(target) if len(one.matches(rest)) > 1])
    if chosen is None:
        return None
    fitting = chosen.matches(rest)
    if draw.random() < NEXT_SHARE:
        where, found = draw.choice(NEXT), [nearest(fitting, anchor)]
    else:
        direction = draw.choice(list(DIRECTIONS))
        where, found = draw.choice(BESIDE[direction]), beside(fitting, anchor, direction)
    return f"{chosen.words(draw)} {where} the {name.words(draw)}" if found == [target] else None
