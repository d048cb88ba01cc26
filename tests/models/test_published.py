"""State dicts of the original code: every name is translated in both directions, for networks of many sizes."""

import random
import re

import pytest
import torch
from torch import nn

from models.bmnas.cells import FusionCell
from models.bmnas.fusion_net import FusionNet
from models.bmnas.operations import PUBLISHED_STEP_OPERATIONS
from models.bmnas.published import from_published, to_published
from models.genotypes import random_genotype
from util.cli import UserError

C, L, CLASSES = 4, 4, 3
BACKBONES = {"left": "leftnet", "right": "rightnet"}


class Backbone(nn.Module):
    """A backbone with two features, and with batch norm, so that it has buffers."""

    channels = (3, 5)
    deterministic_features = False

    def __init__(self):
        super().__init__()
        self.maps = nn.ModuleList(nn.Sequential(nn.Linear(4, w), nn.BatchNorm1d(w)) for w in self.channels)

    def forward(self, x, count=None):
        return [layer(x) for layer in self.maps[:count]]

    def modules_of(self, count):
        return list(self.maps[:count])


def sizes(steps, multiplier, node_steps, node_multiplier):
    return {"steps": steps, "multiplier": multiplier, "node_steps": node_steps, "node_multiplier": node_multiplier}


NUMBERS = ((1, 1, 1, 1), (2, 2, 1, 1), (2, 2, 2, 2), (3, 2, 3, 3), (2, 1, 3, 1), (1, 1, 2, 4))
SIZES = [sizes(*numbers) for numbers in NUMBERS]


def build(size, genotype=None, seed=0):
    """A network all of whose tensors differ from each other and from those of another seed."""
    torch.manual_seed(seed)
    fusion = FusionCell.mixed(4, C, L, 0.0, **size) if genotype is None else FusionCell.fixed(genotype, 4, C, L, 0.0)
    used = range(4) if genotype is None else genotype.used_inputs()
    backbones = {name: Backbone() for name in BACKBONES}
    net = FusionNet(backbones, fusion, used, channels=C, pool=(2, 2), dropout=0.0, num_outputs=CLASSES)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            if tensor.is_floating_point():
                tensor.uniform_(0.1, 1.0)
            else:
                tensor.random_(1000)
    return net


def draw(size, seed=0):
    return random_genotype(random.Random(seed), list(PUBLISHED_STEP_OPERATIONS), num_inputs=4, **size)


def norm_names(prefix, channels):
    return {f"{prefix}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")} | {
        f"{prefix}.num_batches_tracked": ()
    }


def operation_names(prefix, name):
    """The original's tensors of one operation."""
    if name == "ScaleDotAttn":
        return {f"{prefix}.ln.weight": (C, L), f"{prefix}.ln.bias": (C, L)}
    out = {"LinearGLU": 2 * C, "ConcatFC": C}.get(name)
    if out is None:
        return {}
    conv = {f"{prefix}.conv.weight": (out, 2 * C, 1), f"{prefix}.conv.bias": (out,)}
    return conv | norm_names(f"{prefix}.bn", out)


def original_names(size, genotype=None):
    """Names and shapes of the original's fusion part and classifier, according to its description."""
    order = ("Sum", "ScaleDotAttn", "LinearGLU", "ConcatFC")
    names = {"fusion_net.cell.ln.weight": (size["multiplier"] * C, L)}
    names["fusion_net.cell.ln.bias"] = names["fusion_net.cell.ln.weight"]
    for i in range(size["steps"]):
        node = f"fusion_net.cell._step_nodes.{i}.node_cell"
        names |= {f"{node}.ln.weight": (C, L), f"{node}.ln.bias": (C, L)}
        m = size["node_multiplier"]
        if m != 1:
            names |= {f"{node}.out_conv.weight": (C, m * C, 1), f"{node}.out_conv.bias": (C,)}
            names |= norm_names(f"{node}.bn", C)
        for k in range(size["node_steps"]):
            if genotype is None:
                for number, name in enumerate(order):
                    names |= operation_names(f"{node}.node_ops.{k}._ops.{number}", name)
            else:
                names |= operation_names(f"{node}.node_ops.{k}", genotype.steps[i].inner_steps[k])
    width = size["multiplier"] * C * L
    return names | {"central_classifier.weight": (CLASSES, width), "central_classifier.bias": (CLASSES,)}


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def without_architecture(state):
    return {k: v for k, v in state.items() if not k.endswith(("edges.logits", "gammas"))}


