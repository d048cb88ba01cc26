"""Preparation of image-text matching: the published forms, and what does not fit together."""

import json

import numpy as np
import pytest

from datasets.itm import open_itm
from datasets.prepare_itm import main
from tests.datasets.itm_files import (
    FIRST,
    IMAGES,
    captions_of,
    imgids,
    photo_of,
    write_features,
    write_flickr,
    write_json,
    write_precomp,
)
from tests.datasets.vqa_files import FEATURE_SIZE, refusal, region_arrays


@pytest.fixture
def raw(tmp_path):
    return write_flickr(tmp_path)


def rewrite(path, change):
    lines = path.read_text().splitlines()
    path.write_text("".join(f"{line}\n" for line in change(lines)))


def test_flickr_by_photo_ids(raw, capsys):
    main(raw.flags)
    said = capsys.readouterr().out
    assert "train 7 images, 35 captions\n" in said
    content = json.loads((raw.out / "flickr" / "dev.json").read_text())
    assert content["image_ids"] == [photo_of(20), photo_of(21), photo_of(22)]
    assert content["captions"][5:10] == captions_of(21, "dev")
    meta = json.loads((raw.out / "flickr" / "meta.json").read_text())
    assert meta["synthetic"] and meta["images"] == {"train": 7, "dev": 3, "test": 4}
    words = json.loads((raw.out / "flickr" / "vocabulary.json").read_text())["words"]
    assert words[:6] == ["PAD", "UNK", "CLS", "a", "red", "train"] and "dev" in words and "test" in words


def test_ids_per_caption_mean_the_same(raw, tmp_path):
    main(raw.flags)
    before = (raw.out / "flickr" / "train.json").read_text()
    write_precomp(raw.captions, repeated=("train", "dev", "test"))
    main(raw.flags)
    assert (raw.out / "flickr" / "train.json").read_text() == before


def test_coco_by_image_ids(tmp_path, capsys):
    splits = ("train", "dev", "test", "testall")
    write_precomp(tmp_path / "coco_precomp", splits)
    write_features(tmp_path / "npz" / "train2014", imgids(splits[:2]))
    write_features(tmp_path / "npz" / "val2014", set(imgids(splits[2:])))
    flags = ["--dataset", "coco", "--captions", tmp_path / "coco_precomp", "--features", tmp_path / "npz"]
    main([str(flag) for flag in (*flags, "--out", tmp_path / "itm", "--workers", 1)])
    assert "testall 5 images, 25 captions (the published split has 5,000)" in capsys.readouterr().out
    assert open_itm(tmp_path / "itm", "coco", "testall").image_ids.tolist() == list(range(30, 35))


@pytest.mark.parametrize("each", [1, 5])
def test_scans_features(raw, each):
    arrays = {}
    for split in ("train", "dev", "test"):
        rows = np.random.default_rng(FIRST[split]).standard_normal((IMAGES[split], 6, 8)).astype(np.float32)
        arrays[split] = rows
        np.save(raw.features / f"{split}_ims.npy", np.repeat(rows, each, axis=0))
    main([*raw.flags, "--float32"])
    data = open_itm(raw.out, "flickr", "dev")
    assert not data.has_boxes and "no boxes" in data.description
    batch = data.images(np.array([2, 0]))
    np.testing.assert_array_equal(batch["regions"].numpy(), arrays["dev"][[2, 0]])
    assert not batch["boxes"].any() and batch["counts"].tolist() == [6, 6]
    np.save(raw.features / "dev_ims.npy", arrays["dev"][:2])
    refusal(lambda: main([*raw.flags, "--float32"]), "dev_ims.npy", "(3 images, regions, width)")


def test_scans_rows_stay_with_their_images(raw, capsys):
    arrays = {split: np.random.default_rng(FIRST[split]).random((IMAGES[split], 2, 8)) for split in FIRST}
    for split in ("train", "dev", "test"):
        np.save(raw.features / f"{split}_ims.npy", arrays[split])
    write_json(raw.json, [imgid for imgid in imgids() if imgid != FIRST["dev"] + 1], synthetic=True)
    main([*raw.flags, "--float32", "--skip_missing"])
    assert "dev: 1 images are not in" in capsys.readouterr().out
    batch = open_itm(raw.out, "flickr", "dev").images(np.array([0, 1]))
    np.testing.assert_array_equal(batch["regions"].numpy(), arrays["dev"][[0, 2]].astype(np.float32))


