"""Encoders for own data: taps, padding without influence, weights, and errors that name a remedy."""

import importlib
import json
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from datasets.text.numbers import WordNumbers, frequent_words
from models.backbone_net import UnimodalNet
from models.encoders.audio import BANDS, LogMel, log_mel, resampled
from models.encoders.base import Encoder, segment_maxima, segment_means
from models.encoders.build import Plan, Words, build_encoder
from models.encoders.pictures import PicturePreparation
from util.cli import UserError

OPTIONS = {"num_outputs": 3, "pool": (4, 1), "dropout": 0.0}


def plan(kind, encoder, size=None, **options):
    return Plan("x", kind, size, encoder, **options)


def build(kind, encoder, size=None, words=None, follows=False, **options):
    torch.manual_seed(0)
    return build_encoder(plan(kind, encoder, size, **options), words=words, follows=follows, **OPTIONS).eval()


@pytest.mark.parametrize("pool", [(4, 1), (2, 3)])
def test_segments_are_those_of_adaptive_pooling_on_each_sample_without_padding(pool):
    states, length = torch.randn(4, 3, 9), torch.tensor([9, 5, 2, 0])
    means, maxima = segment_means(states, length, pool), segment_maxima(states, length, pool)
    for row, size in enumerate([9, 5, 2, 1]):
        one = states[row : row + 1, :, :size]
        count = pool[0] * pool[1]
        expected = F.adaptive_avg_pool1d(one, count).unflatten(2, pool)[0]
        torch.testing.assert_close(means[row], expected)
        torch.testing.assert_close(maxima[row], F.adaptive_max_pool1d(one, count).unflatten(2, pool)[0])


def sequences(lengths, size=6):
    values = torch.randn(len(lengths), max(lengths), size)
    return {"values": values, "length": torch.tensor(lengths)}


def test_padding_does_not_change_the_features_of_a_sequence():
    net = build("sequence", "conv:8,8", 6)
    batch = sequences([12, 5, 3])
    for row, size in enumerate([12, 5, 3]):
        one = {"values": batch["values"][row : row + 1, :size], "length": torch.tensor([size])}
        for alone, among in zip(net(one), net(batch), strict=True):
            torch.testing.assert_close(alone[0], among[row])


def test_a_sequence_without_steps_has_finite_features():
    features = build("sequence", "conv:8,8", 6)({"values": torch.zeros(2, 1, 6), "length": torch.tensor([0, 1])})
    assert all(torch.isfinite(feature).all() for feature in features)


def test_taps_choose_features_and_what_is_after_the_last_is_not_built():
    every, some = build("vector", "mlp:8,9,10", 5), build("vector", "mlp:8,9,10", 5, taps=(0, 2))
    assert every.channels == (5, 8, 9, 10) and some.channels == (5, 9)
    x = torch.randn(2, 5)
    some.stages.load_state_dict(every.stages[:2].state_dict())
    assert torch.equal(some(x)[0], x) and torch.equal(some(x)[1], every(x)[2])
    assert len(some(x, 1)) == 1 and some.modules_of(1) == [] and len(some.modules_of(2)) == len(some.stages) == 2
    assert some.head(some(x)).shape == (2, 3)


@pytest.mark.parametrize("taps", [(2, 1), (0, 0), (0, 9)])
def test_wrong_taps_are_reported(taps):
    with pytest.raises(UserError, match="has the taps 0 to 2; name some of them, in order"):
        build("vector", "mlp:8,8", 5, taps=taps)


def test_default_taps_spread_over_the_depth():
    assert Encoder.default_taps(12) == (2, 5, 8, 11)
    assert Encoder.default_taps(5) == (1, 2, 3, 4)
    assert Encoder.default_taps(3) == (0, 1, 2)


def test_layers_give_back_what_the_data_hold():
    net = build("layers", "layers", ((4,), (6, 3)))
    inputs = {"0": torch.randn(2, 4), "1": torch.randn(2, 6, 3)}
    assert net.channels == (4, 6) and all(map(torch.equal, net(inputs), inputs.values()))
    assert net.head(net(inputs)).shape == (2, 3)


WORDS = frequent_words(["a red film", "a blue film", "the end"])


