"""Checks of data: every demo set is found clean, and every planted fault is found and named."""

import importlib
import json
import shutil
from functools import partial

import h5py
import numpy as np
import pytest
from PIL import Image

import check_data
from datasets import checks
from datasets.checks import Report, Seen
from datasets.ego.check import check as check_ego
from datasets.itm.check import check as check_itm
from datasets.mmimdb.check import check as check_mmimdb
from datasets.ntu.check import check as check_ntu
from datasets.own.check import check as check_own
from datasets.own.manifest import OwnLabel
from datasets.own.writing import write_samples
from datasets.prepare_own import main as prepare_own
from datasets.regions.files import write_regions
from datasets.vgd.check import check as check_vgd
from datasets.vqa.check import check as check_vqa
from tests.datasets.own_samples import FACTS
from tests.paths_of_checks import copied, json_changed
from util.cli import UserError


def found(check, data, **options):
    """The findings of a check, as texts "severity place: text; fix"."""
    report = Report()
    check(report, data, **options)
    return [f"{f.severity} {f.place}: {f.text}; {f.fix}" for f in report.findings]


def assert_finds(check, data, *expected, **options):
    """Each text of ``expected``, with its severity in front, is in one finding; there is no other finding."""
    lines = found(check, data, **options)
    for text in expected:
        severity, _, words = text.partition(" ")
        assert any(line.startswith(severity) and words in line for line in lines), (text, lines)
    assert len(lines) == len(expected), lines


@pytest.fixture(scope="module")
def scenes(made_once):
    """Synthetic scenes in the forms of all three tasks of MMNas, raw and prepared."""

    def make(out):
        from datasets.demo.scenes import make

        make(out, train=6, scored=4, matched=4, tasks=("vqa", "vgd", "itm"))

    return made_once("checked_scenes", make)


class TestClean:
    """Demo sets have no findings, before and after preparation."""

    def test_films(self, films):
        assert not found(check_mmimdb, films.folder)
        assert not found(check_mmimdb, films.hdf5)
        assert not found(check_mmimdb, films.hdf5.parent)

    @pytest.mark.parametrize("name", ["ntu", "ego"])
    def test_clips(self, clip_data, name):
        check, data = {"ntu": check_ntu, "ego": check_ego}[name], clip_data(name)
        assert not found(check, data)
        assert not found(check, data.parent if name == "ntu" else data.parent / "raw")

    def test_questions_and_scenes(self, easy_vqa, scenes):
        assert not found(check_vqa, easy_vqa.data)
        assert not found(check_vqa, scenes / "vqa")
        assert not found(check_vgd, scenes / "vgd")
        assert not found(check_vgd, scenes / "refer")
        assert not found(check_itm, scenes / "itm")
        assert not found(check_itm, scenes / "itm_raw")
        assert not found(check_itm, scenes / "itm_raw", features=scenes / "features")


