"""Small data in every format that the suite reads: which file to damage, and what then reads it, as the scripts do."""

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from tests.datasets import ego_files, itm_files, mmimdb_files, ntu_files, vgd_files, vqa_files
from util.cli import UserError


class Case(SimpleNamespace):
    """``path``: the file; ``read``: function of a scratch folder; ``value``: its content, where it is structured.

    ``write``: function of (path, value), for JSON by default.
    """

    def write(self, value):
        self.path.write_text(json.dumps(value))


class Pickled(Case):
    def write(self, value):
        self.path.write_bytes(pickle.dumps(value, 2))


class Checkpoint(Case):
    def write(self, value):
        torch.save(value, self.path)


def json_case(path, read):
    return Case(path=path, read=read, value=json.loads(path.read_text()))


def _take(data):
    """Read a batch of a data set."""
    return data.read(np.arange(min(3, len(data))))


# Visual question answering


def _vqa(folder):
    if not (folder / "vqa").exists():
        from datasets.prepare_vqa import prepare

        vqa_files.write_vqa(folder / "vqa", images=3)
        prepare(folder / "vqa", folder / "vqa" / "store", min_answer_count=1, workers=1)
    return folder / "vqa"


def _read_vqa(data, store, split="train"):
    from datasets.vqa import open_vqa
    from metrics.vqa_accuracy import VQAAccuracy

    opened = open_vqa(data, split, features=store)
    batch = _take(opened)
    metric = VQAAccuracy(opened.answers.names, opened.question_ids, opened.ground_truth())
    metric.update(torch.zeros(len(batch["index"]), opened.num_answers), batch)
    return metric.compute()


def _prepare_vqa(data, scratch, split="train"):
    from datasets.prepare_vqa import prepare

    prepare(data, scratch / "store", min_answer_count=1, workers=1)
    return _read_vqa(data, scratch / "store", split)


def vqa_questions(folder):
    from datasets.vqa.files import QUESTION_FILES

    data = _vqa(folder)
    path = data / "annotations" / QUESTION_FILES["val"]
    return json_case(path, lambda scratch: _prepare_vqa(data, scratch, "val"))


def vqa_annotations(folder):
    from datasets.vqa.files import ANNOTATION_FILES

    data = _vqa(folder)
    return json_case(data / "annotations" / ANNOTATION_FILES["train"], lambda scratch: _prepare_vqa(data, scratch))


def vqa_tables(folder):
    data = _vqa(folder)
    return json_case(data / "store" / "vocabulary.json", lambda _: _read_vqa(data, data / "store"))


# Region features


def region_npz(folder):
    data = _vqa(folder)
    path = next((data / "bua-r101-max100" / "train2014").iterdir())
    return Case(path=path, read=lambda scratch: _prepare_vqa(data, scratch), value=None)


def _store_file(name):
    def case(folder):
        # Apart from where feature files are damaged: writing one anew makes it newer than the store.
        data = _vqa(folder / "stored")
        path = data / "store" / name

        def read(scratch):
            from datasets.regions.packing import pack_regions

            store = shutil.copytree(data / "store", scratch / "copy")
            _read_vqa(data, store)
            (store / "meta.json").unlink()
            pack_regions(data / "bua-r101-max100", store, remedy="prepare", workers=1).verify()

        return json_case(path, read) if path.suffix == ".json" else Case(path=path, read=read, value=None)

    return case


def region_tsv(folder):
    from tests.datasets.test_other_features import line, write

    path = folder / "tsv" / "a.tsv"
    write(path, [line(1), line(2, image_h=np.int64(9)), line(3)])
    return Case(path=path, read=lambda scratch: _pack(path.parent, scratch), value=None)


def region_grid(folder):
    path = folder / "grid" / "5.pth"
    path.parent.mkdir(exist_ok=True)
    torch.save(torch.rand(1, 4, 2, 3), path)
    return Checkpoint(path=path, read=lambda scratch: _pack(path.parent, scratch), value={"a": [torch.zeros(1)]})


