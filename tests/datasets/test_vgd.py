"""The grounding data set: splits, batches by definition, words, and one clear line for every fault."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from datasets.prepare_vgd import prepare
from datasets.regions import open_regions, read_batch, rows_of
from datasets.regions.samples import SMALL_SIZE
from datasets.text.vocabulary import Vocabulary
from datasets.vgd import open_vgd
from tests.datasets.vgd_files import make_vgd
from tests.datasets.vqa_files import FEATURE_SIZE, refusal
from tests.mmnas_golden import Golden


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Prepared data, only read."""
    made = make_vgd(tmp_path_factory.mktemp("vgd"))
    prepare("refcoco", made.refer, made.out, features=made.tree, workers=1)
    return made


@pytest.fixture
def made(shared, tmp_path):
    """A copy to be damaged."""
    shutil.copytree(shared.out, tmp_path / "vgd")
    return tmp_path / "vgd"


def records_of(data, *parts):
    return [record for part in parts for record in json.loads((data / "refcoco" / f"{part}.json").read_text())]


@pytest.mark.parametrize("split", ["train", "train+val", "val", "testA", "testB"])
def test_splits_in_their_order(shared, split):
    records, dataset = records_of(shared.out, *split.split("+")), open_vgd(shared.out, "refcoco", split)
    assert dataset.split == split and len(dataset) == len(records)
    assert dataset.image_ids.tolist() == [record["image_id"] for record in records]
    assert dataset.expressions() == [record["tokens"] for record in records]
    assert dataset.has_answers and dataset.synthetic and dataset.feature_size == FEATURE_SIZE
    assert dataset.description.startswith("synthetic expressions; ")


@pytest.mark.parametrize("padding", ["batch", "full"])
def test_batch_by_definition(shared, padding):
    dataset, rows = open_vgd(shared.out, "refcoco", "train", padding=padding), [4, 0, 4, 7]
    batch = dataset.__getitems__(rows)
    records = [records_of(shared.out, "train")[row] for row in rows]
    source = open_regions(shared.out / "store")
    images = rows_of(source, np.array([record["image_id"] for record in records]))
    for key, value in read_batch(source, images, padding=padding).items():
        assert batch[key].dtype == value.dtype and torch.equal(batch[key], value)
    boxes = [[x, y, x + w, y + h] for x, y, w, h in (record["bbox"] for record in records)]
    assert batch["label"].dtype == torch.float32 and torch.equal(batch["label"], torch.tensor(boxes))
    length = 15 if padding == "full" else max(len(record["tokens"]) for record in records)
    assert batch["tokens"].dtype == torch.int64 and batch["tokens"].shape == (4, length)
    assert batch["regions"].shape[1] == (100 if padding == "full" else batch["counts"].max())
    for row, record in zip(batch["tokens"].tolist(), records, strict=True):
        assert [dataset.vocabulary.words[number] for number in row if number] == record["tokens"]
    assert torch.equal(batch["index"], torch.tensor(rows))
    assert set(dataset.read([0], only=("tokens",))) == {"tokens", "label", "index"}
    with pytest.raises(IndexError):
        dataset.read([len(dataset)])


def test_vocabulary_of_all_files_in_their_order(shared):
    seen = [word for r in records_of(shared.out, "train", "val", "testA", "testB") for word in r["tokens"]]
    expected = ("PAD", "UNK", "CLS", *dict.fromkeys(seen))
    assert open_vgd(shared.out, "refcoco", "testB").vocabulary.words == expected


def test_words_as_the_original_numbers_them(made):
    """Fixture ``proc_query``: at most 14 words, in 15 places; words as they stand; a word unknown is UNK."""
    cases = Golden("vgd_targets").spec["proc_query"]
    records = records_of(made, "val")[: len(cases)]
    for record, case in zip(records, cases, strict=True):
        record["tokens"] = case["tokens"]
    (made / "refcoco" / "val.json").write_text(json.dumps(records))
    dataset = open_vgd(made, "refcoco", "val", vocabulary=Vocabulary(["the", "man"]), padding="full")
    assert dataset.read(range(len(cases)))["tokens"].tolist() == [case["ix"] for case in cases]
    records[0]["tokens"] = ["The", "man", "man's"]
    (made / "refcoco" / "val.json").write_text(json.dumps(records))
    assert open_vgd(made, "refcoco", "val", vocabulary=Vocabulary(["the", "man"])).read([0])["tokens"].tolist() == [
        [1, 4, 1]
    ]


