"""Learned values replace missing inputs, and modality dropout never drops the last input of a sample."""

import torch
from torch import nn

from models.bmnas.baselines import ConcatFusion
from models.bmnas.fusion_net import FusionNet
from models.bmnas.late_fusion import LateFusion
from models.missing import Placeholders, drop_modalities


class Identity(nn.Module):
    """Returns a vector as it is."""

    channels, cacheable, deterministic_features = (3,), False, True

    def forward(self, x, count=None):
        return [x]

    def modules_of(self, count):
        return []


def net(optional=("a",), fusion=None, **options):
    torch.manual_seed(0)
    shape = {"channels": 4, "pool": (1, 1), "dropout": 0.0, "num_outputs": 2}
    fusion = fusion or LateFusion((0, 1), 4, 1)
    return FusionNet({"a": Identity(), "b": Identity()}, fusion, (0, 1), **shape, optional=optional, **options)


def batch(present):
    generator = torch.Generator().manual_seed(1)
    inputs = {name: torch.randn(len(present), 3, generator=generator) for name in "ab"}
    return {**inputs, "a_present": torch.tensor(present), "label": torch.zeros(len(present))}


def test_a_missing_input_has_no_influence_and_its_placeholder_learns():
    network = net().eval()
    network.placeholders.values["0"].data.fill_(0.5)
    first = batch([True, False, False])
    second = {**first, "a": first["a"] + torch.tensor([[0.0], [3.0], [3.0]])}
    assert torch.equal(network(first), network(second))
    as_if = {**first, "a": torch.where(first["a_present"][:, None], first["a"], torch.tensor(0.5))}
    as_if["a_present"] = torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(network(first), network(as_if))
    network.train()(first).sum().backward()
    assert network.placeholders.values["0"].grad.abs().sum() > 0
    assert any(parameter is network.placeholders.values["0"] for parameter in network.weights())
    assert network.count_parameters()["placeholders"] == 3


def test_without_optional_inputs_nothing_is_added():
    plain = net(optional=())
    assert plain.placeholders is None and "placeholders" not in plain.count_parameters()
    state = {key: value for key, value in net().state_dict().items() if not key.startswith("placeholders")}
    assert all(torch.equal(plain.state_dict()[key], value) for key, value in state.items())
    assert set(state) == set(plain.state_dict())


def test_placeholders_keep_the_positions_of_a_feature():
    fill = Placeholders({2: 3})
    fill.values["2"].data.copy_(torch.tensor([1.0, 2.0, 3.0]))
    filled = fill(2, torch.zeros(2, 3, 4, 5), torch.tensor([True, False]))
    assert not filled[0].any() and torch.equal(filled[1, :, 3, 4], torch.tensor([1.0, 2.0, 3.0]))


def test_dropout_keeps_one_of_the_inputs_that_a_sample_has():
    torch.manual_seed(0)
    present = torch.tensor([[True, True, False], [False, True, False], [False, False, False]] * 2000)
    kept = drop_modalities(present, 0.5)
    assert not (kept & ~present).any()
    assert kept[0::3].any(1).all() and kept[1::3, 1].all() and not kept[2::3].any()
    # Each of two inputs is dropped with 1/2, but never both: 1/4 + 1/8 of the samples lose the first.
    assert abs(kept[0::3, 0].float().mean() - 0.625) < 0.03
    assert torch.equal(drop_modalities(present, 0.0), present)


def test_dropout_acts_in_training_only():
    network = net(optional=("a", "b"), modality_dropout=0.9)
    network.placeholders.values["0"].data.fill_(9.0)
    samples = batch([True] * 64)
    assert torch.equal(network.eval()(samples), network(samples))
    network.reshape.eval()
    network.training = True
    torch.manual_seed(0)
    changed = (network(samples) - network.eval()(samples)).abs().amax(1) > 1e-4
    assert 0.5 < changed.float().mean() < 1


def test_the_concatenation_baseline_has_a_hidden_layer():
    network = net(fusion=ConcatFusion((0, 1), 4, 1, 0.1)).eval()
    assert network.classifier.in_features == 8 and network(batch([True] * 5)).shape == (5, 2)
    assert network.arch_parameters() == {} and network.uses_all_weights()


def test_backbones_are_frozen_by_name():
    linear = nn.Linear(3, 3)

    class Trained(Identity):
        def __init__(self):
            super().__init__()
            self.layer, self.drop = linear, nn.Dropout(0.5)

        def forward(self, x, count=None):
            return [self.drop(self.layer(x))]

        def modules_of(self, count):
            return [self.layer]

    shape = {"channels": 4, "pool": (1, 1), "dropout": 0.0, "num_outputs": 2}
    frozen_too = nn.ModuleDict({"a": Trained(), "b": Trained()})
    network = FusionNet(frozen_too, LateFusion((0, 1), 4, 1), (0, 1), **shape, frozen=["b"]).train()
    assert network.backbones["a"].training and not network.backbones["b"].training
    assert any(parameter is linear.weight for parameter in network.weights())
    assert network.cacheable() == [] and network.fixed_backbones == {"b"}
    assert not any(key.startswith("backbones.b.") for key in network.trainable_state().state_dict()["weights"])


def test_a_batch_may_lack_an_input_that_is_missing_everywhere():
    network = net().eval()
    network.placeholders.values["0"].data.fill_(0.5)
    whole = batch([False, False])
    lacking = {name: value for name, value in whole.items() if name not in ("a", "a_present", "label")}
    assert torch.equal(network(lacking), network(whole))
    there = {name: value for name, value in whole.items() if name != "a_present"}
    assert not torch.equal(network(there), network(whole))


def test_features_are_fused_as_in_a_forward_pass():
    network, inputs = net().eval(), batch([True, True])
    features = [*network.backbone_features("a", inputs["a"]), *network.backbone_features("b", inputs["b"])]
    assert torch.equal(network.fuse(features), network(inputs))
