"""The recipes of MMNas, the same for every task: search, train an architecture, score and predict with a checkpoint."""

import logging

from tasks.mmnas import checkpoints, networks
from tasks.mmnas.flags import PROTOCOLS
from util.cli import UserError
from util.hashes import short_hash

logger = logging.getLogger("mdarts")


def search(task, args):
    """Search an architecture; returns the result that ``result.json`` holds."""
    data = task.open_search(args)
    if args.estimate:
        from tasks.mmnas.estimates import estimate_search

        return estimate_search(task, args, data)

    from engine.supervised import with_state

    from engine.run import start_run
    from engine.training import BestEpoch, fit
    from search.loops import InterleavedSearch
    from search.monitor import ArchitectureMonitor, finish_search

    with start_run(args, "search", args.out_dir) as run:
        networks.log_metric(task, args)
        net = task.build_net(args, task.tables(data["train"]), architecture=None).to(run.device)
        networks.set_padding(net, data)
        paths = networks.build_relaxation(args).attach(net)
        precision, scored = networks.build_precision(args, run.device), list(data)[-1]
        loaders = networks.build_loaders(args, run, {k: data[k] for k in ("train", "held out")}, drop_last=True)
        score = task.scorer(args, run, data[scored], precision, scored)
        steps = networks.log_step_counts(args, loaders["train"])
        weights = networks.build_weight_step(task, args, run, net, precision, steps, step_unused=args.unsampled == "drift")
        alphas = networks.build_alpha_step(task, args, run, net, precision, paths)
        turns = {"start": args.alpha_start, "every": args.alpha_every}
        search_epoch = InterleavedSearch(
            paths, weights, alphas, (loaders["train"], loaders["held out"]), run.device, args.epochs, **turns
        )
        before_epoch = task.before_epoch(args, run, net, data, precision)
        watch = ArchitectureMonitor(net, networks.collapse, args.patience, args.alpha_start)
        selection = BestEpoch("last", None, "architecture of the last epoch")
        tracked = {"net": net, "weights": weights, "alphas": alphas, "watch": watch, "selection": selection}
        networks.note_data(run, data)
        run.track(**tracked, paths=paths, **with_state(before_epoch=before_epoch))
        watch.reconsider(run)

        def one_epoch(epoch):
            record = before_epoch(epoch) if before_epoch else {}
            record |= search_epoch(epoch)
            paths.decide()
            record[scored] = score(net)
            looked = watch.record(epoch)
            networks.keep_architecture(run, watch.genotype, epoch)
            return {**record, **looked}

        def best_state():
            return {"net": net.state_dict(), "genotype": watch.genotype.to_dict()}

        fit(run, args.epochs, one_epoch, selection, best_state)
        return finish_search(run, selection, net, **networks.describe(task, args, data))


def train(task, args):
    """Train an architecture; with ``--RUN val`` or ``test`` only use one. Returns the result."""
    if args.RUN != "train":
        return check(task, args)
    data = task.open_training(args)
    if args.estimate:
        from tasks.mmnas.estimates import estimate_training

        return estimate_training(task, args, data)

    from engine.supervised import train_network

    from engine.run import start_run
    from engine.training import BestEpoch

    validation, score = task.VALIDATION
    if args.select_on == "val" and validation not in data:
        raise UserError(f"--select_on val: --SPLIT {args.SPLIT} trains on {validation}; use --select_on last")
    architecture = networks.find_architecture(args)
    with start_run(args, "train", args.out_dir) as run:
        networks.log_metric(task, args)
        tables = task.tables(data["train"])
        net = task.build_net(args, tables, architecture).to(run.device)
        networks.set_padding(net, data)
        networks.note_data(run, data)
        run.depends_on("architecture", short_hash(architecture.blocks()), "--ARCH_PATH")
        run.write("architecture.svg", architecture.to_svg())
        precision = networks.build_precision(args, run.device)
        loaders = networks.build_loaders(args, run, {"train": data["train"]}, drop_last=True)
        return train_network(
            run,
            net,
            networks.build_weight_step(task, args, run, net, precision, len(loaders["train"].batch_sampler)),
            loaders,
            task.training_metric(args, data["train"]),
            BestEpoch("last" if args.select_on == "last" else validation, score, PROTOCOLS[args.select_on]),
            scorers={k: task.scorer(args, run, data[k], precision, k) for k in data if k != "train"},
            watched=(validation,),
            before_epoch=task.before_epoch(args, run, net, data, precision),
            genotype=architecture.to_dict(),
            architecture=networks.architecture_facts(args),
            kept=checkpoints.kept(task, args, tables),
            **networks.describe(task, args, data),
        )


def check(task, args):
    """Score the network of ``--CKPT_PATH`` on val, or write its predictions for test; returns the result."""
    from engine.run import start_run

    checkpoint = checkpoints.read_checkpoint(task, args)
    split, data = task.open_eval_split(args, checkpoint.tables)
    with start_run(args, args.RUN, args.out_dir) as run:
        networks.log_metric(task, args)
        for name in task.KEPT:
            trained = checkpoint.arguments.get(name, getattr(args, name))
            if getattr(args, name) != trained:
                logger.info("--%s %s: the training had %s", name, getattr(args, name), trained)
        net = checkpoints.load_net(task, args, checkpoint, data).to(run.device)
        networks.set_padding(net, {split: data})
        scorer = task.scorer(args, run, data, networks.build_precision(args, run.device), split)
        scores = scorer(net)
        if data.has_answers:
            run.log_scores(split, scores)
        written = task.write_predictions(args, run, data, scorer)
        facts = {"predictions": written, **networks.describe(task, args, {split: data})}
        metrics = {split: scores} if data.has_answers else {}
        return run.write_result({"kind": args.RUN, "metrics": metrics, "parameters": net.count_parameters(), **facts})