def test_words_are_the_frequent_ones_and_their_numbers_survive_a_pickle():
    assert WORDS == ("PAD", "UNK", "CLS", "a", "film")
    numbers = WordNumbers(WORDS, 4)
    batch = pickle.loads(pickle.dumps(numbers))(["A film!", None, "red film film film film"])
    assert batch["values"].tolist() == [[3, 4, 0, 0], [0, 0, 0, 0], [1, 4, 4, 4]]
    assert batch["length"].tolist() == [2, 0, 4]
    assert repr(numbers) != repr(WordNumbers((*WORDS, "red"), 4)) != repr(WordNumbers(WORDS, 5))


def test_padding_does_not_change_the_features_of_words():
    net = build("text", "words:8,8", words=Words(len(WORDS), None, WordNumbers(WORDS, 9)))
    texts = ["a film", "a a film film a"]
    among = net(net.preparation(texts))
    alone = net(net.preparation(texts[:1]))
    assert [tuple(feature.shape) for feature in among] == [(2, 8, 4, 1)] * 2
    torch.testing.assert_close(alone[-1][0], among[-1][0])
    assert net.embedding in net.modules_of(1)


def test_a_tone_lies_in_its_band_at_every_rate():
    def loudest(rate):
        wave = np.sin(2 * np.pi * 1000 * np.arange(rate) / rate).astype(np.float32)
        return log_mel(resampled(wave, rate)).mean(0).argmax()

    assert loudest(16_000) == loudest(44_100) == loudest(8_000)
    tone = np.sin(2 * np.pi * 440 * np.arange(48_000) / 48_000).astype(np.float32)
    expected = np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    np.testing.assert_allclose(resampled(tone, 48_000).numpy(), expected, atol=1e-3)


def test_sounds_become_bands_with_their_length():
    batch = LogMel(0.5)([(np.zeros(4000, np.float32), 16_000), None, (np.ones(16_000, np.float32), 16_000)])
    assert batch["length"].tolist() == [26, 0, 51] and batch["values"].shape == (3, 51, BANDS)
    assert build("audio", "logmel:8")(batch)[-1].shape == (3, 8, 4, 1)


def test_pictures_are_scaled_and_cut_to_the_middle():
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 25:35] = 200
    made = PicturePreparation((10, 10), 1.0, "bilinear")([picture, None])
    assert made.shape == (2, 3, 10, 10) and made.dtype == torch.uint8 and not made[1].any()
    assert made[0, 0, 5, 4:6].min() == 200 and made[0, 0, 5, 0] == 0


def tiny_bert(folder):
    """A BERT of two layers with random weights, and a tokenizer of a few words."""
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "red", "film"]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8}
    torch.manual_seed(1)
    config = transformers.BertConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
    transformers.BertModel(config).save_pretrained(folder)
    return f"transformers:{folder}"


def test_a_transformer_is_read_from_a_folder_beside_our_own_datasets_package(tmp_path):
    encoder = tiny_bert(tmp_path)
    import datasets

    assert hasattr(datasets, "lazy_exports")  # this is our package and not the library of that name
    net = build("text", encoder, max_tokens=6)
    assert net.channels == (8, 8) and net.taps == (1, 2) and net.source.startswith("transformers' pretrained")
    texts = ["a film", "a red film a red film a red film"]
    batch = net.preparation(texts)
    assert batch["input_ids"].shape == (2, 6)
    torch.testing.assert_close(net(batch)[-1][0], net(net.preparation(texts[:1]))[-1][0])
    shapes = UnimodalNet("x", net, (4, 1)).feature_shapes({"x": batch}, "x")
    assert shapes == [(8, 4, 1)] * 2
    random = build("text", encoder, weights="none")
    assert random.source.startswith("random") and not torch.equal(random(batch)[0], net(batch)[0])
    assert repr(pickle.loads(pickle.dumps(net.preparation))) == repr(net.preparation)
    # Using a tokenizer changes it; features that are cached already must still be found.
    assert repr(build("text", encoder, max_tokens=6).preparation) == repr(net.preparation)


def test_a_network_of_timm_is_tapped_and_takes_a_file(tmp_path):
    timm = pytest.importorskip("timm")
    net = build("picture", "timm:test_resnet", weights="none")
    assert net.channels == tuple(stage["num_chs"] for stage in net.model.feature_info)[1:]
    pictures = net.preparation([np.full((40, 50, 3), 90, np.uint8), None])
    features = net(pictures)
    assert [feature.shape[2:] for feature in features] == [(4, 1)] * 4 and len(net(pictures, 2)) == 2
    other = timm.create_model("test_resnet", pretrained=False)
    torch.save(other.state_dict(), tmp_path / "timm.pth")
    loaded = build("picture", "timm:test_resnet", weights=str(tmp_path / "timm.pth"))
    assert torch.equal(loaded.model.state_dict()["conv1.0.weight"], other.state_dict()["conv1.0.weight"])
    torch.save(net.state_dict(), tmp_path / "backbone.pth")
    again = build("picture", "timm:test_resnet", weights=str(tmp_path))
    assert torch.equal(again(pictures)[-1], features[-1]) and again.source == str(tmp_path / "backbone.pth")
    assert build("picture", "timm:test_vit", weights="none")(pictures)[0].shape == (2, 64, 4, 1)


