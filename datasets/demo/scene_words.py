"""Words about synthetic scenes: descriptions of shapes, their positions, and expressions that fit exactly one shape.

Positions compare the centres of boxes. Expressions are unambiguous: centres that they distinguish are at least `CLEAR`
pixels apart in that direction, and the nearest of several shapes is at least `NEARER` pixels closer than the others. If
exactly one shape is left of another, it is the leftmost of its kind; only ``next to`` cannot be resolved without
looking at the other shape.
"""

import math
from collections import Counter
from itertools import combinations
from typing import NamedTuple

from datasets.demo.scene_pictures import COLOURS, HEIGHT, SHAPES, WIDTH

ATTRIBUTES = ("size", "colour", "shape")
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
ANY_SHAPE = ("shape", "object")
CLEAR, NEARER = 8, 12
# Axis (0 across, 1 down) and sign of each direction: the centre with the larger sign * coordinate is further there.
DIRECTIONS = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
BESIDE = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
NEXT = ("next to", "closest to")
# Share of the expressions with a neighbour that say "next to" or "closest to" instead of a direction.
NEXT_SHARE = 0.3
OUTERMOST = {
    "left": ("leftmost {}", "{} furthest to the left"),
    "right": ("rightmost {}", "{} furthest to the right"),
    "above": ("topmost {}", "highest {}", "{} nearest to the top"),
    "below": ("bottommost {}", "lowest {}", "{} nearest to the bottom"),
}
# Shares of expressions that name attributes alone, an outermost position, or a position relative to another shape.
SHARES = (0.3, 0.2, 0.5)
# Weight of descriptions with 0 to 3 attributes: often several are named even if one would be enough.
RICHNESS = (0.5, 1, 3, 2)
# Proposals of a kind before another kind is drawn, and maximum draws of a kind per expression.
TRIES, MAX_ROUNDS = 12, 3
CAPTIONS = 5
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


