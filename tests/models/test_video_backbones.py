"""The backbones of NTU RGB+D and EgoGesture: the original's numbers, torchvision's, and the needs of a fusion."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.backbone_net import UnimodalNet
from models.backbones.hcn import SkeletonHCN
from models.backbones.inflated_resnet import InflatedResNet50, inflate, normalise
from models.backbones.resnext3d import ResNeXt101, subtract_mean
from models.bmnas.cells import FusionCell
from models.bmnas.fusion_net import FusionNet
from models.bmnas.published import from_published, to_published
from models.genotypes import FusionGenotype, StepGenotype, check_genotype
from tests.golden import Golden
from tests.narrow_backbones import narrow_backbones
from tests.networks import assert_is_the_original, build_network


def pixels(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def assert_near(value, expected):
    """Equal to float32 rounding at the scale of the largest value."""
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


# The smallest sizes that leave more than one value per position: kind -> (network, input).
SMALL = {
    "rgb": (lambda: InflatedResNet50(5), pixels(2, 3, 33, 48, 3)),
    "skeleton": (lambda: SkeletonHCN(5, 0.2), torch.randn(2, 3, 32, 25, 2, generator=torch.Generator().manual_seed(0))),
    "colour clip": (lambda: ResNeXt101(5), pixels(2, 3, 10, 33, 40)),
    "depth clip": (lambda: ResNeXt101(5, in_channels=1), pixels(2, 1, 16, 32, 32)),
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """The networks run hundreds of short kernels: a second thread helps little, and waits long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_networks():
    """Kind -> (network in evaluation mode, input)."""
    torch.manual_seed(0)
    return {kind: (make().eval(), x) for kind, (make, x) in SMALL.items()}


@pytest.fixture(scope="class")
def small():
    """`small_networks` of small width, each built once."""
    with narrow_backbones():
        yield small_networks()


@pytest.fixture(scope="class")
def wide():
    """`small_networks` of the published width, since narrow ones have too few weights for statistics."""
    return small_networks()


class TestOriginals:
    def test_inflated_resnet(self):
        golden = Golden("inflated_resnet50_visual")
        net = InflatedResNet50(60).eval()
        assert list(net.state_dict()) == list(golden.state)
        net.load_state_dict(golden.state)
        first = []
        net.cnn.layer1.register_forward_hook(lambda module, args, output: first.append(output))
        with torch.no_grad():
            features = net(*golden.inputs())
            golden.assert_output("logits", net.head(features))
        for name, value in zip(("layer1", "layer2", "layer3", "layer4", "pooled"), first + features, strict=True):
            golden.assert_output(name, value)

    def test_skeleton_network(self):
        golden = Golden("skeleton_hcn")
        net = SkeletonHCN(60, 0.2).eval()
        assert set(net.state_dict()) == set(golden.state) and len(golden.state) == 24
        net.load_state_dict(golden.state)
        with torch.no_grad():
            features = net(*golden.inputs())
            golden.assert_output("logits", net.head(features))
        for name, value in zip(("hidden4", "hidden5", "hidden6", "hidden7"), features, strict=True):
            golden.assert_output(name, value)

    def test_resnext(self):
        golden = Golden("ego_resnext101_rgb")
        net = ResNeXt101(83).eval()
        assert list(net.state_dict()) == list(golden.state)
        net.load_state_dict(golden.state)
        with torch.no_grad():
            features = net(*golden.inputs())
            golden.assert_output("logits", net.head(features))
        for name, value in zip(("layer2", "layer3", "layer4"), features, strict=False):
            golden.assert_output(name, value)
        golden.assert_output("pooled", features[3][:, :, None, None, None])

    def test_complete_ntu_network(self):
        golden = Golden("found_net_ntu")
        c = golden.spec["constructor"]
        backbones = {"rgb": InflatedResNet50(c["num_outputs"]), "skeleton": SkeletonHCN(c["num_outputs"], c["drpt"])}
        net = build_network(golden, backbones, (c["L"], 1))
        batch = dict(zip(("rgb", "skeleton"), golden.inputs(), strict=True))
        assert_is_the_original(net, golden, {"rgb": "rgbnet", "skeleton": "skenet"}, batch)

    def test_complete_ego_network_has_the_published_names(self):
        nodes = [
            StepGenotype(
                (("skip", 0), ("skip", 1), ("skip", 2), ("skip", 0), ("skip", 3), ("skip", 1)), steps, (2, 3, 4)
            )
            for steps in (("LinearGLU", "LinearGLU", "Sum"), ("ScaleDotAttn", "ConcatFC", "ScaleDotAttn"))
        ]
        edges = (("skip", 2), ("skip", 7), ("skip", 2), ("skip", 3))
        genotype = FusionGenotype(edges, tuple(nodes), (8, 9))
        names = {"rgb": "rgb_net", "depth": "depth_net"}
        with torch.device("meta"):
            check_genotype(genotype, {"LinearGLU", "Sum", "ScaleDotAttn", "ConcatFC"}, 8, "the test")
            fusion = FusionCell.fixed(genotype, 8, 128, 8, 0.2)
            backbones = {"rgb": ResNeXt101(83), "depth": ResNeXt101(83, in_channels=1)}
            shape = {"channels": 128, "pool": (8, 1), "dropout": 0.2, "num_outputs": 83}
            net = FusionNet(backbones, fusion, genotype.used_inputs(), **shape)
        state = net.state_dict()
        theirs = to_published(state, names, found=True)
        # Two backbones; cell norm and classifier; tail and norm of two nodes; three operations with batch norm,
        # two with layer norm; three reshape layers.
        assert len(theirs) == 1320 == 2 * 626 + 2 + 2 + 2 * 9 + 3 * 7 + 2 * 2 + 3 * 7
        shapes = {key: list(value.shape) for key, value in theirs.items()}
        for key, size, _ in Golden("ego_resnext101_rgb").spec["state_dict"]:
            assert shapes[f"rgb_net.{key}"] == size
            assert shapes[f"depth_net.{key}"] == ([64, 1, 7, 7, 7] if key == "conv1.weight" else size)
        rest = {key.split(".")[0] for key in theirs} - set(names.values())
        assert rest == {"reshape_layers", "fusion_net", "central_classifier"}
        assert {key.split(".")[1] for key in theirs if key.startswith("reshape_layers.")} == {"2", "3", "7"}
        assert shapes["fusion_net.cell._step_nodes.1.node_cell.out_conv.weight"] == [128, 384, 1]
        back = from_published(theirs, names, genotype)
        assert back.keys() == state.keys() and all(back[key] is state[key] for key in state)


