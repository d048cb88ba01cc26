"""A script of a sweep in tests: leaves a run folder at once, needs no torch, and dies once if the file `die` says so.

python toy_run.py --seed N --out_dir DIR --save NAME [--from RUN_DIR]
python toy_run.py --resume RUN_DIR
"""

import argparse
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.run_folders import make_run


def get_args_parser():
    parser = argparse.ArgumentParser()
    for flag in ("--seed", "--out_dir", "--save", "--from", "--resume"):
        parser.add_argument(flag, dest=flag.strip("-").replace("from", "source"))
    return parser


def main():
    args = get_args_parser().parse_args()
    if args.resume:
        folder = Path(args.resume)
        saved = json.loads((folder / "toy.json").read_text())
        shutil.rmtree(folder)
        return make(saved)
    return make(vars(args))


def make(values):
    out, seed = Path(values["out_dir"]), int(values["seed"])
    source = values["source"]
    kind = "training" if source else "search"
    if source and not (Path(source) / "result.json").exists():
        sys.exit("error: its search is not finished")
    own = {"architecture": {"from": source}} if source else {}
    die = out.parent.parent.parent / "die"
    finished = not die.exists() or die.read_text() != values["save"]
    folder = make_run(
        out, seed, 0.5 + seed / 10, kind=kind, name=values["save"], finished=finished, id=out.as_posix()[-30:], **own
    )
    (folder / "toy.json").write_text(json.dumps(values))
    if not finished:
        die.unlink()
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
