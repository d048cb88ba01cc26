"""From the official files of RefCOCO to split files and packed features, and one clear line for every fault."""

import copy
import json
import pickle

import pytest

from datasets import prepare_vgd
from datasets.regions.store import RegionStore
from datasets.vgd.refer import DATASETS, Official, read_refs
from tests.datasets.vgd_files import make_refs, make_vgd, write_refer
from tests.datasets.vqa_files import refusal


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Prepared data, only read."""
    made = make_vgd(tmp_path_factory.mktemp("vgd"))
    flags = ["--refer", str(made.refer), "--out", str(made.out), "--features", str(made.tree), "--workers", "1"]
    prepare_vgd.main(["--dataset", "refcoco", *flags])
    return made


@pytest.fixture
def made(tmp_path):
    """Official files to be damaged, without features."""
    return make_vgd(tmp_path)


def prepare(made, dataset="refcoco", **options):
    return prepare_vgd.prepare(dataset, made.refer, made.out, **options)


def expected_records(made, split):
    """Records by their definition, written anew."""
    images = {image["id"]: image for image in made.instances["images"]}
    boxes = {one["id"]: one for one in made.instances["annotations"]}
    return [
        {
            "tokens": sentence["tokens"],
            "file_name": images[ref["image_id"]]["file_name"],
            "image_id": ref["image_id"],
            "split": split,
            "bbox": boxes[ref["ann_id"]]["bbox"],
            "name": ("cube", "ball")[ref["category_id"] - 1],
            "height": images[ref["image_id"]]["height"],
            "width": images[ref["image_id"]]["width"],
        }
        for ref in made.refs
        if ref["split"] == split
        for sentence in ref["sentences"]
    ]


def test_split_files_in_the_originals_form(shared):
    for split in ("train", "val", "testA", "testB"):
        records = json.loads((shared.out / "refcoco" / f"{split}.json").read_text())
        assert records == expected_records(shared, split) and len(records) == 9
    meta = json.loads((shared.out / "refcoco" / "meta.json").read_text())
    assert meta["synthetic"] and meta["expressions"] == dict.fromkeys(("train", "val", "testA", "testB"), 9)
    assert {path.name for path in (shared.out / "refcoco").iterdir()} == {
        *(f"{split}.json" for split in DATASETS["refcoco"].counts),
        "meta.json",
    }
    assert RegionStore(shared.out / "store", "").ids.tolist() == sorted({ref["image_id"] for ref in shared.refs})


def test_counts_are_compared_with_the_official_ones(made, capsys):
    del made.instances["info"]
    write_refer(made.refer, "refcoco", made.refs, made.instances)
    assert prepare(made) == dict.fromkeys(("train", "val", "testA", "testB"), 9)
    printed = capsys.readouterr().out
    assert "train 9 expressions (note: the official RefCOCO has 120,624)" in printed and "no features yet" in printed
    assert not json.loads((made.out / "refcoco" / "meta.json").read_text())["synthetic"]


@pytest.mark.parametrize("dataset", ["refcoco+", "refcocog"])
def test_the_other_data_sets(tmp_path, dataset):
    made = make_vgd(tmp_path, dataset)
    assert list(prepare(made, dataset)) == list(DATASETS[dataset].counts)
    # The files may lie in --refer itself.
    made.refer, made.out = made.refer / dataset, tmp_path / "second"
    prepare(made, dataset)
    assert (made.out / dataset / "train.json").exists()


def test_features_are_found_beside_the_splits(made, capsys):
    made.tree.rename(made.tree.parent / "moved")
    made.out.mkdir()
    (made.tree.parent / "moved").rename(made.out / "bua-r101-fix100")
    (made.out / "bua-r101-fix100" / "COCO_train2014_000000000001.jpg.npz").unlink()
    prepare(made, workers=1)
    assert "train: 1 of 3 images have no features, first 1" in capsys.readouterr().out


def first_annotation(made):
    return made.instances["annotations"][0]


def no_words(made):
    made.refs[0]["sentences"][0]["tokens"] = ["", " "]


FAULTS = [
    ("annotation id 10 is missing in instances.json", 2, lambda m: m.instances["annotations"].pop(0)),
    ("image id 1 is missing in instances.json", 3, lambda m: m.instances["images"].pop(0)),
    ("annotation id 10 is of image 5, not 1", 2, lambda m: first_annotation(m).update(image_id=5)),
    ("lies outside its image of 501 x 400", 2, lambda m: first_annotation(m).update(bbox=[490.0, 1, 12.1, 5])),
    ("of annotation id 10 lies outside", 2, lambda m: first_annotation(m).update(bbox=[-1.5, 1, 12, 5])),
    ("has no size", 2, lambda m: first_annotation(m).update(bbox=[4, 1, 0, 5])),
    ("annotation id 10 has bbox [1, 2]", 2, lambda m: first_annotation(m).update(bbox=[1, 2])),
    ("sentence 0 of ref 0: an expression without words", 1, no_words),
]


@pytest.mark.parametrize(("message", "count", "damage"), FAULTS)
def test_faulty_expressions_are_refused_or_left_out(made, message, count, damage, capsys):
    damage(made)
    write_refer(made.refer, "refcoco", made.refs, made.instances)
    refusal(lambda: prepare(made), message, f"{count} expression", "cannot be used", "--skip_invalid", "refs(unc).p")
    assert not made.out.exists()
    found = prepare(made, skip_invalid=True)
    assert found["train"] == 9 - count and found["val"] == 9
    assert message in (made.out / "refcoco" / "invalid.txt").read_text() and message in capsys.readouterr().out
    assert json.loads((made.out / "refcoco" / "meta.json").read_text())["left out"] == count


def test_boxes_may_touch_the_border(made):
    first_annotation(made)["bbox"] = [-1.0, 0.0, 503.0, 401.0]
    write_refer(made.refer, "refcoco", made.refs, made.instances)
    assert prepare(made)["train"] == 9


def test_files_of_another_split(made):
    refs = make_refs(("train", "val", "test"))
    write_refer(made.refer, "refcoco", refs)
    refusal(lambda: prepare(made), "refs(unc).p", "splits test, train, val", "train, val, testA, testB")
    (made.refer / "refcoco" / "refs(unc).p").rename(made.refer / "refcoco" / "refs(google).p")
    refusal(lambda: prepare(made), "refs(unc).p is missing", "there is refs(google).p")
    refusal(lambda: prepare(made, "refcocog"), "refs(umd).p", "is missing", "--refer")
    assert not made.out.exists()


def test_the_file_of_another_data_set(made, monkeypatch):
    """RefCOCO and RefCOCO+ share splits, images and annotations; what tells them apart is how many there are."""
    counts = dict.fromkeys(DATASETS["refcoco"].counts, 9)
    monkeypatch.setitem(DATASETS, "refcoco+", Official("unc", counts))
    refusal(lambda: prepare(made), "as many expressions as refcoco+", "--dataset refcoco+")


def test_damaged_official_files(made):
    place = made.refer / "refcoco"
    (place / "instances.json").write_text('{"images": []')
    refusal(lambda: prepare(made), "instances.json is not a readable JSON file")
    (place / "instances.json").write_text('{"images": [{"name": 1}]}')
    refusal(lambda: prepare(made), "no list 'images'")
    (place / "instances.json").unlink()
    refusal(lambda: prepare(made), "instances.json is missing")
    for content, word in (
        ({"a": 1}, "no list of references"),
        ([{**made.refs[0], "ann_id": "x"}], "entry 0 has no ann_id (int) but 'x'"),
        ([{**made.refs[0], "sentences": [{"raw": "a"}]}], "no list of tokens"),
    ):
        (place / "refs(unc).p").write_bytes(pickle.dumps(content))
        refusal(lambda: prepare(made), "refs(unc).p", word)
    assert not made.out.exists()


def test_wrong_flags(made):
    refusal(lambda: prepare_vgd.main(["--dataset", "refcoco", "--refer", "x", "--workers", "0"]), "--workers 0")
    refusal(lambda: prepare(made, features=made.out / "none"), "--features", "does not exist")
    refusal(lambda: prepare_vgd.prepare("refcoco", "nowhere", made.out), "nowhere", "is missing")
    path, refs = read_refs(made.refer / "refcoco", "refcoco")
    assert path.name == "refs(unc).p" and refs == copy.deepcopy(made.refs)
