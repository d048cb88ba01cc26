"""Cached features: equal to features computed every time, computed once per distinct input, and stored safely."""

import importlib
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import engine.features
from engine.features import CachedFeatures, FeatureCache
from engine.loading import Indices, build_loader
from engine.updates import OptimizerStep, Precision
from models.backbone_net import UnimodalNet
from models.backbones.maxout_mlp import MaxOutMLP
from models.backbones.vgg import VGG19Taps
from models.bmnas.cells import FusionCell
from models.bmnas.fusion_net import FusionNet
from models.genotypes import FusionGenotype, StepGenotype
from util.cli import UserError

CPU = torch.device("cpu")
SAMPLES = 41


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny tensors are fastest in one thread, and the machine may be busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Data:
    """Samples that share some of their inputs; ``reads`` lists what was read."""

    def __init__(self, shapes, distinct, samples=SAMPLES, split="train", fingerprint="f0", seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.inputs = {}
        for name, (shape, kind) in shapes.items():
            shape = (distinct[name], *shape)
            made = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            self.inputs[name] = made if kind == "uint8" else torch.randn(shape, generator=generator)
        self.rows = {name: np.arange(samples) * 7 % count for name, count in distinct.items()}
        self.labels = torch.randint(0, 2, (samples, 3), generator=generator).float()
        self.split, self.fingerprint = split, fingerprint
        self.reads = []

    def __len__(self):
        return len(self.labels)

    def read(self, indices, only=None, without=(), epoch=0):
        names = [name for name in (only or self.inputs) if name not in without]
        self.reads += names
        batch = {name: self.inputs[name][torch.from_numpy(self.rows[name][indices])] for name in names}
        return {**batch, "label": self.labels[torch.as_tensor(indices)]}

    def __getitems__(self, indices):
        return self.read(indices)

    def distinct(self, name):
        return self.rows[name][:, None]


def small_data(**options):
    return Data({"a": ((4,), "float"), "b": ((2, 5, 5), "float")}, {"a": 11, "b": SAMPLES}, **options)


def stores(folder):
    """The complete and incomplete feature folders in ``folder``, without lock files."""
    return [path for path in folder.iterdir() if not path.name.endswith(".lock")]


class Backbone(nn.Module):
    """A backbone with two features; ``calls`` lists the batch sizes of its forward passes."""

    def __init__(self, layers, channels, deterministic_features):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.channels, self.deterministic_features, self.cacheable = channels, deterministic_features, True
        self.calls = []

    def forward(self, x, count=None):
        self.calls.append(len(x))
        features = []
        for layer in self.layers[:count]:
            x = layer(x)
            features.append(x)
        return features

    def modules_of(self, count):
        return list(self.layers[:count])


def small_net(used=range(4), seed=0, **options):
    torch.manual_seed(seed)
    a = Backbone([nn.Linear(4, 3), nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 5))], (3, 5), False)
    b = Backbone([nn.Conv2d(2, 3, 3, padding=1), nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3))], (3, 4), True)
    sizes = {"steps": 2, "multiplier": 2, "node_steps": 1, "node_multiplier": 1}
    if list(used) == list(range(4)):
        fusion = FusionCell.mixed(4, 6, 4, 0.1, **sizes)
    else:
        step = StepGenotype((("skip", 0), ("skip", 1)), ("ConcatFC",), (2,))
        fusion = FusionCell.fixed(FusionGenotype(tuple(("skip", i) for i in used), (step,), (4,)), 4, 6, 4, 0.1)
    shape = {"channels": 6, "pool": (2, 2), "dropout": 0.1, "num_outputs": 3}
    return FusionNet({"a": a, "b": b}, fusion, used, **shape, **options)


def cache(net, mode, folder, precision=None):
    of_splits = FeatureCache(net, mode, folder, CPU, precision or Precision(), num_workers=0)
    return lambda data: of_splits({"": data})[""]


def calls(net):
    return {name: sum(backbone.calls) for name, backbone in net.backbones.items()}


def batches(dataset, epochs=1, batch_size=8):
    loader = build_loader(dataset, batch_size, shuffle=True, seed=3, num_workers=0, device=CPU)
    for epoch in range(epochs):
        loader.batch_sampler.epoch = epoch
        yield from loader