class TestInflation:
    def test_fixture(self):
        golden = Golden("inflate_2d_weights")
        w3, w1 = golden.inputs()
        for name in golden.spec["outputs"]:
            kernel, frames = name.split(".T")
            assert np.array_equal(inflate({"w3": w3, "w1": w1}[kernel], int(frames)), golden.arrays[name])

    def test_torchvisions_network_frame_by_frame(self):
        """With kernels that only read the middle frame, every frame gives the result of torchvision's network."""
        from torchvision.models import resnet50

        torch.manual_seed(0)
        reference = resnet50(weights=None).eval()
        for module in reference.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
        net = InflatedResNet50(5, pool="full").eval()
        net.load_torchvision(reference.state_dict())
        frames = torch.randn(2, 3, 64, 64, 3)
        x = frames.flatten(0, 1).permute(0, 3, 1, 2)
        expected = []
        with torch.no_grad():
            for name, module in reference.named_children():
                if name == "avgpool":
                    break
                x = module(x)
                expected.append(x.unflatten(0, (2, 3)).transpose(1, 2))
            features = net(frames)
        for value, wanted in zip(features, [*expected[-3:], expected[-1].mean(dim=(2, 3, 4))], strict=True):
            assert_near(value, wanted)

    def test_another_network_is_refused(self):
        import torchvision

        net = InflatedResNet50(5)
        for name in ("resnet34", "resnet101", "wide_resnet50_2"):
            with torch.device("meta"):
                shapes = getattr(torchvision.models, name)(weights=None).state_dict()
            with pytest.raises(RuntimeError):
                net.load_torchvision({key: torch.zeros(()).expand(value.shape) for key, value in shapes.items()})


class TestInputs:
    def test_uint8_frames_are_normalised(self, small):
        net, frames = small["rgb"]
        statistics = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], np.float32)
        expected = (frames.numpy().astype(np.float32) / np.float32(255) - statistics[0]) / statistics[1]
        assert np.array_equal(normalise(frames), expected)
        with torch.no_grad():
            assert_near(net(frames)[3], net(torch.from_numpy(expected))[3])

    @pytest.mark.parametrize("kind", ["colour clip", "depth clip"])
    def test_uint8_clips_lose_their_mean(self, small, kind):
        net, clips = small[kind]
        mean = np.array([114.7748, 107.7354, 99.475], np.float32)[: clips.shape[1]]
        expected = np.moveaxis(np.moveaxis(clips.numpy().astype(np.float32), 1, -1) - mean, -1, 1)
        assert np.array_equal(subtract_mean(clips), expected)
        with torch.no_grad():
            assert_near(net(clips)[3], net(torch.from_numpy(expected))[3])

    def test_the_originals_pool(self, small):
        """The pool averages the first 8 frames, 7 rows and 7 columns, as `AvgPool3d((8, 7, 7))` does if it fits."""
        net, _ = small["rgb"]
        with torch.no_grad():
            maps, pooled = net(pixels(1, 9, 225, 32, 3))[2:]
            assert maps.shape == (1, net.channels[2], 9, 8, 1)
            assert_near(pooled, nn.AvgPool3d((8, 7, 1))(maps).flatten(1))
            full = InflatedResNet50(5, pool="full").eval()
            full.load_state_dict(net.state_dict())
            assert_near(full(pixels(1, 9, 225, 32, 3))[3], maps.mean(dim=(2, 3, 4)))
        with pytest.raises(ValueError, match="expected 7x7 or full"):
            InflatedResNet50(5, pool="8x8")

    def test_skeletons_of_any_number_of_persons(self, small):
        """A duplicate of a person changes nothing, and neither does the order of persons."""
        net, x = small["skeleton"]
        with torch.no_grad():
            two, three = net(x), net(x[..., [1, 0, 1]])
        for a, b in zip(two, three, strict=True):
            torch.testing.assert_close(a, b)

    def test_each_person_draws_its_own_dropout(self):
        torch.manual_seed(0)
        net = SkeletonHCN(5, 0.5)
        seen = {}
        dropout = net.conv4[1]
        dropout.register_forward_hook(lambda module, args, output: seen.update(before=args[0], after=output))
        net(torch.randn(4, 3, 32, 25, 1).expand(-1, -1, -1, -1, 2))
        first, second = seen["before"].chunk(2)
        assert torch.equal(first, second)
        # Complete channels are dropped, and the others are doubled.
        kept = seen["after"].flatten(2).abs().amax(dim=2) > 0
        assert torch.equal(seen["after"], 2 * seen["before"] * kept[:, :, None, None])
        assert not torch.equal(*kept.chunk(2)) and 0.3 < kept.float().mean() < 0.7


