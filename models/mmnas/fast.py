"""The switch of the fast forms: the network of MMNas computes the same in less time, above all on a CPU.

`speed_up` replaces the classes of a network's modules, on any device, by those of `models.mmnas.fast_layers`, where it
says what they save. So what runs is not the code of `layers`, `operations`, `heads`, `net` and `matching`, unless

- the environment variable ``MDARTS_FAST`` is ``off`` (or ``MDARTS_FAST_CPU``, its older name), or
- the plain code was changed. A class whose code is not the one that its fast form stands for runs as it is written; a
  warning says so. Subclasses have no fast form.

`benchmarks/mmnas_fast_cpu.py` measures what the fast forms earn. Nothing else in `models.mmnas` depends on this file.
"""

import functools
import hashlib
import inspect
import io
import logging
import os
import textwrap
import tokenize
from types import FunctionType
from typing import TypeVar

from torch import nn

from models.mmnas import encoder_decoder, fast_layers, heads, layers, matching, net, operations, space

logger = logging.getLogger("mdarts")

# The switch.
enabled = "off" not in (os.environ.get("MDARTS_FAST"), os.environ.get("MDARTS_FAST_CPU"))
Module = TypeVar("Module", bound=nn.Module)

_FAST = (
    *(fast_layers.Dropout, fast_layers.LayerNorm, fast_layers.MultiHeadAttention, fast_layers.AttentionPooling),
    *(fast_layers.GuidedAttention, fast_layers.GroundingHead),
)
# Plain class -> the one that replaces it.
_TWINS: dict[type, type] = {
    fast.__bases__[-1]: fast for fast in (*_FAST, fast_layers.MultimodalNet, fast_layers.MatchingNet)
}
# Plain class -> others whose work, or whose further arguments, are part of its fast form.
_INCLUDES = {
    layers.MultiHeadAttention: (nn.Dropout,),
    operations.GuidedAttention: (layers.MultiHeadAttention, nn.Dropout),
}
# Modules whose classes can be given packed tensors, and `PaddedSide` for masks.
_KNOWN = {
    *(*_FAST, *_TWINS, heads.PoolingHead, heads.AnswerHead, heads.MatchingHead, operations.Identity, operations.Zero),
    *(operations.Gelu, operations.SelfAttention, operations.RelationSelfAttention, operations.UnifiedAttention),
    *(operations.FeedForward, operations.DeepFeedForward, operations.GatedLinear, operations.DeepGatedLinear),
    *(operations.Convolution, operations.SeparableConvolution, layers.FC, layers.MLP),
}
# What of a class the fast forms rely on, if not all methods but the constructor.
_METHODS = {
    net.MultimodalNet: ("forward", "features", "pooling_weights", "embed_words", "embed_regions", "embed_relations"),
    matching.MatchingNet: ("forward", "encode", "encode_words", "keep", "project", "match", "score_pairs"),
    encoder_decoder.EncoderDecoder: ("forward", "encode", "decode"),
    space.Block: ("forward",),
    space.GatedOperation: ("forward",),
}
_TORCH_DROPOUT = nn.Dropout.forward
# Digest of the plain code that the fast forms stand for: `digest_of` of each class.
# If `tests/models/test_mmnas_fast.py` says that one differs, bring its fast form up to date, then write the new digest.
DIGESTS = {
    "models.mmnas.encoder_decoder.EncoderDecoder": "4d96d950e1d4e926",
    "models.mmnas.heads.AnswerHead": "53b686414358ba36",
    "models.mmnas.heads.GroundingHead": "0cdb75fccc2f8156",
    "models.mmnas.heads.MatchingHead": "61db995adf62d0dc",
    "models.mmnas.heads.PoolingHead": "41376bfed7263f6f",
    "models.mmnas.layers.AttentionPooling": "7e020b70c408f261",
    "models.mmnas.layers.FC": "e009a37c79706686",
    "models.mmnas.layers.LayerNorm": "c14bbadac13b599d",
    "models.mmnas.layers.MLP": "0f2e3a191efb9b87",
    "models.mmnas.layers.MultiHeadAttention": "4086c10326133de7",
    "models.mmnas.matching.MatchingNet": "30c9affadfa53d05",
    "models.mmnas.net.MultimodalNet": "d505a90025df741d",
    "models.mmnas.operations.Convolution": "cc4fd8f5ed4679fd",
    "models.mmnas.operations.DeepFeedForward": "d1dfbdac03fc9d71",
    "models.mmnas.operations.DeepGatedLinear": "63cab4b796d3a811",
    "models.mmnas.operations.FeedForward": "a2385f1e2359f71b",
    "models.mmnas.operations.GatedLinear": "67d5afa44376a037",
    "models.mmnas.operations.Gelu": "33019465c358edbb",
    "models.mmnas.operations.GuidedAttention": "81d4834db22dd1a3",
    "models.mmnas.operations.Identity": "f3fd2caac768957d",
    "models.mmnas.operations.RelationSelfAttention": "56bd3da350bf2d40",
    "models.mmnas.operations.SelfAttention": "d183b1bf92f3fb53",
    "models.mmnas.operations.SeparableConvolution": "a1d3be06f4167e9e",
    "models.mmnas.operations.UnifiedAttention": "5661f377fe2128ae",
    "models.mmnas.operations.Zero": "9678251100be94b9",
    "models.mmnas.space.Block": "1781daff495c53e8",
    "models.mmnas.space.GatedOperation": "504801193e8b8a2f",
}