def loss_of(outputs, batch):
    return F.binary_cross_entropy_with_logits(outputs, batch["label"])


def train(net, dataset, epochs=2, outputs=None):
    """Run a short training; return all weights, and append the outputs of each step to ``outputs``."""
    weights = net.weights()
    updater = OptimizerStep(net, loss_of, torch.optim.Adam(weights, lr=1e-2))
    net.train()
    torch.manual_seed(5)
    for batch in batches(dataset, epochs):
        _, logits = updater.step(batch)
        if outputs is not None:
            outputs.append(logits)
    return net.state_dict()


def assert_equal_states(first, second):
    assert list(first) == list(second)
    assert [key for key in first if not torch.equal(first[key], second[key])] == []


@pytest.mark.parametrize("options", [{}, {"backbone_mode": "train"}], ids=str)
@pytest.mark.parametrize("mode", ["ram", "disk"])
class TestExactness:
    def test_logits(self, tmp_path, mode, options):
        data, net = small_data(), small_net(**options)
        kept = cache(net, mode, tmp_path)(data)
        net.eval()
        for raw, cached in zip(batches(data), batches(kept), strict=True):
            assert torch.equal(raw["label"], cached["label"])
            assert torch.equal(net(raw), net(cached))

    def test_training(self, tmp_path, mode, options):
        data = small_data()
        plain = train(small_net(**options), cache(small_net(**options), "off", tmp_path)(data))
        net = small_net(**options)
        trained = train(net, cache(net, mode, tmp_path)(data))
        assert_equal_states(trained, plain)
        start = small_net(**options).state_dict()
        assert not torch.equal(trained["classifier.weight"], start["classifier.weight"])


def imdb_net(unimodal=False):
    torch.manual_seed(0)
    backbones = {"image": VGG19Taps(3), "text": MaxOutMLP(3)}
    if unimodal:
        return UnimodalNet("image", backbones["image"], (2, 2), frozen=True)
    fusion = FusionCell.mixed(6, 8, 4, 0.1, steps=2, multiplier=2, node_steps=1, node_multiplier=1)
    return FusionNet(backbones, fusion, range(6), channels=8, pool=(2, 2), dropout=0.1, num_outputs=3)


def imdb_data(samples):
    shapes = {"image": ((3, 64, 48), "uint8"), "text": ((300,), "float")}
    return Data(shapes, {"image": 8, "text": samples}, samples=samples)


@pytest.mark.parametrize("unimodal", [False, True], ids=["fusion", "head alone"])
def test_real_backbones_train_to_the_same_bits(tmp_path, unimodal):
    """With VGG-19 and the MaxOut network, outputs in every batch and final weights of a training are equal."""
    data, net = imdb_data(16), imdb_net(unimodal)
    start = {key: value.clone() for key, value in net.state_dict().items()}
    states, outputs = {}, {}
    for mode in ("off", "ram", "disk"):
        net.load_state_dict(start)
        kept = cache(net, mode, tmp_path)(data)
        assert isinstance(kept, CachedFeatures) == (mode != "off")
        outputs[mode] = []
        trained = train(net, kept, epochs=1, outputs=outputs[mode])
        states[mode] = {key: value.clone() for key, value in trained.items()}
    for mode in ("ram", "disk"):
        assert all(torch.equal(one, two) for one, two in zip(outputs[mode], outputs["off"], strict=True))
        assert_equal_states(states[mode], states["off"])
    changed = {key.split(".")[0] for key in start if not torch.equal(start[key], states["off"][key])}
    assert changed == ({"backbones"} if unimodal else {"reshape", "fusion", "classifier"})


def test_ragged_batches_agree_to_rounding(tmp_path):
    """Matrix products may sum in another order for another batch size, which only changes the last bits."""
    data, net = imdb_data(9), imdb_net().eval()
    kept = cache(net, "ram", tmp_path)(data)
    with torch.no_grad():
        for raw, cached in zip(batches(data, batch_size=3), batches(kept, batch_size=3), strict=True):
            torch.testing.assert_close(net(cached), net(raw), rtol=1e-5, atol=1e-6)


