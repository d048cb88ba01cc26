"""Where the backbones' weights come from: released files, run folders, ImageNet, random; and errors about them."""

import urllib.error
import zlib

import pytest
import torch
import torchvision

from models.backbones import ego, mmimdb, ntu
from models.backbones.hcn import SkeletonHCN
from models.backbones.inflated_resnet import InflatedResNet50
from models.backbones.resnext3d import ResNeXt101
from models.backbones.vgg import VGG19Taps
from util.cli import UserError

RGB = "rgb_8frames_83.91.checkpoint"
SKELETON = "skeleton_32frames_85.24.checkpoint"
EGO_RGB = "egogesture_resnext_1.0x_RGB_32_acc_94.01245.pth"
EGO_DEPTH = "egogesture_resnext_1.0x_Depth_32_acc_93.61060.pth"
RANDOM = "random, drawn from the seed"


def constant(key):
    return zlib.crc32(key.encode()) % 1000 / 1000 + 1


def checkpoint_of(make, *args, **kwargs):
    """A state dict with a network's names and shapes whose tensors repeat one number, which makes a small file."""
    with torch.device("meta"):
        state = make(*args, **kwargs).state_dict()
    return {key: torch.tensor(constant(key)).to(value.dtype).expand(value.shape) for key, value in state.items()}


def is_loaded(net):
    """Whether every tensor has the values of `checkpoint_of`."""
    return all((v == torch.tensor(constant(key)).to(v.dtype)).all() for key, v in net.state_dict().items())


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A --checkpointdir with files named like the released ones."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.save(checkpoint_of(InflatedResNet50, 60), folder / RGB)
    torch.save(checkpoint_of(SkeletonHCN, 60, 0.2), folder / SKELETON)
    torch.save(checkpoint_of(ResNeXt101, 83), folder / EGO_RGB)
    torch.save(checkpoint_of(ResNeXt101, 83, in_channels=1), folder / EGO_DEPTH)
    return folder


