"""The recipes of BM-NAS, the same for every task: search, train what was found, test it, train one modality."""

from tasks.bmnas.data import build_loaders, describe, log_metric, note_data, open_splits
from tasks.bmnas.flags import PROTOCOLS, check_architecture, check_schedule
from util.cli import UserError
from util.hashes import short_hash


def search(task, args):
    """Search an architecture; returns the result that ``result.json`` holds."""
    check_architecture(args, task.NUM_FEATURES)
    check_schedule(args)
    train_split, dev_split = task.search_splits(args)
    data = open_splits(task, args, (train_split, dev_split))
    if args.estimate:
        from tasks.bmnas.estimates import estimate_search

        return estimate_search(task, args, data[train_split], data[dev_split])

    from engine.run import start_run
    from engine.training import Selection, fit
    from engine.updates import Precision
    from models.bmnas.collapse import collapse
    from search.loops import EpochwiseSearch
    from search.monitor import ArchitectureWatch, finish_search, save_architecture
    from tasks.bmnas.networks import build_alpha_updater, build_relaxation, build_search_net, build_updater

    with start_run(args, "search", args.out_dir) as run:
        log_metric(task, args)
        net = build_search_net(task, args).to(run.device)
        relaxation = build_relaxation(args).attach(net)
        precision, metric = Precision(args.amp, run.device), task.metric(args)
        loaders = build_loaders(args, run, net, data, precision)
        weights = build_updater(task, args, run, net, precision, len(data[train_split]))
        alphas = build_alpha_updater(task, args, run, net, precision, relaxation)
        scored = {"metric": metric, "second_forward": args.dev_metric == "second_forward"}
        one_search_epoch = EpochwiseSearch(
            relaxation, weights, alphas, (loaders[train_split], loaders[dev_split]), run.device, args.epochs, **scored
        )
        watch = ArchitectureWatch(net, collapse, args.patience)
        explanation = "genotype of the epoch with the best dev score during the search"
        selection = Selection("dev", metric.name, explanation, task.LATER_WINS_TIES)
        note_data(run, data)
        tracked = {"net": net.changing(), "weights": weights, "alphas": alphas, "watch": watch, "selection": selection}
        run.track(**tracked, **({"paths": relaxation} if relaxation.generator else {}))
        watch.reconsider(run)

        def one_epoch(epoch):
            record = {**one_search_epoch(epoch), **watch.look(epoch)}
            save_architecture(run, watch.genotype, epoch)
            return record

        def best_state():
            return {"net": net.state_dict(), "genotype": watch.genotype.to_dict()}

        fit(run, args.epochs, one_epoch, selection, best_state)
        return finish_search(run, selection, net, **describe(task, args, data, net))


def found(task, args):
    """Train a found network, or with ``--eval_exp_dir`` only test one; returns the result."""
    if args.eval_exp_dir:
        if args.estimate:
            raise UserError("--estimate is for trainings, --eval_exp_dir only tests; leave one of them out")
        return test(task, args)
    trained = task.TRAINED[args.train_on]
    held_out = ["dev"] if args.train_on == "train" else []
    data = open_splits(task, args, [*trained, *held_out, "test"])
    if args.estimate:
        from tasks.bmnas.estimates import estimate_found

        return estimate_found(task, args, data, trained)

    from engine.run import start_run
    from engine.supervised import train_network
    from engine.updates import Precision
    from tasks.bmnas.networks import build_found_net, build_updater, genotype_facts

    with start_run(args, "eval", args.out_dir) as run:
        log_metric(task, args)
        net, genotype = build_found_net(task, args, frozen=args.freeze_backbones)
        net.to(run.device)
        note_data(run, data)
        if genotype is not None:
            run.write("genotype.svg", genotype.to_svg())
            structure = {part: genotype.to_dict()[part] for part in ("edges", "steps", "concat")}
            run.depends_on("genotype", short_hash(structure), "--genotype or --search_exp_dir")
        precision, metric = Precision(args.amp, run.device), task.metric(args)
        loaders = build_loaders(args, run, net, data, precision)
        updater = build_updater(task, args, run, net, precision, len(data[trained[0]]))
        return train_network(
            run,
            net,
            updater,
            loaders,
            metric,
            _selection(task, args, metric),
            trained=trained,
            genotype=genotype.to_dict() if genotype else None,
            fusion=args.fusion,
            architecture=genotype_facts(args),
            **describe(task, args, data, net),
        )


def test(task, args):
    """Score the test split with the network of ``--eval_exp_dir``."""
    data = open_splits(task, args, ("test",))

    from engine.run import start_run
    from engine.training import evaluate
    from engine.updates import Precision
    from tasks.bmnas.networks import load_found_net

    with start_run(args, "test", args.out_dir) as run:
        log_metric(task, args)
        net = load_found_net(task, args).to(run.device)
        precision = Precision(args.amp, run.device)
        loaders = build_loaders(args, run, net, data, precision, mode="off")
        options = {"device": run.device, "precision": precision, "description": "test"}
        scores = evaluate(net, loaders["test"], task.criterion, task.metric(args), **options)
        run.log_scores("test", scores)
        facts = {k: v for k, v in describe(task, args, data, net).items() if k != "backbones_started_from"}
        return run.write_result(
            {"kind": "test", "metrics": {"test": scores}, "parameters": net.count_parameters(), **facts}
        )


def unimodal(task, args):
    """Train one backbone, and keep it as ``backbone.pth``; returns the result."""
    if args.modality is None:
        raise UserError(f"which network? pass {' or '.join(f'--modality {name}' for name in task.MODALITIES)}")
    check_schedule(args)
    data = open_splits(task, args, ("train", "dev", "test"))
    if args.estimate:
        from tasks.bmnas.estimates import estimate_unimodal

        return estimate_unimodal(task, args, data)

    from engine.run import start_run
    from engine.supervised import train_network
    from engine.updates import Precision
    from tasks.bmnas.networks import build_unimodal_net, build_updater
    from util.checkpoint import save_checkpoint

    with start_run(args, f"unimodal-{args.modality}", args.out_dir) as run:
        log_metric(task, args)
        net = build_unimodal_net(task, args).to(run.device)
        note_data(run, data)
        precision, metric = Precision(args.amp, run.device), task.metric(args)
        loaders = build_loaders(args, run, net, data, precision)
        updater = build_updater(task, args, run, net, precision, len(data["train"]))
        facts = {"modality": args.modality, **describe(task, args, data, net)}
        result = train_network(run, net, updater, loaders, metric, _selection(task, args, metric), **facts)
        if run.is_main:
            save_checkpoint(run.folder / "backbone.pth", net.backbone.state_dict())
        return result


def _selection(task, args, metric):
    from engine.training import Selection

    return Selection(args.select_on, metric.name, PROTOCOLS[args.select_on], task.LATER_WINS_TIES)
