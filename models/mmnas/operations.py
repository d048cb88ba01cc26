"""Operations of the MMNas search spaces, by name (Yu et al., ACM MM 2020, and the table of the original code).

What runs are the fast forms of some classes (`models.mmnas.fast`), except for those whose code is changed here.
An operation maps x (B, L, H) to the same shape; some also read the other side y (B, M, H). To add your own, derive a
class from `Operation` in a module of yours and pass ``module:Class`` to ``--enc_ops`` or ``--dec_ops``, see
``docs/extend.md``. The original's ``relu`` and ``leakyrelu`` are missing, since its own code cannot call them.
"""

from collections.abc import Callable, Iterable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from models.mmnas.layers import FC, MLP, RELATION_SIZE, LayerNorm, MultiHeadAttention
from util.cli import UserError
from util.registry import Registry

Tensor = torch.Tensor
# An argument that not every operation needs.
Given = Tensor | None


class Operation(nn.Module):
    """Base class of operations. Constructor arguments are those of `Residual`.

    Attributes:
        reads_other: Whether it needs ``y``.
        needs_relation: Whether it needs ``relation``.
        depends_on_padding: Whether its result at real positions depends on padding, and so on the padded length.
    """

    reads_other = False
    needs_relation = False
    depends_on_padding = False

    def __init__(
        self, hsize: int, dropout: float, relation_size: int = RELATION_SIZE, residual: bool = True, norm: bool = True
    ) -> None:
        super().__init__()

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        """Apply the operation.

        Args:
            x: float (B, L, H).
            y: The other side, float (B, M, H).
            x_mask, y_mask: Padding masks, bool (B, L) and (B, M), True = padding; or None.
            relation: Embedded relations between the positions of ``x``, float (B, L, L, relation_size).

        Returns:
            float (B, L, H).
        """
        raise NotImplementedError


class Identity(Operation):
    """Returns x."""

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return x


class Zero(Operation):
    """Returns x * 0. NaN and infinity become NaN."""

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return x * 0.0


class Gelu(Operation):
    """GELU in its tanh approximation."""

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return F.gelu(x, approximate="tanh")


class Residual(Operation):
    """Base class of operations that compute LayerNorm(x + dropout(core)).

    Args:
        hsize: Width H.
        dropout: Dropout rate, also inside the core.
        relation_size: Width of embedded relations.
        residual, norm: Whether to add x, and whether to normalise.
    """

    def __init__(
        self, hsize: int, dropout: float, relation_size: int = RELATION_SIZE, residual: bool = True, norm: bool = True
    ) -> None:
        super().__init__(hsize, dropout)
        self.dropout, self.residual = nn.Dropout(dropout), residual
        self.ln = LayerNorm(hsize) if norm else None

    def finish(self, x: Tensor, core: Tensor) -> Tensor:
        """Apply dropout, residual and norm to the core's output; all tensors are float (B, L, H)."""
        out = self.dropout(core)
        if self.residual:
            out = x + out
        return out if self.ln is None else self.ln(out)


class SelfAttention(Residual):
    """x attends to itself, with heads of ``head_width`` and an inner width of ``expansion`` * H."""

    def __init__(
        self,
        hsize: int,
        dropout: float,
        relation_size: int = RELATION_SIZE,
        residual: bool = True,
        norm: bool = True,
        head_width: int = 64,
        expansion: int = 1,
    ) -> None:
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        size = relation_size if self.needs_relation else 0
        self.mhatt = MultiHeadAttention(hsize, expansion * hsize, head_width, dropout, size)

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.mhatt(x, x, x_mask))


class RelationSelfAttention(SelfAttention):
    """Self attention whose scores include the logarithm of a weight computed from the relation of the two positions."""

    needs_relation = True

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.mhatt(x, x, x_mask, relation))


class GuidedAttention(SelfAttention):
    """x attends to y."""

    reads_other = True

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.mhatt(x, y, y_mask))


class UnifiedAttention(SelfAttention):
    """x attends to the concatenation of x and y, including their padding, as in the original."""

    reads_other = True
    depends_on_padding = True

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.mhatt(x, torch.cat([x, y], dim=1)))


class FeedForward(Residual):
    """Two linear layers with ReLU and dropout between them, where the width is ``expansion`` * H."""

    def __init__(
        self,
        hsize: int,
        dropout: float,
        relation_size: int = RELATION_SIZE,
        residual: bool = True,
        norm: bool = True,
        expansion: int = 4,
    ) -> None:
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        self.mlp = MLP(hsize, expansion * hsize, hsize, dropout)

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.mlp(x))


class DeepFeedForward(Residual):
    """Three linear layers with ReLU and dropout between them, where the width is 2 H."""

    def __init__(
        self, hsize: int, dropout: float, relation_size: int = RELATION_SIZE, residual: bool = True, norm: bool = True
    ) -> None:
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        self.fc = FC(hsize, 2 * hsize, dropout)
        self.mlp = MLP(2 * hsize, 2 * hsize, hsize, dropout)

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.mlp(self.fc(x)))


class GatedUnit(nn.Module):
    """Gated linear unit: the first half of a linear layer's output times the sigmoid of the second half."""

    def __init__(self, width: int, out_width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * out_width)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.linear(x))