def _pack(source, scratch):
    from datasets.regions.packing import pack_regions

    store = pack_regions(source, scratch / "store", remedy="prepare", workers=1)
    return [store.load(row) for row in range(len(store.ids))]


# Grounding


def _refer(folder):
    if not (folder / "refer").exists():
        vgd_files.make_vgd(folder)
    return folder / "refer"


def _read_vgd(data):
    from datasets.vgd import open_vgd
    from metrics.grounding import write_boxes

    opened = open_vgd(data, "refcoco", "train")
    batch = _take(opened)
    found = batch["index"].numpy(), batch["boxes"][:, 0].double().numpy(), np.zeros(len(batch["index"]))
    write_boxes(data / "boxes.json", found, opened.image_ids, opened.expressions())


def _prepare_vgd(folder, scratch):
    from datasets.prepare_vgd import prepare

    prepare("refcoco", folder / "refer", scratch / "vgd", features=folder / "npz", workers=1)
    return _read_vgd(scratch / "vgd")


def refer_pickle(folder):
    path = _refer(folder) / "refcoco" / "refs(unc).p"
    value = pickle.loads(path.read_bytes())
    return Pickled(path=path, read=lambda scratch: _prepare_vgd(folder, scratch), value=value)


def refer_instances(folder):
    path = _refer(folder) / "refcoco" / "instances.json"
    return json_case(path, lambda scratch: _prepare_vgd(folder, scratch))


def _vgd_file(name):
    def case(folder):
        _refer(folder)
        if not (folder / "vgd").exists():
            from datasets.prepare_vgd import prepare

            prepare("refcoco", folder / "refer", folder / "vgd", features=folder / "npz", workers=1)
        return json_case(folder / "vgd" / "refcoco" / name, lambda _: _read_vgd(folder / "vgd"))

    return case


# Matching


def _itm(folder):
    place = folder / "itm"
    return place if place.exists() else Path(itm_files.write_flickr(place).out).parent


def _read_itm(data):
    from datasets.itm import open_itm

    for split in ("train", "dev"):
        _take(open_itm(data, "flickr", split))


def _prepare_itm(place, out):
    from datasets.prepare_itm import prepare

    names = place / "dataset_flickr30k.json"
    prepare(place / "f30k_precomp", place / "npz", out, names=names, workers=1)
    return _read_itm(out)


def _itm_text(name):
    def case(folder):
        place = _itm(folder)
        path = place / "f30k_precomp" / name
        return Case(path=path, read=lambda scratch: _prepare_itm(place, scratch / "out"), value=None)

    return case


def itm_json(folder):
    place = _itm(folder)
    return json_case(place / "dataset_flickr30k.json", lambda scratch: _prepare_itm(place, scratch / "out"))


def _itm_file(name):
    def case(folder):
        place = _itm(folder)
        if not (place / "itm").exists():
            _prepare_itm(place, place / "itm")
        return json_case(place / "itm" / "flickr" / name, lambda _: _read_itm(place / "itm"))

    return case


def scan_features(folder):
    from datasets.prepare_itm import prepare

    place = folder / "scan"
    place.mkdir(exist_ok=True)
    itm_files.write_precomp(place / "coco_precomp", ("train", "dev", "test", "testall"))
    for split, images in itm_files.IMAGES.items():
        np.save(place / f"{split}_ims.npy", np.random.default_rng(0).random((images, 3, 4), dtype=np.float32))
    options = {"dataset": "coco", "workers": 1}
    read = lambda scratch: prepare(place / "coco_precomp", place, scratch / "out", **options)  # noqa: E731
    return Case(path=place / "dev_ims.npy", read=read, value=None)


# Word vectors and architectures

WORDS = ["PAD", "UNK", "CLS", "the", "cat", "sat"]


