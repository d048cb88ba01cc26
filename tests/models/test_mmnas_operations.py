"""Every operation of the MMNas table against the original's numbers, and requirements on any registered operation."""

import numpy as np
import pytest
import torch

from models.mmnas import fast
from models.mmnas.fast_layers import PaddedSide, PairValues, dropout
from models.mmnas.layers import AttentionPooling, LayerNorm
from models.mmnas.operations import OPERATIONS, check_encoder, make_operation, operation_class
from tests.mmnas_golden import Golden, filled, generator
from util.cli import UserError

torch.set_num_threads(1)
OPS = Golden("ops")
WITH_OUTPUT = [key for key, entry in OPS.spec["ops"].items() if "output" in entry]
UNCALLABLE = {"relu", "leakyrelu"}


def inputs(width):
    g = generator(OPS.spec["seed"])
    shapes = {"x": (2, 9, width), "y": (2, 7, width), "relation": (2, 9, 9, 64)}
    made = {name: torch.from_numpy(g.standard_normal(shape).astype(np.float32)) for name, shape in shapes.items()}
    x_mask, y_mask = torch.zeros(2, 9, dtype=torch.bool), torch.zeros(2, 7, dtype=torch.bool)
    x_mask[1, 5:] = y_mask[1, 3:] = True
    return {**made, "x_mask": x_mask, "y_mask": y_mask}


def sped_up(module, way):
    """``module``, plain or fast."""
    return module if way == "plain" else fast.speed_up(module)


def made(key, way="plain"):
    """The operation of a fixture entry such as ``self_att_64.norm0.res1``, filled."""
    name, *variants = key.split(".")
    width = 256 if "H256" in variants else 128
    flags = {"norm": "norm0" not in variants, "residual": "res0" not in variants}
    operation = make_operation(name, width, 0.1, **flags).eval()
    entries = [[k, list(v.shape)] for k, v in operation.state_dict().items()]
    operation.load_state_dict(filled(entries))
    return sped_up(operation, way), width


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("key", WITH_OUTPUT)
def test_output(key, way):
    operation, width = made(key, way)
    given, entry = inputs(width), OPS.spec["ops"][key]
    if "state_dict" in entry:
        own = {name: list(value.shape) for name, value in operation.state_dict().items()}
        assert own == dict(entry["state_dict"])
    if key.endswith("fullmask"):
        given["x_mask"][1], given["y_mask"][1] = True, True
    if key.endswith("nomask"):
        given["x_mask"] = given["y_mask"] = None
    before = given["x"].clone()
    OPS.assert_output(entry["output"]["npz"], operation(**given))
    assert torch.equal(given["x"], before)


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("name", OPS.spec["op_grads"])
def test_gradients(name, way):
    operation, width = made(name, way)
    given, entry = inputs(width), OPS.spec["op_grads"][name]
    for key in ("x", "y", "relation"):
        given[key].requires_grad_()
    weights = torch.from_numpy(generator(12).standard_normal((2, 9, 128)).astype(np.float32))
    (operation(**given) * weights).sum().backward()
    for key, ours in (("x", "x"), ("y", "y"), ("rel", "relation")):
        if entry[key] is None:
            assert given[ours].grad is None
        else:
            OPS.assert_output(entry[key]["npz"], given[ours].grad)
    assert {key for key, _ in operation.named_parameters()} == set(entry["params"])
    for key, parameter in operation.named_parameters():
        OPS.assert_output(entry["params"][key]["npz"], parameter.grad, atol=1e-4)


def test_registry_is_the_callable_part_of_the_originals_table():
    table = {entry["op"] for entry in OPS.spec["ops"].values() if "op" in entry}
    assert set(OPERATIONS) == table - UNCALLABLE


