"""Predict the gesture of a clip with a network trained on EgoGesture.

  python predict_ego.py --run <found run folder> --rgb clip/rgb --depth clip/depth

The inputs are folders with the frames of one gesture as pictures, which are read in the order of their names, as in the
official folders Color/rgbK and Depth/depthK. An input may be left out if the network was trained with
--modality_dropout, or does not read it.
"""

from tasks.predictions import predict_one, prediction_parser
from util.cli import run_cli


def get_args_parser():
    """Flags of the prediction."""
    parser = prediction_parser(__doc__)
    parser.add_argument("--rgb", metavar="DIR", help="folder of the colour frames")
    parser.add_argument("--depth", metavar="DIR", help="folder of the depth frames")
    return parser


def main(argv=None):
    """Print the gestures; returns them as a list of (gesture, probability)."""
    args = get_args_parser().parse_args(argv)
    from datasets.ego.single import read_single
    from tasks.loading import load_task
    from util.cli import UserError
    from util.distributed import init_distributed

    model = load_task("ego", args.run, init_distributed(args.device))
    if not (args.rgb or args.depth):
        raise UserError("name the clip with --rgb DIR and --depth DIR")
    sizes = {name: getattr(model.args, name) for name in ("sample_size", "sample_duration")}
    return predict_one(model, read_single(args.rgb, args.depth, **sizes), args.top)


if __name__ == "__main__":
    run_cli(main)
