"""The tiny runs of each task: the commands that make its data, and those that search, train, test and resume.

They use only documented flags, so they work with any version. A `Side` is one version with its run folders.
"""

import shlex
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from string import Template

from tools.script_server import ScriptError

RESUMED = {"search": "search, resumed", "training": "training, resumed"}
MORE_EPOCHS = "3"


@dataclass(frozen=True)
class TinyTask:
    """Commands of one task.

    Attributes:
        make_demo: Arguments of ``datasets/make_demo.py``; the first one names the data, which tasks may share.
        commands: Stage -> script and flags, in the order in which they run. ``$data``, ``$work`` and ``$device`` are
            replaced by the folder of the data, the folder to write to, and the device; ``$search`` and ``$training`` by
            the folders of those runs.
    """

    make_demo: str
    commands: dict


def _bmnas(name, make_demo, flags, unimodal, training):
    loading = "--num_workers 0 --cache_features disk --cache_dir $work/features"
    short = f"--batchsize 8 --epochs 2 {loading}"
    data = f"--datadir $data/dataset --L 4 --device $device --out_dir $work {short} {flags}"
    return TinyTask(
        make_demo,
        {
            "unimodal": f"main_unimodal_{name}.py {data} {unimodal}",
            "search": f"main_darts_searchable_{name}.py {data} --backbone_weights random --C 8",
            # Sizes, seed and device come from the search.
            "training": f"main_darts_found_{name}.py --search_exp_dir $search {short} {training}",
            "test": f"main_darts_found_{name}.py --search_exp_dir $search --eval_exp_dir $training --num_workers 0",
        },
    )


def _mmnas(name, flags="", search=""):
    sizes = "--hsize 64 --batchsize 16 --epochs 2 --word_vectors none --num_workers 0 --device $device --out_dir $work"
    space = "--enc_blocks 2 --dec_blocks 3 --alpha_start 1 --alpha_every 2"
    test = "--num_workers 0 --device $device --out_dir $work"
    return TinyTask(
        "scenes --train 12 --scored 6 --matched 6 --workers 1",
        {
            "search": f"search_{name}.py --data $data/{name} {flags} {sizes} {space} {search}",
            "training": f"train_{name}.py --RUN train --ARCH_PATH $search --data $data/{name} {flags} {sizes}",
            "test": f"train_{name}.py --RUN test --CKPT_PATH $training {test}",
        },
    )


TASKS = {
    "mmimdb": _bmnas(
        "mmimdb",
        "mmimdb --source synthetic --train 24 --dev 16 --test 8 --image_size 32 32",
        "",
        unimodal="--modality text",
        training="--no-freeze_backbones",
    ),
    "ntu": _bmnas(
        "ntu",
        "ntu --subjects 5 --repetitions 1 --workers 1",
        "--num_outputs 8 --augment_views 1",
        unimodal="--modality skeleton",
        training="--freeze_backbones",
    ),
    "ego": _bmnas(
        "ego",
        "ego --clips_per_subject 1 --workers 1",
        "--num_outputs 8 --augment_views 1 --sample_size 16 --sample_duration 8",
        unimodal="--modality depth --freeze_backbones",
        training="--freeze_backbones",
    ),
    "vqa": _mmnas("vqa", "--min_answer_count 1"),
    "vgd": _mmnas("vgd"),
    "itm": _mmnas("itm", "--neg_rand 6", search="--neg_start_epoch 1"),
}


@dataclass
class Outcome:
    """The outcome of one stage.

    Attributes:
        folder: Its run folder, or None.
        cwd: The folder that it ran in.
        error: Why there is no result, or None.
        seconds: Wall time.
    """

    folder: Path = None
    cwd: Path = None
    error: str = None
    seconds: float = 0.0

    def forget(self):
        """Delete its folders, since checkpoints of hundreds of megabytes add up."""
        for folder in (self.folder, self.cwd):
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def make_data(server, root, task, data, log):
    """Make a task's data with the version in ``root``, unless ``data`` exists.

    Raises:
        ScriptError: The script failed.
    """
    if not data.exists():
        words = [str(root / "datasets" / "make_demo.py"), *shlex.split(task.make_demo), "--out", str(data)]
        server.run(words, data.parent, log)


class Side:
    """One version of the project, and the run folders that it makes for one task: ``outcomes``, stage -> `Outcome`.

    Args:
        server: A `ScriptServer`.
        root: Checkout of the version.
        task: A `TinyTask`.
        data: Folder of the task's data.
        work: Folder for everything that the runs write.
        device: Value of ``--device``.
    """

    def __init__(self, server, root, task, data, work, device):
        self.server, self.root, self.task, self.work = server, root, task, work
        self.places = {"data": data, "work": work, "device": device}
        self.outcomes = {}

    def run(self, stage):
        """Run a stage; returns its `Outcome`."""
        done = {name: str(o.folder) for name, o in self.outcomes.items() if o.folder and not o.error}
        try:
            words = [Template(w).substitute(self.places, **done) for w in shlex.split(self.task.commands[stage])]
        except KeyError as missing:
            return self._keep(stage, Outcome(error=f"not run, because {missing.args[0]} failed"))
        before = set(self.work.rglob("args.json"))
        outcome = self._start(stage, words)
        made = [path.parent for path in self.work.rglob("args.json") if path not in before]
        if outcome.error is None and len(made) != 1:
            outcome.error = f"made {len(made)} run folders instead of one"
        outcome.folder = made[0] if len(made) == 1 else None
        return self._keep(stage, outcome)

    def _keep(self, stage, outcome):
        self.outcomes[stage] = outcome
        return outcome

    def resume(self, stage, earlier, label=""):
        """Continue a copy of a run for one more epoch.

        Args:
            stage: Stage of the run.
            earlier: The `Outcome` of that stage, of this version or another.
            label: Distinguishes several copies.

        Returns:
            An `Outcome`.
        """
        if earlier.error:
            return Outcome(error=f"not run, because {stage} failed")
        copy = self.work / f"resumed{label}-{stage}" / earlier.folder.name
        shutil.copytree(earlier.folder, copy, ignore=_inner_runs)
        script = shlex.split(self.task.commands[stage])[0]
        outcome = self._start(f"{stage}-resumed{label}", [script, "--resume", str(copy), "--epochs", MORE_EPOCHS])
        outcome.folder = copy
        return outcome

    def _start(self, name, words):
        cwd = self.work / "cwd" / name
        cwd.mkdir(parents=True)
        outcome, start = Outcome(cwd=cwd), time.perf_counter()
        try:
            self.server.run([str(self.root / words[0]), *words[1:]], cwd, self.work / f"{name}.txt")
        except ScriptError as error:
            outcome.error = str(error)
        outcome.seconds = time.perf_counter() - start
        return outcome


def _inner_runs(folder, names):
    """The run folders among a folder's entries: trainings are in the folder of their search."""
    return [name for name in names if (Path(folder) / name / "args.json").exists()]