class TestWhatIsComputed:
    @pytest.mark.parametrize("mode", ["ram", "disk"])
    def test_distinct_inputs_once(self, tmp_path, mode):
        """11 of the 41 inputs a are distinct; two more samples are computed to find the shapes."""
        data, net = small_data(), small_net()
        kept = cache(net, mode, tmp_path)(data)
        assert calls(net) == {"a": 11 + 2, "b": 41 + 2}
        list(batches(kept, epochs=3))
        net.eval()(next(iter(batches(kept))))
        assert calls(net) == {"a": 11 + 2, "b": 41 + 2}

    def test_raw_inputs_are_not_read_again(self, tmp_path):
        data, net = small_data(), small_net()
        kept = cache(net, "ram", tmp_path)(data)
        data.reads.clear()
        batch = next(iter(batches(kept)))
        assert data.reads == [] and set(batch) == {"a_features", "b_features", "label"}

    def test_large_features_are_kept_pooled(self, tmp_path):
        kept = cache(small_net(), "ram", tmp_path)(small_data())
        batch = next(iter(batches(kept)))
        assert [tuple(f.shape) for f in batch["b_features"]] == [(8, 3, 2, 2), (8, 4, 2, 2)]
        assert [tuple(f.shape) for f in batch["a_features"]] == [(8, 3), (8, 5)]

    def test_memory_holds_what_is_read_and_disk_holds_everything(self, tmp_path):
        """The features on disk serve all genotypes, which may read other features."""
        net, data = small_net(used=(1, 2)), small_data()
        kept = {mode: cache(net, mode, tmp_path)(data) for mode in ("ram", "disk")}
        for dataset in kept.values():
            batch = next(iter(batches(dataset)))
            assert [f is None for f in batch["a_features"]] == [True, False]
            assert [f is None for f in batch["b_features"]] == [False, True]
        assert {len(list(folder.glob("*.npy"))) for folder in stores(tmp_path)} == {2}

    def test_a_backbone_that_nobody_reads_is_left_alone(self, tmp_path):
        net = small_net(used=(0, 1))
        kept = cache(net, "ram", tmp_path)(small_data())
        assert calls(net)["b"] == 0 and set(next(iter(batches(kept)))) == {"a_features", "label"}

    def test_the_mode_of_the_network_is_restored(self, tmp_path):
        for training in (True, False):
            net = small_net(backbone_mode="train").train(training)
            modes = {name: module.training for name, module in net.named_modules()}
            cache(net, "ram", tmp_path)(small_data())
            assert {name: module.training for name, module in net.named_modules()} == modes

    def test_nothing_random_is_drawn(self, tmp_path):
        net = small_net()
        before = torch.get_rng_state()
        list(batches(cache(net, "disk", tmp_path)(small_data())))
        assert torch.equal(torch.get_rng_state(), before)

    def test_train_mode_keeps_stateless_backbones_only(self, tmp_path):
        """a has dropout and batch norm before its features, b has neither."""
        net = small_net(backbone_mode="train")
        kept = cache(net, "ram", tmp_path)(small_data())
        assert set(next(iter(batches(kept)))) == {"a", "b_features", "label"}
        assert calls(net)["a"] == 0

    def test_trained_backbones_are_not_kept(self, tmp_path):
        net, data = small_net(frozen=False), small_data()
        assert cache(net, "ram", tmp_path)(data) is data

    def test_off_keeps_nothing(self, tmp_path):
        net, data = small_net(), small_data()
        assert cache(net, "off", tmp_path)(data) is data
        assert calls(net) == {"a": 0, "b": 0} and list(tmp_path.iterdir()) == []


