"""What tasks share whose samples belong to one class each and whose features have a time axis (NTU, EgoGesture)."""

TRAINED = {"train": ("train",), "train+dev": ("train+dev",)}
LATER_WINS_TIES = True
MULTILABEL = False


def criterion(outputs, batch):
    """Cross entropy of the logits."""
    from models.losses import cross_entropy

    return cross_entropy(outputs, batch)


def metric(args):
    """Accuracy over the epoch."""
    from metrics.classification import Accuracy

    return Accuracy()


def pool(args):
    """The reshape layers' pool: over time only, to ``--L`` steps."""
    return args.L, 1