@pytest.fixture
def no_download(monkeypatch):
    """torchvision's cache is empty, and there is no network connection."""

    def fail(self, *args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", fail)


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text
    for part in parts:
        assert part in text, text


class TestReleasedFiles:
    def test_ntu(self, released, no_download):
        nets = ntu.build_ntu_backbones(60, weights="pretrained", checkpointdir=released, dropout=0.3)
        assert list(nets) == ["rgb", "skeleton"] and all(is_loaded(net) for net in nets.values())
        assert nets["rgb"].source == str(released / RGB) and nets["skeleton"].source == str(released / SKELETON)
        assert nets["skeleton"].conv4[1].p == nets["skeleton"].fc7[2].p == 0.3 and nets["rgb"].pool == "7x7"

    def test_ego(self, released):
        nets = ego.build_ego_backbones(83, weights="pretrained", checkpointdir=released)
        assert list(nets) == ["rgb", "depth"] and all(is_loaded(net) for net in nets.values())
        assert nets["rgb"].source == str(released / EGO_RGB) and nets["depth"].source == str(released / EGO_DEPTH)

    @pytest.mark.parametrize(
        ("build", "kept", "missing", "flag", "command"),
        [
            ("ntu", SKELETON, RGB, "--rgb_cp", "python main_unimodal_ntu.py --modality rgb"),
            ("ntu", RGB, SKELETON, "--ske_cp", "python main_unimodal_ntu.py --modality skeleton"),
            ("ego", EGO_DEPTH, EGO_RGB, "--rgb_cp", "python main_unimodal_ego.py --modality rgb"),
            ("ego", EGO_RGB, EGO_DEPTH, "--depth_cp", "python main_unimodal_ego.py --modality depth"),
        ],
    )
    def test_a_missing_one_is_named_before_anything_is_built(
        self, tmp_path, monkeypatch, build, kept, missing, flag, command
    ):
        for name in ("ntu.InflatedResNet50", "ntu.SkeletonHCN", "ego.ResNeXt101"):
            monkeypatch.setattr(f"models.backbones.{name}", None)
        (tmp_path / kept).touch()
        with pytest.raises(UserError) as error:
            if build == "ntu":
                ntu.build_ntu_backbones(60, weights="pretrained", checkpointdir=tmp_path, dropout=0.2)
            else:
                ego.build_ego_backbones(83, weights="pretrained", checkpointdir=tmp_path)
        one_line(error, str(tmp_path / missing), "--checkpointdir", f"{flag} RUN_DIR", f"`{command}`")
        one_line(error, "--backbone_weights random")

    def test_another_number_of_classes(self, released):
        with pytest.raises(UserError) as error:
            ntu.build_skeleton_backbone(8, SKELETON, released, dropout=0.2)
        one_line(error, "--ske_cp: ", SKELETON, "fc8.weight (60, 512), expected (8, 512)", "main_unimodal_ntu.py")

    @pytest.mark.parametrize(
        ("build", "file", "parts"),
        [
            (lambda folder: ntu.build_rgb_backbone(60, "random", None, SKELETON, folder), SKELETON, "--rgb_cp: "),
            (lambda folder: ntu.build_skeleton_backbone(60, RGB, folder, dropout=0.2), RGB, "--ske_cp: "),
            (
                lambda folder: ego.build_ego_backbone("depth", 83, EGO_RGB, folder),
                EGO_RGB,
                "1 of another shape (conv1.weight (64, 3, 3, 7, 7), expected (64, 1, 7, 7, 7))",
            ),
            (lambda folder: ego.build_ego_backbone("rgb", 83, EGO_DEPTH, folder), EGO_DEPTH, "--rgb_cp: "),
        ],
        ids=["rgb", "skeleton", "depth", "colour"],
    )
    def test_the_other_modalitys_file(self, released, build, file, parts):
        with pytest.raises(UserError) as error:
            build(released)
        one_line(error, str(released / file), "does not fit", "expected the run folder or backbone.pth of", parts)


class TestFlags:
    """Every way to name a checkpoint, on the smallest network."""

    def build(self, value, folder=None):
        return ntu.build_skeleton_backbone(60, value, folder, dropout=0.2)

    @pytest.mark.parametrize("value", [None, "random"])
    def test_nothing_named(self, released, value):
        torch.manual_seed(3)
        net = self.build(value, released)
        torch.manual_seed(3)
        expected = SkeletonHCN(60, 0.2).state_dict()
        assert net.source == RANDOM
        assert all(torch.equal(value, expected[key]) for key, value in net.state_dict().items())

    def test_a_run_folder(self, released, tmp_path):
        (tmp_path / "backbone.pth").write_bytes((released / SKELETON).read_bytes())
        net = self.build(str(tmp_path), released)
        assert is_loaded(net) and net.source == str(tmp_path / "backbone.pth")

    def test_a_run_folder_in_the_checkpointdir(self, released, tmp_path):
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "backbone.pth").write_bytes((released / SKELETON).read_bytes())
        assert is_loaded(self.build("run", tmp_path))

    def test_a_file_here_comes_before_one_in_the_checkpointdir(self, released, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert self.build(SKELETON, released).source == str(released / SKELETON)
        torch.save(checkpoint_of(SkeletonHCN, 60, 0.2), SKELETON)
        assert self.build(SKELETON, released).source == SKELETON

    def test_a_missing_file(self, released):
        with pytest.raises(UserError) as error:
            self.build("nowhere.pth", released)
        one_line(error, "--ske_cp nowhere.pth does not exist", str(released), "main_unimodal_ntu.py", "or random")

    def test_a_folder_of_something_else(self, tmp_path):
        with pytest.raises(UserError) as error:
            self.build(str(tmp_path))
        one_line(error, f"--ske_cp {tmp_path} has no backbone.pth")

    def test_a_damaged_file(self, released, tmp_path):
        (tmp_path / "cut.pth").write_bytes((released / SKELETON).read_bytes()[:500])
        with pytest.raises(UserError) as error:
            self.build(str(tmp_path / "cut.pth"))
        one_line(error, "--ske_cp: ", "cut.pth is not a readable checkpoint", "expected the run folder")

    def test_wrong_files_are_noticed_before_networks_are_made(self, tmp_path, monkeypatch):
        for name in ("ntu.InflatedResNet50", "ntu.SkeletonHCN", "ego.ResNeXt101", "mmimdb.VGG19Taps"):
            monkeypatch.setattr(f"models.backbones.{name}", None)
        shared = {"weights": "random", "checkpointdir": tmp_path}
        for flags, flag in (
            ({"skeleton_cp": "x"}, "--ske_cp x"),
            ({"rgb_cp": "x"}, "--rgb_cp x"),
            ({"resnet_weights": "x"}, "--resnet_weights x"),
        ):
            with pytest.raises(UserError, match=f"{flag} does not exist"):
                ntu.build_ntu_backbones(60, **shared, dropout=0.2, **flags)
        with pytest.raises(UserError, match="--depth_cp x does not exist"):
            ego.build_ego_backbones(83, **shared, depth_cp="x")
        with pytest.raises(UserError, match="--text_cp x does not exist; pass the run folder"):
            mmimdb.build_mmimdb_backbones(23, weights="random", text_cp="x")
        with pytest.raises(UserError, match="--vgg_weights x does not exist"):
            mmimdb.build_image_backbone(23, "random", "x")


class TestFormats:
    @pytest.mark.parametrize("zipped", [True, False])
    def test_saved_on_a_gpu_within_data_parallel(self, tmp_path, monkeypatch, zipped):
        state = {f"module.{key}": value for key, value in checkpoint_of(SkeletonHCN, 60, 0.2).items()}
        with monkeypatch.context() as patch:
            patch.setattr("torch.serialization.location_tag", lambda storage: "cuda:0")
            torch.save(state, tmp_path / "gpu.pth", _use_new_zipfile_serialization=zipped)
        if not torch.cuda.is_available():
            with pytest.raises(RuntimeError, match="CUDA"):
                torch.load(tmp_path / "gpu.pth", weights_only=True)
        assert is_loaded(ntu.build_skeleton_backbone(60, str(tmp_path / "gpu.pth"), dropout=0.2))

    def test_very_old_files_have_no_batch_counts(self, tmp_path):
        """Before torch 0.4.1 batch norm had no batch counter; the original's loader accepts such files too."""
        state = checkpoint_of(ResNeXt101, 5)
        old = {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}
        assert len(state) - len(old) == 104
        torch.save(old, tmp_path / "old.pth")
        net = ego.build_ego_backbone("rgb", 5, str(tmp_path / "old.pth"))
        loaded = net.state_dict()
        assert all((loaded[key] == constant(key)).all() for key in old)
        assert not any(loaded[key] for key in state.keys() - old.keys())

    def test_code_in_a_file_never_runs(self, tmp_path):
        torch.save(SkeletonHCN(60, 0.2), tmp_path / "net.pth")
        with pytest.raises(UserError, match=r"--ske_cp: .*is not a readable checkpoint"):
            ntu.build_skeleton_backbone(60, str(tmp_path / "net.pth"), dropout=0.2)


class TestImageNet:
    def imagenet(self, folder, name):
        state = checkpoint_of(getattr(torchvision.models, name), weights=None)
        torch.save(state, folder / f"{name}.pth")
        return str(folder / f"{name}.pth")

    def test_a_file_is_inflated(self, tmp_path, no_download):
        path = self.imagenet(tmp_path, "resnet50")
        net = ntu.build_rgb_backbone(60, "pretrained", path, None, None, "full")
        assert net.source == path and net.pool == "full"
        kernel = net.cnn.layer1[0].conv2.weight
        assert (kernel[:, :, 1] == constant("layer1.0.conv2.weight")).all() and not kernel[:, :, ::2].any()
        assert (net.cnn.layer4[0].downsample[1].weight == constant("layer4.0.downsample.1.weight")).all()

    def test_in_a_fusion_the_named_file_beats_the_released_one(self, released, tmp_path):
        path = self.imagenet(tmp_path, "resnet50")
        options = {"weights": "pretrained", "checkpointdir": released, "dropout": 0.2}
        assert ntu.build_ntu_backbones(60, resnet_weights=path, **options)["rgb"].source == path

    def test_both_files_are_too_many(self, tmp_path):
        with pytest.raises(UserError, match="--rgb_cp and --resnet_weights both set the weights of the same network"):
            ntu.build_rgb_backbone(60, "pretrained", "resnet50.pth", "run")
        with pytest.raises(UserError, match="--image_cp and --vgg_weights both set"):
            mmimdb.build_image_backbone(23, "pretrained", "vgg19.pth", "run")

    @pytest.mark.parametrize(
        ("build", "flag", "model"),
        [
            (lambda path: ntu.build_rgb_backbone(60, "random", path), "--resnet_weights", "resnet50"),
            (lambda path: mmimdb.build_image_backbone(23, "random", path), "--vgg_weights", "vgg19"),
        ],
        ids=["resnet", "vgg"],
    )
    def test_a_file_of_something_else(self, tmp_path, build, flag, model):
        with pytest.raises(UserError) as error:
            build(self.imagenet(tmp_path, "resnet18"))
        one_line(error, f"{flag}: ", f"resnet18.pth is not a state dict of torchvision.models.{model}", f"{model}-")
        (tmp_path / "text.pth").write_text("no weights")
        with pytest.raises(UserError) as error:
            build(str(tmp_path / "text.pth"))
        one_line(error, f"{flag}: ", "text.pth is not a readable checkpoint")

    @pytest.mark.parametrize(
        ("build", "parts"),
        [
            (
                lambda: ntu.build_rgb_backbone(60, "pretrained"),
                (
                    "ImageNet ResNet-50",
                    "https://download.pytorch.org/models/resnet50-0676ba61.pth",
                    "--resnet_weights FILE",
                ),
            ),
            (
                lambda: mmimdb.build_image_backbone(23, "pretrained"),
                ("ImageNet VGG-19", "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth", "--vgg_weights FILE"),
            ),
        ],
        ids=["resnet", "vgg"],
    )
    def test_without_a_network(self, no_download, build, parts):
        with pytest.raises(UserError) as error:
            build()
        one_line(error, *parts, "no network here", "--backbone_weights random")

    @pytest.mark.parametrize(
        ("build", "model", "source"),
        [
            (lambda: ntu.build_rgb_backbone(60, "pretrained"), "resnet50", "torchvision's ImageNet ResNet-50"),
            (lambda: mmimdb.build_image_backbone(23, "pretrained"), "vgg19", "torchvision's ImageNet VGG-19"),
        ],
        ids=["resnet", "vgg"],
    )
    def test_torchvisions_weights_are_taken(self, monkeypatch, build, model, source):
        import socket

        asked = []

        def give(self, *args, **kwargs):
            asked.append((str(self), kwargs, socket.getdefaulttimeout()))
            return checkpoint_of(getattr(torchvision.models, model), weights=None)

        monkeypatch.setattr("torchvision.models._api.WeightsEnum.get_state_dict", give)
        before = socket.getdefaulttimeout()
        net = build()
        [(name, options, timeout)] = asked
        assert name.lower().startswith(model) and name.endswith("IMAGENET1K_V1")
        assert options["check_hash"] and 0 < timeout <= 60 and socket.getdefaulttimeout() == before
        body = net.vgg if isinstance(net, VGG19Taps) else net.cnn
        first, key = (body[0].bias, "features.0.bias") if model == "vgg19" else (body.conv1.weight, "conv1.weight")
        assert net.source == source and (first == constant(key)).all()

    def test_random_means_no_weights_are_looked_for(self, no_download):
        assert ntu.build_rgb_backbone(60, "random").source == RANDOM
        assert ntu.build_rgb_backbone(60, "pretrained", checkpoint="random").source == RANDOM