@pytest.mark.parametrize("kind", SMALL)
class TestFeatures:
    def test_shapes_without_computing(self, small, kind):
        """The shapes that the feature cache needs, and the widths that the reshape layers rely on."""
        net, x = small[kind]
        unimodal = UnimodalNet("x", net, (8, 1))
        with torch.no_grad():
            features = net(x)
            kept = [tuple(feature.shape[1:]) for feature in unimodal.extract({"x": x}, "x")]
        assert tuple(feature.shape[1] for feature in features) == net.channels
        assert unimodal.feature_shapes({"x": x}, "x") == kept
        assert net.head(features).shape == (2, 5)
        assert net.cacheable and not net.deterministic_features

    def test_a_shorter_count_computes_a_prefix(self, small, kind):
        """Stopping early gives the same numbers, and uses exactly the modules of `modules_of`."""
        net, x = small[kind]
        ran = set()
        weighted = [module for module in net.modules() if module._parameters]
        hooks = [module.register_forward_hook(lambda module, *_: ran.add(module)) for module in weighted]
        with torch.no_grad():
            expected = net(x)
            for count in (1, 2, 3, 4):
                ran.clear()
                features = net(x, count)
                assert len(features) == count
                assert all(torch.equal(a, b) for a, b in zip(features, expected, strict=False))
                named = {part for module in net.modules_of(count) for part in module.modules()}
                assert ran == named.intersection(weighted)
        for hook in hooks:
            hook.remove()
        assert not net.modules_of(0)

    def test_a_smaller_batch_gives_the_same(self, small, kind):
        net, x = small[kind]
        with torch.no_grad():
            for whole, part in zip(net(x), net(x[1:]), strict=True):
                assert_near(whole[1:], part)

    def test_training_reaches_every_weight(self, small, kind):
        net, x = SMALL[kind][0](), small[kind][1]
        net.head(net(x)).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


class TestRandomStart:
    def test_inflated_resnet(self, wide):
        state = wide["rgb"][0].cnn.state_dict()
        for key, first, second in (("conv1", 7, 7), ("layer3.0.conv1", 1, 1), ("layer2.1.conv2", 3, 3)):
            weight = state[f"{key}.weight"]
            assert weight.std().item() == pytest.approx(math.sqrt(2 / (first * second * len(weight))), rel=0.05)
        assert all((state[f"layer4.2.bn3.{part}"] == value).all() for part, value in (("weight", 1), ("bias", 0)))

    def test_skeleton_network(self, wide):
        state = wide["skeleton"][0].state_dict()
        for key, fan_in, fan_out in (("conv5.0", 9 * 128, 9 * 128), ("conv2m", 3 * 64, 3 * 32), ("fc7.0", 1024, 512)):
            bound = math.sqrt(6 / (fan_in + fan_out))
            assert 0.99 * bound < state[f"{key}.weight"].abs().max() <= bound
            assert not state[f"{key}.bias"].any()

    def test_resnext(self, wide):
        colour, depth = (wide[kind][0].state_dict() for kind in ("colour clip", "depth clip"))
        # The depth stem is the mean of three He-normal kernels; the RGB stem has torch's default, which is uniform.
        stem = math.sqrt(2 / (64 * 7**3))
        assert depth["conv1.weight"].std().item() == pytest.approx(stem / math.sqrt(3), rel=0.05)
        bound = 1 / math.sqrt(3 * 3 * 7 * 7)
        assert 0.99 * bound < colour["conv1.weight"].abs().max() <= bound
        for state in (colour, depth):
            for key, size in (("layer1.0.conv2", 27), ("layer4.0.downsample.0", 1)):
                weight = state[f"{key}.weight"]
                assert weight.std().item() == pytest.approx(math.sqrt(2 / (len(weight) * size)), rel=0.05)