def speed_up(network: Module, pack: bool | None = None) -> Module:
    """Replace the classes of the modules of ``network``, in place, and return it.

    Padding is left out only if this file knows all operations and the head of the network, and their code.

    Args:
        network: A `MultimodalNet`, or a module that is part of one.
        pack: Whether to leave out padding; None: on a CPU. It can be changed later, as the attribute ``pack``.
    """
    if not enabled:
        return network
    changed = {kind for kind in {type(module) for module in network.modules()} if is_changed(kind)}
    twins = {kind: fast for kind, fast in _TWINS.items() if not changed & {kind, *_INCLUDES.get(kind, ())}}
    parts = [module for module in network.modules() if isinstance(module, operations.Operation)]
    if isinstance(network, net.MultimodalNet):
        parts.append(network.head)
        network.pack = pack
    known = not changed and all(type(part) in _KNOWN for part in parts)
    for module in network.modules():
        twin = twins.get(type(module))
        if twin is not None and (known or module is not network):
            module.__class__ = twin
    _tell(tuple(sorted(f"{kind.__module__}.{kind.__name__}" for kind in changed)))
    return network


@functools.cache  # once in a process
def _tell(changed):
    logger.info("MMNas runs in the fast forms of models/mmnas/fast.py; MDARTS_FAST=off runs the plain code")
    for name in changed:
        logger.warning(
            "%s is not the code that its fast form stands for: it runs as it is written, and padding is computed too",
            name,
        )


def is_changed(kind: type) -> bool:
    """Whether a class has other code than that which the fast forms stand for; False for classes that have none."""
    if kind is nn.Dropout:
        return kind.forward is not _TORCH_DROPOUT
    expected = DIGESTS.get(f"{kind.__module__}.{kind.__name__}")
    return expected is not None and digest_of(kind) != expected


def digest_of(kind: type) -> str:
    """Short hex string that changes with the code of a class and its bases in this package.

    Only words and signs count, not comments, docstrings and layout.
    """
    code = []
    for base in kind.__mro__:
        if base.__module__.startswith(f"{__package__}."):
            names = _METHODS.get(base) or sorted(set(vars(base)) - {"__init__"})
            code += [_words(vars(base)[name]) for name in names if isinstance(vars(base).get(name), FunctionType)]
    return hashlib.blake2b("\n".join(code).encode(), digest_size=8).hexdigest()


def _words(function):
    """The words and signs of a function; of one without source, what can be said of it."""
    try:
        source = inspect.getsource(function)
    except (OSError, TypeError):
        return repr(function)
    skipped = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    words, before = [], tokenize.INDENT
    for token in tokenize.generate_tokens(io.StringIO(textwrap.dedent(source)).readline):
        is_text = token.type == tokenize.STRING and before in (tokenize.INDENT, tokenize.NEWLINE)
        if token.type not in skipped and not is_text:
            words.append(token.string)
        if token.type not in (tokenize.COMMENT, tokenize.NL):
            before = token.type
    return " ".join(words)
