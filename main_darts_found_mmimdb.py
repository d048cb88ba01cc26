"""BM-NAS on MM-IMDB: train and test a fusion network (Yin et al., AAAI 2022, section 4.1).

  python main_darts_found_mmimdb.py --search_exp_dir=<dir of search exp>
  python main_darts_found_mmimdb.py --eval_exp_dir=<dir of eval exp>           # test only
  python main_darts_found_mmimdb.py --genotype genotypes/mmimdb_example.json   # or: --genotype random, --fusion late

The published recipe trains everything, backbones included; --freeze_backbones trains the fusion
alone on features that are computed once. Data, sizes, seed and weights default to those of the
search run. Results: <search_exp_dir>/eval-<save>-<time>/result.json.
Paper: weighted F1 62.92 on test (selected on test, as --select_on test --train_on train+dev does).
"""

from engine import arguments
from tasks import bilevel, mmimdb
from util.cli import run_cli

DEMO = {**mmimdb.DEMO, "epochs": 8, "Ti": 8, "freeze_backbones": True}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    bilevel.add_found_flags(parser, backbones)
    arguments.set_defaults_of(parser, mmimdb.PUBLISHED)
    return parser


def main(argv=None):
    """Train (or only test) a found network; returns the result that ``result.json`` holds."""
    args = arguments.parse_args(get_args_parser(), argv, demo=DEMO, inherit=bilevel.inherit)
    bilevel.check_found(mmimdb, args)
    if args.eval_exp_dir:
        return test(args)
    data = mmimdb.open_splits(args, ("train", "dev", "test"))

    from engine.run import start_run
    from engine.supervised import train_network
    from engine.training import Precision, Selection
    from metrics.classification import MultilabelF1

    with start_run(args, "eval", args.search_exp_dir or args.out_dir) as run:
        net, genotype = bilevel.build_found_net(mmimdb, args, frozen=args.freeze_backbones)
        net.to(run.device)
        if genotype is not None:
            run.write("genotype.svg", genotype.to_svg())
        precision, metric = Precision(args.amp, run.device), MultilabelF1(args.f1_type)
        loaders = bilevel.build_loaders(args, run, net, data, precision)
        updater = bilevel.build_updater(args, run, net, mmimdb.binary_cross_entropy, precision, len(data["train"]))
        selection = Selection(args.select_on, metric.name, bilevel.PROTOCOLS[args.select_on])
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
            **mmimdb.describe(args, data, net),
        )


def test(args):
    """Score the test split with the network of ``--eval_exp_dir``."""
    data = mmimdb.open_splits(args, ("test",))

    from engine.run import start_run
    from engine.training import Precision, evaluate
    from metrics.classification import MultilabelF1

    with start_run(args, "test", args.eval_exp_dir) as run:
        net = bilevel.load_found_net(mmimdb, args).to(run.device)
        precision = Precision(args.amp, run.device)
        loaders = bilevel.build_loaders(args, run, net, data, precision, mode="off")
        options = {"device": run.device, "precision": precision, "description": "test"}
        scores = evaluate(net, loaders["test"], mmimdb.binary_cross_entropy, MultilabelF1(args.f1_type), **options)
        run.log_scores("test", scores)
        facts = {"data": mmimdb.describe(args, data, net)["data"]}
        return run.write_result(
            {"kind": "test", "metrics": {"test": scores}, "parameters": net.count_parameters(), **facts}
        )


if __name__ == "__main__":
    run_cli(main)
