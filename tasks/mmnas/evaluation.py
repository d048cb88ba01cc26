"""Scores a trained network on val, or writes its predictions for test."""

from __future__ import annotations

import logging
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from engine.run import start_run
from tasks.mmnas import checkpoints
from tasks.mmnas.data import check_data, describe
from tasks.mmnas.networks import build_precision, set_padding
from tasks.tested_training import facts_of_training

if TYPE_CHECKING:
    from tasks.task import AttentionTask

logger = logging.getLogger("mdarts")


def evaluate_checkpoint(task: AttentionTask, args: Namespace) -> dict[str, Any]:
    """Score the network of ``--CKPT_PATH`` on val, or write its predictions for test; returns the result.

    Args:
        task: The `AttentionTask`.
        args: Arguments of the training script, with ``--RUN val`` or ``--RUN test``.

    Raises:
        UserError: Checkpoint and data do not fit.
    """
    checkpoint = checkpoints.read_checkpoint(task, args)
    split, data = task.open_eval_split(args, checkpoint.metadata)
    check_data(task, {split: data})
    with start_run(args, args.RUN, args.out_dir) as run:
        for name in task.checkpoint_args:
            trained = checkpoint.arguments.get(name, getattr(args, name))
            if getattr(args, name) != trained:
                logger.info("--%s %s: the training had %s", name, getattr(args, name), trained)
        if args.small_dataset:
            logger.info("--small_dataset: only the first samples of %s are scored (--no-small_dataset: all)", split)
        net = checkpoints.load_net(task, args, checkpoint, data).to(run.device)
        set_padding(net, {split: data})
        facts = {**facts_of_training(checkpoint.path.parent), **describe(task, run, {split: data})}
        scorer = task.build_scorer(args, run, data, build_precision(args, run.device), split)
        scores = scorer(net)
        if data.has_answers:
            run.log_scores(split, scores)
        written = task.write_predictions(args, run, data, scorer)
        facts |= {"metrics": {split: scores} if data.has_answers else {}, "parameters": net.count_parameters()}
        return run.write_result({"kind": args.RUN, "predictions": written, **facts})
