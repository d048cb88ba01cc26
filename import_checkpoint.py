"""Convert a file that the authors of BM-NAS or MMNas released into a run folder that the scripts of this suite can use.

  python import_checkpoint.py --task mmimdb --file best/best_test_model.pt --out imported/mmimdb
  python import_checkpoint.py --task ntu --file rgb_8frames_83.91.checkpoint --out imported/ntu_rgb
  python import_checkpoint.py --task vqa --file train_vqa-full_epoch13.pkl --arch arch/mmnas_vqa.json --out imported/vqa
  python import_checkpoint.py --task ego --file best/best_genotype.pkl --out imported/ego_search

Pass the folder of a network as --eval_exp_dir or --CKPT_PATH, that of a backbone as --rgb_cp etc., and that of a
genotype as --search_exp_dir. A training of MMNas continues with --RESUME if the file has the state of its optimiser.
Settings that the file does not record (--SPLIT, --DATASET, --data, batch sizes) come last, after --flags, as you would
pass them to the script. Reading a file never runs code from it. Parts that cannot be used are listed.
"""

from util.cli import run_cli  # before torch: util sets how OpenMP's threads wait

# isort: split
import argparse
import contextlib
import importlib
import shutil
from pathlib import Path

from tasks.bmnas.importing import import_fusion
from tasks.importing import new_folder
from tasks.mmnas.importing import import_attention
from util.cli import OneLineParser, UserError

FUSION, ATTENTION = ("mmimdb", "ntu", "ego"), ("vqa", "vgd", "itm")
# Kind of run -> the script whose arguments it has.
SCRIPTS = {"search": "main_darts_searchable_{}", "found": "main_darts_found_{}", "unimodal": "main_unimodal_{}"}


def get_args_parser():
    """The flags."""
    parser = OneLineParser(__doc__)
    parser.add_argument("--task", required=True, choices=FUSION + ATTENTION, help="task of the file")
    parser.add_argument(
        "--file", required=True, metavar="FILE", help="the file, or a run folder of the original BM-NAS"
    )
    parser.add_argument("--genotype", metavar="FILE", help="BM-NAS: genotype of a network (default: next to it)")
    parser.add_argument("--arch", metavar="FILE", help="MMNas: architecture of a network")
    parser.add_argument("--out", required=True, metavar="DIR", help="the run folder to make")
    parser.add_argument("--flags", nargs=argparse.REMAINDER, default=[], help="flags of the task's script, to the end")
    return parser


def main(argv=None):
    """Make the run folder; returns its `Path`."""
    args = get_args_parser().parse_args(argv)
    other = "--arch" if args.task in FUSION else "--genotype"
    if getattr(args, other[2:]) is not None:
        raise UserError(f"{other} is for {', '.join(ATTENTION if args.task in FUSION else FUSION)}; drop the flag")
    file, folder = Path(args.file), new_folder(args.out)
    if not file.exists():
        raise UserError(f"--file {file} does not exist")
    task = importlib.import_module(f"tasks.{args.task}").TASK
    existed = folder.exists()
    try:
        if args.task in FUSION:
            original, usable = import_fusion(task, lambda kind: arguments_of(args, kind), file, args.genotype, folder)
        else:
            parser = importlib.import_module(f"train_{args.task}").get_args_parser()
            original, usable = import_attention(task, parser.parse_args(args.flags), file, args.arch, folder)
    except BaseException:
        # An incomplete run folder would be mistaken for a complete one.
        with contextlib.suppress(OSError):
            shutil.rmtree(folder) if not existed else [path.unlink() for path in folder.iterdir()]
        raise
    for text in original.unused if original else ():
        print(f"not used: {text}")
    print(f"wrote {folder}; now\n  " + "\n  ".join(usable))
    return folder


def arguments_of(args, kind):
    """Arguments of the BM-NAS script for runs of ``kind``, parsed from ``--flags``."""
    module = importlib.import_module(SCRIPTS[kind].format(args.task))
    return module.get_args_parser().parse_args(args.flags)


if __name__ == "__main__":
    run_cli(main)
