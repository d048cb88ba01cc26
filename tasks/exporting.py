"""Writes trained networks as files that need no code of this suite, and checks them in a process without it."""

from __future__ import annotations

import importlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import warnings
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from engine import arguments
from tasks.exportable import Exportable, ExportedAttention, ExportedFeatures, ExportedFusion
from tasks.found_models import AttentionModel, FusionModel, OwnModel
from util.cli import UserError
from util.files import atomic_path, json_text, write_json

FORMATS = {"pt2": (), "onnx": ("onnx", "onnxscript", "onnxruntime")}
TOLERANCE = 1e-4
# Batch size and length of variable axes, in the example that is traced and in the check. They differ, so that the check
# fails if tracing has fixed one of them.
TRACED, CHECKED = 2, 3
TRACED_LENGTH, CHECKED_LENGTH = 8, 13
METADATA = "metadata.json"
# Run by `python -I -c`, so that nothing from this suite can be imported.
_CHECK = {
    "pt2": """
import sys, numpy, torch
net = torch.export.load(sys.argv[1]).module()
given = numpy.load(sys.argv[2])
with torch.no_grad():
    made = net(*(torch.from_numpy(given[name]) for name in given.files))
made = made if isinstance(made, (tuple, list)) else (made,)
numpy.savez(sys.argv[3], *(one.numpy() for one in made))
""",
    "onnx": """
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
given = numpy.load(sys.argv[2])
numpy.savez(sys.argv[3], *session.run(None, {name: given[name] for name in given.files}))
""",
}


def check_libraries(form: str) -> None:
    """Check that the libraries that a format needs are installed.

    Raises:
        UserError: A library is missing.
    """
    for name in FORMATS[form]:
        try:
            importlib.import_module(name)
        except ImportError:
            needed = " ".join(FORMATS[form])
            raise UserError(f"--format {form} needs {name}: `python -m pip install {needed}`") from None


def exportable(model: FusionModel | AttentionModel, args: Namespace) -> Exportable:
    """The network on plain tensors that the flags of ``export.py`` select, in evaluation mode.

    Raises:
        UserError: The flags do not fit the network; the message names them.
    """
    if isinstance(model, AttentionModel):
        if args.features:
            raise UserError("--features: only networks of BM-NAS have backbones; drop the flag")
        for flag in ("missing", "length", "shape"):
            if getattr(args, flag):
                raise UserError(f"--{flag}: only networks of BM-NAS have such inputs; drop the flag")
        return ExportedAttention(model, args.tokens, args.regions).eval()
    if args.tokens or args.regions:
        raise UserError("--tokens, --regions: only networks of MMNas have them; drop the flags")
    if args.features:
        if args.length:
            raise UserError("--length: with --features the file reads no texts, recordings or sequences; drop the flag")
        return ExportedFeatures(model, args.missing).eval()
    shapes = {} if isinstance(model, OwnModel) else _shapes(model, args)
    return ExportedFusion(model, shapes, _lengths(args), args.missing).eval()


def _lengths(args):
    """Input -> length, from ``--length``."""
    given = arguments.as_dict(args.length)
    if wrong := next((name for name, text in given.items() if not text.isdigit() or not int(text)), None):
        raise UserError(f"--length {wrong}={given[wrong]}: expected a number of words, steps or samples")
    return {name: int(text) for name, text in given.items()}


def _shapes(model, args):
    """Input -> (shape, type), from ``--shape`` or else from the run's data."""
    given = {}
    for text in args.shape or ():
        name, _, sides = text.partition("=")
        if name not in model.inputs or not all(side.isdigit() for side in sides.split(",")):
            raise UserError(
                f"--shape {text}: expected one of {', '.join(model.inputs)} and sides, e.g. image=3,256,160"
            )
        given[name] = tuple(map(int, sides.split(","))), torch.float32
    lacking = [name for name in model.inputs if model.is_read(name) and name not in given]
    if lacking:
        try:
            example = model.task.open_split(model.args, "test").read([0], only=lacking)
        except UserError as error:
            raise UserError(
                f"the shapes of {', '.join(lacking)} are unknown ({error}); pass --shape NAME=SIDES"
            ) from None
        given |= {name: (tuple(example[name].shape[1:]), example[name].dtype) for name in lacking}
    return given


