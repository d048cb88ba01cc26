"""Answer one question about one image with a trained network.

  python predict_vqa.py --CKPT_PATH <run folder> --image photo.jpg --question "what color is the shape?"

The checkpoint contains its vocabulary, its answers and how its image features were extracted; this image is treated
the same way. --save_picture draws the regions that the attention pooling weights most. The official features (bottom-up
attention) cannot be extracted here: to ask about your own images, train on features from datasets/extract_features.py.
"""

from engine.arguments import positive_int
from tasks.mmnas.flags import prediction_parser
from util.cli import run_cli
from util.files import refuse_input


def get_args_parser():
    """Flags of the prediction."""
    parser = prediction_parser(__doc__)
    parser.add_argument("--image", required=True, metavar="FILE", help="the picture")
    parser.add_argument("--question", required=True, help="the question, in words")
    parser.add_argument("--top", type=positive_int, default=5, help="answers to print")
    parser.add_argument("--save_picture", metavar="FILE", help="where to draw the regions with their attention")
    return parser


def main(argv=None):
    """Print the best answers; returns them as a list of (answer, probability)."""
    args = get_args_parser().parse_args(argv)
    if args.save_picture:
        refuse_input(args.save_picture, {"--image": args.image}, "--save_picture")
    import torch

    from datasets.regions.samples import read_sample
    from datasets.text.vocabulary import Vocabulary
    from datasets.vqa import MAX_TOKENS
    from datasets.vqa.answers import AnswerTable
    from tasks import vqa
    from tasks.mmnas import checkpoints
    from util.distributed import init_distributed

    checkpoint, device = checkpoints.read_own_checkpoint(vqa.TASK, args), init_distributed(args.device)
    known = checkpoint.metadata
    words = {"vocabulary": Vocabulary.from_dict(known["vocabulary"]), "max_tokens": MAX_TOKENS}
    options = {"flag": "--question", "extraction": known["extraction"], "device": device}
    batch = read_sample(args.image, args.question, **words, **options)
    net = checkpoints.load_net(vqa.TASK, args, checkpoint, None).to(device).eval()
    answers = AnswerTable.from_dict(known["answers"]).names
    with torch.no_grad():
        probabilities = net(batch)[0].sigmoid().cpu()
        looked_at = net.pooling_weights(batch)[1][0, :, 0].cpu()
    best = probabilities.topk(min(args.top, len(answers)))
    found = [(answers[i], float(p)) for p, i in zip(best.values, best.indices, strict=True)]
    for answer, probability in found:
        print(f"{100 * probability:5.1f} %  {answer}")
    if args.save_picture:
        from datasets.regions.drawing import draw_regions

        draw_regions(args.image, batch["boxes"][0].cpu().numpy(), looked_at.numpy(), args.save_picture)
        print(f"picture: {args.save_picture}")
    return found


if __name__ == "__main__":
    run_cli(main)
