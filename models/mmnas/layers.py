"""Layers that operations and heads are built of: normalisation, dropout, perceptrons, attention, pooling.

Modules are named as in the original, so that its state dicts translate name by name.
"""

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from models.mmnas.rows import Rows, floor_of

NORM_EPSILON = 1e-6
# Next to nothing; it keeps the inverse of a constant row's deviation finite.
VARIANCE_FLOOR = 1e-20
# Relation weights are clamped to it before the logarithm.
SMALLEST_RELATION = 1e-6
_DRAWS = 2**16


class _Normalise(torch.autograd.Function):
    """a * (x - mean) / (std + 1e-6) + b by torch's fused kernel, which divides by sqrt(variance with n).

    With k = sqrt(n / (n - 1)) and r the kernel's inverse deviation, the factor 1 / (k + 1e-6 r) of a row turns
    one into the other. It is no constant to the gradient: Adam makes much of gradients that are nearly zero.
    """

    @staticmethod
    def forward(ctx, x, a, b):
        n = x.shape[-1]
        scaled, mean, inverse = torch.native_layer_norm(x, (n,), a, None, VARIANCE_FLOOR)
        factor = 1 / ((n / (n - 1)) ** 0.5 + NORM_EPSILON * inverse)
        ctx.save_for_backward(x, a, mean, inverse, factor)
        return torch.addcmul(b, scaled, factor)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        x, a, mean, inverse, factor = ctx.saved_tensors
        n = x.shape[-1]
        to_x, to_a, _ = torch.ops.aten.native_layer_norm_backward(
            gradient * factor, x, (n,), mean, inverse, a, None, (True, True, False)
        )
        centred = x - mean
        along = ((gradient * centred) @ a)[..., None]
        to_x.addcmul_(centred, (NORM_EPSILON / n) * (factor * inverse * inverse) ** 2 * along)
        return to_x, to_a, gradient.flatten(0, -2).sum(0)


class LayerNorm(nn.Module):
    """a_2 * (x - mean) / (std + 1e-6) + b_2 over the last axis, std with n - 1 (MMNas' own definition).

    Under autocast it works and answers in the parameters' type.
    """

    def __init__(self, width):
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(width))
        self.b_2 = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        """Normalise (..., width)."""
        return _Normalise.apply(x.to(self.a_2.dtype), self.a_2, self.b_2)


def dropout(x, rate, training):
    """Zero elements of ``x`` with probability ``rate`` (on a CPU to within 2**-17) and scale the others up.

    On a CPU it draws 16 random bits per element, four elements at a time, which is several times as fast
    as torch's own draws.
    """
    threshold = round(rate * _DRAWS)
    if not training or threshold == 0:
        return x
    if x.device.type != "cpu" or threshold == _DRAWS or torch.compiler.is_compiling():
        return F.dropout(x, rate)
    words = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = words.view(torch.int16)[: x.numel()] >= threshold - _DRAWS // 2
    return x * kept.view(x.shape).to(x.dtype).mul_(_DRAWS / (_DRAWS - threshold))


class FC(nn.Module):
    """Linear, ReLU, dropout."""

    def __init__(self, width, out_width, rate):
        super().__init__()
        self.linear = nn.Linear(width, out_width)
        self.rate = rate

    def forward(self, x):
        """(..., width) -> (..., out_width)."""
        return dropout(F.relu(self.linear(x), inplace=True), self.rate, self.training)


class MLP(nn.Module):
    """`FC` to the hidden width, then a linear layer."""

    def __init__(self, width, hidden, out_width, rate):
        super().__init__()
        self.fc = FC(width, hidden, rate)
        self.linear = nn.Linear(hidden, out_width)

    def forward(self, x):
        """(..., width) -> (..., out_width)."""
        return self.linear(self.fc(x))


def attend(queries, keys, values, bias, rate, training):
    """softmax(q k^T / sqrt(C) + bias), dropped out, times v: all (B, heads, L, C), ``bias`` broadcastable or None."""
    if queries.device.type != "cpu" or not training or rate == 0:
        rate = rate if training else 0.0
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=rate)
    # torch's kernels for the CPU do not drop out; what it falls back to is slower than this.
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if bias is not None:
        scores = scores + bias
    return dropout(scores.softmax(-1), rate, training) @ values