class TestFilms:
    def test_what_is_missing(self, films, tmp_path):
        made = "prepare_mmimdb.py --hdf5"
        assert_finds(
            check_mmimdb, tmp_path / "none", f"error the data are missing; make the store with `python datasets/{made}"
        )
        assert_finds(check_mmimdb, tmp_path, f"error no MM-IMDB data in {tmp_path}")
        data = copied(films.folder, tmp_path / "data")
        (data / "test_texts.npy").unlink()
        assert_finds(check_mmimdb, data, "error test_texts.npy is missing; redo the store")

    def test_the_official_numbers(self, films, tmp_path):
        data = copied(films.folder, tmp_path / "data")
        json_changed(data / "meta.json", synthetic=False, description="MM-IMDB")
        counts = (
            "40 samples, the official number is 15,552",
            "17 samples, the",
            "16 samples, the official number is 7,799",
        )
        posters = "warning posters are (3, 32, 32), the official ones (3, 256, 160)"
        assert_finds(check_mmimdb, data, *(f"warning {text}" for text in counts), posters)

    def test_the_store(self, films, tmp_path):
        data = copied(films.folder, tmp_path / "data")
        posters = np.load(data / "dev_images.npy")
        posters[3] = 7
        np.save(data / "dev_images.npy", posters)
        assert_finds(check_mmimdb, data, "warning every value is 7")
        np.save(data / "dev_texts.npy", np.load(data / "dev_texts.npy") + 1)
        assert_finds(check_mmimdb, data, "error dev_texts.npy has changed since it was written")

    def test_the_official_file(self, films, tmp_path):
        def planted(change):
            path = tmp_path / "multimodal_imdb.hdf5"
            shutil.copy(films.hdf5, path)
            with h5py.File(path, "r+") as file:
                change(file)
            return path

        def change(file):
            file["features"][2] = np.nan
            file["features"][3] = 0
            file["genres"][4] = 0
            file["images"][50], file["features"][50] = file["images"][5], file["features"][5]

        films_of = [one.decode() for one in h5py.File(films.hdf5)["imdb_ids"][:60]]
        same = f"of dev are also in train, first {films_of[50]} (there {films_of[5]})"
        twice = f"warning 1 films (by plot vector and poster) {same}"
        nan = f"error {films_of[2]}: plot vectors with NaN or infinite values"
        zero = f"warning {films_of[3]}: every value is 0"
        expected = nan, zero, f"warning {films_of[4]}: films without any genre", twice
        report = Report()  # plots and genres of all films are looked at in any case
        check_mmimdb(report, planted(change))
        lines = [f"{f.severity} {f.place}: {f.text}" for f in report.findings]
        assert len(lines) == 4 and all(any(text.split(" ", 1)[1] in line for line in lines) for text in expected), lines
        genres = planted(
            lambda file: file["genres"].write_direct(np.full(file["genres"].shape, 2, file["genres"].dtype))
        )
        lines = found(check_mmimdb, genres)
        assert any("genres other than 0 and 1" in line for line in lines) and any(
            "more: genres" in line for line in lines
        )
        genres = planted(lambda file: file["genres"].__setitem__((slice(0, 40), 3), 0))
        assert any("1 genres have no film in train" in line for line in found(check_mmimdb, genres))
        broken = tmp_path / "cut.hdf5"
        broken.write_bytes(films.hdf5.read_bytes()[:5000])
        assert_finds(check_mmimdb, broken, "error is not a readable HDF5 file, or is cut short")

    def test_the_tree(self, tmp_path):
        rng = np.random.default_rng(0)
        for split in ("train", "dev", "test"):
            (tmp_path / split).mkdir()
            for row in range(3):
                values = {"image": rng.integers(0, 255, (3, 32, 32)), "text": rng.random(300), "label": np.ones(2)}
                for kind, value in values.items():
                    np.save(tmp_path / split / f"{kind}_{row:06d}.npy", value)
        assert not [line for line in found(check_mmimdb, tmp_path) if "official" not in line and "genres" not in line]
        np.save(tmp_path / "dev" / "image_000001.npy", np.full((3, 32, 32), np.nan))
        (tmp_path / "test" / "text_000001.npy").unlink()
        lines = [line for line in found(check_mmimdb, tmp_path) if "official number" not in line]
        assert any("image_000001.npy holds NaN or infinite values" in line for line in lines)
        assert any("text_000001.npy is missing" in line for line in lines)


def flip(path, position=-9):
    data = bytearray(path.read_bytes())
    data[position] ^= 255
    path.write_bytes(bytes(data))


