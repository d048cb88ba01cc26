"""What runs leave, made small: arguments, logs and checkpoints to damage, and what reads them again."""

import argparse
import json
import types

import torch
from torch import nn

from tests.damaged_cases import Case, Checkpoint, _take, _vqa, json_case


def _arguments(script, *flags):
    """Case of a run's args.json, resumed by ``script``, a module."""

    def case(folder):
        from engine.arguments import parse_args

        place = folder / script.__name__
        place.mkdir(exist_ok=True)
        path = place / "args.json"
        path.write_text(json.dumps(vars(script.get_args_parser().parse_args(list(flags)))))

        def read(_):
            parser = script.get_args_parser()
            args = parse_args(parser, ["--resume", str(place)])
            _assert_usable(parser, args)

        return json_case(path, read)

    return case


def _assert_usable(parser, args):
    """Every value is one that its flag could have given."""
    for action in parser._actions:
        value = getattr(args, action.dest, None)
        if value is None or action.dest == "help":
            continue
        if isinstance(action, (argparse._StoreTrueAction, argparse.BooleanOptionalAction)):
            assert isinstance(value, bool), action.dest
        for one in value if isinstance(value, (list, tuple)) else [value]:
            assert action.choices is None or one in action.choices, action.dest
            if action.type is not None:
                assert action.type(str(one)) == one or str(action.type(str(one))) == str(one), action.dest


def log(folder):
    from engine.run import Run

    place = folder / "log"
    place.mkdir(exist_ok=True)
    path = place / "log.jsonl"
    records = [{"epoch": e, "dev": {"loss": 0.5, "f1": 0.1 * e}, "best": True, "seconds": 1.0} for e in range(3)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

    def read(_):
        run = Run(place, types.SimpleNamespace(seed=0, resume=None), torch.device("cpu"))
        run.plot()
        run.records()

    return Case(path=path, read=read, value=None)


def last_checkpoint(folder):
    """What resuming needs: a network, its updater and the selection."""
    from engine.run import Run
    from engine.training import BestEpoch
    from engine.updates import OptimizerStep
    from util.random_state import random_state
    from util.schedules import WarmupStepDecay

    place = folder / "last"
    place.mkdir(exist_ok=True)

    def objects():
        net = nn.Linear(2, 1)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.1)
        updater = OptimizerStep(net, nn.MSELoss(), optimizer, schedule=WarmupStepDecay(0.1, 5))
        return {"net": net, "weights": updater, "selection": BestEpoch("dev", "f1", "the best")}

    value = {
        "epoch": 2,
        "stopped": False,
        "device": "cpu",
        "seconds": 1.5,
        "objects": {name: one.state_dict() for name, one in objects().items()},
        "random": [random_state()],
    }
    torch.save(value, place / "last.pth")

    def read(_):
        run = Run(place, types.SimpleNamespace(seed=0, resume=None), torch.device("cpu"))
        kept = random_state()
        try:
            run.track(**objects())
        finally:
            from util.random_state import set_random_state

            set_random_state(kept)

    return Checkpoint(path=place / "last.pth", read=read, value=value)


def _vqa_network(folder):
    """Arguments, data and content of best.pth of a tiny training."""
    import train_vqa
    from datasets.vqa import open_vqa
    from models.mmnas.architecture import Architecture
    from tasks import vqa
    from tasks.mmnas.checkpoints import checkpoint_extras

    data = _vqa(folder / "network")
    args = train_vqa.get_args_parser().parse_args(["--data", str(data), "--hsize", "64", "--ARCH_PATH", "mcan"])
    architecture = Architecture((("self_att_64",),), (("guided_att_64",), ("feed_forward",)))
    opened = open_vqa(data, "train")
    metadata = vqa.metadata(opened) | {"extraction": {"extractor": {"backbone": "pixels", "feature_size": 53}}}
    net = vqa.build_net(args, metadata, architecture)
    extras = checkpoint_extras(vqa.TASK, args, metadata)
    return data, {"net": net.state_dict(), "genotype": architecture.to_dict(), "epoch": 0, **extras}