def test_parts_of_a_split(shared):
    whole = open_vgd(shared.out, "refcoco", "train")
    first, last = (open_vgd(shared.out, "refcoco", "train", part=part) for part in (("first", 0.8), ("last", 0.2)))
    assert (len(first), len(last)) == (7, 2)
    assert [*first.expressions(), *last.expressions()] == whole.expressions()
    assert torch.equal(last.read([0])["label"], whole.read([7])["label"])
    assert len({whole.fingerprint, first.fingerprint, last.fingerprint}) == 3


def test_small(shared, made):
    records = records_of(shared.out, "train") * 10
    (made / "refcoco" / "train.json").write_text(json.dumps(records))
    assert len(open_vgd(made, "refcoco", "train", small=True)) == SMALL_SIZE


def test_pickle_is_small_and_works(shared):
    dataset = open_vgd(shared.out, "refcoco", "train")
    data = pickle.dumps(dataset)
    assert len(data) < 5000
    for key, value in pickle.loads(data).read([1, 5]).items():
        assert torch.equal(value, dataset.read([1, 5])[key])


def test_fingerprint_follows_content_and_options(made):
    first = open_vgd(made, "refcoco", "val").fingerprint
    assert open_vgd(made, "refcoco", "val").fingerprint == first
    assert open_vgd(made, "refcoco", "val", padding="full").fingerprint != first
    records = records_of(made, "val")
    records[0]["bbox"][0] += 1
    (made / "refcoco" / "val.json").write_text(json.dumps(records))
    assert open_vgd(made, "refcoco", "val").fingerprint != first


def test_files_of_the_original_alone(shared, made):
    """Its own scripts write no meta.json; features may stand as .npz files under the original's name."""
    (made / "refcoco" / "meta.json").unlink()
    shutil.rmtree(made / "store")
    shutil.copytree(shared.tree, made / "bua-r101-fix100")
    dataset = open_vgd(made, "refcoco", "val")
    assert not dataset.synthetic and dataset.description == "RefCOCO; region features of bua-r101-fix100"


def test_images_without_features(shared, made, caplog):
    shutil.rmtree(made / "store")
    shutil.copytree(shared.tree, made / "features")
    (made / "features" / "COCO_train2014_000000000002.jpg.npz").unlink()
    words = ("1 images", "3 of 9 samples", "first image 2", "prepare_vgd.py --dataset refcoco", "--skip_missing")
    refusal(lambda: open_vgd(made, "refcoco", "train"), *words)
    dataset = open_vgd(made, "refcoco", "train", skip_missing=True)
    assert 2 not in dataset.image_ids and len(dataset) == 6 and "are left out" in caplog.text
    kept = [record["tokens"] for record in records_of(made, "train") if record["image_id"] != 2]
    assert dataset.expressions() == kept


def test_wrong_requests(made):
    refusal(lambda: open_vgd(made, "coco", "train"), "--DATASET coco", "refcoco+")
    refusal(lambda: open_vgd(made, "refcocog", "train"), "train.json, val.json, test.json", "prepare_vgd.py")
    refusal(lambda: open_vgd(made, "refcoco", "test"), "no split test", "testA, testB")
    refusal(lambda: open_vgd(made, "refcoco", "train", padding="none"), "padding 'none'")
    refusal(lambda: open_vgd(made, "refcoco", "train", feature_size=2048), "width 12", "2048")
    refusal(lambda: open_vgd(made, "refcoco", "train", feature_kind="coco_mrcn"), "--FEAT coco_mrcn", "--features DIR")
    place = made / "refcoco" / "val.json"
    for content, word in (("[]", "no list"), ('[{"tokens": ["a"]}]', "entry 0"), ("[", "readable JSON")):
        place.write_text(content)
        refusal(lambda: open_vgd(made, "refcoco", "val"), "val.json", word)
    place.unlink()
    refusal(lambda: open_vgd(made, "refcoco", "train+val"), "val.json is missing", "--dataset refcoco")
    shutil.rmtree(made / "store")
    refusal(lambda: open_vgd(made, "refcoco", "train"), "no region features", "bua-r101-fix100")


def test_features_of_pictures_of_another_size(made):
    records = records_of(made, "train")
    records[-1]["height"] *= 2
    (made / "refcoco" / "train.json").write_text(json.dumps(records))
    refusal(lambda: open_vgd(made, "refcoco", "train"), "image 3 made at 400 x 503 pixels", "are of 800 x 503")
