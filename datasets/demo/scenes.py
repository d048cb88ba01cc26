"""Synthetic scenes of coloured shapes for the three tasks of MMNas, from the pictures to folders that training reads.

``make`` writes into its folder:

- ``images/``: pictures of 3 to 6 coloured shapes; picture k has the image id k in every task;
- ``refer/refcoco/``, ``itm_raw/`` and ``vqa/annotations/``: words about them in the official files of RefCOCO,
  Flickr30K and VQA v2;
- ``features/``: region features of the pictures by the extractor ``pixels``;
- ``vgd/``, ``itm/`` and ``vqa/``: these data as prepared by ``prepare_vgd.py``, ``prepare_itm.py`` and
  ``prepare_vqa.py``;
- ``meta.json``: a description of the data, marked complete only when all of the above is.

Grounding has the splits train, val, testA and testB, which share no picture and have the same distribution. Matching
has the same training pictures, and the first ones of val (as dev) and of testA (as test). Questions are about train,
val and testA (as test, with answers). The level ``hard`` has only questions: those of `scene_reasoning`, most of which
are about several shapes, with the noisy region features of `scene_regions`.
"""

import functools
from pathlib import Path

from util.cli import UserError
from util.files import read_json, write_json

TASKS = ("vqa", "vgd", "itm")
# Number of pictures of the training split, of each evaluation split, and of dev and test of matching.
TRAIN, SCORED, MATCHED = 2000, 200, 100
# Small, so that the pixels of a shape do not outweigh the five numbers of its position.
FEATURE_SIZE = 128
# Plain questions on features of pixels, or questions about several shapes on noisy features of their attributes.
LEVELS = ("plain", "hard")
# To be increased when the same settings yield other pictures or words.
VERSION = 1
IMAGES, FEATURES, META_FILE = "images", "features", "meta.json"
DESCRIPTION = "synthetic scenes of coloured shapes, generated; neither photographs nor words of people"


def make(out, *, train=TRAIN, scored=SCORED, matched=MATCHED, seed=0, tasks=None, workers=1, level="plain"):
    """Write or complete the scenes in ``out``; does nothing if they are complete.

    Args:
        out: Folder.
        train: Number of training pictures.
        scored: Number of pictures of each of val, testA and testB.
        matched: Number of pictures of dev and of test of matching, at most ``scored``.
        seed: Seed of pictures and words.
        tasks: Which of ``vqa``, ``vgd`` and ``itm`` to prepare; others can be added later. None for all of the level.
        workers: Number of processes. The pictures are so small that starting more takes longer than it saves.
        level: One of `LEVELS`.

    Returns:
        dict: the content of meta.json.

    Raises:
        UserError: a number is out of range, or ``out`` cannot be written or contains other data.
    """
    settings = {"train": train, "scored": scored, "matched": matched, "seed": seed, "version": VERSION}
    # Folders of earlier versions, whose scenes are plain, stay valid.
    settings |= {"level": level} if level != "plain" else {}
    if tasks is None:
        tasks = TASKS if level == "plain" else ("vqa",)
    _check(settings, tasks, workers)
    from datasets.demo import scene_files as files
    from datasets.demo.scene_regions import write_features

    out = Path(out)
    about = {"description": DESCRIPTION, "synthetic": True, "settings": settings}
    done = _done(out, about)
    tasks = [task for task in TASKS if task in tasks and task not in done]
    if not tasks:
        print(f"already up to date: {out}")
        return read_json(out / META_FILE)
    # The finished tasks stay valid while others are added.
    write_json(out / META_FILE, about | {"tasks": done, "complete": bool(done)})
    scenes = _write_scenes(out, about, tasks)
    if level == "plain":
        _make_features(out, workers)
    else:
        write_features(out / FEATURES, {files.picture_name(scene.number): scene for scene in scenes}, seed)
    for task in tasks:
        _prepare(out, task, workers)
    meta = about | {"tasks": [task for task in TASKS if task in (*done, *tasks)], "complete": True}
    write_json(out / META_FILE, meta)
    print(f"wrote {out}: {DESCRIPTION}")
    return meta


def _check(settings, tasks, workers):
    for name in ("train", "scored", "matched"):
        if settings[name] < 1:
            raise UserError(f"--{name} {settings[name]}: must be 1 or more")
    if settings["matched"] > settings["scored"]:
        raise UserError(f"--matched {settings['matched']}: must be at most --scored {settings['scored']}")
    if settings["seed"] < 0:
        raise UserError(f"--seed {settings['seed']}: must be 0 or more")
    if workers < 1:
        raise UserError(f"--workers {workers}: must be 1 or more")
    if not tasks or not set(tasks) <= set(TASKS):
        raise UserError(f"--tasks {' '.join(tasks)}: expected some of {', '.join(TASKS)}")
    level = settings.get("level", "plain")
    if level not in LEVELS:
        raise UserError(f"--level {level}: expected {' or '.join(LEVELS)}")
    if level == "hard" and set(tasks) != {"vqa"}:
        raise UserError(f"--tasks {' '.join(tasks)}: --level hard has only questions; use --tasks vqa")


