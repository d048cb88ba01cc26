"""The recipes of MMNas, the same for every task: search, train an architecture, score and predict with a checkpoint."""

import logging

from tasks.supernet import networks
from tasks.supernet.flags import PROTOCOLS
from util.cli import UserError

logger = logging.getLogger("mdarts")


def search(task, args):
    """Search an architecture; returns the result that ``result.json`` holds."""
    train, held_out = task.open_search(args)
    if args.estimate:
        from tasks.supernet.estimates import estimate_search

        return estimate_search(task, args, train, held_out)

    from engine.run import start_run
    from engine.search import ArchitectureWatch, Interleaved, finish_search, save_architecture
    from engine.training import Selection, evaluate, fit
    from engine.updates import Precision

    with start_run(args, "search", args.out_dir) as run:
        tables = task.tables(train)
        net = task.build_net(args, tables, architecture=None).to(run.device)
        paths, backbone = networks.PathGenerator(args.seed), net.backbone
        precision, metric = Precision(args.amp, run.device), task.metric(args, held_out)
        loaders = networks.build_loaders(args, run, {"train": train, "held out": held_out}, drop_last=True)
        scored = networks.build_loaders(args, run, {"held out": held_out}, shuffle=False)["held out"]
        steps = len(loaders["train"].batch_sampler)
        weights = networks.build_updater(task, args, run, net, precision, steps, idle_move=args.unsampled == "drift")
        alphas = networks.build_alpha_updater(task, args, run, net, precision)
        turns = {"start": args.alpha_start, "every": args.alpha_every, "mode": args.alpha_mode}
        search_epoch = Interleaved(
            backbone, weights, alphas, loaders["train"], loaders["held out"], run.device, paths.generator, **turns
        )
        watch = ArchitectureWatch(net, networks.collapse, args.patience)
        selection = Selection("last", metric.name, "architecture of the last epoch")
        run.track(net=net, weights=weights, alphas=alphas, watch=watch, selection=selection, paths=paths)

        def one_epoch(epoch):
            record = search_epoch(epoch)
            backbone.use_chosen()
            options = {"device": run.device, "precision": precision, "description": "held out"}
            record["held out"] = evaluate(net, scored, task.criterion, metric, **options)
            looked = watch.look()
            # Before the architecture steps begin, standing still says nothing.
            looked["stop"] = looked["stop"] and epoch >= args.alpha_start + args.patience
            save_architecture(run, watch.genotype, epoch)
            networks.save_history(run, watch.genotype, epoch)
            return {**record, **looked}

        def best_state():
            return {"net": net.state_dict(), "genotype": watch.genotype.to_dict()}

        fit(run, args.epochs, one_epoch, selection, best_state)
        return finish_search(run, selection, net, **networks.describe(args, {"train": train, "held out": held_out}))


def train(task, args):
    """Train an architecture; with ``--RUN val`` or ``test`` only use one. Returns the result."""
    if args.RUN != "train":
        return check(task, args)
    data = task.open_training(args)
    if args.estimate:
        from tasks.supernet.estimates import estimate_training

        return estimate_training(task, args, data)

    from engine.run import start_run
    from engine.supervised import train_network
    from engine.training import Selection
    from engine.updates import Precision
    from metrics.classification import SoftAccuracy

    if args.select_on == "val" and "val" not in data:
        raise UserError(f"--select_on val: --SPLIT {args.SPLIT} trains on val; use --select_on last")
    architecture = networks.find_architecture(args)
    with start_run(args, "train", args.out_dir) as run:
        tables = task.tables(data["train"])
        net = task.build_net(args, tables, architecture).to(run.device)
        run.write("architecture.svg", architecture.to_svg())
        precision = Precision(args.amp, run.device)
        metrics = {split: task.metric(args, dataset) for split, dataset in data.items() if split != "train"}
        metrics["train"] = SoftAccuracy()
        loaders = {
            **networks.build_loaders(args, run, {"train": data["train"]}, drop_last=True),
            **networks.build_loaders(args, run, {k: v for k, v in data.items() if k != "train"}, shuffle=False),
        }
        updater = networks.build_updater(task, args, run, net, precision, len(loaders["train"].batch_sampler))
        return train_network(
            run,
            net,
            updater,
            loaders,
            metrics,
            Selection(args.select_on, SoftAccuracy.name, PROTOCOLS[args.select_on]),
            genotype=architecture.to_dict(),
            kept=networks.kept(args, tables),
            **networks.describe(args, data),
        )


def check(task, args):
    """Score the network of ``--CKPT_PATH`` on val, or write its predictions for test; returns the result."""
    from engine.run import start_run
    from engine.training import evaluate
    from engine.updates import Precision

    checkpoint = networks.read_checkpoint(args)
    data = task.open_checked(args, checkpoint.tables)
    with start_run(args, args.RUN, args.out_dir) as run:
        net = networks.load_net(task, args, checkpoint, data).to(run.device)
        metric, precision = task.metric(args, data), Precision(args.amp, run.device)
        loader = networks.build_loaders(args, run, {args.RUN: data}, shuffle=False)[args.RUN]
        options = {"device": run.device, "precision": precision, "description": args.RUN}
        scores = evaluate(net, loader, task.criterion, metric, **options)
        written = task.write_predictions(args, run, data, metric)
        if data.has_answers:
            run.log_scores(args.RUN, scores)
        facts = {"predictions": written, **networks.describe(args, {args.RUN: data})}
        metrics = {args.RUN: scores} if data.has_answers else {}
        return run.write_result({"kind": args.RUN, "metrics": metrics, "parameters": net.count_parameters(), **facts})
