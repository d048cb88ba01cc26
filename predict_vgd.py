"""Find the object that an expression refers to in an image with a trained network, and draw its box.

  python predict_vgd.py --CKPT_PATH <run folder> --image photo.jpg --expression "the left red cube" --out box.png

The checkpoint contains its vocabulary and how its image features were extracted; this image is treated the same way.
The official features (bottom-up attention) cannot be extracted here: to ask about your own images, train on features
from datasets/extract_features.py.
"""

from tasks.mmnas.flags import prediction_parser
from util.cli import run_cli
from util.files import refuse_input


def get_args_parser():
    """Flags of the prediction."""
    parser = prediction_parser(__doc__)
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    parser.add_argument("--expression", required=True, help="what to find, in words")
    parser.add_argument("--out", metavar="FILE", help="where to draw the box (.png, .jpg); replaced if it exists")
    return parser


def main(argv=None):
    """Print the box; returns it as (x1, y1, x2, y2) in pixels, and the softmax probability of its region."""
    args = get_args_parser().parse_args(argv)
    if args.out:
        refuse_input(args.out, {"--image": args.image})
    import torch

    from datasets.regions.samples import read_sample
    from datasets.text.vocabulary import Vocabulary
    from datasets.vgd import MAX_TOKENS
    from metrics.grounding import best_boxes
    from tasks import vgd
    from tasks.mmnas import checkpoints
    from util.distributed import init_distributed

    checkpoint, device = checkpoints.read_own_checkpoint(vgd.TASK, args), init_distributed(args.device)
    known = checkpoint.metadata
    words = {"vocabulary": Vocabulary.from_dict(known["vocabulary"]), "max_tokens": MAX_TOKENS}
    options = {"flag": "--expression", "extraction": known["extraction"], "device": device}
    batch = read_sample(args.image, args.expression, **words, **options)
    net = checkpoints.load_net(vgd.TASK, args, checkpoint, None).to(device).eval()
    with torch.no_grad():
        outputs = net(batch)
    x1, y1, x2, y2 = box = best_boxes(outputs, batch)[0].tolist()
    share = float(outputs[0].softmax(1).max())
    print(f"x {x1:.0f} to {x2:.0f}, y {y1:.0f} to {y2:.0f}  ({100 * share:.0f} % of the softmax over the regions)")
    if args.out:
        from datasets.regions.drawing import draw_box

        draw_box(args.image, box, args.expression, args.out)
        print(f"picture: {args.out}")
    return tuple(box), share


if __name__ == "__main__":
    run_cli(main)