def word_vectors_text(folder):
    from datasets.text.word_vectors import load_word_vectors

    path = folder / "glove.txt"
    path.write_text("the 0.5 -1 2\ncat 1 2 3\nsat 4 5e-3 6\nmat 1 1 1\n")
    return Case(path=path, read=lambda _: load_word_vectors(str(path), WORDS), value=None)


def word_vectors_npz(folder):
    from datasets.text.word_vectors import load_word_vectors

    path = folder / "vectors.npz"
    np.savez(path, words=np.array(WORDS), vectors=np.ones((6, 4), dtype=np.float32))
    return Case(path=path, read=lambda _: load_word_vectors(str(path), WORDS), value=None)


def genotype(folder):
    path = folder / "genotype.json"
    shutil.copy("genotypes/mmimdb_example.json", path)
    return json_case(path, lambda _: _genotype(path))


def published_genotype(folder):
    from tests.test_scripts import pickle_as_the_original

    path = folder / "best_genotype.pkl"
    path.write_bytes(pickle_as_the_original(_genotype(Path("genotypes/mmimdb_example.json"))))
    return Case(path=path, read=lambda _: _genotype(path), value=None)


def _genotype(path):
    from models.bmnas.operations import STEP_OPERATIONS
    from models.genotypes import check_genotype, load_genotype

    found = load_genotype(path)
    check_genotype(found, STEP_OPERATIONS, 6, path)
    return (found, found.to_svg(), str(found))[0]


def architecture(folder):
    from models.mmnas.architecture import load_architecture

    path = folder / "arch.json"
    shutil.copy("arch/mmnas_vqa.json", path)
    return json_case(path, lambda _: load_architecture(path).to_svg())


# NTU RGB+D and EgoGesture


def skeleton(folder):
    path = folder / "S001C001P001R001A001.skeleton"
    path.write_text(ntu_files.skeleton_text(3, persons=3))

    def read(_):
        from datasets.ntu.names import BadSample
        from datasets.ntu.skeleton import BODIES, Pose, read_skeleton

        for bodies in BODIES:
            try:
                assert np.isfinite(Pose(read_skeleton(path, bodies)).resized(32)).all()
            except BadSample as reason:
                raise UserError(f"{path} {reason}") from None

    return Case(path=path, read=read, value=None)


def _ntu_file(name):
    def case(folder):
        place = folder / "ntu"
        if not place.exists():
            from datasets.prepare_ntu import prepare_store

            made = ntu_files.write_raw(place, {"S001C001P001R001A001": 4, "S001C001P002R001A001": 3})
            prepare_store(*made, place / "store", size=16, workers=1)

        def read(scratch):
            from datasets.ntu import open_ntu
            from datasets.prepare_ntu import prepare_store

            _take(open_ntu(place / "store", "train"))
            store = shutil.copytree(place / "store", scratch / "store")
            (store / "meta.json").unlink()
            prepare_store(place / "nturgb+d_rgb", place / "nturgb+d_skeletons", store, size=16, workers=1)

        path = place / "store" / name
        return json_case(path, read) if path.suffix == ".json" else Case(path=path, read=read, value=None)

    return case


def _ntu_video(folder):
    from datasets.ntu.names import BadSample
    from datasets.ntu.scaling import encode_clip

    path = ntu_files.write_mjpg(folder / "clip.avi", 5)

    def read(_):
        try:
            assert encode_clip(path, 16, 30, 95)[0] > 0
        except BadSample as reason:
            raise UserError(f"{path} {reason}") from None

    return Case(path=path, read=read, value=None)


def _ntu_tree(name):
    def case(folder):
        from datasets.ntu import open_ntu
        from datasets.prepare_ntu import prepare_tree, verify

        place = folder / "tree"
        if not place.exists():
            videos, _ = ntu_files.write_raw(place, {"S001C001P001R001A001": 4, "S001C001P002R001A001": 3})
            (place / "about.json").write_text(json.dumps({"description": "made up", "label_names": ["one"]}))
            prepare_tree(videos, size=16, workers=1)

        def read(scratch):
            made = prepare_tree(place / "nturgb+d_rgb", size=16, workers=1)
            verify(place / "nturgb+d_rgb_16x16_30")
            _take(open_ntu(place, "train"))
            return made

        path = place / name
        return json_case(path, read) if path.suffix == ".json" else Case(path=path, read=read, value=None)

    return case


