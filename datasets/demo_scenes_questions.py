"""Questions about a synthetic scene, one of each kind that it allows, each with its one answer."""

from datasets.demo_scenes_pictures import COLOURS, SHAPES
from datasets.demo_scenes_words import ANY_SHAPE, BESIDE, DIRECTIONS, Description, beside, unique_description


def questions(draw, scene):
    """Up to six pairs (question, answer) about a `Scene`.

    Kinds: colour, shape, size, number, presence and place. Answers of presence and place are yes and no equally often,
    numbers are drawn evenly from those that the scene has.
    """
    makers = (_colour, _shape, _size, _number, _presence, _place)
    return [pair for make in makers if (pair := make(draw, scene.things))]


def _named(draw, things, without=(), other_than=None):
    """A random thing and its words, without the attributes ``without``, that fit it alone; None if there are none.

    It is an object where its shape is not named: ``what shape is the red shape?`` would be odd.
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
    """For ``no`` both words occur in the scene where possible, but not of one thing."""
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