class Description(NamedTuple):
    """The attributes that are named; None for those that are not."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None

    def fits(self, thing):
        """Whether a `Thing` has every named attribute."""
        size, colour, shape = self
        return size in (None, thing.size) and colour in (None, thing.colour) and shape in (None, thing.shape)

    def matches(self, things):
        """List of the ``things`` that have every named attribute."""
        return [thing for thing in things if self.fits(thing)]

    def words(self, draw, nouns=ANY_SHAPE):
        """The description in words, without an article; one of ``nouns`` is used if no shape is named."""
        size = draw.choice(SIZE_WORDS[self.size]) if self.size else None
        noun = self.shape or draw.choice(nouns)
        return " ".join(word for word in (size, self.colour, noun) if word)


def describe(thing, names):
    """The `Description` of a thing by the attributes ``names``."""
    return Description(**{name: getattr(thing, name) for name in names})


def descriptions(thing):
    """List of every `Description` that fits a thing, the empty one first."""
    return [describe(thing, names) for count in range(4) for names in combinations(ATTRIBUTES, count)]


def unique_description(draw, thing, things, without=()):
    """A random `Description` that fits only ``thing`` of ``things`` and names no attribute in ``without``; or None."""
    fitting = [one for one in descriptions(thing) if len(one.matches(things)) == 1]
    return _pick(draw, [one for one in fitting if not any(getattr(one, name) for name in without)])


def _pick(draw, choices):
    if not choices:
        return None
    return draw.choices(choices, [RICHNESS[sum(name is not None for name in one)] for one in choices])[0]


def ahead(thing, other, direction):
    """Number of pixels by which the centre of ``thing`` is further in a direction than that of ``other``."""
    axis, sign = DIRECTIONS[direction]
    return sign * (thing.centre[axis] - other.centre[axis])


def beside(candidates, anchor, direction):
    """The ``candidates`` that are clearly on that side of ``anchor``; None if one is not clearly on either side."""
    distances = [ahead(one, anchor, direction) for one in candidates]
    if any(abs(distance) < CLEAR for distance in distances):
        return None
    return [one for one, distance in zip(candidates, distances, strict=True) if distance > 0]


def expressions(draw, target, things, count):
    """Make up to ``count`` different expressions (lower case, no punctuation) that each fit ``target`` alone.

    Args:
        draw: `random.Random`.
        target: One of ``things``.
        things: The `Thing` of a scene.
        count: Number of expressions.

    Returns:
        List of str; shorter than ``count``, or empty, if a fixed number of tries does not yield enough.
    """
    texts = []
    makers = (_by_attributes, _by_outermost_place, _by_neighbour)
    for _ in range(MAX_ROUNDS * count):
        if len(texts) == count:
            break
        make = draw.choices(makers, SHARES)[0]
        proposals = (make(draw, target, things) for _ in range(TRIES))
        text = next((text for text in proposals if text and text not in texts), None)
        if text:
            texts.append(text)
    return [text if draw.random() < 0.5 else f"the {text}" for text in texts]


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
    """The candidate that is clearly closest to ``anchor``, or None."""
    order = sorted(candidates, key=lambda one: math.dist(one.centre, anchor.centre))
    distances = [math.dist(one.centre, anchor.centre) for one in order[:2]]
    return order[0] if distances[-1] - distances[0] >= NEARER else None


def _by_neighbour(draw, target, things):
    anchor = draw.choice(things)
    name = None if anchor is target else unique_description(draw, anchor, things)
    if name is None:
        return None
    # Only descriptions that fit several shapes, so that the position is needed.
    rest = [thing for thing in things if thing is not anchor]
    chosen = _pick(draw, [one for one in descriptions(target) if len(one.matches(rest)) > 1])
    if chosen is None:
        return None
    fitting = chosen.matches(rest)
    if draw.random() < NEXT_SHARE:
        where, fits = draw.choice(NEXT), [nearest(fitting, anchor)]
    else:
        direction = draw.choice(list(DIRECTIONS))
        where, fits = draw.choice(BESIDE[direction]), beside(fitting, anchor, direction)
    return f"{chosen.words(draw)} {where} the {name.words(draw)}" if fits == [target] else None


def captions(draw, scene):
    """Make five captions (str) of a `Scene`: an inventory, counts, positions, relations between pairs, a summary."""
    return [make(draw, scene) for make in (_inventory, _counted, _placed, _related, _summary)]


def listed(parts):
    """Join texts as in ``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _plural(shape, count):
    endings = {"cross": "es"}
    return shape if count == 1 else shape + endings.get(shape, "s")


def _kinds(draw, things, names):
    """List all things by the attributes ``names``, in random order, as in ``two small red circles``."""
    counts = Counter(describe(thing, names) for thing in things)
    parts = []
    for kind, count in counts.items():
        adjectives = [word for word in (kind.size, kind.colour) if word]
        number = "a" if count == 1 else NUMBERS[count]
        parts.append(" ".join([number, *adjectives, _plural(kind.shape, count)]))
    return listed(draw.sample(parts, len(parts)))


def _inventory(draw, scene):
    text = _kinds(draw, scene.things, ("size", "colour", "shape"))
    return f"{text} on a {scene.background} background"


def _counted(draw, scene):
    text = _kinds(draw, scene.things, ("colour", "shape"))
    return f"there are {NUMBERS[len(scene.things)]} shapes: {text}"


def place(thing):
    """Name of the cell of a 3 x 3 grid that contains a thing's centre, such as ``top left``."""
    x, y = thing.centre
    column, row = COLUMNS[min(int(3 * x / WIDTH), 2)], ROWS[min(int(3 * y / HEIGHT), 2)]
    return "middle" if (row, column) == ("middle", "centre") else f"{row} {column}"


def _placed(draw, scene):
    order = draw.sample(scene.things, len(scene.things))
    return listed([f"a {thing.colour} {thing.shape} in the {place(thing)}" for thing in order])