class TestActions:
    @pytest.fixture
    def raw(self, clip_data, tmp_path):
        """The raw folder, to be damaged; the ids of its samples, sorted."""
        home = clip_data("ntu").parent
        for name in ("nturgb+d_rgb", "nturgb+d_skeletons"):
            copied(home / name, tmp_path / "raw" / name)
        shutil.copy(home / "about.json", tmp_path / "raw")
        data = tmp_path / "raw"
        return data, sorted(path.stem for path in (data / "nturgb+d_skeletons").iterdir())

    def test_pairs_and_names(self, raw):
        data, ids = raw
        (data / "nturgb+d_rgb" / f"{ids[0]}_rgb.avi").unlink()
        (data / "nturgb+d_skeletons" / f"{ids[1]}.skeleton").rename(data / "nturgb+d_skeletons" / "walk.skeleton")
        names = (
            f"error {ids[0]}: has no video",
            f"error {ids[1]}: has no skeleton",
            "warning walk.skeleton: is left out",
        )
        assert_finds(check_ntu, data, *names)

    def test_content(self, raw):
        data, ids = raw
        videos, skeletons = data / "nturgb+d_rgb", data / "nturgb+d_skeletons"
        video = videos / f"{ids[2]}_rgb.avi"
        video.write_bytes(video.read_bytes()[:2000])
        (skeletons / f"{ids[3]}.skeleton").write_text("2\n0\n0\n")
        (skeletons / f"{ids[4]}.skeleton").write_text("2\n1\nbody\n24\n")
        subjects = sorted({name[8:12] for name in ids})
        # Subject 1 is of train, 3 of test.
        copy = next(name for name in ids[5:] if name[8:12] == "P001")
        target = copy.replace("P001", "P003")
        assert {"P001", "P003"} <= set(subjects)
        shutil.copy(videos / f"{copy}_rgb.avi", videos / f"{target}_rgb.avi")
        shutil.copy(skeletons / f"{copy}.skeleton", skeletons / f"{target}.skeleton")
        expected = f"error {ids[2]}: its video", f"warning {ids[3]}: skeletons without a person in any frame"
        joints = f"error {ids[4]}: its skeleton has 24 joints"
        twice = f"error 1 samples (by content) of test are also in train, first {target} (there {copy})"
        assert_finds(check_ntu, data, *expected, joints, twice)

    def test_the_store(self, clip_data, tmp_path):
        data = copied(clip_data("ntu"), tmp_path / "data")
        flip(data / "frames.bin")
        flip(data / "skeletons.bin", 9)
        lines = found(check_ntu, data)
        assert (
            len(lines) == 2
            and "its video has changed" in "".join(lines)
            and "its skeleton has changed" in "".join(lines)
        )
        (data / "frames.bin").write_bytes(b"")
        assert_finds(check_ntu, data, "error frames.bin has 0 bytes, expected")

    def test_missing_and_official(self, clip_data, tmp_path):
        assert_finds(check_ntu, tmp_path, f"error no NTU data in {tmp_path}")
        data = copied(clip_data("ntu"), tmp_path / "data")
        json_changed(data / "meta.json", synthetic=False)
        total = "warning 342 samples, the official number is 56,880"
        assert_finds(check_ntu, data, total, "warning 52 actions have no sample, first A009")


class TestGestures:
    def test_frames_and_persons(self, clip_data, tmp_path):
        data = copied(clip_data("ego").parent / "raw", tmp_path / "raw")
        clips = json.loads((data / "egogestureall_but_None.json").read_text())["database"]
        folders = list(dict.fromkeys(name.split("_")[0] for name in clips))
        shutil.rmtree(data / folders[0].replace("Color/rgb", "Depth/depth"))
        one = next(name for name in clips if name.startswith(folders[1]))
        gone = data / folders[1] / f"{int(clips[one]['annotations']['start_frame']):06d}.jpg"
        gone.unlink()
        cut = sorted((data / folders[2]).iterdir())
        for path in cut:
            path.write_bytes(path.read_bytes()[:60])
        changed = json.loads((data / "egogestureall_but_None.json").read_text())
        one = next(name for name in clips if name.startswith(folders[3]))
        changed["database"][f"{one}9"] = {**clips[one], "subset": "testing"}
        changed["database"][f"{one}8"] = {**clips[one], "subset": "nowhere"}
        (data / "egogestureall_but_None.json").write_text(json.dumps(changed))
        lines = found(check_ego, data)
        for text in (
            f"{folders[0]}: has no {folders[0].replace('Color/rgb', 'Depth/depth')}",
            f"{gone} is missing",
            f"{cut[0].parent}",
            "unknown subset 'nowhere'",
            f"1 persons of testing are also in training, first {folders[3][:9]}",
        ):
            assert any(line.startswith("error") and text in line for line in lines), (text, lines)

    def test_the_store(self, clip_data, tmp_path):
        data = copied(clip_data("ego"), tmp_path / "data")
        flip(data / "depth" / "frames.bin")
        assert_finds(check_ego, data, "error depth frames have changed: pack again")
        (data / "meta.json").unlink()
        assert_finds(check_ego, data, "error is not finished: run the same")

    def test_missing_and_official(self, clip_data, tmp_path):
        assert_finds(
            check_ego, tmp_path / "none", "error the data are missing; make them with `python datasets/prepare_ego.py"
        )
        data = copied(clip_data("ego"), tmp_path / "data")
        json_changed(data / "meta.json", synthetic=False)
        lines = found(check_ego, data)
        assert any("30 samples, the official number is 14,416" in line for line in lines)
        assert any("8 labels, the official number is 83" in line for line in lines)