@pytest.mark.parametrize("found", [False, True])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_round_trip(size, found):
    for seed in range(4 if found else 1):
        genotype = draw(size, seed) if found else None
        net = build(size, genotype, seed)
        state = without_architecture(net.state_dict())
        theirs = to_published(net.state_dict(), BACKBONES, found=found)
        back = from_published(theirs, BACKBONES, genotype)
        assert list(back) == list(state)
        assert all(torch.equal(back[key], state[key]) for key in state)

        other = ("leftnet.", "rightnet.", "reshape_layers.")
        assert shapes({k: v for k, v in theirs.items() if not k.startswith(other)}) == original_names(size, genotype)


def test_translated_weights_give_the_same_outputs():
    """After a translation to the original's names and into another network, logits are equal."""
    size = sizes(2, 2, 2, 2)
    genotype = draw(size, seed=5)
    first, second = build(size, genotype, seed=1), build(size, genotype, seed=2)
    batch = {name: torch.randn(3, 4) for name in BACKBONES}
    assert not torch.equal(first.eval()(batch), second.eval()(batch))
    theirs = to_published(first.state_dict(), BACKBONES, found=True)
    second.load_state_dict(from_published(theirs, BACKBONES, genotype))
    assert torch.equal(first(batch), second(batch))


def test_prefixes_of_the_other_parts():
    theirs = to_published(build(SIZES[1]).state_dict(), BACKBONES, found=False)
    assert {"leftnet.maps.0.0.weight", "rightnet.maps.1.1.running_var"} <= set(theirs)
    reshape = {key for key in theirs if key.startswith("reshape_layers.")}
    parts = {"conv.weight", "conv.bias"} | set(norm_names("bn", 1))
    assert reshape == {f"reshape_layers.{i}.{part}" for i in range(4) for part in parts}
    for key in theirs:
        assert re.match(r"(leftnet|rightnet|reshape_layers|fusion_net\.cell|central_classifier)\.", key)


def test_architecture_parameters_are_left_out():
    net = build(SIZES[2])
    theirs = to_published(net.state_dict(), BACKBONES, found=False)
    assert len(theirs) == len(net.state_dict()) - len(net.arch_parameters())


NODE = "fusion_net.cell._step_nodes.0.node_cell."
UNKNOWN = [
    "fusion.cell.ln.weight",
    "nonsense",
    "",
    "alphas_edges",
    "fusion_net.alphas_edges",
    "leftnet",
    "module.central_classifier.weight",
    "fusion_net.cell._step_nodes.x.node_cell.ln.weight",
    NODE + "foo",
    NODE + "foo.bar",
    NODE + "node_ops.0._ops.9.conv.weight",
]


@pytest.mark.parametrize("genotype", [None, draw(SIZES[1])], ids=["search", "found"])
@pytest.mark.parametrize("key", UNKNOWN)
def test_an_unknown_name_is_refused_and_named(key, genotype):
    with pytest.raises(UserError) as error:
        from_published({"central_classifier.bias": torch.zeros(3), key: torch.zeros(3)}, BACKBONES, genotype)
    assert repr(key) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("key", [NODE + "node_ops.1.conv.weight", NODE.replace("0", "7") + "node_ops.0.ln.bias"])
@pytest.mark.parametrize("genotype", [None, draw(SIZES[1])], ids=["none", "too short"])
def test_a_found_network_needs_a_genotype_with_its_steps(key, genotype):
    with pytest.raises(UserError, match=r"its genotype has no such inner step") as error:
        from_published({key: torch.zeros(3)}, BACKBONES, genotype)
    assert repr(key) in str(error.value)
