"""The encoder-decoder of MMNas: two chains of blocks, searched or fixed, in one class.

The encoder reads words x; the decoder reads regions y, and every one of its blocks may look at the encoder's final
output (Yu et al., ACM MM 2020).
"""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from models.mmnas.architecture import Architecture
from models.mmnas.operations import Operation, check_encoder, operation_class
from models.mmnas.space import (
    DECODER_CANDIDATES,
    DECODER_START,
    ENCODER_CANDIDATES,
    ENCODER_START,
    Block,
    GatedOperation,
    Member,
)
from search.choice import Choice


class EncoderDecoder(nn.Module):
    """Encoder blocks on words, then decoder blocks on regions, each of which sees the encoder's final output.

    Make one with `searched` or `fixed`.

    Args:
        enc, dec: Members of every block, see `Block`.
        hsize: H.
        dropout: Dropout rate.
        relation_size: Width of relations between regions.

    Raises:
        UserError: an operation is unknown, does not fit the width, or is in the encoder and needs regions.
    """

    def __init__(
        self,
        enc: Sequence[Sequence[Member]],
        dec: Sequence[Sequence[Member]],
        hsize: int,
        dropout: float,
        relation_size: int = 64,
    ) -> None:
        super().__init__()
        self.hsize, self.relation_size = hsize, relation_size
        sizes = (hsize, dropout, relation_size)
        self.enc = nn.ModuleList(Block(members, *sizes, f"enc.{i}") for i, members in enumerate(enc))
        self.dec = nn.ModuleList(Block(members, *sizes, f"dec.{i}") for i, members in enumerate(dec))
        encoding, decoding = ([name for members in side for name in _names(members)] for side in (enc, dec))
        check_encoder(encoding)
        kinds = [operation_class(name) for name in (*encoding, *decoding)]
        self.depends_on_padding = any(kind.depends_on_padding for kind in kinds)
        self.can_use_relation = any(kind.needs_relation for kind in kinds)

    @classmethod
    def searched(
        cls,
        hsize: int,
        dropout: float,
        *,
        num_enc: int = 12,
        num_dec: int = 18,
        enc_candidates: Iterable[str] = ENCODER_CANDIDATES,
        dec_candidates: Iterable[str] = DECODER_CANDIDATES,
        start: str = "mcan",
        relation_size: int = 64,
    ) -> "EncoderDecoder":
        """The supernet: one gated operation per block.

        Args:
            hsize, dropout, relation_size: See the class.
            num_enc, num_dec: Numbers of blocks.
            enc_candidates, dec_candidates: Names of the candidates.
            start: Architecture parameters at the start. ``mcan`` prefers an MCAN-like network, as the original does
                (+1, others -1); ``uniform`` prefers nothing (zeros).

        Raises:
            ValueError: ``start`` is neither.
        """
        enc, dec = [(tuple(enc_candidates),)] * num_enc, [(tuple(dec_candidates),)] * num_dec
        net = cls(enc, dec, hsize, dropout, relation_size)
        if start == "mcan":
            for blocks, prefixes in ((net.enc, ENCODER_START), (net.dec, DECODER_START)):
                for number, block in enumerate(blocks):
                    block[0].prefer(prefixes[number % len(prefixes)])
        elif start != "uniform":
            raise ValueError(f"the start {start!r} is neither mcan nor uniform")
        return net

    @classmethod
    def fixed(
        cls, architecture: Architecture, hsize: int, dropout: float, *, relation_size: int = 64
    ) -> "EncoderDecoder":
        """The network of an `Architecture`."""
        return cls(architecture.enc, architecture.dec, hsize, dropout, relation_size)

    def forward(
        self,
        x: torch.Tensor,
        y: torch.Tensor,
        x_mask: torch.Tensor | None = None,
        y_mask: torch.Tensor | None = None,
        relation: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode words and decode regions.

        Args:
            x, y: Words float (B, T, H) and regions float (B, N, H).
            x_mask, y_mask: bool (B, T) and (B, N), True = padding; or None.
            relation: float (B, N, N, relation_size), relations between regions; needed if `uses_relation`.

        Returns:
            x and y, shaped like the inputs.
        """
        x = self.encode(x, x_mask)
        return x, self.decode(y, x, y_mask, x_mask, relation)

    def encode(self, x: torch.Tensor, x_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Words after the encoder blocks; arguments and result as in `forward`."""
        for block in self.enc:
            x = block(x, x_mask=x_mask)
        return x

    def decode(
        self,
        y: torch.Tensor,
        x: torch.Tensor | None,
        y_mask: torch.Tensor | None = None,
        x_mask: torch.Tensor | None = None,
        relation: torch.Tensor | None = None,
        blocks: slice = slice(None),
    ) -> torch.Tensor:
        """Regions after the decoder blocks.

        Args:
            y, y_mask, x_mask, relation: As in `forward`.
            x: Encoded words; None if none of ``blocks`` reads them.
            blocks: Which decoder blocks.

        Returns:
            float (B, N, H).
        """
        for block in list(self.dec)[blocks]:
            y = block(y, x, y_mask, x_mask, relation)
        return y

    def blocks_without_words(self) -> int:
        """How many decoder blocks come before the first that reads words in the next forward."""
        readers = [any(operation.reads_other for operation in self.running([block])) for block in self.dec]
        return [*readers, True].index(True)

    def gated(self) -> list[GatedOperation]:
        """The gated operations in the order of the blocks; none in a fixed network."""
        return [member for block in (*self.enc, *self.dec) for member in block if isinstance(member, GatedOperation)]

    def running(self, blocks: Iterable[Block] | None = None) -> list[Operation]:
        """The operations that the next forward calls, in ``blocks`` or in all."""
        return [operation for member in self._called(blocks) for operation in member]

    def active(self) -> list[Operation]:
        """The operations whose output the next forward returns: of several candidates the active one."""
        return [member[0] for member in self._called()]

    def _called(self, blocks=None):
        """For each member of the blocks the operations that the next forward calls, the active one first."""
        called = []
        for member in itertools.chain.from_iterable(blocks or (*self.enc, *self.dec)):
            if isinstance(member, GatedOperation):
                operations = list(member.operations.values())
                called.append([operations[k] for k in member.choice.running()])
            else:
                called.append([member])
        return called

    def uses_relation(self) -> bool:
        """Whether the next forward calls an operation that needs relations between regions."""
        return any(operation.needs_relation for operation in self.running())

    def choices(self) -> list[Choice]:
        """The choices in the order of the blocks; none in a fixed network."""
        return [gated.choice for gated in self.gated()]

    def discretise(self, scores: dict[str, torch.Tensor]) -> Architecture:
        """The `Architecture` of the best candidate of every block; for ``scores`` see `search.choice.SearchSpace`."""
        return Architecture(*(tuple(block.discretise(scores) for block in side) for side in (self.enc, self.dec)))

    def probabilities(self) -> dict[str, dict[str, dict[str, float]]]:
        """Of the candidates: "encoder" and "decoder" -> {block: {operation: probability}}; {} in a fixed network."""
        tables: dict[str, dict[str, dict[str, float]]] = {}
        for title, side in (("encoder", self.enc), ("decoder", self.dec)):
            for number, block in enumerate(side, start=1):
                for member in block:
                    if isinstance(member, GatedOperation):
                        row = dict(zip(member.names, member.choice.probabilities().tolist(), strict=True))
                        tables.setdefault(title, {})[f"block {number}"] = row
        return tables


def _names(members: Sequence[Member]) -> list[str]:
    return [name for member in members for name in ([member] if isinstance(member, str) else member)]