def test_scans_features_of_another_width(raw):
    for split in ("train", "dev", "test"):
        np.save(raw.features / f"{split}_ims.npy", np.ones((IMAGES[split], 6, 9 if split == "test" else 8), np.float32))
    refusal(lambda: main(raw.flags), "test_ims.npy", "width 9", "every split needs the same")
    assert not (raw.out / "flickr" / "meta.json").exists()


def test_an_interrupted_run_goes_on(raw, monkeypatch, capsys):
    from datasets.regions.store import RegionStoreWriter

    add, calls = RegionStoreWriter.add, []

    def add_or_die(self, *args):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return add(self, *args)

    monkeypatch.setattr(RegionStoreWriter, "add", add_or_die)
    with pytest.raises(KeyboardInterrupt):
        main(raw.flags)
    refusal(lambda: open_itm(raw.out, "flickr", "train"), "meta.json is missing", "prepare_itm.py")
    main(raw.flags)
    assert "5 images are done already" in capsys.readouterr().out
    assert len(calls) == 6 + sum(IMAGES[split] for split in ("train", "dev", "test")) - 5


def drop_last(lines):
    return lines[:-1]


def swap(lines):
    return [lines[1], lines[0], *lines[2:5], lines[5], *lines[6:9], lines[0], *lines[10:]]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("train_caps.txt", drop_last, ["train_caps.txt has 34 lines", "every image needs five captions"]),
        ("dev_ids.txt", drop_last, ["dev_ids.txt has 14 lines", "expected 3", "every image needs five captions"]),
        ("dev_ids.txt", swap, ["dev_ids.txt lines 6 to 10", "every image needs five captions"]),
        ("test_caps.txt", lambda lines: [*lines[:3], " .!", *lines[4:]], ["test_caps.txt line 4", "without words"]),
        ("train_ids.txt", lambda lines: ["one", *lines[1:]], ["train_ids.txt line 1", "'one'"]),
        ("train_ids.txt", lambda lines: ["99", *lines[1:]], ["train_ids.txt", "imgid 99", "--skip_missing"]),
    ],
)
def test_captions_that_do_not_fit(raw, name, change, words):
    rewrite(raw.captions / name, change)
    refusal(lambda: main(raw.flags), *words)
    assert not (raw.out / "flickr").exists()


def test_what_is_missing_can_be_left_out(raw, capsys):
    rewrite(raw.captions / "train_ids.txt", lambda lines: ["99", *lines[1:]])
    (raw.features / f"{photo_of(21)}.npz").unlink()
    refusal(lambda: main(raw.flags), "imgid 99")
    write_json(raw.json, [*imgids(), 99])
    refusal(lambda: main(raw.flags), f"no features of image {photo_of(99)} of train (1 of 7")
    main([*raw.flags, "--skip_missing"])
    data = open_itm(raw.out, "flickr", "dev")
    assert data.image_ids.tolist() == [photo_of(20), photo_of(22)] and "1 of 3 images" in capsys.readouterr().out
    assert len(data) == 10 and data.lengths()[5] == len(captions_of(22, "dev")[0].replace("-", " ").split())


def test_features_of_another_width_and_other_json(raw):
    np.savez(raw.features / f"{photo_of(3)}.npz", **region_arrays(3, 4, FEATURE_SIZE + 1))
    refusal(lambda: main(raw.flags), "width 13", "the other images have 12")
    raw.json.write_text('{"images": [{"filename": "one.jpg", "imgid": 1}]}')
    refusal(lambda: main(raw.flags), "dataset_flickr30k.json", "1000092795.jpg")
    refusal(lambda: main([flag for flag in raw.flags if flag not in ("--json", str(raw.json))]), "needs --json")
    refusal(lambda: main(["--dataset", "coco", *raw.flags]), "--json belongs to --dataset flickr")