class TestQuestions:
    @pytest.fixture
    def data(self, easy_vqa, tmp_path):
        return copied(easy_vqa.data, tmp_path / "data")

    def test_questions_and_annotations(self, data):
        folder = data / "annotations"
        train = json.loads((folder / "v2_OpenEnded_mscoco_train2014_questions.json").read_text())
        val = json.loads((folder / "v2_mscoco_val2014_annotations.json").read_text())
        asked = train["questions"]
        first = val["annotations"][0]["question_id"]
        asked[0]["question"], asked[1]["image_id"] = " ", val["annotations"][0]["image_id"]
        json_changed(folder / "v2_OpenEnded_mscoco_train2014_questions.json", questions=asked)
        answers = val["annotations"]
        answers[1]["answers"] = answers[1]["answers"][:9]
        json_changed(folder / "v2_mscoco_val2014_annotations.json", annotations=answers[1:])
        expected = (
            f"warning question {asked[0]['question_id']}: questions without words",
            f"error 1 questions have no annotation, first {first}",
            f"warning question {answers[1]['question_id']}: has 9 answers, expected 10",
            f"error 1 images (by id) of val are also in train, first {asked[1]['image_id']}",
            f"error question {asked[1]['question_id']}: annotations of another image",
            "warning was made from other question files",
        )
        assert_finds(check_vqa, data, *expected)
        (folder / "v2_mscoco_train2014_annotations.json").unlink()
        lines = found(check_vqa, data)
        assert any("train2014_annotations.json: the annotations are missing" in line for line in lines)

    def test_features(self, data, easy_vqa, tmp_path):
        flip(data / "store" / "regions.bin", 100)
        assert_finds(check_vqa, data, "error its features have changed: pack again")
        tree = copied(easy_vqa.data / "features", tmp_path / "npz")
        paths = sorted(tree.rglob("*.npz"))
        assert not found(check_vqa, easy_vqa.data, features=tree)
        paths[0].unlink()
        boxes = np.array([[0, 0, 9, 9], [0, 0, 700, 9]], dtype=np.float32)
        with np.load(paths[1]) as file:
            size, width = int(file["image_h"]), file["x"].shape[0]
        features = np.random.default_rng(0).random((2, width)).astype(np.float32)
        write_regions(paths[1], features, boxes, size, size)
        write_regions(paths[2], np.ones((2, width), np.float32), np.clip(boxes, 0, 9), size, size)
        np.savez(paths[3], x=np.full((width, 2), np.nan, np.float32), bbox=boxes, image_h=size, image_w=size)
        paths[4].write_bytes(paths[4].read_bytes()[:50])
        lines = found(check_vqa, easy_vqa.data, features=tree)
        for text in (
            "1 of 12 images have no features",
            f"beyond its picture of {size} x {size} pixels",
            "every value is 1",
            "features that are the same in every region",
            "holds NaN or infinite values",
            "is damaged or cut short",
        ):
            assert any(text in line for line in lines), (text, lines)
        assert len(lines) == 6

    def test_missing_and_official(self, data, tmp_path):
        assert_finds(
            check_vqa, tmp_path / "none", "error the data are missing; put the official files into its annotations/"
        )
        path = data / "annotations" / "v2_OpenEnded_mscoco_train2014_questions.json"
        json_changed(path, info={"description": "This is v2.0 of the VQA dataset."})
        lines = found(check_vqa, data)
        assert any("126 samples, the official number is 443,757" in line for line in lines)
        assert any(line.startswith("note") and "VG_questions.json: the file is missing" in line for line in lines)
        assert any(line.startswith("note") and "no word vectors" in line for line in lines)
        shutil.rmtree(data / "store")
        shutil.rmtree(data / "features")
        lines = found(check_vqa, data)
        assert any("has no region features: expected" in line and "prepare_vqa.py" in line for line in lines)