def _related(draw, scene):
    """Relate pairs of things; a thing that is left over is only named."""
    order = draw.sample(scene.things, len(scene.things))
    parts = []
    for first, second in zip(order[::2], order[1::2], strict=False):
        # Things that do not touch are clearly apart in at least one direction.
        clear = [name for name in DIRECTIONS if ahead(first, second, name) >= CLEAR]
        where = draw.choice(BESIDE[draw.choice(clear)])
        parts.append(f"a {first.size} {first.colour} {first.shape} {where} a {second.colour} {second.shape}")
    if len(order) % 2:
        parts.append(f"a {order[-1].size} {order[-1].colour} {order[-1].shape}")
    return listed(parts)


def _summary(draw, scene):
    sizes = Counter(thing.size for thing in scene.things)
    numbers = [f"{NUMBERS[sizes[size]]} {size} {_plural('shape', sizes[size])}" for size in ("large", "small")]
    text = _kinds(draw, scene.things, ("colour", "shape"))
    return f"{scene.background} picture with {listed(numbers)}, namely {text}"


def questions(draw, scene):
    """Make up to six pairs (question, answer) about a `Scene`.

    The kinds are colour, shape, size, number, presence and position. Answers about presence and position are yes and no
    equally often; numbers are drawn uniformly from the counts that occur in the scene.
    """
    makers = (_colour, _shape, _size, _number, _presence, _place)
    return [pair for make in makers if (pair := make(draw, scene.things))]


def _named(draw, things, without=(), other_than=None):
    """A random thing, and words for it that fit it alone and name no attribute in ``without``; None if there are none.

    A thing whose shape is not named is called an object: ``what shape is the red shape?`` would sound odd.
    """
    for thing in draw.sample(things, len(things)):
        description = None if thing is other_than else unique_description(draw, thing, things, without)
        if description is not None and any(description):
            return thing, description.words(draw, ANY_SHAPE[1:])
    return None


def _colour(draw, things):
    named = _named(draw, things, ("colour",))
    return named and (f"what color is the {named[1]}?", named[0].colour)


def _shape(draw, things):
    named = _named(draw, things, ("shape",))
    return named and (f"what shape is the {named[1]}?", named[0].shape)


def _size(draw, things):
    named = _named(draw, things, ("size",))
    return named and (f"what size is the {named[1]}?", named[0].size)


def _number(draw, things):
    counts = {}
    for words in [*({"colour": colour} for colour in COLOURS), *({"shape": shape} for shape in SHAPES)]:
        description = Description(**words)
        counts.setdefault(len(description.matches(things)), []).append(description)
    number = draw.choice(sorted(counts))
    chosen = draw.choice(counts[number])
    what = f"{chosen.colour} shapes" if chosen.colour else {"cross": "crosses"}.get(chosen.shape, f"{chosen.shape}s")
    return f"how many {what} are there?", str(number)


def _presence(draw, things):
    """For the answer ``no``, both words fit things of the scene if possible, but no single thing."""
    there = {(thing.colour, thing.shape) for thing in things}
    near = {(one.colour, other.shape) for one in things for other in things} - there
    absent = near or {(thing.colour, shape) for thing in things for shape in SHAPES} - there
    answer = "yes" if draw.random() < 0.5 else "no"
    colour, shape = draw.choice(sorted(there if answer == "yes" else absent))
    return f"is there a {colour} {shape}?", answer


def _place(draw, things):
    first = _named(draw, things)
    second = first and _named(draw, things, other_than=first[0])
    if not second:
        return None
    answer = "yes" if draw.random() < 0.5 else "no"
    wanted = [first[0]] if answer == "yes" else []
    directions = [name for name in DIRECTIONS if beside([first[0]], second[0], name) == wanted]
    where = draw.choice(BESIDE[draw.choice(directions)])
    return f"is the {first[1]} {where} the {second[1]}?", answer
