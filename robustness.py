"""Score a trained network on test with each input removed, and with noise of rising strength on it (BM-NAS tasks).

  python robustness.py --run <found run folder>
  python robustness.py --run <found run folder> --noise 0 0.1 0.3 1

A removed input is replaced by the network's learned values if it was trained with missing inputs or with
--modality_dropout. Otherwise it is replaced by zeros (pictures, texts and sounds of your own data: by the placeholder
of a missing one), which the network never saw. Noise is Gaussian, in units of the input's standard deviation on test;
for texts, words are dropped. robustness.json and robustness.svg are written into the run folder. The script reads the
data of the run again.
"""

from engine import arguments
from util.cli import UserError, run_cli


def get_args_parser():
    """Flags of the measurement."""
    parser = arguments.RecipeParser(__doc__)
    parser.add_argument("--run", required=True, metavar="RUN", help="run folder of a found or unimodal training")
    text = "module that defines the TASK of the run, if it is not one in tasks/"
    parser.add_argument("--task", metavar="MODULE", help=text)
    text = "strengths of the noise"
    strength = arguments.non_negative
    parser.add_argument("--noise", type=strength, nargs="+", default=[0.0, 0.1, 0.2, 0.5, 1.0], help=text)
    parser.add_argument("--datadir", metavar="DIR", help="folder of the data (default: that of the run)")
    parser.add_argument("--seed", type=arguments.non_negative_int, default=0, help="seed of the noise")
    parser.add_argument("--num_workers", type=arguments.non_negative_int, help="data loading processes")
    text = "auto, cpu, cuda (default: that of the run)"
    parser.add_argument("--device", type=arguments.device_name, metavar="NAME", help=text)
    return parser


def main(argv=None):
    """Measure and print; returns what ``robustness.json`` holds."""
    args = get_args_parser().parse_args(argv)
    from tasks.found_models import FusionModel
    from tasks.loading import import_task, load_found
    from tasks.robustness import PICTURE, measure
    from util.distributed import init_distributed

    model = load_found(args.run, task=import_task(args.task) if args.task else None)
    if not isinstance(model, FusionModel):
        raise UserError(f"--run {args.run} is a run of {model.task.name}; only runs of BM-NAS tasks can be measured")
    model.to(init_distributed(args.device or model.args.device))
    for name in ("datadir", "num_workers"):
        if getattr(args, name) is not None:
            setattr(model.args, name, getattr(args, name))
    result = measure(model, sorted(set(args.noise)), args.seed)
    score = model.task.metric(model.args).name
    print(f"{score} on test, {result['samples']:,} samples{' (synthetic)' if result['synthetic'] else ''}")
    if result["same_data_as_tested"] is False:
        print("note: the network was tested on other data after its training")
    print(f"  {'as it is':24} {result['clean'][score]:.4f}")
    for name, removed in result["without"].items():
        print(f"  {f'without {name}':24} {removed['scores'][score]:.4f}  ({removed['instead']} in its place)")
        for strength, scores in result["noise"][name]["scores"].items():
            print(f"  {f'{name}, noise {strength}':24} {scores[score]:.4f}")
    for name in result["not_read"]:
        print(f"  {name} is not read")
    print(f"picture: {model.folder / PICTURE}")
    return result


if __name__ == "__main__":
    run_cli(main)
