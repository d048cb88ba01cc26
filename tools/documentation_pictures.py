#!/usr/bin/env python
"""Draw the pictures of docs/pictures/ from the architectures in the repository.

python tools/documentation_pictures.py
python tools/documentation_pictures.py --check      # only check whether they are up to date
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.genotypes import load_genotype
from models.mmnas.architecture import load_architecture
from util.cli import UserError, run_cli
from util.files import write_text

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "docs" / "pictures"
COMMAND = "python tools/documentation_pictures.py"


def get_args_parser():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a picture is not up to date")
    return parser


def pictures():
    """File name -> SVG text."""
    return {
        "mmimdb_author_2020.svg": load_genotype(ROOT / "genotypes" / "mmimdb_author_2020.json").to_svg(),
        "mmnas_vqa.svg": load_architecture(ROOT / "arch" / "mmnas_vqa.json").to_svg(),
    }


def main(argv=None):
    args = get_args_parser().parse_args(argv)
    for name, text in pictures().items():
        path = FOLDER / name
        if not args.check:
            write_text(path, text)
            print(f"wrote {path.relative_to(ROOT)}")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise UserError(f"docs/pictures/{name} is not up to date; run {COMMAND}")


if __name__ == "__main__":
    run_cli(main)
