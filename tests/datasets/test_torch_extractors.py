"""Region features by networks: cells and boxes against torchvision's own networks, weights, and what can be wrong."""

import urllib.error

import numpy as np
import pytest
import torch
from torchvision import models

from datasets.extract_features import main
from datasets.regions.extractors import build_extractor, extractor_from_meta, pick_device, regions_of_image
from datasets.regions.files import read_regions
from datasets.regions.networks import Shrink, choose_boxes, grid_boxes
from tests.datasets.drawn_pictures import draw, save
from util.cli import UserError

MEAN, STD = (torch.tensor(value).view(3, 1, 1) for value in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
# Shorter side 64, so that nothing is resized.
PICTURE = draw({"red": (10, 10, 40, 50), "teal": (60, 5, 90, 40)}, size=(64, 96))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def resnet():
    """A ResNet-101 of random weights that are not those of ``random``."""
    torch.manual_seed(5)
    return models.resnet101(zero_init_residual=True).eval()


@pytest.fixture(scope="module")
def resnet_file(resnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet101.pth"
    # As torchvision's own file, which is old: without the batch counts. And as saved inside DataParallel.
    state = {name: value for name, value in resnet.state_dict().items() if not name.endswith("batches_tracked")}
    torch.save({f"module.{name}": value for name, value in state.items()}, path)
    yield path
    path.unlink()


def normalised(picture):
    return ((torch.from_numpy(picture).permute(2, 0, 1) / 255 - MEAN) / STD)[None]


def test_grid_of_one_cell_is_the_pooled_feature_of_torchvision(resnet, resnet_file, tmp_path):
    extractor = build_extractor("resnet101-grid", grid=1, short_side=64, weights=str(resnet_file), device="cpu")
    found = regions_of_image(save(tmp_path / "a.png", PICTURE), extractor)
    head, resnet.fc = resnet.fc, torch.nn.Identity()
    with torch.no_grad():
        expected = resnet(normalised(PICTURE))
    resnet.fc = head
    assert found["x"].dtype == np.float32
    assert np.allclose(found["x"], expected, atol=1e-5)
    assert expected.std() > 0.01
    assert found["boxes"].tolist() == [[0, 0, 96, 64]]

    again = extractor_from_meta({"extractor": extractor.settings}, device="cpu")
    assert np.array_equal(regions_of_image(tmp_path / "a.png", again)["x"], found["x"])
    moved = extractor.settings | {"weights": str(tmp_path / "moved.pth")}
    with pytest.raises(UserError, match=r"--weights: .*moved\.pth does not exist"):
        extractor_from_meta({"extractor": moved})
    again = extractor_from_meta({"extractor": moved}, weights=str(resnet_file))
    assert again.settings == extractor.settings
    with pytest.raises(UserError, match="random does not hold the weights that the features were made with"):
        extractor_from_meta({"extractor": moved}, weights="random")


def test_grid_cells_and_images_of_several_sizes(tmp_path, capsys):
    sizes = [(64, 96), (96, 64), (64, 96), (10, 300), (400, 200)]
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        save(tmp_path / "images" / f"{number}.png", rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    argv = ["--images", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--backbone", "resnet101-grid"]
    main([*argv, "--grid", "2", "--short_side", "64", "--weights", "random", "--batch_size", "2", "--device", "cpu"])
    assert "random weights" in capsys.readouterr().out
    extractor = build_extractor("resnet101-grid", grid=2, short_side=64, weights="random", device="cpu")
    for number, (height, width) in enumerate(sizes):
        stored = read_regions(tmp_path / "out" / f"{number}.png.npz")
        alone = regions_of_image(tmp_path / "images" / f"{number}.png", extractor)
        assert np.allclose(stored.features, alone["x"], atol=1e-5)
        assert stored.features.shape == (4, 2048)
        assert (stored.features != 0).any(axis=1).all()
        assert (stored.height, stored.width) == (height, width)
        assert stored.boxes[3].tolist() == [width / 2, height / 2, width, height]


def test_grid_averages_the_cells_of_c5(monkeypatch, tmp_path):
    extractor = build_extractor("resnet101-grid", grid=2, short_side=64, weights="random", device="cpu")
    c5 = np.random.default_rng(0).random((2048, 4, 6), dtype=np.float32)
    monkeypatch.setattr(extractor._c5, "features", lambda images: torch.from_numpy(c5)[None])
    found = regions_of_image(save(tmp_path / "a.png", PICTURE), extractor)
    assert np.allclose(found["x"][0], c5[:, :2, :3].mean((1, 2)))
    assert np.allclose(found["x"][1], c5[:, :2, 3:].mean((1, 2)))
    assert np.allclose(found["x"][2], c5[:, 2:, :3].mean((1, 2)))
    assert found["boxes"].tolist() == [[0, 0, 48, 32], [48, 0, 96, 32], [0, 32, 48, 64], [48, 32, 96, 64]]


def test_boxes_are_those_of_torchvisions_detector(tmp_path):
    extractor = build_extractor(
        "fasterrcnn", boxes=12, short_side=64, weights="random", detector_weights="random", device="cpu"
    )
    found = regions_of_image(save(tmp_path / "a.png", PICTURE.repeat(2, axis=0).repeat(2, axis=1)), extractor)
    assert found["x"].shape == (12, 2048)
    assert (found["x"] != 0).any(axis=1).all()

    torch.manual_seed(1)
    own = models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, min_size=64, max_size=107, rpn_post_nms_top_n_test=300
    ).eval()
    for module in own.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 0.0
    own.load_state_dict(extractor._detector.state_dict(), strict=False)
    # The picture was doubled; halved again it is as it was.
    pixels = torch.from_numpy(PICTURE).permute(2, 0, 1) / 255
    with torch.no_grad():
        detected = own([pixels])[0]
    expected = choose_boxes(detected["boxes"], detected["scores"], 12, (64, 96))
    assert np.allclose(found["boxes"], 2 * expected, atol=0.02)

    again = extractor_from_meta({"extractor": extractor.settings}, device="cpu")
    assert np.array_equal(regions_of_image(tmp_path / "a.png", again)["x"], found["x"])


def test_box_features_are_averages_inside_the_boxes(monkeypatch, tmp_path):
    extractor = build_extractor("fasterrcnn", short_side=64, weights="random", detector_weights="random", device="cpu")
    # One number per cell of C5, so that it tells where the points of a box lie: 10 * row + column.
    cells = (10.0 * torch.arange(8).view(-1, 1) + torch.arange(8)).expand(1, 2048, 8, 8)
    monkeypatch.setattr(extractor._c5, "features", lambda images: cells)
    nothing = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0)}
    monkeypatch.setattr(extractor, "_detector", lambda images: [nothing] * len(images))
    picture = draw({}, size=(256, 256))
    extractor.prepare.short_side = 256
    found = regions_of_image(save(tmp_path / "a.png", picture), extractor)
    assert np.allclose(found["boxes"][1:], grid_boxes(3, 256, 256))
    # The middle of a cell counts as its place: that of box k of the 3 x 3 lies at 8 / 3 * (k + 1 / 2) - 1 / 2 cells.
    middle = 8 / 3 * (np.arange(3) + 0.5) - 0.5
    expected = (10 * middle[:, None] + middle).ravel()
    # Points outside the outer middles are not extrapolated, which moves the boxes at the border.
    assert np.allclose(found["x"][5], expected[4], atol=1e-3)
    assert np.allclose(found["x"][1:, 0], expected, atol=0.6)
    assert len(found["x"]) == 10


def test_choose_boxes():
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 40, 40.0]])
    scores = torch.tensor([0.5, 0.9, 0.7])
    chosen = choose_boxes(boxes, scores, 20, (30, 60))
    assert chosen[:2].tolist() == [[0, 0, 10, 9], [20, 20, 40, 40]]
    cells = [[20 * column, 10 * row, 20 * column + 20, 10 * row + 10] for row in range(3) for column in range(3)]
    assert chosen[2:].tolist() == [[0, 0, 60, 30], *cells[:7]]
    many = torch.arange(40).view(-1, 1) * 10 + torch.tensor([0, 0, 9, 9.0])
    chosen = choose_boxes(many, torch.linspace(0.1, 0.9, 40), 12, (500, 500))
    assert chosen.tolist() == many.flip(0)[:12].tolist()


