"""Makes the tables of benchmarks/fusion_bench: every network of a small BM-NAS space, fully trained on real data.

  python benchmarks/make_fusion_bench.py                       # all sets; the same command continues after an interrupt
  python benchmarks/make_fusion_bench.py --sets htad --seeds 3 4 5 --genotypes 50 --against benchmarks/fusion_bench

Encoders are trained once per seed by main_unimodal_own.py and frozen; those of easy_vqa are pretrained (see
docs/own_data.md for how to get them), and their features are computed once. Each training is that of
main_darts_found_own.py with the flags that the table records; networks with the same operations are trained together
(models/bmnas/stacked.py). The script writes <out>/<set>.json. --against compares the new tables with existing ones.
"""

import dataclasses
import datetime
import os
import random
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import main_darts_found_own as found  # noqa: E402
import main_unimodal_own as unimodal  # noqa: E402
from datasets.own import open_own, read_manifest  # noqa: E402
from datasets.prepare_own import main as prepare_own  # noqa: E402
from engine.arguments import RecipeParser, non_negative_int, positive_int  # noqa: E402
from util.cli import UserError, run_cli  # noqa: E402
from util.files import json_text, read_json, write_text  # noqa: E402
from util.hashes import short_hash  # noqa: E402
from util.locks import make_once  # noqa: E402

FORMAT = "fusion bench"


@dataclasses.dataclass(frozen=True)
class BenchSet:
    """The data of a table, and the features that its space fuses.

    Attributes:
        source: Flags of datasets/prepare_own.py.
        taps: ``--taps`` of the encoders: 0 is the vector itself, 2 the second and last hidden layer.
        pretrained: ``--encoder`` of pretrained encoders; the means of their features over positions are the data of all
            trainings. {}: encoders are trained.
    """

    source: tuple[str, ...]
    taps: dict[str, str]
    pretrained: dict[str, str] = dataclasses.field(default_factory=dict)


SETS = {
    "htad": BenchSet(("--embedded", "htad"), {"audio": "0,2", "accelerometer": "0,2"}),
    "digits": BenchSet(("--embedded", "digits", "--views", "fou,zer,mor"), {"fou": "0,2", "zer": "2", "mor": "2"}),
    "easy_vqa": BenchSet(
        ("--embedded", "easy-vqa", "--questions", "1", "--pictures", "1200"),
        {"image": "2,3,4", "question": "6"},
        {"image": "package:efficientnet-lite0", "question": "package:all-MiniLM-L6-v2"},
    ),
}
# More test samples than by default, since differences are small.
SPLIT = ("--split", "0.5,0.25,0.25")
# Flags of all trainings: space, sizes, optimiser. One-shot searches in the same space use them too.
SPACE = ("--steps", "2", "--multiplier", "2", "--node_steps", "1", "--node_multiplier", "1", "--C", "32")
TRAINING = ("--epochs", "30", "--batchsize", "64", "--drpt", "0.2", "--eta_max", "3e-3", "--weight_decay", "1e-4")
SHARED = (*SPACE, *TRAINING, "--backbone_batch", "64", "--device", "cpu")
# Largest number of networks in one stack.
STACK = 30


