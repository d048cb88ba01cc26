"""Write a trained network as a file that needs no code of this suite: torch.export (.pt2) or ONNX.

  python export.py --run <found run folder> --format onnx --out net.onnx
  python export.py --run <found run folder> --format pt2 --features --out fusion.pt2
  python export.py --run <train run folder> --format onnx --tokens 14 --regions 100 --out vqa.onnx

The exported network accepts any batch size and, on your own data, texts, recordings and sequences of any length. BM-NAS
networks read their input tensors, or with --features the features of their backbones; MMNas networks read any number of
regions, and texts that are padded to one length. Before the file is put in place, its outputs on random inputs are
compared with torch, in a process that cannot import this suite. <out>.json describes inputs and outputs, as does the
file itself. ONNX needs `python -m pip install onnx onnxscript onnxruntime`.
"""

from pathlib import Path

from engine import arguments
from util.cli import run_cli
from util.files import refuse_input


def get_args_parser():
    """Flags of the export."""
    parser = arguments.RecipeParser(__doc__)
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder of a training")
    text = "module that defines the TASK of the run, if it is not one in tasks/"
    parser.add_argument("--task", metavar="MODULE", help=text)
    parser.add_argument("--format", choices=("pt2", "onnx"), default="pt2", help="torch.export, or ONNX")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write; replaced if it exists")
    parser.add_argument("--features", action="store_true", help="only the fusion part, which reads backbone features")
    text = "shape of an input without the batch axis, e.g. image=3,256,160 (default: as in the run's data)"
    parser.add_argument("--shape", action=arguments.Assignments, metavar="NAME=SIDES", help=text)
    text = "also read NAME_present, bool (batch,): whether each sample has the inputs that may be missing"
    parser.add_argument("--missing", action="store_true", help=text)
    text = "own data: pad texts, recordings or sequences to N words, samples or steps (default: any length)"
    parser.add_argument("--length", action=arguments.Assignments, metavar="NAME=N", help=text)
    text = "tokens of a text, with padding (default: the task's)"
    parser.add_argument("--tokens", type=arguments.positive_int, help=text)
    text = "regions of an image, with padding (default: any number)"
    parser.add_argument("--regions", type=arguments.positive_int, help=text)
    return parser


def main(argv=None):
    """Write and check the file; returns its description."""
    args = get_args_parser().parse_args(argv)
    from tasks.exporting import check_libraries, export, exportable
    from tasks.loading import import_task, load_found

    check_libraries(args.format)
    refuse_input(args.out, {"--run": args.run})
    if not Path(args.out).exists():  # otherwise it is the description of the file that is replaced
        refuse_input(f"{args.out}.json", {"--run": args.run})
    model = load_found(args.run, plain=True, task=import_task(args.task) if args.task else None)
    about = export(exportable(model, args), model, args.format, args.out)
    for one in about["inputs"]:
        print(f"input   {one['name']}: {one['dtype']} {one['shape']}")
    print(f"outputs {', '.join(about['outputs']['names'])}: {about['outputs']['are']}")
    print(f"{args.out}: agrees with torch to {about['checked']['max_difference']:.1e}; described in {args.out}.json")
    return about


if __name__ == "__main__":
    run_cli(main)