@pytest.mark.parametrize("way", ["plain", "fast"])
def test_layer_norm(way):
    norm = sped_up(LayerNorm(128), way)
    norm.load_state_dict(filled(OPS.spec["layernorm"]["state_dict"]))
    OPS.assert_output("layernorm", norm(inputs(128)["x"]))
    OPS.assert_output("layernorm_const", norm(torch.ones(1, 2, 128)))


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("scale", [0.0, 1e-7, 1e-6, 1e-3, 1e3])
def test_layer_norm_adds_its_epsilon_to_the_deviation(scale, way):
    """Values and gradients agree with the definition in float64, differentiated by autograd."""
    g = torch.Generator().manual_seed(0)
    x, a, b, weights = scale * torch.randn(4, 32, generator=g), *torch.randn(3, 4, 32, generator=g)
    norm = sped_up(LayerNorm(32), way)
    norm.load_state_dict({"a_2": a[0], "b_2": b[0]})
    inputs = [x.clone().requires_grad_(), norm.a_2, norm.b_2]
    out = norm(inputs[0])
    exact = [t.detach().double().requires_grad_() for t in inputs]
    centred = exact[0] - exact[0].mean(1, keepdim=True)
    deviation = (centred.square().sum(1, keepdim=True) / 31 + 1e-40).sqrt()
    expected = exact[1] * centred / (deviation + 1e-6) + exact[2]
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
    found = torch.autograd.grad((out * weights).sum(), inputs)
    wanted = torch.autograd.grad((expected * weights).sum(), exact)
    for value, exact_value in zip(found, wanted, strict=True):
        torch.testing.assert_close(value.double(), exact_value, rtol=1e-4, atol=1e-5 * exact_value.abs().max().item())


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("case", OPS.spec["attflat"], ids=lambda case: case["glimpses"])
def test_attention_pooling(case, way):
    pooling = AttentionPooling(128, 256, 0.1, glimpses=case["glimpses"]).eval()
    pooling = sped_up(pooling, way)
    assert [[key, list(value.shape)] for key, value in pooling.state_dict().items()] == case["state_dict"]
    pooling.load_state_dict(filled(case["state_dict"]))
    given = inputs(128)
    OPS.assert_output(case["masked"]["npz"], pooling(given["x"], given["x_mask"]))
    OPS.assert_output(case["nomask"]["npz"], pooling(given["x"]))
    weights = pooling.weights(given["x"], given["x_mask"])
    torch.testing.assert_close(weights.sum(1), torch.ones(2, case["glimpses"]))
    assert not weights[1, 5:].any()


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("name", OPERATIONS)
def test_flags_say_what_is_read(name, way):
    """y, the relation and padded positions affect the result exactly if the attributes of the class say so."""
    operation = sped_up(make_operation(name, 256, 0.0).eval(), way)
    kind = operation_class(name)
    given = inputs(256)
    out = operation(**given)[:, :5]
    other = {
        "reads_other": {**given, "y": given["y"] + torch.rand(2, 7, 1)},
        "needs_relation": {**given, "relation": given["relation"] + 1},
        "depends_on_padding": {**given, "x": given["x"].masked_fill(given["x_mask"][..., None], 9.0)},
    }
    for flag, changed in other.items():
        assert torch.equal(operation(**changed)[:, :5], out) is not getattr(kind, flag), flag


@pytest.mark.parametrize("name", [n for n in OPERATIONS if not operation_class(n).depends_on_padding])
@pytest.mark.parametrize("all_padding", [False, True])
def test_packed_rows_give_the_same(name, all_padding):
    operation = sped_up(make_operation(name, 256, 0.0).eval(), "fast")
    given = inputs(256)
    if all_padding:
        given["x_mask"][1], given["y_mask"][1] = True, True
    expected = make_operation(name, 256, 0.0).eval()
    expected.load_state_dict(operation.state_dict())
    expected = expected(**given)
    x_side, y_side = PaddedSide(given["x_mask"], pack=True), PaddedSide(given["y_mask"], pack=True)
    assert (x_side.index is None) == all_padding
    pairs = x_side.pairs()
    relation = given["relation"] if pairs is None else given["relation"].flatten(0, 2)[pairs]
    packed = operation(x_side.pack(given["x"]), y_side.pack(given["y"]), x_side, y_side, PairValues(relation, pairs))
    kept = slice(None) if all_padding else ~given["x_mask"]
    torch.testing.assert_close(x_side.pad(packed)[kept], expected[kept], rtol=1e-5, atol=1e-5)


class TestDropout:
    def test_shares_and_scale(self):
        torch.manual_seed(0)
        out = dropout(torch.ones(1_000_003), 0.1, True)
        values = out.unique()
        assert len(values) == 2 and values[0] == 0
        torch.testing.assert_close(values[1], torch.tensor(1 / 0.9), rtol=1e-4, atol=0.0)
        # Five standard deviations of a frequency in a million draws.
        assert abs((out == 0).float().mean().item() - 0.1) < 5 * 0.3e-3

    def test_neighbours_are_independent(self):
        """Four elements share one draw of 64 bits."""
        torch.manual_seed(0)
        dropped = (dropout(torch.ones(400_000), 0.5, True) == 0).float().view(-1, 4)
        correlation = torch.corrcoef(dropped.T) - torch.eye(4)
        assert correlation.abs().max() < 5 / 100_000**0.5

    def test_gradient_is_that_of_the_mask(self):
        torch.manual_seed(0)
        x = torch.rand(7, 5, requires_grad=True)
        out = dropout(x, 0.5, True)
        out.sum().backward()
        torch.testing.assert_close(x.grad, (out / x).detach())

    @pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)])
    def test_off(self, rate, training):
        x = torch.rand(3)
        assert dropout(x, rate, training) is x

    def test_everything(self):
        assert not dropout(torch.ones(9), 1.0, True).any()


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("name", ["self_att_64", "rel_self_att_64", "guided_att_64"])
def test_training_attention_is_that_of_evaluation_but_for_dropout(name, way):
    """Training on a CPU uses separate code; the mean over many draws is the value without dropout."""
    operation = sped_up(make_operation(name, 64, 0.2, norm=False, residual=False), way)
    given = inputs(64)
    expected = operation.eval()(**given)
    torch.manual_seed(0)
    operation.train()
    with torch.no_grad():
        mean = sum(operation(**given) for _ in range(3000)) / 3000
    assert (mean - expected).norm() < 0.03 * expected.norm()


