"""Five captions of a synthetic scene, each of another kind."""

from collections import Counter

from datasets.demo_scenes_pictures import HEIGHT, WIDTH
from datasets.demo_scenes_words import BESIDE, CLEAR, DIRECTIONS, ahead, describe

CAPTIONS = 5
NUMBERS = ("no", "one", "two", "three", "four", "five", "six")
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def captions(draw, scene):
    """Five captions (str) of a `Scene`: what there is, how many, what is where, what is beside what, a summary."""
    return [make(draw, scene) for make in (_inventory, _counted, _placed, _related, _summary)]


def listed(parts):
    """``a``, ``a and b``, ``a, b and c``."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _plural(shape, count):
    endings = {"cross": "es"}
    return shape if count == 1 else shape + endings.get(shape, "s")


def _kinds(draw, things, names):
    """``two small red circles``: all things by the attributes ``names``, in random order."""
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
    """Name of the ninth of the picture in which a thing's centre lies, such as ``top left``."""
    x, y = thing.centre
    column, row = COLUMNS[min(int(3 * x / WIDTH), 2)], ROWS[min(int(3 * y / HEIGHT), 2)]
    return "middle" if (row, column) == ("middle", "centre") else f"{row} {column}"


def _placed(draw, scene):
    order = draw.sample(scene.things, len(scene.things))
    return listed([f"a {thing.colour} {thing.shape} in the {place(thing)}" for thing in order])


def _related(draw, scene):
    """Pairs of things; one that is left over is only named."""
    order = draw.sample(scene.things, len(scene.things))
    parts = []
    for first, second in zip(order[::2], order[1::2], strict=False):
        # Things that do not touch lie clearly apart in one direction at least.
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
