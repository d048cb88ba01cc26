"""Predict with a trained network on data of your own (docs/own_data.md): one sample, or every row of a table.

  python predict_own.py --run <found run folder> --image photo.jpg --text "a few words"
  python predict_own.py --run <found run folder> --numbers year=1999,rating=7.5
  python predict_own.py --run <found run folder> --table rows.csv --out predictions.csv

Inputs are prepared like those that the network was trained on: sizes, rates, standardised numbers. The flags --image,
--text, --audio and --numbers set the input of their kind if there is exactly one; --input NAME=VALUE sets any input.
An input may be left out if the network was trained with missing inputs or with --modality_dropout. A table must have
the columns of the prepared one, unless --columns names others; predictions.csv has one row for each of its rows.
"""

from engine import arguments
from tasks.predictions import predict_one, predict_table, prediction_parser
from util.cli import UserError, run_cli
from util.files import refuse_input

KINDS = {"image": "picture", "text": "text", "audio": "audio"}


def get_args_parser():
    """Flags of the prediction."""
    parser = prediction_parser(__doc__)
    one = parser.add_argument_group("one sample")
    one.add_argument("--image", metavar="FILE", help="the picture")
    one.add_argument("--text", help="the text, in words")
    one.add_argument("--audio", metavar="FILE", help="the recording")
    one.add_argument("--numbers", metavar="A=1,B=2", help="columns of the numbers and categories")
    help_text = "any input by its name: a text, a file, numbers as for --numbers, or numbers separated by commas"
    one.add_argument("--input", action=arguments.Assignments, metavar="NAME=VALUE", help=help_text)
    many = parser.add_argument_group("many samples")
    many.add_argument("--table", metavar="FILE", help="a table (.csv, .tsv, .jsonl, .parquet), one row per sample")
    many.add_argument(
        "--out", metavar="FILE", default="predictions.csv", help="their predictions; replaced if it exists"
    )
    help_text = "columns of an input, separated by commas (default: those of the prepared table)"
    many.add_argument("--columns", action=arguments.Assignments, metavar="NAME=COLUMN", help=help_text)
    many.add_argument("--id_column", metavar="COLUMN", help="column to copy in place of the row's number")
    many.add_argument("--batchsize", type=arguments.positive_int, default=64, help="rows at a time")
    return parser


def main(argv=None):
    """Predict one sample or a table; returns (class, probability) pairs, or the number of rows that were written."""
    args = get_args_parser().parse_args(argv)
    from tasks.loading import load_task
    from util.distributed import init_distributed

    model = load_task("own", args.run, init_distributed(args.device))
    sample = sample_of(args, model)
    if bool(args.table) == bool(sample):
        raise UserError("name one sample (--image, --text, --audio, --numbers, --input) or many (--table FILE)")
    if sample:
        return predict_one(model, sample, args.top)

    from datasets.own.tables import open_table

    refuse_input(args.out, {"--table": args.table, "--run": args.run})
    table, asked = open_table(args.table), arguments.as_dict(args.columns)
    if unknown := [name for name in asked if name not in model.known_inputs()]:
        raise UserError(f"--columns {unknown[0]}=...: the inputs are {', '.join(model.known_inputs())}")
    model.raw.root = table.root
    columns = {name: asked[name].split(",") if name in asked else model.raw.columns(name) for name in model.inputs}
    # A network that was trained for missing inputs accepts tables without the columns of these inputs.
    lacking = [name for name in columns if name not in asked and not set(columns[name]) & set(table.columns)]
    read = {n: c for n, c in columns.items() if model.is_read(n) and not (n in lacking and model.may_lack(n))}
    if not read:
        wanted = ", ".join(f"{name} ({', '.join(names)})" for name, names in columns.items())
        raise UserError(
            f"{args.table} has no column of any input: {wanted}; name the columns with --columns INPUT=COLUMN"
        )
    count = predict_table(model, table, read, args.out, batch=args.batchsize, id_column=args.id_column)
    print(f"{args.out}: {count:,} predictions" + (f", without {', '.join(lacking)}" if lacking else ""))
    return count


def sample_of(args, model):
    """The sample that the flags describe: {input: value}; {} if they describe none.

    Raises:
        UserError: A flag fits no input of the network, or several.
    """
    kinds = {name: modality.kind for name, modality in model.manifest.modalities.items()}
    sample = {}
    for flag in ("image", "text", "audio", "numbers"):
        if (value := getattr(args, flag)) is None:
            continue
        fits = [n for n, kind in kinds.items() if (n in model.raw.tables if flag == "numbers" else kind == KINDS[flag])]
        fits = [flag] if flag in fits else fits
        if len(fits) != 1:
            known = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
            raise UserError(
                f"--{flag} fits {len(fits)} inputs; name one with --input NAME=VALUE; the inputs are {known}"
            )
        sample[fits[0]] = value
    sample |= arguments.as_dict(args.input)
    if unknown := [name for name in sample if name not in kinds]:
        raise UserError(f"--input {unknown[0]}=...: the network has no such input; its inputs are {', '.join(kinds)}")
    for name in set(sample) & set(model.raw.tables):
        pairs = sample[name].split(",")
        if wrong := [pair for pair in pairs if "=" not in pair]:
            raise UserError(f"--numbers {wrong[0]}: expected columns with values, such as a=1,b=2")
        sample[name] = arguments.as_dict(pairs)
    return sample


if __name__ == "__main__":
    run_cli(main)
