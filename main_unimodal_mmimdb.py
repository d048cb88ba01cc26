"""MM-IMDB with one modality: the papers' unimodal rows, and the backbones that a search starts from.

  python main_unimodal_mmimdb.py --modality text
  python main_unimodal_mmimdb.py --modality image [--freeze_backbones]

Trains the MaxOut network on plots, or VGG-19 on posters (whole, or with --freeze_backbones its head
alone). The run folder gets backbone.pth: pass that folder as --text_cp or --image_cp.
Papers' weighted F1 on test: 57.54 (text), 49.21 (image).
"""

from engine import arguments
from tasks import bilevel, mmimdb
from util.cli import UserError, run_cli

DEMO = {**mmimdb.DEMO, "epochs": 10, "Ti": 10, "freeze_backbones": True}


def get_args_parser():
    """Flags of this recipe, with the values of the fusion recipes."""
    parser, backbones = mmimdb.recipe_parser(__doc__)
    parser.add_argument("--modality", choices=("image", "text"), help="which network to train")
    backbones.add_argument(
        "--freeze_backbones", action="store_true", help="image: train the head alone, on kept features"
    )
    backbones.add_argument("--L", type=arguments.positive_int, help="as in the search, to share its kept features")
    bilevel.add_selection_flags(parser)
    arguments.set_defaults_of(parser, mmimdb.PUBLISHED)
    return parser


def main(argv=None):
    """Train one backbone; returns the result that ``result.json`` holds."""
    args = arguments.parse_args(get_args_parser(), argv, demo=DEMO)
    if args.modality is None:
        raise UserError("which network? pass --modality image or --modality text")
    data = mmimdb.open_splits(args, ("train", "dev", "test"))

    from engine.run import start_run
    from engine.supervised import train_network
    from engine.training import Precision, Selection
    from metrics.classification import MultilabelF1
    from models.backbone_net import UnimodalNet
    from util.checkpoint import save_checkpoint

    with start_run(args, f"unimodal-{args.modality}", args.out_dir) as run:
        backbone = mmimdb.build_unimodal_backbone(args)
        frozen = args.freeze_backbones and args.modality == "image"
        net = UnimodalNet(args.modality, backbone, mmimdb.pool(args), frozen=frozen).to(run.device)
        precision, metric = Precision(args.amp, run.device), MultilabelF1(args.f1_type)
        loaders = bilevel.build_loaders(args, run, net, data, precision)
        updater = bilevel.build_updater(args, run, net, mmimdb.binary_cross_entropy, precision, len(data["train"]))
        selection = Selection(args.select_on, metric.name, bilevel.PROTOCOLS[args.select_on])
        facts = {"modality": args.modality, **mmimdb.describe(args, data, net)}
        result = train_network(run, net, updater, loaders, metric, selection, **facts)
        if run.is_main:
            save_checkpoint(run.folder / "backbone.pth", backbone.state_dict())
        return result


if __name__ == "__main__":
    run_cli(main)
