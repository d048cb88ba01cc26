"""The encoder-decoder of MMNas: chains of blocks, searched or fixed, in one class (specification section 1)."""

import torch
from torch import nn

from models.architectures import Architecture
from models.mmnas.gated import GatedOperation
from models.mmnas.operations import (
    DECODER_CANDIDATES,
    ENCODER_CANDIDATES,
    check_encoder,
    make_operation,
    operation_class,
)
from search.gates import SampledGates

START = 1.0
# Families of the operations that an MCAN-like network repeats; the first family that has a candidate counts.
ENCODER_START = (("self_att",), ("feed_forward",))
DECODER_START = (("rel_self_att", "self_att"), ("guided_att",), ("feed_forward",))


class Block(nn.ModuleList):
    """Operations on the same input, their outputs summed; searched ones are `GatedOperation`.

    Args:
        members: Names of fixed operations, or tuples of candidates.
        hsize, dropout, relation_size: See `operations.Operation`.
        key: Name of the block, the beginning of the keys of its choices.
    """

    def __init__(self, members, hsize, dropout, relation_size=64, key="block"):
        sizes = (hsize, dropout, relation_size)
        super().__init__(
            make_operation(member, *sizes)
            if isinstance(member, str)
            else GatedOperation(member, *sizes, key=f"{key}.{i}")
            for i, member in enumerate(members)
        )
        self.members = tuple(members)

    def discretise(self, scores):
        """Names of the operations, of gated ones the best candidate; ``scores`` as in `EncoderDecoder.discretise`."""
        return tuple(
            operation.names[int(scores[operation.choice.key].argmax())]
            if isinstance(operation, GatedOperation)
            else member
            for member, operation in zip(self.members, self, strict=True)
        )

    def running(self):
        """The operations that the next forward calls."""
        return [r for member in self for r in (member.running() if isinstance(member, GatedOperation) else [member])]

    def forward(self, x, y=None, x_mask=None, y_mask=None, relation=None):
        """Sum of the operations' outputs."""
        first, *others = [operation(x, y, x_mask, y_mask, relation) for operation in self]
        return sum(others, first)