def export(net: Exportable, model: FusionModel | AttentionModel, form: str, out: Path | str) -> dict[str, Any]:
    """Write a network and its description ``<out>.json``, after a process without this suite has checked the outputs.

    Args:
        net: The network, from `exportable`.
        model: The trained network that it was made from.
        form: ``pt2`` (torch.export) or ``onnx``.
        out: The file.

    Returns:
        The description.

    Raises:
        UserError: The network cannot be traced, or the file gives other outputs.
    """
    about, generator = describe(net, model), torch.Generator().manual_seed(0)
    example = net.draw(TRACED, generator, TRACED_LENGTH)
    checked = net.draw(CHECKED, generator, CHECKED_LENGTH)
    net.cpu()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"net.{form}"
        with _one_line(net, form):
            (_write_pt2 if form == "pt2" else _write_onnx)(net, tuple(example), about, path)
        about["checked"] = _check(net, checked, form, path)
        with atomic_path(out) as temporary:
            shutil.copyfile(path, temporary)
    write_json(f"{out}.json", about)
    return about


@contextmanager
def _one_line(net: Exportable, form: str) -> Iterator[None]:
    """Turn errors of the exporter into one-line `UserError`s, and silence its other messages."""
    levels = {name: logging.getLogger(name).level for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as caught:  # the exporters' own errors have no common type
        error: BaseException = caught  # the message of the innermost cause is shorter and more specific
        while error.__cause__ is not None:
            error = error.__cause__
        reason = " ".join(str(error).split())[:300]
        fixed = [one.name.partition(".")[0] for one in net.inputs if not all(isinstance(n, int) for n in one.shape)]
        way = "" if isinstance(net, ExportedFeatures) else "; --features exports the fusion part of a network of BM-NAS"
        if fixed and isinstance(net, ExportedFusion):
            way = f"; try --length {fixed[0]}=N, which pads to N" + way
        raise UserError(f"--format {form}: torch cannot export this network ({reason}){way}") from None
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _axes(net, length):
    """Dynamic axes of the inputs for the exporter; ``length``: name of a variable axis -> its declaration."""
    batch = torch.export.Dim("batch", min=1)
    axes = [
        {0: batch} | {axis: length(side) for axis, side in enumerate(one.shape, start=1) if isinstance(side, str)}
        for one in net.inputs
    ]
    # The inputs come as *args.
    return (tuple(axes),)


def _write_pt2(net, example, about, path):
    program = _program(net, example)
    about["lengths"] = _ranges(net, program)
    torch.export.save(program, path, extra_files={METADATA: json_text(about)})


def _program(net, example):
    sides = {side for one in net.inputs for side in one.shape if isinstance(side, str)}
    free = {side: torch.export.Dim(side, min=1) for side in sides}
    try:
        return torch.export.export(net, example, dynamic_shapes=_axes(net, free.__getitem__))
    except torch._dynamo.exc.UserError:
        if not sides:
            raise
    # Some encoders limit the length of their inputs, such as the words of a text. With Dim.DYNAMIC torch finds the
    # range, but leaves out lengths of 1.
    return torch.export.export(net, example, dynamic_shapes=_axes(net, lambda side: torch.export.Dim.DYNAMIC))


def _ranges(net, program):
    """Axis of variable length -> [minimum, maximum] of its length; a maximum of None: no limit."""
    nodes = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    ranges = {}
    for one, node in zip(net.inputs, program.graph_signature.user_inputs, strict=True):
        for axis, side in enumerate(one.shape, start=1):
            if isinstance(side, str):
                limits = program.range_constraints[nodes[node].shape[axis].node.expr]
                upper = str(limits.upper)  # torch has its own infinity
                ranges[side] = [int(limits.lower), int(upper) if upper.isdigit() else None]
    return ranges


def _write_onnx(net, example, about, path):
    names = {"input_names": [one.name for one in net.inputs], "output_names": list(net.outputs)}
    options: dict[str, Any] = {"dynamo": True, "verbose": False, "dynamic_shapes": _axes(net, str), **names}
    with _attention_of_four_axes():
        program = torch.onnx.export(net, example, **options)
    assert program is not None
    program.model.metadata_props[METADATA] = json_text(about)
    program.save(path)


@contextmanager
def _attention_of_four_axes() -> Iterator[None]:
    """Add a head axis to attention calls without one, which the ONNX exporter does not support."""
    attend = F.scaled_dot_product_attention

    def with_heads(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, **options: Any) -> torch.Tensor:
        if query.dim() != 3 or options.get("attn_mask") is not None:
            return attend(query, key, value, **options)
        return attend(query[:, None], key[:, None], value[:, None], **options)[:, 0]

    with mock.patch.object(F, "scaled_dot_product_attention", with_heads):
        yield


def _check(net, inputs, form, path):
    """Run the file in a separate process, and compare its outputs with torch's."""
    with torch.no_grad():
        wanted = net(*inputs)
    wanted = wanted if isinstance(wanted, (tuple, list)) else (wanted,)
    given, made = path.with_name("given.npz"), path.with_name("made.npz")
    arrays = {one.name: value.numpy() for one, value in zip(net.inputs, inputs, strict=True)}
    np.savez(given, **arrays)
    command = [sys.executable, "-I", "-c", _CHECK[form], str(path), str(given), str(made)]
    outcome = subprocess.run(command, cwd=path.parent, capture_output=True, text=True)
    if outcome.returncode:
        last = (outcome.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"--format {form}: the file that was written cannot be run ({last}); it was not kept")
    with np.load(made) as file:
        found = [file[name] for name in file.files]
    worst = 0.0
    for name, one, two in zip(net.outputs, wanted, found, strict=True):
        difference = float(np.abs(one.numpy() - two).max()) if one.shape == two.shape else float("inf")
        worst = max(worst, difference)
        if not np.allclose(one.numpy(), two, rtol=0.1 * TOLERANCE, atol=TOLERANCE):
            raise UserError(f"--format {form}: {name} differ from torch's by {difference:g}; the file was not kept")
    return {"max_difference": worst, "samples": CHECKED, "tolerance": TOLERANCE, "torch": torch.__version__}


def describe(net: Exportable, model: FusionModel | AttentionModel) -> dict[str, Any]:
    """Description of an exported file for its users, a plain dict: inputs, outputs, classes, preparation of inputs."""
    inputs = [
        {"name": one.name, "shape": ["batch", *one.shape], "dtype": str(one.dtype).removeprefix("torch.")}
        for one in net.inputs
    ]
    about: dict[str, Any] = {
        "task": model.task.name,
        "run": model.folder.resolve().name,
        "inputs": inputs,
        "outputs": {"names": list(net.outputs), "are": net.says},
    }
    if isinstance(model, AttentionModel):
        known = {
            name: model.metadata[name] for name in ("vocabulary", "answers", "extraction") if name in model.metadata
        }
        return about | {"padding": "tokens with 0; regions beyond counts are not read", **known}
    about |= _padding(net)
    about["classes"] = model.classes if model.label != "number" else []
    about["missing_inputs"] = _missing(net)
    if isinstance(net, ExportedFeatures):
        pool = "x".join(map(str, model.net.pool))
        return about | {"normalisation": f"features of the backbones, max-pooled to {pool} positions"}
    about |= _vocabulary(model)
    return about | {"normalisation": _normalisation(model)}


def _vocabulary(model):
    """{"vocabulary": input -> words} of text encoders that have their own vocabulary; {} if there are none."""
    backbones = model.net.backbones if isinstance(model, OwnModel) else {}
    known = {name: getattr(backbones[name].preparation, "words", ()) for name in backbones if model.is_read(name)}
    words = {name: list(found) for name, found in known.items() if found}
    return {"vocabulary": words} if words else {}


def _missing(net):
    if not getattr(net, "optional", ()):
        return "not supported in this file: every input must be given"
    names = ", ".join(f"{name}_present" for name in net.optional)
    return f"{names}: False for samples that lack the input; its values are ignored then"


def _padding(net):
    if not any(isinstance(side, str) for one in net.inputs for side in one.shape) and not getattr(net, "lengths", None):
        return {}
    return {"padding": "zeros after the values of a sample; length or attention_mask tell how many are real"}


def _normalisation(model: FusionModel) -> Mapping[str, Any] | str:
    if not isinstance(model, OwnModel):
        return "inputs as the data set provides them; any normalisation is part of the network in the file"
    made: dict[str, Any] = {}
    for name in filter(model.is_read, model.inputs):
        if name in model.raw.tables:
            made[name] = {"numbers: [mean, deviation]; categories: one-hot": model.facts["tables"][name]}
        else:
            prepare = model.net.backbones[name].preparation
            made[name] = repr(prepare) if prepare is not None else "none: values unchanged"
    return json.loads(json_text(made))
