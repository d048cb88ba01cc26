"""The model card of a trained network: what it is, what its scores are based on, and what it must not be used for.

Everything in the card comes from the run's result; facts that the result does not contain are left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

FILE = "MODEL_CARD.md"
SMALL_TEST = 1000


def card_text(result: Mapping[str, Any]) -> str:
    """Return the card as Markdown.

    Args:
        result: The result of a training, see `engine.training.train_network`.
    """
    parts = [_title(result), _use(result), _data(result), _network(result), _scores(result), _limits(result)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(result):
    arguments, epochs = result["arguments"], result["epochs"]
    trained = f"Trained for {epochs} epoch{'s' * (epochs != 1)} on {result['trained_on']}, seed {arguments.get('seed')}"
    recipe = arguments.get("recipe")
    lines = ["# Model card", "", f"{trained}{f', --recipe {recipe}' if recipe else ''}.", ""]
    facts = {
        "run folder": result["folder"],
        "commit": result.get("git_commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items()),
        "device": result.get("device"),
        "time": f"{result['seconds']:,.0f} s" if "seconds" in result else None,
    }
    return "\n".join([*lines, *(f"- {name}: {value}" for name, value in facts.items() if value)])


def _use(result):
    lines = ["## Use", "", "    from tasks.loading import load_found", f'    model = load_found("{result["folder"]}")']
    classes = result.get("classes")
    if classes:
        shown = ", ".join(map(str, classes[:20])) + (", ..." if len(classes) > 20 else "")
        lines += ["", f"It distinguishes {len(classes)} classes: {shown}."]
    return "\n".join(lines)


def _data(result):
    data = result.get("data", {})
    lines = ["## Data", "", f"- {data.get('description', 'not recorded')}{', SYNTHETIC' * bool(data.get('synthetic'))}"]
    lines += [f"- {split}: {count:,} samples" for split, count in data.get("samples", {}).items()]
    for name, counts in result.get("missing", {}).items():
        lines.append(f"- without {name}: " + ", ".join(f"{count:,} in {split}" for split, count in counts.items()))
    lines += [f"- {name}: {result[name]}" for name in ("licence", "citation") if result.get(name)]
    return "\n".join(lines)


def _network(result):
    lines, encoders = ["## Network", ""], result.get("encoders", {})
    for name, source in result.get("backbones_started_from", {}).items():
        known = encoders.get(name)
        what = f"{known['encoder']}, features of layers {', '.join(map(str, known['taps']))}; " if known else ""
        lines.append(f"- {name}: {what}weights started from: {source}")
    dropout = result["arguments"].get("modality_dropout")
    if dropout:
        lines.append(f"- inputs were dropped in training with probability {dropout}: it also works without some inputs")
    architecture = result.get("architecture", {})
    if "from" in architecture:
        lines.append(f"- architecture from: {architecture['from']}")
    counts = {name: count for name, count in result.get("parameters", {}).items() if count and name != "fusion_part"}
    lines.append(f"- parameters: {sum(counts.values()):,} ({', '.join(f'{n} {c:,}' for n, c in counts.items())})")
    if "cost" in result:
        lines.append(f"- {result['cost'].get('flops', 0):,} FLOPs: {result['cost'].get('of')}")
    return "\n".join(lines)


def _scores(result):
    scores = result["metrics"]
    names = list(dict.fromkeys(name for values in scores.values() for name in values))
    lines = ["## Scores", "", f"{result.get('metric', '')}", ""]
    lines += [f"| split | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for split, values in scores.items():
        lines.append(f"| {split} | {' | '.join(_shown(values.get(name)) for name in names)} |")
    lines += [
        "",
        f"Selected: {result['protocol']} (epoch {result['selected_epoch']}, counted from 0). One training, one",
    ]
    lines[-1] += " seed: these numbers do not show how much the scores vary between seeds."
    return "\n".join(lines)


def _shown(value):
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    return f"{value:.4f}"


def _limits(result):
    return "\n".join(["## Limitations", "", *(f"- {line}" for line in _limit_lines(result))])


def _limit_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield the limits that follow from the result, as sentences."""
    data, arguments = result.get("data", {}), result["arguments"]
    if data.get("synthetic"):
        yield "The data are synthetic. Its scores say nothing about real data."
    if "TEST" in result["protocol"]:
        yield "The epoch was selected on test, so the test scores are optimistic. Do not compare them with others'."
    if not {"test", "val"} & set(result["metrics"]):
        yield "It was not scored on held-out data: training or selection used all splits that it was scored on."
    samples = data.get("samples", {}).get("test", data.get("samples", {}).get("val", 0))
    if samples and samples < SMALL_TEST:
        yield f"The scores are based on {samples:,} samples. Small differences to other networks mean nothing."
    if arguments.get("small_dataset"):
        yield "It was trained on the first samples of each split only (--small_dataset), to try things out."
    started = result.get("backbones_started_from", {})
    random = [name for name, source in started.items() if str(source).startswith("random")]
    # Encoders of own data that start at random are trained with the fusion, unless --train_encoders excludes them.
    if random and arguments.get("freeze_backbones") and arguments.get("train_encoders", "none") == "none":
        yield f"The frozen backbones {', '.join(random)} have random weights: it is for smoke tests only."
    counts = [values for values in result.get("missing", {}).values() if any(values.values())]
    if not arguments.get("modality_dropout") and not counts and "backbones_started_from" in result:
        yield "It never saw a sample without one of its inputs, and refuses such samples."
    yield "It was not measured on data from other sources, times or groups of people than those above."
    yield "Do not use it for decisions about people without human review: scores are averages over samples."
