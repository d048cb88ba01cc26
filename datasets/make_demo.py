#!/usr/bin/env python
"""Make small data for a task, so that every script can be tried without the large downloads.

python datasets/make_demo.py mmimdb --source easy-vqa --out demo/easy_vqa
python datasets/make_demo.py mmimdb --source synthetic --out demo/synthetic --size 1500
python datasets/make_demo.py ego --out demo/ego
python datasets/make_demo.py ntu --out demo/ntu
python datasets/make_demo.py scenes --out demo/scenes
"""

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from util.cli import OneLineParser, run_cli

# Each module has HELP, add_arguments(parser) and make(args).
TASKS = {
    "mmimdb": "datasets.demo.mmimdb",
    "ego": "datasets.demo.ego",
    "ntu": "datasets.demo.ntu",
    "scenes": "datasets.demo.scenes_flags",
}


def get_args_parser():
    parser = OneLineParser(__doc__)
    tasks = parser.add_subparsers(dest="task", required=True, metavar="task")
    for name, module_name in TASKS.items():
        module = importlib.import_module(module_name)
        task = tasks.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(task)
        task.set_defaults(make=module.make)
    return parser


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    args.make(args)


if __name__ == "__main__":
    run_cli(main)
