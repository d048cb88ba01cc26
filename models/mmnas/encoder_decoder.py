"""The encoder-decoder of MMNas: two chains of blocks, searched or fixed, in one class.

The encoder reads words x. The decoder reads regions y, and each of its blocks may attend to the final output of the
encoder (Yu et al., ACM MM 2020). B is the batch size, T the number of words, N the number of regions, H the width.
"""

import itertools
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from models.mmnas.architecture import Architecture
from models.mmnas.layers import RELATION_SIZE
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

    Build it with `searched` or `fixed`.

    Args:
        enc, dec: Members of every block, see `Block`.
        hsize: Width H.
        dropout: Dropout rate.
        relation_size: Width of embedded relations between regions.

    Raises:
        UserError: an operation is unknown, does not fit the width, or needs regions but is in the encoder.
    """

    def __init__(
        self,
        enc: Sequence[Sequence[Member]],
        dec: Sequence[Sequence[Member]],
        hsize: int,
        dropout: float,
        relation_size: int = RELATION_SIZE,
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
        num_enc: int,
        num_dec: int,
        enc_candidates: Iterable[str] = ENCODER_CANDIDATES,
        dec_candidates: Iterable[str] = DECODER_CANDIDATES,
        start: str = "mcan",
        relation_size: int = RELATION_SIZE,
    ) -> "EncoderDecoder":
        """Build the supernet, with one gated operation per block.

        Args:
            hsize, dropout, relation_size: See the class.
            num_enc, num_dec: Number of encoder and decoder blocks.
            enc_candidates, dec_candidates: Names of the candidates.
            start: Initial architecture logits. ``mcan`` prefers an MCAN-like network, as the original does (+1 for the
                preferred candidate, -1 for the others); ``uniform`` has no preference (zeros).

        Raises:
            ValueError: ``start`` is neither.
            UserError: see the class.
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
        cls, architecture: Architecture, hsize: int, dropout: float, *, relation_size: int = RELATION_SIZE
    ) -> "EncoderDecoder":
        """Build the network of an `Architecture`."""
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
            x, y: Words, float (B, T, H), and regions, float (B, N, H).
            x_mask, y_mask: Padding masks, bool (B, T) and (B, N), True = padding; or None.
            relation: Embedded relations between regions, float (B, N, N, relation_size); required if `uses_relation`.

        Returns:
            Encoded words (B, T, H) and decoded regions (B, N, H).
        """
        x = self.encode(x, x_mask)
        return x, self.decode(y, x, y_mask, x_mask, relation)

    def encode(self, x: torch.Tensor, x_mask: torch.Tensor | None = None) -> torch.Tensor:
        """Run the encoder blocks: float (B, T, H) -> (B, T, H); ``x_mask`` as in `forward`."""
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
        """Run decoder blocks.

        Args:
            y, y_mask, x_mask, relation: As in `forward`.
            x: Encoded words, float (B, T, H); None if none of ``blocks`` reads them.
            blocks: The decoder blocks to run.

        Returns:
            float (B, N, H).
        """
        for block in list(self.dec)[blocks]:
            y = block(y, x, y_mask, x_mask, relation)
        return y

    def blocks_without_words(self) -> int:
        """Number of decoder blocks before the first one that reads words in the next forward pass."""
        readers = [any(operation.reads_other for operation in self.running([block])) for block in self.dec]
        return [*readers, True].index(True)

    def gated(self) -> list[GatedOperation]:
        """The gated operations, in the order of the blocks; none in a fixed network."""
        return [member for block in (*self.enc, *self.dec) for member in block if isinstance(member, GatedOperation)]

    def running(self, blocks: Iterable[Block] | None = None) -> list[Operation]:
        """The operations that the next forward pass calls, in ``blocks`` or in all."""
        return [operation for member in self._called(blocks) for operation in member]

    def _called(self, blocks=None):
        """For each member of the blocks, the operations that the next forward pass calls, the active one first."""
        called = []
        for member in itertools.chain.from_iterable(blocks or (*self.enc, *self.dec)):
            if isinstance(member, GatedOperation):
                operations = list(member.operations.values())
                called.append([operations[k] for k in member.choice.running()])
            else:
                called.append([member])
        return called

    def uses_relation(self) -> bool:
        """Whether the next forward pass calls an operation that needs relations between regions."""
        return any(operation.needs_relation for operation in self.running())

    def choices(self) -> list[Choice]:
        """The choices, in the order of the blocks; none in a fixed network."""
        return [gated.choice for gated in self.gated()]

    def discretise(self, scores: dict[str, torch.Tensor]) -> Architecture:
        """Derive the architecture of the best candidates; for ``scores`` see `search.choice.SearchSpace`."""
        return Architecture(*(tuple(block.discretise(scores) for block in side) for side in (self.enc, self.dec)))

    def probabilities(self) -> dict[str, dict[str, dict[str, float]]]:
        """Probabilities of the candidates: "encoder" and "decoder" -> {block: {operation: probability}}.

        Empty in a fixed network.
        """
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