class EncoderDecoder(nn.Module):
    """Encoder blocks on words, then decoder blocks on regions, each of which sees the encoder's final output.

    Make one with `searched` or `fixed`.

    Args:
        enc, dec: Members of every block, see `Block`.
        hsize: H.
        dropout: Dropout rate.
        relation_size: Width of relations between regions.

    Raises:
        UserError: an operation is unknown, does not fit the width, or is in an encoder and needs the regions.
    """

    def __init__(self, enc, dec, hsize, dropout, relation_size=64):
        super().__init__()
        self.hsize, self.relation_size = hsize, relation_size
        sizes = (hsize, dropout, relation_size)
        self.enc = nn.ModuleList(Block(members, *sizes, f"enc.{i}") for i, members in enumerate(enc))
        self.dec = nn.ModuleList(Block(members, *sizes, f"dec.{i}") for i, members in enumerate(dec))
        check_encoder(name for members in enc for name in _names(members))
        kinds = [operation_class(name) for members in (*enc, *dec) for name in _names(members)]
        self.depends_on_padding = any(kind.depends_on_padding for kind in kinds)
        self.can_use_relation = any(kind.needs_relation for kind in kinds)

    @classmethod
    def searched(
        cls,
        hsize,
        dropout,
        *,
        num_enc=12,
        num_dec=18,
        enc_candidates=ENCODER_CANDIDATES,
        dec_candidates=DECODER_CANDIDATES,
        start="mcan",
        relation_size=64,
    ):
        """The supernet: one gated operation per block.

        Args:
            hsize, dropout, relation_size: See the class.
            num_enc, num_dec: Numbers of blocks.
            enc_candidates, dec_candidates: Names of the candidates.
            start: Architecture parameters at the start: ``mcan`` prefers an MCAN-like network (+1, others -1;
                specification section 2.1), ``uniform`` nothing (zeros).
        """
        enc, dec = [(tuple(enc_candidates),)] * num_enc, [(tuple(dec_candidates),)] * num_dec
        net = cls(enc, dec, hsize, dropout, relation_size)
        if start == "mcan":
            _prefer(net.enc, ENCODER_START)
            _prefer(net.dec, DECODER_START)
        elif start != "uniform":
            raise ValueError(f"the start {start!r} is neither mcan nor uniform")
        SampledGates().attach(net).decide()
        return net

    @classmethod
    def fixed(cls, architecture, hsize, dropout, *, relation_size=64):
        """The network of an `Architecture`."""
        return cls(architecture.enc, architecture.dec, hsize, dropout, relation_size)

    def forward(self, x, y, x_mask=None, y_mask=None, relation=None):
        """Encode words and decode regions.

        Args:
            x: Words, float (B, T, H) or packed (R, H).
            y: Regions, float (B, N, H) or packed (R, H).
            x_mask, y_mask: Boolean (B, 1, 1, L) or their `Rows`.
            relation: `Relation` of the regions; needed if `uses_relation`.

        Returns:
            x and y, like the inputs.
        """
        x = self.encode(x, x_mask)
        return x, self.decode(y, x, y_mask, x_mask, relation)

    def encode(self, x, x_mask=None):
        """Words after the encoder blocks; arguments and result as in `forward`."""
        for block in self.enc:
            x = block(x, x_mask=x_mask)
        return x

    def decode(self, y, x, y_mask=None, x_mask=None, relation=None, blocks=slice(None)):
        """Regions after the decoder ``blocks`` (a slice of them); ``x`` are encoded words, else as in `forward`."""
        for block in list(self.dec)[blocks]:
            y = block(y, x, y_mask, x_mask, relation)
        return y

    def blocks_without_words(self):
        """How many decoder blocks come before the first that reads the words in the next forward."""
        readers = [any(operation.reads_other for operation in block.running()) for block in self.dec]
        return [*readers, True].index(True)

    def gated(self):
        """The gated operations in the order of the blocks; none in a fixed network."""
        return [member for block in (*self.enc, *self.dec) for member in block if isinstance(member, GatedOperation)]

    def running(self):
        """The operations that the next forward calls."""
        return [operation for block in (*self.enc, *self.dec) for operation in block.running()]

    def active(self):
        """The operations that give the next forward's output: of several candidates the active one."""
        members = [member for block in (*self.enc, *self.dec) for member in block]
        return [member.running()[0] if isinstance(member, GatedOperation) else member for member in members]

    def uses_relation(self):
        """Whether an operation that runs next needs the relation of regions."""
        return any(operation.needs_relation for operation in self.running())

    def choices(self):
        """The choices in the order of the blocks; none in a fixed network."""
        return [gated.choice for gated in self.gated()]

    def relax(self, relaxation):
        """Combine candidates by a `search.relaxation.Relaxation`."""
        for gated in self.gated():
            gated.relaxation = relaxation

    def discretise(self, scores):
        """The `Architecture` of the best candidate of every block.

        Args:
            scores: See `search.choice.SearchSpace`.
        """
        return Architecture(*(tuple(block.discretise(scores) for block in side) for side in (self.enc, self.dec)))

    def probabilities(self):
        """Of the candidates: "encoder" and "decoder" -> {block: {operation: probability}}; {} in a fixed network."""
        found = {}
        for title, side in (("encoder", self.enc), ("decoder", self.dec)):
            for number, block in enumerate(side, start=1):
                for member in block:
                    if isinstance(member, GatedOperation):
                        row = dict(zip(member.names, member.choice.probabilities().tolist(), strict=True))
                        found.setdefault(title, {})[f"block {number}"] = row
        return found


def _names(members):
    return [name for member in members for name in ([member] if isinstance(member, str) else member)]


@torch.no_grad()
def _prefer(blocks, families):
    for number, block in enumerate(blocks):
        wanted = [
            name for family in families[number % len(families)] for name in block[0].names if name.startswith(family)
        ]
        if wanted:
            block[0].alpha_prob.fill_(-START)
            block[0].alpha_prob[block[0].names.index(wanted[0])] = START
