"""Training of a fixed network: passes of updates, selection of an epoch, and the selected network's result."""

import logging

from engine.training import evaluate, fit, train_one_epoch

logger = logging.getLogger("mdarts")


def train_network(
    run, net, updater, loaders, metric, selection, *, trained=("train",), genotype=None, kept=None, **facts
):
    """Train for ``run.args.epochs`` epochs, then score the selected epoch's network once.

    Args:
        run: The `Run`.
        net: The network.
        updater: `Updater` of its weights.
        loaders: Split name -> loader; ``train``, ``dev`` and ``test``.
        metric: See `train_one_epoch`; or a dict with one for each split.
        selection: The `Selection` that chooses the epoch.
        trained: Splits to update on, one pass each per epoch, in this order.
        genotype: The genotype's dict, for ``best.pth`` and the result.
        kept: Further entries of ``best.pth``.
        **facts: Further entries of the result.

    Returns:
        The result, as ``result.json`` holds it.
    """
    metrics = metric if isinstance(metric, dict) else dict.fromkeys(loaders, metric)

    def score(split):
        options = {"device": run.device, "precision": updater.precision, "description": split}
        return evaluate(net, loaders[split], updater.criterion, metrics[split], **options)

    def one_epoch(epoch):
        options = {"epoch": epoch, "device": run.device}
        record = {
            split: train_one_epoch(updater, loaders[split], metrics[split], description=split, **options)
            for split in trained
        }
        watched = {selection.split, *(["val"] if "val" in loaders else [])}
        record |= {split: score(split) for split in loaders if split in watched and split not in trained}
        return record

    def best_state():
        return {"net": net.state_dict(), "genotype": genotype, **(kept or {})}

    run.track(net=net.changing(), weights=updater, selection=selection)
    fit(run, run.args.epochs, one_epoch, selection, best_state)
    best = run.load_best()
    net.load_state_dict(best["net"])
    metrics = {split: score(split) for split in loaders if split not in trained}
    facts = {"trained_on": "+".join(trained), "genotype": genotype, **facts}
    return _report(run, net, selection, best["epoch"], metrics, trained, facts)


def _report(run, net, selection, epoch, metrics, trained, facts):
    for split, values in metrics.items():
        run.log_scores(split, values)
    logger.info("selected epoch %d: %s", epoch, selection.explanation)
    record = run.record_of(epoch)
    return run.write_result(
        {
            "kind": "training",
            "protocol": selection.explanation,
            "selected_epoch": epoch,
            "epochs": run.epoch,
            "metrics": metrics,
            "training_mode_metrics": {split: record[split] for split in trained},
            "parameters": net.count_parameters(),
            **facts,
        }
    )