def _done(out, about):
    """List of the tasks that are complete in ``out``; raises `UserError` if it contains other data."""
    from datasets.demo import scene_files as files

    path = out / META_FILE
    if path.exists():
        meta = read_json(path)
        if not isinstance(meta, dict) or {name: meta.get(name) for name in about} != about:
            raise UserError(f"{out} contains other data, or scenes with other settings ({path}); choose another --out")
        return [task for task in meta.get("tasks", ()) if (out / task).is_dir()]
    # Only the folders that are written here are checked: ``out`` may already contain runs.
    for name in (IMAGES, FEATURES, files.REFER, files.ITM_RAW, *TASKS):
        if (out / name).exists():
            raise UserError(f"{out} contains {name} of other data, which are not replaced; choose another --out")
    return []


def _write_scenes(out, about, tasks):
    """Write missing pictures, and the official files of ``tasks``; returns the list of every `Scene`."""
    from datasets.demo import scene_files as files
    from datasets.demo.scene_pictures import make_scene
    from util.progress import progress

    settings = about["settings"]
    train, scored, matched = settings["train"], settings["scored"], settings["matched"]
    numbers = range(1, train + 3 * scored + 1)
    scenes = [make_scene(settings["seed"], number) for number in progress(numbers, "drawing", unit="picture")]
    _write_pictures(out, scenes)
    names, begins = ("train", "val", "testA", "testB"), (0, *(train + row * scored for row in range(4)))
    splits = {name: scenes[begin:end] for name, begin, end in zip(names, begins, begins[1:], strict=False)}
    used = {"train": splits["train"]}
    write_vqa = functools.partial(files.write_vqa, ask=_asking(settings))
    forms = {
        "vqa": (write_vqa, used | {"val": splits["val"], "test": splits["testA"]}, "questions"),
        "vgd": (files.write_refcoco, splits, "expressions"),
        "itm": (
            files.write_flickr,
            used | {"dev": splits["val"][:matched], "test": splits["testA"][:matched]},
            "captions",
        ),
    }
    info = {"description": about["description"], "synthetic": True}
    for task in tasks:
        write, chosen, unit = forms[task]
        counts = write(out, chosen, settings["seed"], info)
        print(f"{task}: {', '.join(f'{split} {count:,}' for split, count in counts.items())} {unit}")
    return scenes


def _asking(settings):
    """The function (random.Random, scene) -> list of (question, answer) for the level in the settings."""
    from datasets.demo.scene_reasoning import reasoning_questions
    from datasets.demo.scene_words import questions

    return questions if settings.get("level", "plain") == "plain" else reasoning_questions


def _write_pictures(out, scenes):
    from PIL import Image

    from datasets.demo.scene_files import picture_name
    from util.files import atomic_path
    from util.progress import progress

    for scene in progress(scenes, "writing pictures", unit="picture"):
        path = out / IMAGES / picture_name(scene.number)
        if not path.exists():
            with atomic_path(path) as temporary:
                Image.fromarray(scene.picture).save(temporary, format="PNG")


def _make_features(out, workers):
    from datasets.extract_features import extract
    from datasets.regions.pixels import PixelRegions

    extract(out / IMAGES, out / FEATURES, PixelRegions(FEATURE_SIZE), workers=workers)


def _prepare(out, task, workers):
    """Run the prepare script of a task on its official files, as a user would."""
    from datasets.demo import scene_files as files

    shared = ["--features", str(out / FEATURES), "--workers", str(workers)]
    if task == "vqa":
        from datasets.prepare_vqa import main

        main(["--data", str(out / "vqa"), "--out", str(out / "vqa" / "store"), *shared])
    elif task == "vgd":
        from datasets.prepare_vgd import main

        main(["--dataset", files.REFER_DATASET, "--refer", str(out / files.REFER), "--out", str(out / "vgd"), *shared])
    else:
        from datasets.prepare_itm import main

        raw = out / files.ITM_RAW
        source = ["--captions", str(raw / files.PRECOMP), "--json", str(raw / files.FLICKR_JSON)]
        main([*source, "--out", str(out / "itm"), *shared])