class TestGrounding:
    def test_records(self, scenes, tmp_path):
        data = copied(scenes / "vgd", tmp_path / "data")
        path = data / "refcoco" / "val.json"
        rows, other = json.loads(path.read_text()), json.loads((data / "refcoco" / "train.json").read_text())
        rows[0]["bbox"] = [100, 0, 500, 20]
        rows[1]["tokens"] = [" "]
        rows[2] |= {name: other[0][name] for name in ("image_id", "file_name", "bbox")}
        rows[3] |= {"height": 999}
        path.write_text(json.dumps(rows))
        expected = (
            "error val 0: box [100, 0, 500, 20] in an image of",
            "warning val 1: expressions without words",
            f"warning 1 images of val are also in train, first image {other[0]['image_id']}",
            "pixels: make them of the official images",
        )
        lines = found(check_vgd, data)
        assert all(any(text.split(" ", 1)[1] in line for line in lines) for text in expected), lines
        path.write_text(json.dumps(rows[:-1]))
        lacking = f"val.json: {len(rows) - 1} expressions, the preparation wrote {len(rows)}"
        assert any(lacking in line for line in found(check_vgd, data))
        (data / "refcoco" / "testA.json").unlink()
        assert any("testA.json is missing; make it with" in line for line in found(check_vgd, data))
        (data / "refcoco" / "meta.json").write_text("{")
        assert any("meta.json is not a readable JSON file" in line for line in found(check_vgd, data))

    def test_features_of_other_images(self, scenes, tmp_path):
        tree = tmp_path / "npz"
        for path in (scenes / "features").rglob("*.npz"):
            with np.load(path) as file:
                boxes = np.array([[0, 0, 3, 3], [1, 1, 4, 4]], np.float32)
                sizes = int(file["image_h"]), int(file["image_w"])
                write_regions(tree / path.name, np.random.default_rng(0).random((2, 128), np.float32), boxes, *sizes)
        assert_finds(check_vgd, scenes / "vgd", "warning only 0% of the boxes overlap a region by half", features=tree)

    def test_the_official_files(self, scenes, tmp_path):
        data = copied(scenes / "refer", tmp_path / "refer")
        path = data / "refcoco" / "instances.json"
        instances = json.loads(path.read_text())
        json_changed(path, annotations=instances["annotations"][:1])
        lines = found(check_vgd, data)
        assert lines and all("is missing in instances.json" in line or "more: expr" in line for line in lines)
        assert_finds(check_vgd, tmp_path, "error has neither prepared splits nor official files of refcoco")
        json_changed(path, info={})
        assert any("the official number is 120,624" in line for line in found(check_vgd, data))


