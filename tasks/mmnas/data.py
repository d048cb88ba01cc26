"""Data of every MMNas task: the two parts of a search, what a checkpoint fixes, demo data made when missing."""

from pathlib import Path

# Share of the training data, from its beginning, on which weights are trained in the search.
WEIGHT_SHARE = 0.8
SEARCH_PARTS = {"train": ("first", WEIGHT_SHARE), "held out": ("last", 1 - WEIGHT_SHARE)}


def common_tables(data):
    """What a checkpoint of any task carries: words, feature width and how features were made; plain data."""
    return {
        "vocabulary": data.vocabulary.to_dict(),
        "feature_size": data.feature_size,
        "extraction": data.extraction,
    }


def known(tables):
    """Arguments of a data set that the ``tables`` of a checkpoint (or None) fix."""
    from datasets.text.vocabulary import Vocabulary

    if tables is None:
        return {}
    return {"vocabulary": Vocabulary.from_dict(tables["vocabulary"]), "feature_size": tables["feature_size"]}


def make_once(args, sign, make):
    """Call ``make()`` unless the file ``sign`` is in ``--data``: once, whatever the number of processes.

    Args:
        args: Arguments with ``data`` and ``device``.
        sign: Name of a file in ``--data`` that is written last.
        make: Makes the data.
    """
    from util.distributed import barrier, init_distributed, rank

    init_distributed(args.device)
    if rank() == 0 and not (Path(args.data) / sign).exists():
        make()
    barrier()
