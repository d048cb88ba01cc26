"""Predict the action of a clip with a network trained on NTU RGB+D 60.

  python predict_ntu.py --run <found run folder> --video S001C001P003R001A010_rgb.avi \
      --skeleton S001C001P003R001A010.skeleton

The inputs are the official files. For a video as it was recorded (1920x1080), --size 256 scales it as the preparation
does; without the flag a video is read unchanged, which is right for videos that are already scaled. An input may be
left out if the network was trained with --modality_dropout, or does not read it.
"""

from engine.arguments import non_negative_int
from tasks.predictions import predict_one, prediction_parser
from util.cli import run_cli

OPTIONS = ("frame_sampling", "channel_order", "absent_person")


def get_args_parser():
    """Flags of the prediction."""
    parser = prediction_parser(__doc__)
    parser.add_argument("--video", metavar="FILE", help="the video")
    parser.add_argument("--skeleton", metavar="FILE", help="the official .skeleton file")
    parser.add_argument("--size", type=non_negative_int, default=0, help="scale the video to this side; 0: unscaled")
    return parser


def main(argv=None):
    """Print the actions; returns them as a list of (action, probability)."""
    args = get_args_parser().parse_args(argv)
    from datasets.ntu.single import read_single
    from tasks.loading import load_task
    from util.cli import UserError
    from util.distributed import init_distributed

    model = load_task("ntu", args.run, init_distributed(args.device))
    if not (args.video or args.skeleton):
        raise UserError("name the clip with --video FILE and --skeleton FILE")
    options = {name: getattr(model.args, name) for name in OPTIONS}
    return predict_one(model, read_single(args.video, args.skeleton, size=args.size, **options), args.top)


if __name__ == "__main__":
    run_cli(main)
