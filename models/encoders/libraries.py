"""What encoders from other libraries share: imports, weights, and error messages that name a remedy."""

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
    """Import an optional library.

    Args:
        name: Name of the module.
        encoder: The encoder that needs it, for the message.

    Raises:
        UserError: the library is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(f"--encoder {encoder} needs {name}: `python -m pip install {name}`") from None


def near_names(name: str, known: Iterable[str]) -> str:
    """The end of a message that suggests known names similar to ``name``; empty if there are none."""
    near = difflib.get_close_matches(name, list(known), n=4, cutoff=0.5)
    return f"; did you mean {', '.join(near)}?" if near else ""


@contextlib.contextmanager
def fetching(encoder: str, modality: str, remedy: str = FILE_REMEDY) -> Iterator[None]:
    """Context manager that turns errors of a library that downloads weights into a `UserError`.

    Without a network connection the error comes immediately, instead of after the library's retries.

    Args:
        encoder: The encoder, as the user named it.
        modality: Name of the modality.
        remedy: What the user can do; ``{modality}`` in it is replaced.
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
    """If the hub's host name cannot be resolved, switch its client to offline mode: it would retry for a minute."""
    constants: Any = importlib.import_module("huggingface_hub.constants")
    host = urllib.parse.urlsplit(constants.ENDPOINT).hostname
    if constants.HF_HUB_OFFLINE or urllib.request.getproxies() or not host:
        return
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        constants.HF_HUB_OFFLINE = True


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a checkpoint or a ``.safetensors`` file.

    Raises:
        UserError: the file cannot be read.
    """
    if Path(path).suffix != ".safetensors":
        return load_state_dict_file(path)
    library = import_library("safetensors.torch", str(path))
    try:
        return library.load_file(str(path))
    except Exception as error:  # the library raises exceptions of its own classes
        raise UserError(f"{path} is not a readable safetensors file: {' '.join(str(error).split())[:120]}") from None