class TestMatching:
    def test_the_prepared_data(self, scenes, tmp_path):
        data = copied(scenes / "itm", tmp_path / "data")
        folder = data / "flickr"
        train = json.loads((folder / "train.json").read_text())
        dev = json.loads((folder / "dev.json").read_text())
        dev["image_ids"][0] = train["image_ids"][0]
        dev["image_ids"][2] = dev["image_ids"][1]
        dev["captions"][3] = "..."
        dev["captions"][4] = "an aardvark"
        json_changed(folder / "dev.json", **dev)
        expected = (
            f"error 1 images of dev are also in train, first image {train['image_ids'][0]}",
            f"warning dev image {dev['image_ids'][1]}: is there 2 times",
            "error dev caption 3: captions without words",
            "error lacks 2 words of the captions, first 'aardvark'",
        )
        lines = found(check_itm, data)
        assert all(any(text.split(" ", 1)[1].replace("2 words", "") in line or "words of the captions" in line
                       for line in lines) for text in expected), lines  # fmt: skip
        assert len(lines) == 4
        dev["image_ids"][1] = 999999
        json_changed(folder / "dev.json", **dev)
        assert any("1 of 4 images have no features, first image 999999" in line for line in found(check_itm, data))
        (folder / "meta.json").unlink()
        assert_finds(check_itm, data, "error meta.json is missing: no captions are prepared there")

    def test_the_published_files(self, scenes, tmp_path):
        data = copied(scenes / "itm_raw", tmp_path / "raw")
        path = data / "f30k_precomp" / "test_caps.txt"
        path.write_text("\n".join(path.read_text().splitlines()[1:]) + "\n")
        assert any("every image needs five captions" in line for line in found(check_itm, data))
        (data / "dataset_flickr30k.json").unlink()
        lines = found(check_itm, data)
        assert any("dataset_flickr30k.json: the names of the photos are missing" in line for line in lines)
        assert any("the official number is 29,000" in line for line in lines)
        assert_finds(check_itm, tmp_path, "error has neither flickr nor coco")


@pytest.fixture(scope="module")
def own_data(tmp_path_factory):
    """A table of pictures, texts and numbers, prepared."""
    home = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    rows = ["picture,text,size,kind,part"]
    for number in range(24):
        Image.fromarray(rng.integers(0, 255, (24, 24, 3)).astype(np.uint8)).save(home / f"{number}.png")
        text = "two words" if number != 5 else "."
        rows.append(f"{number}.png,{text} {number},{number},{'ab'[number % 2]},{('train', 'dev', 'test')[number % 3]}")
    (home / "table.csv").write_text("\n".join(rows) + "\n")
    columns = "--image picture --text text --numbers size --label kind --split_column part --workers 1"
    prepare_own(["--table", str(home / "table.csv"), *columns.split(), "--out", str(home / "data")])
    return home / "data"


class TestOwn:
    def test_a_clean_folder_has_no_findings(self, own_data):
        assert not found(check_own, own_data)

    def test_missing_and_damaged(self, own_data, tmp_path):
        assert_finds(
            check_own, tmp_path / "none", "error the data are missing; make them with `python datasets/prepare_own.py"
        )
        assert_finds(check_own, tmp_path, "error own.json is missing")
        data = copied(own_data, tmp_path / "data")
        (data / "dev" / "label.npy").unlink()
        assert_finds(check_own, data, "error label.npy is missing; make the folder again")
        data = copied(own_data, tmp_path / "ids")
        flip(data / "test" / "id.bin", 0)
        assert_finds(check_own, data, "error id.bin has changed since it was written")
        data = copied(own_data, tmp_path / "other")
        (blob,) = (data / "media").rglob("*.bin")
        blob.write_bytes(bytes(blob.stat().st_size))
        lines = found(check_own, data)
        assert any(line.startswith("error") and "damaged at number" in line for line in lines)

    def test_content(self, tmp_path):
        numbers = {"x": ("vector", 2), "words": ("text", None), "steps": ("sequence", 1)}
        one = {"x": np.array([1, 2], np.float32), "words": "hello", "steps": np.ones((2, 1), np.float32)}
        nan = {**one, "x": np.array([np.nan, 0], np.float32), "words": None}
        empty = {**one, "words": " ", "steps": np.zeros((0, 1), np.float32)}
        two = {**one, "x": np.array([3, 4], np.float32)}
        splits = {
            "train": [("a", 0, one), ("b", 0, nan)],
            "dev": [("c", 0, one), ("b", 0, empty)],
            "test": [("d", 1, two)],
        }
        write_samples(tmp_path, splits, OwnLabel("kind", "class", ("cat", "dog", "eel")), numbers, FACTS)
        expected = (
            "error b, x: x with NaN or infinite values",
            "warning b, words: words without words",
            "warning b, steps: steps without any step",
            "warning 2 classes have no sample in train, first dog",
            "warning 1 classes of test are not in train, first dog",
            "error 1 samples (by id) of dev are also in train, first b",
            "warning 1 samples (by all inputs) of dev are also in train, first c (there a)",
        )
        assert_finds(check_own, tmp_path, *expected)

    def test_labels_that_are_numbers(self, tmp_path):
        one = {"x": np.array([1, 2], np.float32)}
        two = {"x": None}
        splits = {"train": [("a", 1.0, one), ("b", float("nan"), one)], "dev": [("c", 2.0, two), ("d", 2.0, two)]}
        write_samples(tmp_path, splits, OwnLabel("size", "number", ()), {"x": ("vector", 2)}, FACTS)
        same = "error every sample lacks x", "warning every label is 2"
        assert_finds(check_own, tmp_path, "error 1 labels are NaN or infinite", *same)


