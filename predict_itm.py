"""Rank the images of a folder by how well they match a text, with a trained network.

  python predict_itm.py --CKPT_PATH <run folder> --images DIR --query "a dog on a beach"

The checkpoint contains its vocabulary and how its image features were extracted; these images are treated the same
way. The text is encoded once. The official features (bottom-up attention) cannot be extracted here: to search your
own images, train on features from datasets/extract_features.py. --save_picture draws the best images side by side.
"""

import sys
from pathlib import Path

from engine.arguments import positive_int
from tasks.mmnas.flags import prediction_parser
from util.cli import UserError, run_cli
from util.files import refuse_input


def get_args_parser():
    """Flags of the prediction."""
    parser = prediction_parser(__doc__)
    parser.add_argument("--images", required=True, metavar="DIR", help="folder of pictures, with its subfolders")
    parser.add_argument("--query", required=True, help="what they should show, in words")
    parser.add_argument("--top", type=positive_int, default=5, help="images to print")
    parser.add_argument("--save_picture", metavar="FILE", help="where to draw the best images (.png, .jpg)")
    return parser


def main(argv=None):
    """Print the best images; returns them as a list of (name in the folder, score in 0..1)."""
    args = get_args_parser().parse_args(argv)
    if args.save_picture:
        refuse_input(args.save_picture, {"--images": args.images}, "--save_picture")
    import torch

    from datasets.itm import MAX_TOKENS
    from datasets.regions.extractors import extractor_from_meta
    from datasets.regions.files import list_images
    from datasets.regions.samples import read_text
    from datasets.text.vocabulary import Vocabulary
    from tasks import itm
    from tasks.mmnas import checkpoints
    from util.distributed import init_distributed

    checkpoint = checkpoints.read_own_checkpoint(itm.TASK, args)
    known = checkpoint.metadata
    words = Vocabulary.from_dict(known["vocabulary"])
    tokens = read_text(args.query, flag="--query", vocabulary=words, max_tokens=MAX_TOKENS)
    names, device = list_images(args.images), init_distributed(args.device)
    extractor = extractor_from_meta(known["extraction"], str(device))
    net = checkpoints.load_net(itm.TASK, args, checkpoint, None).to(device).eval()
    with torch.no_grad():
        caption = net.encode(tokens.to(device))
        read, scores = score_images(net, caption, args.images, names, extractor, device)
    best = torch.cat(scores).cpu().topk(min(args.top, len(read)))
    found = [(read[i], float(score)) for score, i in zip(best.values, best.indices, strict=True)]
    for name, score in found:
        print(f"{score:.3f}  {name}")
    if args.save_picture:
        from datasets.regions.drawing import draw_sheet

        places, texts = (
            [Path(args.images) / name for name, _ in found],
            [f"{s:.3f}  {Path(n).name}" for n, s in found],
        )
        draw_sheet(places, texts, args.save_picture, args.query)
        print(f"picture: {args.save_picture}")
    return found


def score_images(net, caption, folder, names, extractor, device):
    """Score the pictures ``names`` in ``folder`` against one encoded caption; report those that cannot be read.

    Returns:
        Names of the pictures that could be read, and a list of their scores, tensors (1,).

    Raises:
        UserError: No picture can be read.
    """
    import torch

    from datasets.regions.samples import read_regions
    from util.nested import to_device
    from util.progress import progress

    read, scores, first = [], [], torch.zeros(1, dtype=torch.int64, device=device)
    for name in progress(names, "images", unit="image"):
        try:
            regions = read_regions(Path(folder) / name, extractor)
        except UserError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        scores.append(net.match(net.project(to_device(regions, device)), caption, first, first))
        read.append(name)
    if not read:
        raise UserError(f"--images {folder}: none of the {len(names)} pictures can be read; give others")
    return read, scores


if __name__ == "__main__":
    run_cli(main)
