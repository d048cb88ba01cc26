"""Reshape layers, backbones and complete MM-IMDB networks against the originals."""

import numpy as np
import pytest
import torch

from models.backbone_net import ReshapeLayer, square_pool
from models.backbones.maxout_mlp import MaxOutMLP
from models.backbones.vgg import VGG19Taps
from tests.golden import Golden
from tests.networks import assert_is_the_original, build_network

BACKBONES = {"image": "imagenet", "text": "textnet"}


@pytest.mark.parametrize("name", ["reshape_mmimdb", "reshape_ntu_ego"])
def test_reshape_layers(name):
    golden = Golden(name)
    c = golden.spec["constructor"]
    pool = square_pool(c["L"]) if name == "reshape_mmimdb" else (c["L"], 1)
    layer = ReshapeLayer(c["C_in"], c["C"], pool, c["drpt"])
    layer.load_state_dict(golden.state)
    layer.eval()
    for i, x in enumerate(golden.inputs()):
        golden.assert_output(f"out{i}", layer(x))


def test_square_pool_needs_a_square():
    with pytest.raises(ValueError, match="L = 12"):
        square_pool(12)


def test_vgg_taps():
    golden = Golden("vgg19_taps")
    net = VGG19Taps(23)
    net.load_state_dict(golden.state)
    net.eval()
    for name, x in zip("ab", golden.inputs(), strict=True):
        with torch.no_grad():
            features = net(x)
        for i in range(4):
            golden.assert_output(f"{name}.tap{i + 1}", features[i])
        golden.assert_output(f"{name}.logits", net.head(features))


def test_vgg_is_torchvisions():
    """The same layers as torchvision's network, loaded from its state dict; a shorter count gives a prefix."""
    from torchvision.models import vgg19

    torch.manual_seed(0)
    reference = vgg19(weights=None)
    net = VGG19Taps(5)
    net.load_torchvision(reference.state_dict())
    images = torch.randint(0, 256, (2, 3, 64, 48), dtype=torch.uint8)
    with torch.no_grad():
        features, expected = net.eval()(images), reference.features(images.float())
        torch.testing.assert_close(features[3], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(features[4], expected.mean(dim=(2, 3)), rtol=1e-4, atol=1e-4)
        assert [torch.equal(a, b) for a, b in zip(net(images, count=2), features, strict=False)] == [True, True]


def test_maxout():
    golden = Golden("maxout_mlp")
    net = MaxOutMLP(23)
    net.load_state_dict(golden.state)
    net.eval()
    features = net(golden.inputs()[0])
    golden.assert_output("o1", features[0])
    golden.assert_output("o3", features[1])
    golden.assert_output("logits", net.head(features))
    assert torch.equal(net(golden.inputs()[0], count=1)[0], features[0])


def build(golden):
    num_outputs = golden.spec["constructor"]["num_outputs"]
    backbones = {"image": VGG19Taps(num_outputs), "text": MaxOutMLP(num_outputs)}
    return build_network(golden, backbones, square_pool(golden.spec["constructor"]["L"]))


@pytest.mark.parametrize("name", ["search_net_mmimdb", "found_net_mmimdb"])
def test_complete_network(name):
    """Logits of a complete network after a round trip of its published state dict through our loader."""
    golden = Golden(name)
    text, image = golden.inputs()
    assert_is_the_original(build(golden), golden, BACKBONES, {"text": text, "image": image})


def test_extracted_features_give_the_same_logits():
    """From the features of `extract`, a network computes exactly what it computes from the raw inputs."""
    torch.manual_seed(0)
    net = build(Golden("found_net_mmimdb"))
    batch = {"image": torch.randint(0, 256, (3, 3, 96, 64), dtype=torch.uint8), "text": torch.randn(3, 300)}
    with torch.no_grad():
        assert net.cacheable() == ["image"]  # features of the text network are cheaper to compute than to cache
        kept = {f"{name}_features": net.extract(batch, name) for name in ("image", "text")}
        assert kept["image_features"][0].shape == (3, 512, 4, 4)
        net.eval()
        assert torch.equal(net(kept), net(batch))


def test_frozen_backbones_keep_their_mode_and_get_no_gradient():
    net = build(Golden("search_net_mmimdb"))
    net.train()
    assert not net.backbones.training and net.fusion.training
    frozen = {id(p) for p in net.backbones.parameters()}
    assert not frozen & {id(p) for p in net.weights()}
    arch = {id(p) for p in net.arch_parameters().values()}
    assert len(arch) == 5 and not arch & {id(p) for p in net.weights()}
    everything = frozen | arch | {id(p) for p in net.weights()}
    assert everything == {id(p) for p in net.parameters()}


def test_unfrozen_network_trains_what_the_genotype_reads():
    """The published found recipe trains the backbones, up to the last feature that is read."""
    net = build(Golden("found_net_mmimdb"))
    net.frozen = net.fixed_backbones = frozenset()
    net.train()
    batch = {"image": torch.rand(2, 3, 64, 64), "text": torch.randn(2, 300)}
    net(batch).sum().backward()
    assert all(p.grad is not None for p in net.weights())
    with_gradient = {id(p) for p in net.parameters() if p.grad is not None}
    assert with_gradient == {id(p) for p in net.weights()}
    np.testing.assert_array_equal(sorted(net.reshape), ["2", "3", "5"])