def test_a_network_of_torchvision_is_tapped(tmp_path):
    from torchvision import models

    net = build("picture", "torchvision:squeezenet1_1", weights="none")
    features = net(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert tuple(feature.shape[1] for feature in features) == net.channels and len(net.channels) == 4
    other = models.squeezenet1_1(weights=None)
    torch.save(other.state_dict(), tmp_path / "published.pth")
    loaded = build("picture", "torchvision:squeezenet1_1", weights=str(tmp_path / "published.pth"))
    assert torch.equal(loaded.stages[0].weight, other.features[0].weight)


@pytest.mark.parametrize(
    ("kind", "encoder", "message"),
    [
        ("vector", "conv", "x is a vector; its encoders are mlp, and module:Class"),
        ("vector", "mlp:8,zwei", "expected widths such as mlp:128,64"),
        ("picture", "timm", "which network"),
        ("picture", "timm:resnet81", "timm has no such network; did you mean resnet18"),
        ("picture", "torchvision:resnet81", "torchvision has no such network; did you mean resnet18"),
        ("text", "transformers:./nothing", "there is no nothing/config.json"),
        ("vector", "no_such_module:Net", "there is no module no_such_module"),
    ],
)
def test_unknown_encoders_are_reported_in_one_line(kind, encoder, message):
    if encoder.startswith(("timm:", "transformers")):
        pytest.importorskip(encoder.partition(":")[0])
    with pytest.raises(UserError, match=message) as error:
        build(kind, encoder, 5, weights="none")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("encoder", ["timm:resnet18", "transformers:bert"])
def test_a_missing_library_is_reported_with_the_command_that_installs_it(encoder, monkeypatch):
    name = encoder.partition(":")[0]
    found = importlib.import_module

    def missing(wanted, *args):
        if wanted == name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return found(wanted, *args)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(UserError, match=f"needs {name}: `python -m pip install {name}`"):
        build("picture" if name == "timm" else "text", encoder)


def test_weights_that_do_not_exist_or_do_not_fit_are_reported(tmp_path):
    with pytest.raises(UserError, match=r"nowhere does not exist; pass the run folder of `python main_unimodal_own.py"):
        build("vector", "mlp", 5, weights="nowhere")
    torch.save(build("vector", "mlp", 7).state_dict(), tmp_path / "backbone.pth")
    with pytest.raises(UserError, match=r"--encoder_weights x: .*of another shape \(stages"):
        build("vector", "mlp", 5, weights=str(tmp_path))


def test_default_weights_without_a_network_are_reported_at_once(monkeypatch):
    pytest.importorskip("timm")
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nowhere")
    with pytest.raises(UserError, match=r"not loaded .*--encoder_weights x=none for random ones"):
        build("picture", "timm:test_resnet")


class Doubled(Encoder):
    """A user's own encoder; tests name it module:Class."""

    def __init__(self, size, pool, **options):
        super().__init__([size], name="doubled", **options)

    def forward(self, inputs, count=None):
        return [2 * inputs]

    def modules_of(self, count):
        return []


def test_an_encoder_of_ones_own_is_imported():
    net = build("vector", f"{__name__}:Doubled", 5)
    assert torch.equal(net(torch.ones(1, 5))[0], 2 * torch.ones(1, 5))


def test_stored_features_depend_on_taps_and_library_settings():
    pytest.importorskip("timm")
    one, other = build("picture", "timm:test_resnet", weights="none"), build("picture", "timm:test_vit", weights="none")
    assert json.dumps(one.settings, default=str) != json.dumps(other.settings, default=str)
    assert one.settings["taps"] == one.taps and "input_size" in one.settings["library"]


def test_means_and_deviations_are_not_weights():
    net = build("picture", "torchvision:squeezenet1_1", weights="none")
    assert not {"mean", "std"} & set(net.state_dict()) and isinstance(net.stages, nn.ModuleList)
