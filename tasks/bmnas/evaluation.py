"""Tests a network that is already trained."""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from engine.run import start_run
from engine.training import evaluate
from engine.updates import Precision
from tasks.bmnas.data import describe, feature_loaders, open_splits
from tasks.bmnas.networks import load_found_net
from tasks.tested_training import facts_of_training

if TYPE_CHECKING:
    from tasks.task import FusionTask


def evaluate_found(task: FusionTask, args: Namespace) -> dict[str, Any]:
    """Score the test split with the network of ``--eval_exp_dir``; returns the result as in ``result.json``.

    Args:
        task: The `FusionTask`.
        args: Arguments of the found script.

    Raises:
        UserError: The run folder or the data do not fit.
    """
    data = open_splits(task, args, ("test",))
    with start_run(args, "test", args.out_dir) as run:
        net = load_found_net(task, args).to(run.device)
        precision, metric = Precision(args.amp, run.device), task.metric(args)
        # Storing the features would take longer than the single pass that reads them.
        loaders = feature_loaders(args, run, net, data, precision, mode="off")
        facts = {k: v for k, v in describe(task, run, data, net, metric).items() if k != "backbones_started_from"}
        facts = {**facts_of_training(args.eval_exp_dir), **facts}
        options: dict[str, Any] = {"device": run.device, "precision": precision, "description": "test"}
        scores = evaluate(net, loaders["test"], task.loss, metric, **options)
        run.log_scores("test", scores)
        return run.write_result(
            {"kind": "test", "metrics": {"test": scores}, "parameters": net.count_parameters(), **facts}
        )