@pytest.mark.parametrize(
    "size, expected",
    [
        ((480, 640), (448, 597)),
        ((640, 480), (597, 448)),
        ((100, 1000), (75, 747)),
        ((1, 1), (448, 448)),
        ((1, 5000), (1, 747)),
    ],
)
def test_shrink(size, expected):
    shrunk = Shrink(448)(np.zeros((*size, 3), dtype=np.uint8))
    assert shrunk.image.shape == (*expected, 3)
    assert (shrunk.height, shrunk.width) == size


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("resnet101-grid", {"grid": 0}),
        ("resnet101-grid", {"grid": 11}),
        ("resnet101-grid", {"short_side": 20}),
        ("resnet101-grid", {"batch_size": 0}),
        ("fasterrcnn", {"boxes": 9}),
        ("fasterrcnn", {"boxes": 101}),
    ],
)
def test_impossible_numbers(name, wrong):
    with pytest.raises(UserError, match=f"--{next(iter(wrong))} {next(iter(wrong.values()))}: must be"):
        build_extractor(name, weights="random", **wrong)


def error_of(**settings):
    with pytest.raises(UserError) as error:
        build_extractor("resnet101-grid", device="cpu", **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_weights_of_another_network(tmp_path, resnet):
    expected = "expected torchvision's resnet101-63fe2227.pth (ResNet-101), or random"
    path = tmp_path / "weights.pth"
    message = error_of(weights=str(path))
    assert message.startswith(f"--weights: {path} does not exist")
    assert message.endswith(expected)
    path.write_bytes(b"no checkpoint")
    assert error_of(weights=str(path)).endswith(expected)
    torch.save({"a": torch.zeros(1)}, path)
    message = error_of(weights=str(path))
    assert "1 unknown" in message
    assert message.endswith(expected)
    torch.save({"fc.bias": torch.zeros(3)}, path)
    assert error_of(weights=str(path)) == f"--weights {path} has tensors of other shapes; {expected}"


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise urllib.error.URLError("no network here")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    message = error_of()
    assert "ResNet-101 is not in its cache and cannot be downloaded (no network here)" in message
    assert "https://download.pytorch.org/models/resnet101-63fe2227.pth" in message
    assert "--weights FILE" in message


def test_device():
    assert pick_device("cpu").type == "cpu"
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="--device nonsense is not available here"):
        pick_device("nonsense")