def _ego(folder):
    place = folder / "ego"
    if not place.exists():
        ego_files.write_tree(place / "raw", size=(8, 6))
        for name in ("subject03/Scene1/Group1.csv", "subject01/Scene2/Group1.csv", "subject02/Scene1/Group1.csv"):
            (place / "labels" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "labels" / name).write_text("1,5,9\n2,11,20\n")
        (place / "names.txt").write_text("1 wave\n2 knock\n")
        (place / "raw" / "about.json").write_text(json.dumps({"description": "made up", "synthetic": True}))
    return place


def _read_ego(folder, annotation):
    from datasets.ego import open_ego

    return _take(open_ego(folder, "train", annotation=annotation, sample_size=6, sample_duration=4))


def _ego_raw(name):
    def case(folder):
        from datasets.prepare_ego import prepare

        place = _ego(folder)

        def read(scratch):
            _read_ego(place / "raw", None)
            prepare(place / "raw", scratch / "packed", workers=1)
            return _read_ego(scratch / "packed", None)

        return json_case(place / "raw" / name, read)

    return case


def _ego_labels(name):
    def case(folder):
        from datasets.prepare_ego import prepare

        place = _ego(folder)

        def read(scratch):
            options = {"labels": place / "labels", "class_names": place / "names.txt"}
            prepare(place / "raw", annotation=scratch / "made.json", workers=1, **options)

        return Case(path=place / name, read=read, value=None)

    return case


def _ego_file(name):
    def case(folder):
        from datasets.prepare_ego import prepare

        place = _ego(folder)
        if not (place / "packed").exists():
            prepare(place / "raw", place / "packed", workers=1)
        path = place / "packed" / name

        def read(scratch):
            _read_ego(place / "packed", None)
            packed = shutil.copytree(place / "packed", scratch / "packed")
            for meta in ("meta.json", "rgb/meta.json"):
                (packed / meta).unlink()
            prepare(place / "raw", packed, workers=1, verify=True)

        return json_case(path, read) if path.suffix == ".json" else Case(path=path, read=read, value=None)

    return case


# MM-IMDB


def _films(folder):
    place = folder / "films"
    if not place.exists():
        mmimdb_files.write_official(place)
    return place


def _prepare_films(place, scratch):
    from datasets.mmimdb import SPLITS, open_mmimdb
    from datasets.prepare_mmimdb import prepare

    prepare(place / "multimodal_imdb.hdf5", scratch / "store", place / "split.json")
    for split in SPLITS:
        _take(open_mmimdb(scratch / "store", split))


def mmimdb_hdf5(folder):
    place = _films(folder)
    path = place / "multimodal_imdb.hdf5"
    return Case(path=path, read=lambda scratch: _prepare_films(place, scratch), value=None)


def mmimdb_fuel(folder):
    """The split as an attribute of the file, as the Fuel library has it."""
    place = folder / "fuel"
    place.mkdir(exist_ok=True)
    rows = [("train", "features", 0, 6, None, True), ("valid", "features", 6, 9, None, True)]
    attrs = {
        "split": mmimdb_files.fuel_records([*rows, ("test", "features", 9, 12, None, True)]),
        "description": "films",
    }
    path = mmimdb_files.write_hdf5(place / "films.hdf5", mmimdb_files.film_arrays(), attrs)

    def read(scratch):
        from datasets.prepare_mmimdb import prepare

        prepare(path, scratch / "store")

    return Case(path=path, read=read, value=None)


def mmimdb_split(folder):
    place = _films(folder)
    return json_case(place / "split.json", lambda scratch: _prepare_films(place, scratch))