def get_args_parser():
    """Flags of the script."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--sets", nargs="+", choices=tuple(SETS), default=list(SETS), help="tables to make")
    parser.add_argument("--seeds", type=non_negative_int, nargs="+", default=[0, 1, 2], help="one training per seed")
    parser.add_argument("--genotypes", type=positive_int, metavar="N", help="only N, drawn with seed 0 (default: all)")
    parser.add_argument("--epochs", type=positive_int, default=30, help="epochs of every training")
    parser.add_argument("--threads", type=positive_int, default=1, help="threads of this process")
    parser.add_argument("--out", default="demo/fusion_bench", metavar="DIR", help="folder of tables, data and encoders")
    parser.add_argument("--against", metavar="DIR", help="folder of existing tables to compare with")
    return parser


def main(argv=None):
    """Make the tables; returns set -> table."""
    args = get_args_parser().parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    tables = {}
    for name in args.sets:
        tables[name] = make_table(name, args)
        write_text(Path(args.out) / f"{name}.json", json_text(tables[name], separators=(",", ":")) + "\n")
        print(f"wrote {Path(args.out) / name}.json", flush=True)
        if args.against:
            print(agreement(tables[name], read_json(Path(args.against) / f"{name}.json")))
    return tables


def prepare(name, out):
    """Prepare the data of a set if they are missing; returns the folder that trainings read."""
    folder, features = (Path(out) / name / part for part in ("dataset", "features"))
    pretrained = SETS[name].pretrained
    if pretrained and (features / "own.json").exists():
        return features
    make_once(folder / "own.json", lambda: prepare_own([*SETS[name].source, *SPLIT, "--out", str(folder)]))
    if pretrained:
        make_once(features / "own.json", lambda: write_features(SETS[name], folder, features))
    return features if pretrained else folder


def write_features(bench_set, folder, out):
    """Compute features of pretrained encoders for the data in ``folder``; write them to ``out`` as prepared data."""
    from datasets.own.writing import write_samples
    from tasks import own
    from tasks.bmnas.data import open_splits
    from tasks.own_features import all_features

    given = {"encoder": bench_set.pretrained, "taps": bench_set.taps}
    flags = [part for flag, values in given.items() for part in (f"--{flag}", *map("=".join, values.items()))]
    flags += ["--datadir", str(folder), "--L", "1", "--fusion", "late", "--device", "cpu"]
    task, args = own.parse_found(found.get_args_parser(), flags, own.DEMO)
    splits, shapes = {}, {}
    for split, data in open_splits(task, args, ("train", "dev", "test")).items():
        found_features = all_features(task, args, data)
        # Vectors, so that L is 1.
        features = {name: [layer.reshape(len(data), -1) for layer in one] for name, one in found_features.items()}
        shapes = {name: tuple(one.shape[1:] for one in layers) for name, layers in features.items()}
        labels, ids = data.read(range(len(data)), only=())["label"].tolist(), data.ids
        splits[split] = [
            (ids[row], labels[row], {name: [one[row] for one in layers] for name, layers in features.items()})
            for row in range(len(data))
        ]
    facts, manifest = read_json(folder / "own.json"), read_manifest(folder)
    kept = {key: facts[key] for key in ("name", "description", "synthetic", "license", "citation", "package")}
    write_samples(out, splits, manifest.label, {name: ("layers", size) for name, size in shapes.items()}, kept)


def fusion_flags(name, out, seed, epochs=30):
    """Flags of a search or training on a set with one seed; trains the encoders if they are missing."""
    folder, base = prepare(name, out), Path(out) / name / "encoders" / f"{seed}-{epochs}"
    flags = [*SHARED, "--datadir", folder, "--epochs", epochs, "--seed", seed]
    if SETS[name].pretrained:
        return list(map(str, flags))
    weights = []
    for modality, taps in SETS[name].taps.items():
        runs = sorted(base.glob(f"unimodal-{modality}-*/result.json"))
        if not runs:
            own = ["--datadir", folder, "--modality", modality, "--taps", f"{modality}={taps}", "--out_dir", base]
            shared = [*TRAINING, "--epochs", epochs, "--seed", seed, "--device", "cpu"]
            runs = [Path(unimodal.main(list(map(str, [*own, *shared])))["folder"]) / "result.json"]
        weights.append(f"{modality}={runs[0].parent}")
    return list(map(str, [*flags, "--encoder_weights", *weights]))


def open_training(name, out, seed, epochs=30):
    """(Task, arguments, split -> loader) for the trainings on a set with one seed."""
    from engine.loading import build_loader, total_batch
    from engine.training import torch
    from tasks import own
    from tasks.bmnas.data import open_splits

    flags = [*fusion_flags(name, out, seed, epochs), "--genotype", "random"]
    task, args = own.parse_found(found.get_args_parser(), flags, own.DEMO)
    options = {"shuffle": True, "seed": seed, "num_workers": 0, "device": torch.device("cpu")}
    data = open_splits(task, args, ("train", "dev", "test"))
    return task, args, {split: build_loader(own_data, total_batch(args), **options) for split, own_data in data.items()}


def space_of(task, args):
    """(The `FusionSpace` of a set, list of all its genotypes.)"""
    from models.bmnas.equivalence import all_genotypes
    from tasks.bmnas.trainings import fusion_space

    space = fusion_space(task, args)
    return space, all_genotypes(space)


def make_table(name, args):
    """Train all networks of a set with all seeds; trainings that are already in its folder are reused."""
    records, genotypes = {}, []
    for seed in args.seeds:
        task, own_args, loaders = open_training(name, args.out, seed, args.epochs)
        space, genotypes = space_of(task, own_args)
        if args.genotypes:
            order = random.Random(0).sample(range(len(genotypes)), min(args.genotypes, len(genotypes)))
            genotypes = [genotypes[index] for index in sorted(order)]
        folder = Path(args.out) / name / f"trainings-{_recipe_hash(name, args, genotypes)}"
        started, made = time.perf_counter(), 0
        for number, stack in enumerate(stacks(genotypes)):
            file = folder / f"{seed}-{number}.json"
            if not file.exists():
                own = train_and_score(task, own_args, loaders, stack)
                write_text(file, json_text(own, separators=(",", ":")) + "\n")
                made += len(stack)
                rate = made / (time.perf_counter() - started) * 3600
                print(f"{name}, seed {seed}: {made} trainings, {rate:,.0f} per hour", flush=True)
            for genotype, record in zip(stack, read_json(file), strict=True):
                records.setdefault(genotype, {})[str(seed)] = record
    sizes = {split: len(loader.dataset) for split, loader in loaders.items()}
    about = {"seeds": args.seeds, "epochs": args.epochs, "samples": sizes, "features": list(space.inputs)}
    entries = [_entry(genotype, records[genotype]) for genotype in genotypes]
    return {**describe(name, args, own_args), **about, "all": not args.genotypes, "genotypes": entries}


def _recipe_hash(name, args, genotypes):
    return short_hash(dataclasses.asdict(SETS[name]), SPLIT, SHARED, args.epochs, [str(g) for g in genotypes], STACK)


def _entry(genotype, by_seed):
    """A row of the table: facts that do not depend on the seed, and the records of each seed."""
    value = genotype.to_dict()
    fixed = ("parameters", "flops")
    first = next(iter(by_seed.values()))
    runs = {seed: {key: v for key, v in record.items() if key not in fixed} for seed, record in by_seed.items()}
    kept = {part: value[part] for part in ("edges", "steps", "concat")}
    return {"genotype": kept, **{key: first[key] for key in fixed}, "runs": runs}


def stacks(genotypes):
    """Split the genotypes into lists with equal operations and inner edges, of at most `STACK` each."""
    groups = {}
    for genotype in genotypes:
        groups.setdefault(genotype.steps, []).append(genotype)
    return [group[start : start + STACK] for group in groups.values() for start in range(0, len(group), STACK)]


def train_and_score(task, args, loaders, genotypes):
    """Records of one stack, a dict per genotype: zero-cost scores, size, and the outcome of the training."""
    from models.bmnas.cost import fusion_counts
    from search.zero_cost import gradient_norm, naswot, synflow
    from tasks.bmnas.stacked_trainings import initial_nets, train_stacked

    nets = initial_nets(task, args, genotypes)
    loaders["train"].batch_sampler.epoch = 0
    batch = next(iter(loaders["train"]))
    before = []
    for net in nets:
        for backbone in net.backbones.values():
            backbone.requires_grad_(False)
        started = time.perf_counter()
        scores = {
            "gradient_norm": gradient_norm(net, task.loss, batch),
            "synflow": synflow(net, batch, tuple(net.backbones)),
            "naswot": naswot(net, batch),
        }
        scores = {key: round(value, 5) for key, value in scores.items()}
        seconds = round(time.perf_counter() - started, 4)
        before.append({**fusion_counts(net), "zero_cost": scores, "zero_cost_seconds": seconds})
    return [{**own, **after} for own, after in zip(before, train_stacked(nets, args, loaders), strict=True)]


def describe(name, args, own_args):
    """The data sheet of a table: data, recipe, versions."""
    import torch

    from engine.report import environment

    facts, folder = read_json(Path(own_args.datadir) / "own.json"), own_args.datadir
    manifest = read_manifest(folder)
    recipe = " ".join((*SHARED, "--epochs", str(args.epochs)))
    return {
        "format": FORMAT,
        "version": 1,
        "set": name,
        "data": {key: facts[key] for key in ("description", "synthetic", "license", "citation", "package")},
        "data_identity": identity(name, folder),
        "label": {"name": manifest.label.name, "classes": list(manifest.label.classes)},
        "prepared_by": " ".join(("datasets/prepare_own.py", *SETS[name].source, *SPLIT)),
        "recipe": f"main_darts_found_own.py {recipe}",
        "taps": SETS[name].taps,
        **({"encoders": SETS[name].pretrained} if SETS[name].pretrained else {}),
        "made": {
            "date": datetime.date.today().isoformat(),
            "processors": os.cpu_count(),
            "threads": args.threads,
            **environment(torch.device("cpu")),
        },
    }


def identity(name, folder):
    """Split -> hash of its content. If the data are features, which every processor rounds differently, only ids and
    labels are hashed.
    """
    if not SETS[name].pretrained:
        return read_json(Path(folder) / "own.json")["fingerprints"]
    splits = {split: open_own(folder, split) for split in ("train", "dev", "test")}
    labels = {split: data.read(range(len(data)), only=())["label"].tolist() for split, data in splits.items()}
    return {split: short_hash(data.ids, labels[split]) for split, data in splits.items()}


def agreement(new, old):
    """A sentence about how well a new table agrees with an older one: means and spreads of test accuracies."""
    if new["set"] != old["set"] or new["data_identity"] != old["data_identity"]:
        raise UserError("--against: the tables have different data; make the new one with the same --sets")
    from models.genotypes import FusionGenotype

    known = {FusionGenotype.from_dict(row["genotype"]): row for row in old["genotypes"]}
    differences, spreads = [], []
    for row in new["genotypes"]:
        ours, theirs = (
            [run["test"] / table["samples"]["test"] for run in entry["runs"].values()]
            for table, entry in ((new, row), (old, known[FusionGenotype.from_dict(row["genotype"])]))
        )
        differences.append(statistics.mean(ours) - statistics.mean(theirs))
        variances = [statistics.variance(own) / len(own) for own in (ours, theirs) if len(own) > 1]
        spreads.append(sum(variances) ** 0.5)
    mean, rms = statistics.mean(differences), statistics.mean(d * d for d in differences) ** 0.5
    expected = statistics.mean(s * s for s in spreads) ** 0.5
    near = sum(abs(d) <= 2 * s for d, s in zip(differences, spreads, strict=True))
    return (
        f"{new['set']}, {len(differences)} genotypes: new - old test accuracy {100 * mean:+.2f} points on average; "
        f"root mean square {100 * rms:.2f}, expected from the spread of the seeds {100 * expected:.2f}; {near} of "
        f"{len(differences)} genotypes differ by at most twice their own spread"
    )


if __name__ == "__main__":
    run_cli(main)