ATTENTION = ["self_att_64", "rel_self_att_64", "guided_att_64"]
# This rate drops hardly anything, but uses the code for training on a CPU.
NEXT_TO_NOTHING = 2**-15


def as_in_the_original(operation, x, y, x_mask, y_mask, relation):
    """An attention operation by its definition: the scores of padded keys are filled with -1e9."""
    own, (keys, mask) = operation.mhatt, (y, y_mask) if operation.reads_other else (x, x_mask)
    q, k, v = (
        linear(side).unflatten(-1, (own.heads, -1)).transpose(1, 2)
        for linear, side in ((own.linear_q, x), (own.linear_k, keys), (own.linear_v, keys))
    )
    scores = q @ k.transpose(2, 3) / q.shape[-1] ** 0.5
    if own.linear_r is not None:
        scores = own.linear_r(relation).relu().clamp(min=1e-6).log().permute(0, 3, 1, 2) + scores
    attended = scores.masked_fill(mask[:, None, None], -1e9).softmax(-1) @ v
    return operation.finish(x, own.linear_merge(attended.transpose(1, 2).flatten(2)))


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("scale", [1.0, 1e3], ids=["small", "large"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ATTENTION)
def test_a_sample_of_padding_alone_is_filled_as_in_the_original(name, dtype, training, scale, way):
    """It attends evenly however large its scores are, and trains neither queries nor keys nor relations."""
    torch.manual_seed(0)
    operation = make_operation(name, 64, NEXT_TO_NOTHING if training else 0.0).to(dtype).train(training)
    operation = sped_up(operation, way)
    given = {key: value if "mask" in key else value.to(dtype) for key, value in inputs(64).items()}
    for key in ("x", "y", "relation"):
        given[key][1] *= scale
    given["x_mask"][1], given["y_mask"][1] = True, True
    variables = [given[key].requires_grad_() for key in ("x", "y", "relation")] + list(operation.parameters())
    weights = torch.randn(2, 9, 64, dtype=dtype)
    found, expected = operation(**given), as_in_the_original(operation, **given)
    # Elements that are not dropped are scaled up by 3e-5.
    rough = training or dtype == torch.float32
    accuracy = {"rtol": 1e-3, "atol": 1e-4} if rough else {"rtol": 1e-9, "atol": 1e-10}
    torch.testing.assert_close(found, expected, **accuracy)
    ours, theirs = (
        torch.autograd.grad((out * weights).sum(), variables, allow_unused=True, materialize_grads=True)
        for out in (found, expected)
    )
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=accuracy["rtol"], atol=accuracy["atol"] * max(1, other.abs().max()))
    alone = torch.autograd.grad((operation(**given)[1] * weights[1]).sum(), operation.parameters(), allow_unused=True)
    for (key, _), gradient in zip(operation.named_parameters(), alone, strict=True):
        untouched = gradient is None or not gradient.any()
        assert untouched == key.startswith(("mhatt.linear_q", "mhatt.linear_k", "mhatt.linear_r")), key


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pooling_of_padding_alone_is_even_and_trains_no_weights(dtype, way):
    torch.manual_seed(0)
    pooling = sped_up(AttentionPooling(8, 6, 0.0, hidden=5).to(dtype), way)
    x, mask = 1e4 * torch.randn(1, 4, 8, dtype=dtype), torch.ones(1, 4, dtype=torch.bool)
    out = pooling(x, mask)
    torch.testing.assert_close(out, pooling.linear_merge(x.mean(1)), rtol=1e-4, atol=1e-4)
    out.sum().backward()
    assert not any(p.grad.any() for p in pooling.mlp.parameters())


@pytest.mark.parametrize("way", ["plain", "fast"])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ATTENTION)
def test_a_sample_of_padding_alone_under_autocast(name, dtype, training, way):
    """Attention is uniform, also in float16, which cannot represent -1e9."""
    operation = sped_up(make_operation(name, 64, NEXT_TO_NOTHING if training else 0.0).train(training), way)
    given = inputs(64)
    given["x_mask"][1], given["y_mask"][1] = True, True
    expected = operation(**given)
    with torch.autocast("cpu", dtype=dtype):
        out = operation(**given)
    torch.testing.assert_close(out, expected, rtol=0.05, atol=0.05)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(p.grad.isfinite().all() for p in operation.parameters())


def test_unknown_name_and_width():
    with pytest.raises(UserError, match="'self_attention' is unknown"):
        make_operation("self_attention", 64, 0.1)
    with pytest.raises(UserError, match="self_att_64 does not fit a width of 96"):
        make_operation("self_att_64", 96, 0.1)


@pytest.mark.parametrize("name", ["guided_att_64", "rel_self_att_64", "uniimg_att_64"])
def test_encoder_takes_no_operation_that_needs_regions(name):
    with pytest.raises(UserError, match=f"{name} needs regions"):
        check_encoder(["feed_forward", name])