class MultiHeadAttention(nn.Module):
    """Attention with heads of ``head_width``, four projections without bias.

    Args:
        width: H of inputs and output.
        inner: Width of queries, keys and values.
        head_width: Width of a head.
        rate: Dropout rate of the attention map.
        relation_size: Width of a relation between two positions, which weights the map by
            max(relu(linear_r(relation)), 1e-6); 0: no relations.

    Raises:
        ValueError: ``head_width`` does not divide ``inner``.
    """

    def __init__(self, width, inner, head_width, rate, relation_size=0):
        super().__init__()
        if inner % head_width:
            raise ValueError(f"heads of width {head_width} do not divide {inner}")
        self.heads, self.rate = inner // head_width, rate
        self.linear_v = nn.Linear(width, inner, bias=False)
        self.linear_k = nn.Linear(width, inner, bias=False)
        self.linear_q = nn.Linear(width, inner, bias=False)
        self.linear_r = nn.Linear(relation_size, self.heads) if relation_size else None
        self.linear_merge = nn.Linear(inner, width, bias=False)

    def forward(self, x, keys, x_rows, key_rows, relation=None):
        """Let ``x`` attend to ``keys``.

        Args:
            x, keys: (B, L, H) each, or (R, H) where their `Rows` are packed.
            x_rows, key_rows: Their `Rows`.
            relation: `Relation` between the positions of ``x``, if there is a ``linear_r``.
        """
        shared = key_rows.shared
        if shared is not None and not self.training and self.heads * shared.mask.shape[-1] < x.shape[-1]:
            return self._attend_shared(x, keys, x_rows, shared)
        queries = x_rows.split(self.linear_q(x), self.heads)
        values = key_rows.split(self.linear_v(keys), self.heads)
        keys = key_rows.split_keys(self.linear_k(keys), self.heads)
        dtype = queries.dtype
        bias = key_rows.bias(dtype) if self.linear_r is None else self._relation_bias(relation, key_rows, dtype)
        return self.linear_merge(x_rows.merge(attend(queries, keys, values, bias, self.rate, self.training)))

    def _attend_shared(self, x, keys, x_rows, key_rows):
        """The same where as many samples of ``x`` in a row share each sample of ``keys``, whose `Rows` are given.

        The query projection goes into the keys, and the merging one into the values: both are then done once per
        key, and each of the many queries meets heads * T columns instead of H.
        """
        heads, inner = self.heads, self.linear_q.out_features
        values, keys = key_rows.split(self.linear_v(keys), heads), key_rows.split_keys(self.linear_k(keys), heads)
        into_keys = self.linear_q.weight.unflatten(0, (heads, -1))
        into_values = self.linear_merge.weight.unflatten(1, (heads, -1)).permute(1, 2, 0)
        keys = (keys * (inner // heads) ** -0.5 @ into_keys).flatten(1, 2)
        values, padded = (values @ into_values).flatten(1, 2), x_rows.pad(x)
        queries = padded.reshape(len(keys), -1, padded.shape[-1])
        scores = (queries @ keys.transpose(1, 2)).unflatten(-1, (heads, -1))
        scores = scores + key_rows.bias(scores.dtype)
        return x_rows.pack((scores.softmax(-1).flatten(2) @ values).view(padded.shape))

    def _relation_bias(self, relation, rows, dtype):
        # The logarithm is steep near zero: it wants full precision also where products do without.
        with torch.autocast(relation.values.device.type, enabled=False):
            weights = self.linear_r(relation.values)
            return rows.pair_bias(weights.clamp(min=SMALLEST_RELATION).log(), relation.pairs, dtype)


class AttentionPooling(nn.Module):
    """Weighted sum over a side, the weights from a perceptron, then a linear layer (the original's AttFlat).

    Args:
        width: H of the input.
        out_width: Width of the output.
        rate: Dropout rate inside the perceptron.
        hidden: Its hidden width.
        glimpses: Number G of weighted sums, concatenated.
    """

    def __init__(self, width, out_width, rate, hidden=512, glimpses=1):
        super().__init__()
        self.mlp = MLP(width, hidden, glimpses, rate)
        self.linear_merge = nn.Linear(width * glimpses, out_width)

    def weights(self, x, mask=None):
        """Share of every position in each sum: (B, L, G), adding up to 1 over L; padding has 0.

        Args:
            x: (B, L, H), or (R, H) of packed `Rows`.
            mask: Boolean (B, 1, 1, L), `Rows` or None.
        """
        rows = Rows.of(mask)
        scores = rows.pad(self.mlp(x))
        if rows.mask is not None:
            scores = scores.masked_fill(rows.mask[:, 0, 0, :, None], floor_of(scores.dtype))
        return scores.softmax(1)

    def forward(self, x, mask=None):
        """Pool; arguments as in `weights`. Returns (B, out_width)."""
        rows = Rows.of(mask)
        sums = self.weights(x, rows).transpose(1, 2).to(x.dtype) @ rows.pad(x)
        return self.linear_merge(sums.flatten(1))
