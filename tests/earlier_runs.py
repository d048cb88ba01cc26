"""Run folders that released versions left behind, tiny: how they are made, and the data that they need.

    PYTHONPATH=. python tests/earlier_runs.py tests/data/runs/<version>

Run it once, with the version that is released. Each folder is that of a run killed after its first epoch; beside it
stands ``<name>.json`` with what the same run came to when nobody killed it. Everything that a run reads is made of
numbers that are the same on every machine, and named by relative paths.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch

# Name of a run -> its script and what it is told beside where its data are.
RUNS = {
    "search_mmimdb": (
        "main_darts_searchable_mmimdb",
        "--datadir films --image_cp weights/image.pth --text_cp weights/text.pth --num_outputs 3 --batchsize 8 --C 2"
        " --L 1 --eta_max 3e-2 --cache_features ram --num_workers 0 --device cpu --save tiny --patience 9 --epochs 2",
    ),
    "search_vgd": (
        "search_vgd",
        "--data scenes --features scenes/features --word_vectors weights/words.txt --hsize 4 --enc_blocks 1"
        " --dec_blocks 2 --enc_ops feed_forward_2 gated_linear_1 --dec_ops feed_forward_2 gated_linear_1 skip_connect"
        " --alpha_start 0 --alpha_every 1 --batchsize 4 --num_workers 0 --device cpu --VERSION tiny --epochs 2",
    ),
    "train_vgd": (
        "train_vgd",
        "--RUN train --data scenes --features scenes/features --word_vectors weights/words.txt --hsize 4"
        " --ARCH_PATH weights/arch.json --batchsize 4 --num_workers 0 --device cpu --VERSION tiny --epochs 2"
        " --select_on val",
    ),
}
WORDS = ("the", "red", "blue", "left", "ball", "cube")


class Killed(BaseException):
    """Ends a run between two epochs."""


def make_inputs(folder):
    """Make everything that the runs read: ``films``, ``scenes`` and ``weights``."""
    _make_films(folder / "films")
    _make_scenes(folder / "scenes")
    _make_weights(folder / "weights")


def _make_films(folder):
    for split, count in (("train", 24), ("dev", 16)):
        # RandomState gives the same numbers in every version of numpy.
        draw = np.random.RandomState(count)
        (folder / split).mkdir(parents=True)
        for number in range(count):
            label = np.array([number % 2, number % 3 == 0, 1 - number % 2], dtype=np.float32)
            arrays = {
                "image": draw.randint(0, 256, (3, 32, 32)).astype(np.uint8),
                "text": (draw.random_sample(300) - 0.5 + np.repeat(label, 100)).astype(np.float32),
                "label": label,
            }
            for name, array in arrays.items():
                np.save(folder / split / f"{name}_{number:06d}.npy", array)


def _make_scenes(folder):
    first = 1
    for split, images in (("train", 10), ("val", 3), ("testA", 2), ("testB", 2)):
        records = []
        for image in range(first, first + images):
            boxes = _write_regions(folder / "features", image)
            for number in range(2):
                x1, y1, x2, y2 = boxes[number].tolist()
                words = ["the", WORDS[1 + (image + number) % 3], WORDS[4 + number]]
                records.append(
                    {
                        "tokens": words,
                        "file_name": f"COCO_train2014_{image:012d}.jpg",
                        "image_id": image,
                        "split": split,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "name": words[-1],
                        "height": 60,
                        "width": 80,
                    }
                )
        first += images
        (folder / "refcoco").mkdir(parents=True, exist_ok=True)
        (folder / "refcoco" / f"{split}.json").write_text(json.dumps(records))
    meta = {"description": "made-up expressions", "synthetic": True}
    (folder / "refcoco" / "meta.json").write_text(json.dumps(meta))


def _write_regions(folder, image):
    """Write the features of an image; returns the boxes of its three regions, float32 (3, 4)."""
    draw = np.random.RandomState(image)
    corners = draw.randint(0, 30, (3, 2))
    boxes = np.concatenate([corners, corners + draw.randint(5, 30, (3, 2))], axis=1).astype(np.float32)
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / f"COCO_train2014_{image:012d}.jpg.npz"
    features = draw.random_sample((8, 3)).astype(np.float32)
    np.savez(name, x=features, bbox=boxes, num_bbox=3, image_h=60, image_w=80)
    return boxes


def _make_weights(folder):
    from models.backbones.maxout_mlp import MaxOutMLP
    from models.backbones.vgg import VGG19Taps

    folder.mkdir(parents=True)
    for name, net in (("image", VGG19Taps(3)), ("text", MaxOutMLP(3))):
        torch.save(_drawn(net.state_dict()), folder / f"{name}.pth")
    draw = np.random.RandomState(1)
    lines = [" ".join([word, *(f"{value:.4f}" for value in draw.random_sample(4) - 0.5)]) for word in WORDS]
    (folder / "words.txt").write_text("\n".join(lines) + "\n")
    architecture = {"enc": [["feed_forward_2"]], "dec": [["gated_linear_1"], ["feed_forward_2"]]}
    (folder / "arch.json").write_text(json.dumps({"epoch1": architecture}))


def _drawn(state):
    """A state dict whose weight matrices are drawn by numpy, the same on every machine."""
    draw = np.random.RandomState(0)
    for name, value in state.items():
        if value.dim() > 1:
            bound = (6 / value[0].numel()) ** 0.5
            numbers = (2 * draw.random_sample(value.numel()) - 1) * bound
            state[name] = torch.from_numpy(numbers.astype(np.float32)).reshape(value.shape)
        elif value.dim() == 1 and "running" not in name:
            state[name] = torch.full_like(value, 1.0 if name.endswith("weight") else 0.0)
    return state


def run(name, *flags):
    """Run a script as it is told to, with further flags; returns its result."""
    script, told = RUNS[name]
    return __import__(script).main([*told.split(), *flags])


def run_killed(name, out):
    """Run a script until its first epoch is saved; returns the run folder."""
    from engine.run import Run

    whole = Run.finish_epoch

    def finish_and_die(self, *args):
        whole(self, *args)
        raise Killed

    try:
        with mock.patch.object(Run, "finish_epoch", finish_and_die):
            run(name, "--out_dir", str(out))
    except Killed:
        pass
    (folder,) = Path(out).iterdir()
    return folder


def main(out):
    """Make the run folders of this version in ``out``."""
    out = Path(out).resolve()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        make_inputs(Path())
        for name in RUNS:
            result = run(name, "--out_dir", f"whole-{name}")
            (out / name).mkdir(parents=True)
            facts = {key: result[key] for key in ("metrics", "selected_epoch", "epochs", "genotype")}
            (out / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n")
            folder = run_killed(name, f"killed-{name}")
            for file in ("args.json", "log.jsonl", "arch.json", "last.pth", "best.pth"):
                # What holds a whole VGG-19 is left out.
                if (folder / file).exists() and (folder / file).stat().st_size < 2**20:
                    shutil.copy(folder / file, out / name / file)
        os.chdir(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
