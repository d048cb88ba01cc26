"""Predict the genres of a film with a network trained on MM-IMDB.

  python predict_mmimdb.py --run <found run folder> --image image_000000.npy --text text_000000.npy

The inputs are arrays as in the original data set folder: the poster (3, height, width), and the plot's vector (300,).
An input may be left out if the network was trained with --modality_dropout, or does not read it. Genres whose
probability is above the metric's threshold are marked, and all of them are printed.
"""

from tasks.predictions import predict_one, prediction_parser
from util.cli import UserError, run_cli


def get_args_parser():
    """Flags of the prediction."""
    parser = prediction_parser(__doc__)
    parser.add_argument("--image", metavar="FILE.npy", help="the poster, (3, height, width)")
    parser.add_argument("--text", metavar="FILE.npy", help="the plot's vector, (300,)")
    return parser


def main(argv=None):
    """Print the genres; returns them as a list of (genre, probability)."""
    args = get_args_parser().parse_args(argv)
    from tasks.loading import load_task
    from util.distributed import init_distributed

    model = load_task("mmimdb", args.run, init_distributed(args.device))
    paths = {"image": args.image, "text": args.text}
    return predict_one(model, {name: read_input(name, path) for name, path in paths.items() if path}, args.top)


def read_input(name, path):
    """The array of an input, checked.

    Raises:
        UserError: it cannot be read, or has another shape.
    """
    import numpy as np

    from datasets.mmimdb.dataset import TEXT_DIM
    from util.arrays import DamagedArray, read_array

    try:
        array = read_array(path, mapped=False)
    except DamagedArray as reason:
        raise UserError(f"--{name} {path} {reason}; expected a .npy file") from None
    good = array.shape == (TEXT_DIM,) if name == "text" else array.ndim == 3 and array.shape[0] == 3
    if not good or not np.isfinite(array).all():
        shape = f"({TEXT_DIM},)" if name == "text" else "(3, height, width)"
        raise UserError(
            f"--{name} {path} has shape {array.shape} or contains NaN; expected finite numbers of shape {shape}"
        )
    return array.astype(np.float32) if name == "text" else array


if __name__ == "__main__":
    run_cli(main)
