"""Training of a fixed network: passes of updates, selection of an epoch, and the selected network's result."""

import logging

from engine.training import Evaluation, fit, train_one_epoch

logger = logging.getLogger("mdarts")


def train_network(
    run,
    net,
    updater,
    loaders,
    metric,
    selection,
    /,
    *,
    scorers=None,
    watched=(),
    before_epoch=None,
    trained=("train",),
    genotype=None,
    kept=None,
    **facts,
):
    """Train for ``run.args.epochs`` epochs, then score the selected epoch's network; returns the result's dict.

    Args:
        run: The `Run`.
        net: The network.
        updater: `Updater` of its weights.
        loaders: Split name -> loader; ``train``, ``dev`` and ``test``.
        metric: See `train_one_epoch`.
        selection: The `Selection` that chooses the epoch.
        scorers: Split name -> function net -> scores; None: an `Evaluation` of every loader that is not trained on.
        watched: Splits to score in every epoch besides the one that ``selection`` asks for.
        before_epoch: Called with the number of each epoch before its updates; returns further entries of its record.
            What it has to keep over a resume it has as ``state_dict``.
        trained: Splits to update on, one pass each per epoch, in this order.
        genotype: The genotype's dict, for ``best.pth`` and the result.
        kept: Further entries of ``best.pth``.
        **facts: Further entries of the result.
    """
    if scorers is None:
        scorers = _evaluations(loaders, trained, updater, metric, run.device)

    def one_epoch(epoch):
        record = before_epoch(epoch) if before_epoch else {}
        options = {"epoch": epoch, "device": run.device}
        for split in trained:
            record[split] = train_one_epoch(updater, loaders[split], metric, description=split, **options)
        return record | {split: s(net) for split, s in scorers.items() if split in {selection.split, *watched}}

    run.track(net=net.changing(), weights=updater, selection=selection, **with_state(before_epoch=before_epoch))
    about = {"genotype": genotype, **(kept or {})}
    fit(run, run.args.epochs, one_epoch, selection, lambda: {"net": net.state_dict(), **about})
    return _score_selected(run, net, selection, scorers, trained, {"genotype": genotype, **facts})


def _evaluations(loaders, trained, updater, metric, device):
    options = {"device": device, "precision": updater.precision}
    return {
        split: Evaluation(loader, updater.criterion, metric, description=split, **options)
        for split, loader in loaders.items()
        if split not in trained
    }


def with_state(**objects):
    """Those of the named objects that have a ``state_dict``."""
    return {name: value for name, value in objects.items() if hasattr(value, "state_dict")}


def _score_selected(run, net, selection, scorers, trained, facts):
    """Score the selected epoch's network on what its epoch did not score, and write the result."""
    best = run.load_best()
    net.load_state_dict(best["net"])
    epoch = best["epoch"]
    record = run.record_of(epoch)
    metrics = {split: record[split] if split in record else scorer(net) for split, scorer in scorers.items()}
    for split, values in metrics.items():
        run.log_scores(split, values)
    logger.info("selected epoch %d: %s", epoch, selection.explanation)
    return run.write_result(
        {
            "kind": "training",
            "trained_on": "+".join(trained),
            "protocol": selection.explanation,
            "selected_epoch": epoch,
            "epochs": run.epoch,
            "metrics": metrics,
            "training_mode_metrics": {split: record[split] for split in trained},
            "parameters": net.count_parameters(),
            **facts,
        }
    )