class GatedLinear(Residual):
    """One gated linear unit."""

    def __init__(
        self, hsize: int, dropout: float, relation_size: int = RELATION_SIZE, residual: bool = True, norm: bool = True
    ) -> None:
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        self.unit = GatedUnit(hsize, hsize)

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.unit(x))


class DeepGatedLinear(Residual):
    """Two gated linear units with ReLU and dropout between them, where the width is 2 H."""

    def __init__(
        self, hsize: int, dropout: float, relation_size: int = RELATION_SIZE, residual: bool = True, norm: bool = True
    ) -> None:
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        self.unit_0 = GatedUnit(hsize, 2 * hsize)
        self.unit_1 = GatedUnit(2 * hsize, hsize)

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.unit_1(self.dropout(F.relu(self.unit_0(x)))))


class Convolution(Residual):
    """Convolution along the positions, including padding, as in the original."""

    depends_on_padding = True

    def __init__(
        self,
        hsize: int,
        dropout: float,
        relation_size: int = RELATION_SIZE,
        residual: bool = True,
        norm: bool = True,
        kernel: int = 3,
    ) -> None:
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        self.conv = _conv(hsize, kernel)

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.conv(x.transpose(1, 2)).transpose(1, 2))


class SeparableConvolution(Residual):
    """Depthwise convolution along the positions, including padding, then a pointwise one."""

    depends_on_padding = True

    def __init__(
        self,
        hsize: int,
        dropout: float,
        relation_size: int = RELATION_SIZE,
        residual: bool = True,
        norm: bool = True,
        kernel: int = 3,
    ) -> None:
        super().__init__(hsize, dropout, residual=residual, norm=norm)
        self.depthwise_conv = _conv(hsize, kernel, groups=hsize)
        self.pointwise_conv = _conv(hsize, 1)

    def forward(
        self, x: Tensor, y: Given = None, x_mask: Given = None, y_mask: Given = None, relation: Given = None
    ) -> Tensor:
        return self.finish(x, self.pointwise_conv(self.depthwise_conv(x.transpose(1, 2))).transpose(1, 2))


def _conv(width: int, kernel: int, groups: int = 1) -> nn.Conv1d:
    conv = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=groups)
    nn.init.kaiming_normal_(conv.weight)
    nn.init.zeros_(conv.bias)
    return conv


def _attention(prefix: str, cls: type[Operation], widths: Iterable[int]) -> dict[str, Callable[..., Operation]]:
    return {f"{prefix}_{width}": partial(cls, head_width=width) for width in widths}


_OPERATIONS: dict[str, Callable[..., Operation]] = {
    "none": Zero,
    "skip_connect": Identity,
    "gelu": Gelu,
    **_attention("self_att", SelfAttention, (256, 128, 64, 32, 16)),
    "self_att_64_2": partial(SelfAttention, head_width=64, expansion=2),
    **_attention("rel_self_att", RelationSelfAttention, (256, 128, 64, 32, 16)),
    **_attention("guided_att", GuidedAttention, (256, 128, 64, 32, 16)),
    "guided_att_64_2": partial(GuidedAttention, head_width=64, expansion=2),
    **_attention("uniimg_att", UnifiedAttention, (128, 64, 32)),
    **{f"sep_conv_{kernel}": partial(SeparableConvolution, kernel=kernel) for kernel in (3, 5, 7, 11)},
    **{f"std_conv_{kernel}": partial(Convolution, kernel=kernel) for kernel in (3, 5, 7, 11)},
    "feed_forward_2": partial(FeedForward, expansion=2),
    "feed_forward": FeedForward,
    "feed_forward_8": partial(FeedForward, expansion=8),
    "feed_forward_16": partial(FeedForward, expansion=16),
    "feed_forward_32": partial(FeedForward, expansion=32),
    "gated_linear_1": GatedLinear,
    "gated_linear_2": DeepGatedLinear,
    "feed_forward_deep": DeepFeedForward,
}
# Name -> constructor (hsize, dropout, relation_size=64, residual=True, norm=True); others are named ``module:Class``.
OPERATIONS = Registry("operation", _OPERATIONS, Operation)


def make_operation(
    name: str, hsize: int, dropout: float, relation_size: int = RELATION_SIZE, residual: bool = True, norm: bool = True
) -> Operation:
    """Build an operation by its name; for the other arguments see `Residual`.

    Raises:
        UserError: the operation is unknown, or its head width does not divide its inner width.
    """
    try:
        make = OPERATIONS[name]
    except KeyError:
        raise UserError(f"the operation {name!r} is unknown; known: {', '.join(OPERATIONS)}") from None
    try:
        return make(hsize, dropout, relation_size, residual=residual, norm=norm)
    except ValueError as error:
        raise UserError(
            f"the operation {name} does not fit a width of {hsize} ({error}); choose another --hsize or operation"
        ) from None


def operation_class(name: str) -> type[Operation]:
    """The class behind a name of `OPERATIONS`, whose attributes describe the operation."""
    return getattr(OPERATIONS[name], "func", OPERATIONS[name])


def check_encoder(names: Iterable[str]) -> None:
    """Check that the operations can be in the encoder, which only reads words.

    Raises:
        UserError: an operation needs the other side, or relations between regions.
    """
    for name in names:
        kind = operation_class(name)
        if kind.reads_other or kind.needs_relation:
            raise UserError(
                f"the operation {name} needs regions and cannot be in the encoder, which only sees words; "
                "use it in the decoder"
            )