def best_checkpoint(folder):
    import train_vqa
    from metrics.vqa_accuracy import VQAAccuracy
    from tasks import vqa
    from tasks.mmnas import checkpoints, flags

    data, content = _vqa_network(folder)
    place = folder / "best"
    place.mkdir(exist_ok=True)
    torch.save(content, place / "best.pth")

    def read(_):
        argv = ["--RUN", "val", "--CKPT_PATH", str(place), "--data", str(data)]
        args = flags.parse_train(vqa.TASK, train_vqa.get_args_parser(), argv, train_vqa.DEMO)
        found = checkpoints.read_checkpoint(vqa.TASK, args)
        _, opened = vqa.open_eval_split(args, found.metadata)
        net = checkpoints.load_net(vqa.TASK, args, found, opened).eval()
        batch = _take(opened)
        net({name: value.float() if value.is_floating_point() else value for name, value in batch.items()})
        metric = VQAAccuracy(opened.answers.names, opened.question_ids, opened.ground_truth(), args.metric)
        metric.update(torch.zeros(3, len(metric.names)), batch)
        return metric.compute()

    return Checkpoint(path=place / "best.pth", read=read, value=content)


def asked_checkpoint(folder):
    from datasets.regions.extractors import extractor_from_meta
    from tasks import vqa
    from tasks.mmnas import checkpoints

    _, content = _vqa_network(folder)
    place = folder / "asked"
    place.mkdir(exist_ok=True)
    torch.save(content, place / "best.pth")

    def read(_):
        args = argparse.Namespace(CKPT_PATH=str(place), device="cpu")
        found = checkpoints.read_own_checkpoint(vqa.TASK, args)
        extractor_from_meta(found.metadata["extraction"], "cpu")
        checkpoints.load_net(vqa.TASK, args, found, None)

    return Checkpoint(path=place / "best.pth", read=read, value=content)


def published_checkpoint(folder):
    import train_vqa
    from models.mmnas.published import to_published
    from tasks import vqa
    from tasks.mmnas import checkpoints, flags

    data, content = _vqa_network(folder)
    place = folder / "published"
    place.mkdir(exist_ok=True)
    (place / "arch.json").write_text(json.dumps({"epoch0": content["genotype"]}))
    value = {"state_dict": to_published(content["net"]), "optimizer": {}, "lr_base": 1e-4, "epoch": 3}
    torch.save(value, place / "epoch3.pkl", _use_new_zipfile_serialization=False)

    def read(_):
        argv = ["--RUN", "val", "--CKPT_PATH", str(place / "epoch3.pkl"), "--data", str(data), "--hsize", "64"]
        argv += ["--ARCH_PATH", str(place / "arch.json")]
        args = flags.parse_train(vqa.TASK, train_vqa.get_args_parser(), argv, train_vqa.DEMO)
        found = checkpoints.read_checkpoint(vqa.TASK, args)
        _, opened = vqa.open_eval_split(args, found.metadata)
        checkpoints.load_net(vqa.TASK, args, found, opened)

    return Checkpoint(path=place / "epoch3.pkl", read=read, value=value)


def backbone(folder):
    from models.backbones.hcn import SkeletonHCN
    from models.backbones.weights import Source, load_backbone

    place = folder / "backbone.pth"
    net = SkeletonHCN(3, 0.0)
    value = {"state_dict": {f"module.{key}": one for key, one in net.state_dict().items()}, "epoch": 3}
    torch.save(value, place)
    read = lambda _: load_backbone(net, place, Source("--ske_cp", "python main.py"))  # noqa: E731
    return Checkpoint(path=place, read=read, value=value)


def extraction(folder):
    """meta.json of a feature extraction."""
    from datasets.extract_features import extract
    from datasets.regions.extractors import extractor_from_meta
    from datasets.regions.files import describe, extraction_of
    from datasets.regions.pixels import PixelRegions
    from tests.datasets.drawn_pictures import write_pictures

    images, out = folder / "pictures", folder / "extracted"
    if not out.exists():
        write_pictures(images, 2)
        extract(images, out, PixelRegions(), workers=1)

    def read(_):
        meta = extraction_of(out)
        describe(out, meta)
        extractor_from_meta(meta, "cpu")
        extract(images, out, PixelRegions(), workers=1)

    return json_case(out / "meta.json", read)


def scripts():
    import main_darts_found_ntu
    import main_darts_searchable_mmimdb
    import search_itm
    import train_vqa

    return {
        "arguments of a search": _arguments(main_darts_searchable_mmimdb),
        "arguments of a found network": _arguments(main_darts_found_ntu, "--fusion", "late"),
        "arguments of a supernet": _arguments(search_itm),
        "arguments of a training": _arguments(train_vqa, "--ARCH_PATH", "mcan"),
    }


RUNS = {
    **scripts(),
    "log": log,
    "last checkpoint": last_checkpoint,
    "best checkpoint": best_checkpoint,
    "checkpoint that is asked": asked_checkpoint,
    "published checkpoint": published_checkpoint,
    "backbone": backbone,
    "extraction": extraction,
}
