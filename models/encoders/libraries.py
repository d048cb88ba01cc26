"""What encoders from other libraries share: importing them, weights, and errors that say what to do."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import socket
import textwrap
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from util.checkpoint import load_state_dict_file
from util.cli import UserError

# Values of --encoder_weights besides files.
DEFAULT, NONE = "default", "none"
FILE_REMEDY = (
    "pass --encoder_weights {modality}=FILE with a copy of the weights, or --encoder_weights {modality}=none for random"
    " ones"
)
FOLDER_REMEDY = (
    "fetch the model elsewhere and name its folder (config.json, weights, tokenizer): --encoder "
    "{modality}=transformers:FOLDER"
)


def import_library(name: str, encoder: str) -> Any:
    """An optional library.

    Raises:
        UserError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"--encoder {encoder} needs {name}: `python -m pip install {name}`") from None


def near_names(name: str, known: Iterable[str]) -> str:
    """Names like ``name`` for a message, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""


@contextlib.contextmanager
def fetching(encoder: str, modality: str, remedy: str = FILE_REMEDY) -> Iterator[None]:
    """Turn the errors of a library that fetches weights into a `UserError`; without a network, at once.

    Args:
        encoder: The encoder, as the user names it.
        modality: Name of the modality.
        remedy: What to do, with ``{modality}`` in it.
    """
    _expect_network()
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        reason = textwrap.shorten(str(error), 160, placeholder=" ...")
        raise UserError(
            f"--encoder {modality}={encoder}: not loaded ({reason}); {remedy.format(modality=modality)}"
        ) from None


def _expect_network():
    """Where the hub's address is unknown, let its client look in its cache only: it would try for a minute."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname
    if constants.HF_HUB_OFFLINE or urllib.request.getproxies() or not host:
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """A state dict from a checkpoint or a ``.safetensors`` file.

    Raises:
        UserError: it cannot be read.
    """
    if Path(path).suffix != ".safetensors":
        return load_state_dict_file(path)
    library = import_library("safetensors.torch", str(path))
    try:
        return library.load_file(str(path))
    except Exception as error:  # the library has exceptions of its own
        raise UserError(f"{path} is not a readable safetensors file: {' '.join(str(error).split())[:120]}") from None