def _films_tree(name):
    def case(folder):
        from datasets.mmimdb import open_mmimdb

        place = folder / "films_tree"
        if not place.exists():
            mmimdb_files.write_tree(place, mmimdb_files.film_arrays())
        return Case(path=place / "train" / name, read=lambda _: _take(open_mmimdb(place, "train")), value=None)

    return case


def _films_file(name):
    def case(folder):
        from datasets.mmimdb import open_mmimdb
        from datasets.prepare_mmimdb import prepare

        place = _films(folder)
        if not (place / "store").exists():
            prepare(place / "multimodal_imdb.hdf5", place / "store")
        path = place / "store" / name

        def read(scratch):
            _take(open_mmimdb(place / "store", "train"))
            store = shutil.copytree(place / "store", scratch / "store")
            prepare(place / "multimodal_imdb.hdf5", store)

        return json_case(path, read) if path.suffix == ".json" else Case(path=path, read=read, value=None)

    return case


CASES = {
    "VQA questions": vqa_questions,
    "VQA annotations": vqa_annotations,
    "VQA vocabulary": vqa_tables,
    "region npz": region_npz,
    "region tsv": region_tsv,
    "region grid": region_grid,
    "region store meta": _store_file("meta.json"),
    "region store settings": _store_file("settings.json"),
    "region store journal": _store_file("journal.jsonl"),
    "region store index": _store_file("index.npy"),
    "refer pickle": refer_pickle,
    "refer instances": refer_instances,
    "grounding split": _vgd_file("train.json"),
    "grounding meta": _vgd_file("meta.json"),
    "captions": _itm_text("train_caps.txt"),
    "caption ids": _itm_text("dev_ids.txt"),
    "dataset_flickr30k": itm_json,
    "matching split": _itm_file("train.json"),
    "matching vocabulary": _itm_file("vocabulary.json"),
    "matching meta": _itm_file("meta.json"),
    "SCAN features": scan_features,
    "word vectors text": word_vectors_text,
    "word vectors npz": word_vectors_npz,
    "genotype": genotype,
    "published genotype": published_genotype,
    "architecture": architecture,
    "skeleton": skeleton,
    "NTU store meta": _ntu_file("meta.json"),
    "NTU store settings": _ntu_file("settings.json"),
    "NTU store journal": _ntu_file("journal.jsonl"),
    "NTU skeleton journal": _ntu_file("skeletons.jsonl"),
    "NTU store sizes": _ntu_file("sizes.npy"),
    "NTU store names": _ntu_file("names.npy"),
    "NTU skeleton index": _ntu_file("skeleton_index.npy"),
    "NTU tree record": _ntu_tree("nturgb+d_rgb_16x16_30/prepared.json"),
    "NTU tree about": _ntu_tree("about.json"),
    "NTU tree video": _ntu_tree("nturgb+d_rgb_16x16_30/S001C001P001R001A001_rgb.avi"),
    "NTU raw video": _ntu_video,
    "Ego annotation": _ego_raw("egogestureall_but_None.json"),
    "Ego about": _ego_raw("about.json"),
    "Ego labels": _ego_labels("labels/subject03/Scene1/Group1.csv"),
    "Ego class names": _ego_labels("names.txt"),
    "Ego packed meta": _ego_file("meta.json"),
    "Ego packed journal": _ego_file("rgb/journal.jsonl"),
    "Ego packed starts": _ego_file("depth/starts.npy"),
    "MM-IMDB hdf5": mmimdb_hdf5,
    "MM-IMDB split": mmimdb_split,
    "MM-IMDB hdf5 of Fuel": mmimdb_fuel,
    "MM-IMDB tree text": _films_tree("text_000001.npy"),
    "MM-IMDB tree label": _films_tree("label_000000.npy"),
    "MM-IMDB store meta": _films_file("meta.json"),
    "MM-IMDB store texts": _films_file("train_texts.npy"),
    "MM-IMDB store image rows": _films_file("train_image_rows.npy"),
}