class TestDisk:
    def test_a_second_call_reuses_the_store(self, tmp_path):
        data = small_data()
        first = cache(small_net(), "disk", tmp_path)(data)
        net = small_net()
        second = cache(net, "disk", tmp_path)(data)
        assert calls(net) == {"a": 0, "b": 0}, "the manifest has the shapes"
        for one, two in zip(batches(first), batches(second), strict=True):
            for name in ("a_features", "b_features"):
                assert all(torch.equal(x, y) for x, y in zip(one[name], two[name], strict=True))

    def test_another_genotype_reuses_the_store(self, tmp_path):
        cache(small_net(used=(1, 2)), "disk", tmp_path)(small_data())
        net = small_net(used=(0, 3))
        for name, backbone in small_net(used=(1, 2)).backbones.items():
            net.backbones[name].load_state_dict(backbone.state_dict())
        cache(net, "disk", tmp_path)(small_data())
        assert calls(net) == {"a": 0, "b": 0}, "the manifest has the shapes"

    @pytest.mark.parametrize("kind", [KeyboardInterrupt, RuntimeError])
    def test_a_killed_write_leaves_no_finished_folder(self, tmp_path, monkeypatch, kind):
        data, net = small_data(), small_net()
        extract, seen = net.extract, []

        def dying(batch, name):
            seen.append(name)
            if seen.count("b") == 3:  # finding the shapes, one batch of 32, and then
                raise kind("killed")
            return extract(batch, name)

        monkeypatch.setattr(net, "extract", dying)
        with pytest.raises(kind, match="killed"):
            cache(net, "disk", tmp_path)(data)
        finished = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
        assert len(finished) == 1 and finished[0].startswith("train-a-")
        monkeypatch.undo()

        net = small_net()
        kept = cache(net, "disk", tmp_path)(data)
        assert calls(net) == {"a": 0, "b": 41 + 2}
        found = sorted(path.name.split("-")[1] for path in stores(tmp_path))
        assert found == ["a", "b"], "leftovers are cleared"
        raw, cached = next(iter(batches(data))), next(iter(batches(kept)))
        assert torch.equal(net.eval()(raw), net(cached))

    def test_a_store_is_complete_before_it_has_its_name(self, tmp_path, monkeypatch):
        net = small_net()
        extract = net.extract

        def watching(batch, name):
            assert not any(path.name.startswith(f"train-{name}") for path in tmp_path.iterdir())
            return extract(batch, name)

        monkeypatch.setattr(net, "extract", watching)
        cache(net, "disk", tmp_path)(small_data())
        assert len(stores(tmp_path)) == 2

    def test_a_folder_that_cannot_be_written_is_named(self, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(UserError, match=r"cannot store features in .*file/features: .*--cache_dir"):
            cache(small_net(), "disk", tmp_path / "file" / "features")(small_data())

    def test_auto_does_without_a_folder_that_cannot_be_written(self, tmp_path, monkeypatch):
        (tmp_path / "file").write_text("x")
        monkeypatch.setattr(engine.features, "available_memory", lambda: 0)
        data = small_data()
        assert cache(small_net(), "auto", tmp_path / "file" / "features")(data) is data

    def test_a_damaged_store_is_named(self, tmp_path):
        cache(small_net(), "disk", tmp_path)(small_data())
        for path in tmp_path.glob("train-a-*/0.npy"):
            path.write_bytes(path.read_bytes()[:-4])
        with pytest.raises(UserError, match=r"0\.npy is damaged or cut short.*delete its folder"):
            next(iter(batches(cache(small_net(), "disk", tmp_path)(small_data()))))


class TestKeys:
    """Every change that affects features has its own folder of cached features."""

    def stores(self, folder):
        return {path.name for path in stores(folder)}

    def changed(self, tmp_path, net=None, data=None, precision=None):
        """Names of the folders that a change adds."""
        cache(small_net(), "disk", tmp_path)(small_data())
        before = self.stores(tmp_path)
        cache(net or small_net(), "disk", tmp_path, precision)(data or small_data())
        return sorted(name.rsplit("-", 1)[0] for name in self.stores(tmp_path) - before)

    def test_the_same_again(self, tmp_path):
        assert self.changed(tmp_path) == []

    def test_another_weight_of_one_backbone(self, tmp_path):
        net = small_net()
        with torch.no_grad():
            net.backbones["b"].layers[1][1].bias[0] += 1e-6
        assert self.changed(tmp_path, net) == ["train-b"]

    def test_another_running_mean(self, tmp_path):
        net = small_net()
        net.backbones["a"].layers[1][0].running_mean[0] += 1e-6
        assert self.changed(tmp_path, net) == ["train-a"]

    def test_weights_behind_the_backbones_do_not_matter(self, tmp_path):
        net = small_net()
        with torch.no_grad():
            net.classifier.weight += 1
            net.reshape["0"].conv.weight += 1
        assert self.changed(tmp_path, net) == []

    def test_another_buffer_that_is_not_saved(self, tmp_path):
        """Such a buffer must not prevent shapes from being inferred, either."""
        nets = [small_net(), small_net()]
        for value, net in enumerate(nets):
            net.backbones["a"].layers[0].register_buffer("mean", torch.full((3,), float(value)), persistent=False)
            cache(net, "disk", tmp_path)(small_data())
        assert "layers.0.mean" not in nets[0].backbones["a"].state_dict()
        assert len([name for name in self.stores(tmp_path) if name.startswith("train-a-")]) == 2

    def test_a_choice_that_no_weight_shows(self, tmp_path):
        net = small_net()
        net.backbones["a"].layers[1][0].eps = 1e-3
        assert self.changed(tmp_path, net) == ["train-a"]

    def test_a_dropout_rate_does_not_matter(self, tmp_path):
        net = small_net()
        net.backbones["a"].layers[1][1].p = 0.1
        assert self.changed(tmp_path, net) == []

    def test_other_code_of_one_backbone(self, tmp_path, monkeypatch):
        """Comments do not count, but code in modules that the backbone's module imports does."""
        package = tmp_path / "code" / "nets_of_a_user"
        package.mkdir(parents=True)
        monkeypatch.syspath_prepend(str(package.parent))
        (package / "__init__.py").write_text("")
        (package / "backbone.py").write_text(
            "from nets_of_a_user.numbers import FACTOR\n\n\ndef make(base):\n    class Doubled(base):\n"
            "        def forward(self, x, count=None):\n            return super().forward(FACTOR * x, count)\n\n"
            "    return Doubled\n"
        )
        found = []
        for line in ("FACTOR = 2", "# As published.\nFACTOR = 2", "FACTOR = 3"):
            (package / "numbers.py").write_text(f'"""Numbers."""\n\n{line}\n')
            for name in [name for name in sys.modules if name.startswith("nets_of_a_user")]:
                del sys.modules[name]
            importlib.invalidate_caches()
            net = small_net()
            net.backbones["a"].__class__ = importlib.import_module("nets_of_a_user.backbone").make(Backbone)
            cache(net, "disk", tmp_path / "features")(small_data())
            found.append(sorted(name.rsplit("-", 1)[0] for name in self.stores(tmp_path / "features")))
        assert found == [["train-a", "train-b"]] * 2 + [["train-a", "train-a", "train-b"]]

    def test_other_data(self, tmp_path):
        assert self.changed(tmp_path, data=small_data(fingerprint="f1")) == ["train-a", "train-b"]

    def test_another_split(self, tmp_path):
        assert self.changed(tmp_path, data=small_data(split="dev")) == ["dev-a", "dev-b"]

    def test_fewer_samples(self, tmp_path):
        assert "train-b" in self.changed(tmp_path, data=small_data(samples=40))

    def test_another_precision(self, tmp_path):
        assert self.changed(tmp_path, precision=Precision("bf16", CPU)) == ["train-a", "train-b"]

    def test_another_pool(self, tmp_path):
        net = small_net()
        net.pool = (1, 4)
        assert "train-b" in self.changed(tmp_path, net)


@pytest.fixture
def messages():
    """Messages that the engine logs, however its logger was configured before."""
    found, handler = [], logging.Handler()
    handler.emit = lambda record: found.append(record.getMessage())
    logger = logging.getLogger("mdarts")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield found
    logger.removeHandler(handler)
    logger.setLevel(before)


# Distinct inputs x values x 4 bytes: features of a (3 + 5), pooled features of b (3 + 4) * 4.
BYTES = {"a": 11 * 8 * 4, "b": 41 * 28 * 4}


class TestAuto:
    def free(self, monkeypatch, memory, disk):
        monkeypatch.setattr(engine.features, "available_memory", lambda: memory)
        monkeypatch.setattr(engine.features.shutil, "disk_usage", lambda path: SimpleNamespace(free=disk))

    @pytest.mark.parametrize(
        ("memory", "disk", "where"),
        [
            (2 * BYTES["b"], 0, {"a": "ram", "b": "ram"}),
            (2 * BYTES["b"] - 2, 2 * BYTES["b"], {"a": "ram", "b": "disk"}),
            (2 * BYTES["a"] - 2, 2 * BYTES["b"], {"a": "disk", "b": "disk"}),
            (2 * BYTES["a"], 2 * BYTES["b"] - 2, {"a": "ram", "b": "off"}),
            (0, 0, {"a": "off", "b": "off"}),
        ],
    )
    def test_picks_the_first_that_fits_half_of_what_is_free_and_says_so(
        self, tmp_path, monkeypatch, messages, memory, disk, where
    ):
        self.free(monkeypatch, memory, disk)
        data, net = small_data(), small_net()
        kept = cache(net, "auto", tmp_path)(data)
        for name, place in where.items():
            (line,) = [m for m in messages if m.startswith(f"features of {name}, train: {place} ")]
            assert f"{BYTES[name]:,} bytes" in line
        assert {path.name.split("-")[1] for path in stores(tmp_path)} == {n for n, w in where.items() if w == "disk"}
        fields = {f"{name}_features" if place != "off" else name for name, place in where.items()}
        cached = next(iter(batches(kept)))
        assert set(cached) == {*fields, "label"}
        assert torch.equal(net.eval()(cached), net(next(iter(batches(data)))))

    def test_takes_a_store_that_exists(self, tmp_path, monkeypatch, messages):
        cache(small_net(), "disk", tmp_path)(small_data())
        self.free(monkeypatch, 10**12, 10**12)
        net = small_net()
        cache(net, "auto", tmp_path)(small_data())
        assert calls(net) == {"a": 0, "b": 0} and any("b, train: disk" in line for line in messages)


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_only_features_in_memory_are_read_without_workers(tmp_path, mode):
    kept = cache(small_net(), mode, tmp_path)(small_data())
    loader = build_loader(kept, 8, shuffle=True, seed=0, num_workers=2, device=CPU)
    assert (loader.num_workers == 0) == (mode == "ram")


class Undrawn(Data):
    """Draws the input ``a`` again in every epoch, so its features cannot be cached."""

    def distinct(self, name):
        return None if name == "a" else super().distinct(name)


@pytest.mark.parametrize(("quick", "workers"), [((), 2), (("a",), 0)])
def test_a_modality_that_stays_raw_is_decoded_by_workers(tmp_path, monkeypatch, quick, workers):
    """Unless reading it takes no time. A modality stays raw if its backbone is trained, or its input is drawn again."""
    monkeypatch.setattr("engine.loading.reading_processes", lambda number, device: number)
    trained, drawn = small_data(), Undrawn({"a": ((4,), "float"), "b": ((2, 5, 5), "float")}, {"a": 5, "b": SAMPLES})
    for data, options in ((trained, {"backbone_mode": "train"}), (drawn, {})):
        data.quick = quick
        kept = cache(small_net(**options), "ram", tmp_path)(data)
        assert set(kept.features) == {"b"}
        loader = build_loader(kept, 8, shuffle=True, seed=0, num_workers=2, device=CPU)
        assert loader.num_workers == (workers if data is trained else 2)


def test_an_input_that_no_feature_is_made_of_is_not_read(tmp_path):
    data, net = small_data(), small_net(used=(2, 3)).eval()
    kept = cache(net, "ram", tmp_path)(data)
    data.reads.clear()
    loader = build_loader(kept, 8, shuffle=False, seed=0, num_workers=2, device=CPU)
    assert loader.num_workers == 0
    batch = next(iter(loader))
    assert not data.reads and set(batch) == {"b_features", "label"}
    torch.testing.assert_close(net(batch), net(data.read(range(8))))


def test_samples_find_their_own_row(tmp_path):
    """With shared inputs, every sample has the features of its input, whatever the order of the request."""
    data, net = small_data(), small_net()
    kept = cache(net, "ram", tmp_path)(data)
    order = [40, 3, 3, 11, 0, 14]
    batch = kept.__getitems__(order)
    with torch.no_grad():
        expected = net.eval().backbones["a"](data.read(order)["a"])
    for one, two in zip(batch["a_features"], expected, strict=True):
        torch.testing.assert_close(one, two)
    assert torch.equal(batch["label"], data.labels[order])


class Augmented(Data):
    """Two fixed views of each input ``a``: epoch e reads the input plus e modulo 2."""

    views = 2

    def read(self, indices, only=None, without=(), epoch=0):
        batch = super().read(indices, only, without)
        if "a" in batch:
            shift = torch.as_tensor(np.broadcast_to(epoch, len(batch["a"])) % self.views)
            batch["a"] = batch["a"] + shift[:, None]
        return batch

    def __getitems__(self, indices):
        return self.read(indices, epoch=indices.epoch)

    def distinct(self, name):
        if name == "a":
            return None if not self.views else np.arange(len(self) * self.views).reshape(len(self), self.views)
        return super().distinct(name)


class TestViews:
    @pytest.mark.parametrize("mode", ["ram", "disk"])
    def test_an_epoch_reads_the_features_of_its_view(self, tmp_path, mode):
        """Features are cached per sample and view, and epoch e reads those of view e modulo the number of views."""
        data = Augmented({"a": ((4,), "float"), "b": ((2, 5, 5), "float")}, {"a": SAMPLES, "b": SAMPLES})
        net = small_net().eval()
        kept = cache(net, mode, tmp_path)(data)
        assert calls(net)["a"] == 2 * SAMPLES + 2
        for epoch in (0, 1, 2, 5):
            indices = Indices([3, 0, 40, 7], epoch)
            raw = data.read(indices, epoch=epoch)
            with torch.no_grad():
                expected = net.backbones["a"](raw["a"])
            for found, feature in zip(kept.__getitems__(indices)["a_features"], expected, strict=True):
                torch.testing.assert_close(found, feature)

    def test_endless_views_are_not_kept(self, tmp_path):
        data = Augmented({"a": ((4,), "float"), "b": ((2, 5, 5), "float")}, {"a": SAMPLES, "b": SAMPLES})
        data.views = 0
        kept = cache(small_net(), "ram", tmp_path)(data)
        assert set(kept.features) == {"b"}


def test_settings_of_a_backbone_are_part_of_the_key(tmp_path):
    """Backbones that differ in a setting, such as the pool, and not in weights must not share features."""
    for settings in ("7x7", "full"):
        net = small_net()
        for backbone in net.backbones.values():
            backbone.settings = settings
        cache(net, "disk", tmp_path)(small_data())
    assert len(stores(tmp_path)) == 4


class Masked(nn.Module):
    """Reads two tensors and sums unmasked values. Its shapes cannot be inferred without values."""

    channels, cacheable, deterministic_features = (4,), True, True

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.settings = {"taps": (1,)}

    def forward(self, inputs, count=None):
        if not bool(inputs["mask"].any()):
            raise ValueError("all is masked")
        return [(self.layer(inputs["values"]) * inputs["mask"][..., None]).sum(1)]

    def modules_of(self, count):
        return [self.layer]


class MaskedData(Data):
    """Samples that consist of two tensors."""

    def read(self, indices, only=None, without=(), epoch=0):
        batch = super().read(indices, only, without, epoch)
        if "a" in batch:
            batch["a"] = {"values": batch["a"], "mask": torch.ones(batch["a"].shape[:2], dtype=torch.bool)}
        return batch


def masked_net():
    torch.manual_seed(0)
    return UnimodalNet("a", Masked(), (1, 1), frozen=True, backbone_batch=8)


@pytest.mark.parametrize("mode", ["ram", "disk"])
def test_an_input_of_several_tensors_is_computed_once_and_equal(mode, tmp_path):
    network, data = masked_net(), MaskedData({"a": ((5, 4), "float")}, {"a": 11})
    stored = cache(network, mode, tmp_path)(data)
    for raw, kept in zip(batches(data), batches(stored), strict=True):
        assert isinstance(raw["a"], dict) and "a" not in kept
        assert torch.equal(network.extract(raw, "a")[0], kept["a_features"][0])


def test_stored_features_are_those_of_the_settings(tmp_path):
    data = MaskedData({"a": ((5, 4), "float")}, {"a": 11})
    cache(masked_net(), "disk", tmp_path)(data)
    network = masked_net()
    network.backbone.settings = {"taps": (2,)}
    cache(network, "disk", tmp_path)(data)
    assert len(stores(tmp_path)) == 2
