"""BM-NAS on MM-IMDB: search the fusion of poster and plot features (Yin et al., AAAI 2022, section 4.1).

  python main_darts_searchable_mmimdb.py --text_cp <run folder of main_unimodal_mmimdb.py --modality text>
  python main_darts_searchable_mmimdb.py --demo

Weight steps on train, architecture steps on dev; the backbones are frozen and computed once.
<out_dir>/search-<save>-<time>/ gets the genotype of the best dev epoch (genotype.json), a picture
of every epoch's (architectures/), the probabilities (probabilities.svg) and result.json. Then:
  python main_darts_found_mmimdb.py --search_exp_dir <that folder>
"""

from engine import arguments
from tasks import bilevel, mmimdb
from util.cli import run_cli

DEMO = {**mmimdb.DEMO, "epochs": 6, "Ti": 6, "arch_learning_rate": 1e-2}


def get_args_parser():
    """Flags of this recipe, with their published values."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    backbones.add_argument(
        "--backbone_mode",
        choices=("eval", "train"),
        default="eval",
        help="train: frozen backbones use dropout and batch statistics, as the original's do",
    )
    arguments.add_architecture_flags(parser)
    arguments.add_alpha_flags(parser)
    search = parser.add_argument_group("search")
    search.add_argument(
        "--dev_metric",
        choices=("step", "second_forward"),
        default="step",
        help="step: score the outputs of the architecture step; second_forward: those of another forward after it, as "
        "the original does",
    )
    search.add_argument(
        "--patience",
        type=arguments.whole,
        default=0,
        help="stop once the genotype stands for this many epochs; 0: never",
    )
    arguments.set_defaults_of(parser, mmimdb.PUBLISHED)
    return parser


def main(argv=None):
    """Search; returns the result that ``result.json`` holds."""
    args = arguments.parse_args(get_args_parser(), argv, demo=DEMO)
    arguments.check_architecture(args, mmimdb.NUM_FEATURES)
    data = mmimdb.open_splits(args, ("train", "dev"))

    from engine.run import start_run
    from engine.search import Alternating, ArchitectureWatch, alpha_optimizer, finish_search, save_architecture
    from engine.training import Precision, Selection, Updater, data_parallel, fit
    from metrics.classification import MultilabelF1
    from models.bilevel.operations import has_weights

    with start_run(args, "search", args.out_dir) as run:
        net = bilevel.build_search_net(mmimdb, args).to(run.device)
        precision, metric = Precision(args.amp, run.device), MultilabelF1(args.f1_type)
        loaders = bilevel.build_loaders(args, run, net, data, precision)
        alpha = list(net.arch_parameters().values())
        weights = bilevel.build_updater(args, run, net, mmimdb.binary_cross_entropy, precision, len(data["train"]))
        alphas = Updater(
            net,
            alpha,
            mmimdb.binary_cross_entropy,
            alpha_optimizer(alpha, args.arch_learning_rate, args.arch_weight_decay),
            precision=precision,
            parallel=data_parallel(run, precision),
        )
        second_forward = args.dev_metric == "second_forward"
        search = Alternating(weights, alphas, loaders["train"], loaders["dev"], metric, run.device, second_forward)
        watch = ArchitectureWatch(net, has_weights, args.patience)
        selection = Selection("dev", metric.name, "genotype of the epoch with the best dev score during the search")
        run.track(net=net.changing(), weights=weights, alphas=alphas, watch=watch, selection=selection)

        def one_epoch(epoch):
            record = {**search(epoch), **watch.look()}
            save_architecture(run, watch.genotype, epoch)
            return record

        fit(
            run,
            args.epochs,
            one_epoch,
            selection,
            lambda: {"net": net.state_dict(), "genotype": watch.genotype.to_dict()},
        )
        return finish_search(run, selection, net, **mmimdb.describe(args, data, net))


if __name__ == "__main__":
    run_cli(main)
