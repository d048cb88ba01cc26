"""BM-NAS on MM-IMDB: train and test a fusion network (Yin et al., AAAI 2022, section 4.1).

  python main_darts_found_mmimdb.py --search_exp_dir=<dir of search exp>
  python main_darts_found_mmimdb.py --search_exp_dir=<dir of search exp> --eval_exp_dir=<dir of eval exp>   # test only
  python main_darts_found_mmimdb.py --genotype genotypes/mmimdb_example.json ...    # or: --genotype random, --fusion late

The published recipe trains everything, backbones included; --freeze_backbones trains the fusion
alone on features that are computed once. Data, sizes, seed and weights default to those of the
search run. Results: <search_exp_dir>/eval-<save>-<time>/result.json.
Paper: weighted F1 62.92 on test (selected on test, as --select_on test --train_on train+dev does).
"""

from engine import arguments
from tasks import mmimdb
from util.cli import UserError, run_cli

DEMO = {**mmimdb.DEMO, "epochs": 8, "Ti": 8, "freeze_backbones": True}
# What a found network takes over from the search unless told otherwise.
INHERITED = (
    "demo datadir small_dataset cache_dir seed C L drpt num_outputs f1_type "
    "backbone_weights vgg_weights image_cp text_cp device amp"
).split()


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    backbones.add_argument(
        "--freeze_backbones", action="store_true", help="train reshape layers, fusion and classifier alone, on kept features"
    )
    arguments.add_architecture_flags(parser)
    arguments.add_alpha_flags(parser, used=False)
    found = parser.add_argument_group("what to train")
    found.add_argument("--search_exp_dir", metavar="DIR", help="run folder of a search (ours or the original's)")
    found.add_argument("--eval_exp_dir", metavar="DIR", help="test only: run folder of a found training")
    found.add_argument("--genotype", metavar="FILE", help="a genotype file, or random (drawn from --seed)")
    found.add_argument("--fusion", choices=("genotype", "late"), default="genotype", help="late: the late-fusion baseline")
    found.add_argument(
        "--train_on", choices=("train", "train+dev"), default="train", help="train+dev: a pass over each, as in the original"
    )
    found.add_argument("--select_on", choices=tuple(mmimdb.PROTOCOLS), default="dev", help="split that chooses the epoch")
    arguments.set_published(parser, mmimdb.PUBLISHED)
    return parser


def inherit(args):
    """Defaults from the run folder that the flags name."""
    if args.eval_exp_dir:
        own = {"resume", "save", "eval_exp_dir", "search_exp_dir", "device", "num_workers", "parallel"}
        return {k: v for k, v in arguments.earlier_arguments(args.eval_exp_dir).items() if k not in own}
    return arguments.earlier_arguments(args.search_exp_dir, INHERITED) if args.search_exp_dir else {}


def check(args):
    """Conflicting or missing choices.

    Raises:
        UserError: the flags in conflict.
    """
    if not (args.search_exp_dir or args.eval_exp_dir or args.genotype or args.fusion == "late"):
        raise UserError(
            "nothing to train: pass --search_exp_dir DIR, --genotype FILE.json, --genotype random or --fusion late "
            "(or --eval_exp_dir DIR to test)"
        )
    if args.train_on == "train+dev" and args.select_on == "dev":
        raise UserError("--train_on train+dev leaves no dev split to select on; add --select_on test or --select_on last")
    arguments.check_architecture(args, mmimdb.NUM_FEATURES)


def main(argv=None):
    """Train (or only test) a found network; returns the result that ``result.json`` holds."""
    args = arguments.parse_args(get_args_parser(), argv, demo=DEMO, inherit=inherit)
    check(args)
    if args.eval_exp_dir:
        return test(args)
    data = mmimdb.open_splits(args, ("train", "dev", "test"))

    from engine.run import start_run
    from engine.supervised import train_network
    from engine.training import Precision, Selection
    from metrics.classification import MultilabelF1

    with start_run(args, "eval", args.search_exp_dir or args.out_dir) as run:
        net, genotype = mmimdb.build_found_net(args, frozen=args.freeze_backbones)
        net.to(run.device)
        if genotype is not None:
            run.write("genotype.svg", genotype.to_svg())
        precision, metric = Precision(args.amp, run.device), MultilabelF1(args.f1_type)
        loaders = mmimdb.build_loaders(args, run, net, data, precision)
        updater = mmimdb.build_updater(args, run, net, precision, len(data["train"]))
        selection = Selection(args.select_on, metric.name, mmimdb.PROTOCOLS[args.select_on])
        return train_network(
            run,
            net,
            updater,
            loaders,
            metric,
            selection,
            trained=args.train_on.split("+"),
            genotype=genotype.to_dict() if genotype else None,
            fusion=args.fusion,
            **mmimdb.describe(args, data),
        )


def test(args):
    """Score the test split with the network of ``--eval_exp_dir``."""
    data = mmimdb.open_splits(args, ("test",))

    from engine.run import start_run
    from engine.training import Precision, evaluate
    from metrics.classification import MultilabelF1

    with start_run(args, "test", args.eval_exp_dir) as run:
        net = mmimdb.load_found_net(args).to(run.device)
        precision = Precision(args.amp, run.device)
        loaders = mmimdb.build_loaders(args, run, net, data, precision)
        options = {"device": run.device, "precision": precision, "description": "test"}
        scores = evaluate(net, loaders["test"], mmimdb.binary_cross_entropy, MultilabelF1(args.f1_type), **options)
        run.log_scores("test", scores)
        facts = mmimdb.describe(args, data)
        return run.write_result({"kind": "test", "metrics": {"test": scores}, "parameters": net.count_parameters(), **facts})


if __name__ == "__main__":
    run_cli(main)