def look(place, numbers):
    """What `Report.read` calls here."""
    seen = Seen()
    for number in numbers:
        seen.values(f"numbers of {place}", number, np.array([number, number + 1]))
        if number % 2:
            seen.fault("warning", "odd numbers", number)
    return seen


class TestReport:
    def test_some_samples_are_always_the_same_and_full_reads_all(self):
        some = Report().some(range(1000))
        assert some == Report().some(range(1000)) == sorted(set(some)) and len(some) == checks.SAMPLE
        assert Report(full=True).some(range(1000)) == list(range(1000))
        assert Report().some(range(20)) == list(range(20))

    def test_findings_of_a_kind_are_counted_together(self):
        report = Report(full=True)
        seen = report.read(partial(look, "x"), range(100, 200), what="numbers", place="here")
        assert seen.ranges == {"numbers of x": (100, 200)}
        assert [f.text for f in report.findings][-1] == "... and 45 more: odd numbers"
        assert len(report.findings) == checks.LISTED + 1 and report.status == 3
        assert "numbers: read 100 of 100" in report.text() and "6 warnings" in report.text()

    def test_a_process_that_dies_is_a_finding(self, monkeypatch):
        monkeypatch.setattr(checks, "map_tasks", lambda function, tasks, workers: ((task, None) for task in tasks))
        report = Report()
        report.read(partial(look, "x"), range(5), what="numbers", place="here")
        assert [f.severity for f in report.findings] == ["error"] and "process" in report.findings[0].text

    @pytest.mark.slow
    def test_processes_find_what_one_finds(self, films):
        reports = [Report(full=True, workers=workers) for workers in (1, 2)]
        for report in reports:
            check_mmimdb(report, films.folder)
        assert reports[0].text() == reports[1].text()

    def test_the_script(self, films, capsys, tmp_path):
        report = check_data.main(["--task", "mmimdb", "--data", str(films.folder), "--workers", "1"])
        assert report.status == 0
        assert "nothing is wrong" in capsys.readouterr().out
        report = check_data.main(["--task", "mmimdb", "--data", str(tmp_path), "--full", "--workers", "1"])
        shown = capsys.readouterr().out.splitlines()
        assert report.status == 1 and any(line.startswith("error     ") for line in shown) and shown[-1] == "1 error"
        with pytest.raises(UserError, match="--features is for vqa, vgd, itm, not for ntu"):
            check_data.main(["--task", "ntu", "--features", "x"])
        with pytest.raises(UserError, match="--task own needs --data DIR"):
            check_data.main(["--task", "own"])
        with pytest.raises(UserError, match="--workers 0"):
            check_data.main(["--task", "ntu", "--workers", "0"])

    def test_defaults_are_those_of_the_scripts(self):
        for task, (_, place) in list(check_data.TASKS.items())[:-1]:
            published = importlib.import_module(f"tasks.{task}").PUBLISHED
            assert place == published.get("datadir", published.get("data"))
