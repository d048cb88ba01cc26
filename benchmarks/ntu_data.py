"""Measure NTU samples per second and core: decoding AVI files as the originals do against the frame store, in one run.

  python benchmarks/ntu_data.py [--clips 12 --frames 90 --size 256]

The data are synthetic raw clips with texture, movement and camera noise, prepared both ways. One process reads training
crops on one processor core, with everything in the page cache. The originals' way: every frame of a clip is decoded, 24
of them are copied into a float array and normalised, and 8 of these are used; the skeleton's text is parsed each time.
Ours returns the 8 frames as bytes, which are normalised on the training device; the last row adds that step on the same
core.
"""

import datetime
import os
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from engine.arguments import RecipeParser, number, positive_int  # noqa: E402
from util.cli import UserError, run_cli  # noqa: E402

ORIGINAL = "originals' way: AVI and skeleton text"
RAW_SIZE = (640, 360)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 8


def get_args_parser():
    """Flags of the benchmark."""
    parser = RecipeParser(__doc__)
    parser.add_argument("--clips", type=positive_int, default=12, help="synthetic clips")
    parser.add_argument("--frames", type=number(int, 24), default=90, help="frames of a clip")
    parser.add_argument("--size", type=number(int, 16), default=256, help="pixels of a side after preparation")
    parser.add_argument("--quality", type=number(int, 1, 100), default=95, help="JPEG quality of the store")
    parser.add_argument("--seconds", type=number(float, 0.1), default=6.0, help="minimum time per row")
    parser.add_argument("--out", default="demo/benchmark", help="folder of the synthetic clips")
    return parser


def main(argv=None):
    """Measure all rows and print them as a table."""
    args = get_args_parser().parse_args(argv)
    folder = Path(args.out) / f"ntu-{args.clips}-{args.frames}-{args.size}-{args.quality}"
    prepare(args, folder)
    if hasattr(os, "sched_setaffinity"):
        # Otherwise decoders would start a thread per core, and the rows would not be comparable.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import torch

    from datasets.ntu import open_ntu

    torch.set_num_threads(1)
    tree, store = (open_ntu(folder / form, "train", augment=True) for form in (".", "store"))
    check_equal(folder, tree, store)
    rows = {
        ORIGINAL: rate(args, lambda indices, epoch: [original_sample(folder, tree, i, epoch) for i in indices], tree),
        "ours, AVI tree": rate(args, lambda indices, epoch: tree.read(indices, epoch=epoch), tree),
        "ours, frame store": rate(args, lambda indices, epoch: store.read(indices, epoch=epoch), store),
        "ours, frame store, normalised": rate(args, lambda indices, epoch: normalised(store, indices, epoch), store),
    }
    report(args, folder, rows)
    return rows


def report(args, folder, rows):
    """Print the table."""
    import av
    import cv2

    from engine.report import git_commit

    sizes = {
        name: sum(path.stat().st_size for path in folder.glob(pattern)) / args.clips
        for name, pattern in (("AVI", "nturgb+d_rgb_*/*.avi"), ("store", "store/*.bin"), ("text", "nturgb+d_sk*/*"))
    }
    print(
        f"\n{processor()}, one core; OpenCV {cv2.__version__}, PyAV {av.__version__}; {args.clips} synthetic clips of"
        f" {args.frames} frames, {args.size}x{args.size}; bytes of a sample: AVI {sizes['AVI']:,.0f}, skeleton text"
        f" {sizes['text']:,.0f}, store {sizes['store']:,.0f} (JPEG {args.quality}); {datetime.date.today()};"
        f" commit {git_commit()}\n"
    )
    print("| way of reading | samples per second | ms per sample | times faster |\n|---|---|---|---|")
    for row, value in rows.items():
        print(f"| {row} | {value:.1f} | {1000 / value:.1f} | {value / rows[ORIGINAL]:.1f} |")


def processor():
    """Name of the processor, or of its architecture if the system does not report it."""
    import platform

    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def rate(args, read, dataset):
    """Samples per second of ``read(indices, epoch)``, after a warm-up round."""
    done, epoch, started = 0, 0, None
    while started is None or time.perf_counter() - started < args.seconds:
        for begin in range(0, len(dataset), BATCH):
            indices = range(begin, min(begin + BATCH, len(dataset)))
            read(indices, epoch)
            done += len(indices)
        if started is None:
            done, started = 0, time.perf_counter()
        epoch += 1
    return done / (time.perf_counter() - started)


def normalised(store, indices, epoch):
    """A batch whose frames are normalised floats, as networks expect them."""
    import torch

    batch = store.read(indices, epoch=epoch)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    batch["rgb"] = batch["rgb"].float().div_(255).sub_(mean).div_(std)
    return batch


def original_sample(folder, tree, index, epoch):
    """One training sample in the originals' way: rgb float32 (8, H, W, 3), skeleton float32 (3, 32, 25, 2)."""
    import numpy as np
    import torch

    from datasets.ntu.video import Crop

    name = tree.ids[index]
    rgb = original_video(next(folder.glob("nturgb+d_rgb_*")) / f"{name}_rgb.avi")
    skeleton = original_skeleton(folder / "nturgb+d_skeletons" / f"{name}.skeleton")
    crop = Crop(0, epoch, index)
    rgb = rgb[slice(*crop.slots)]
    skeleton = skeleton[:, slice(*crop.skeleton(skeleton.shape[1]))]
    rgb = rgb[np.linspace(0, len(rgb) - 1, 8).astype(int)]
    flat = torch.from_numpy(skeleton).permute(0, 2, 3, 1).reshape(1, 150, -1, 1)
    flat = torch.nn.functional.interpolate(flat, (32, 1), mode="bilinear", align_corners=False)
    return torch.from_numpy(rgb), flat.reshape(3, 25, 2, 32).permute(0, 3, 1, 2)


def original_video(path):
    """Decode all frames in order; returns 24 of them, normalised: float32 (24, H, W, 3)."""
    import cv2
    import numpy as np

    video = cv2.VideoCapture(str(path))
    length = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
    wanted = set(np.linspace(0, length, 24).astype(int).tolist())
    rgb, slot, frame_number = None, 0, 0
    while True:
        done, frame = video.read()
        if not done:
            break
        if rgb is None:
            rgb = np.zeros((24, *frame.shape), dtype=np.float32)
        if frame_number in wanted:
            rgb[slot] = frame
            slot += 1
        frame_number += 1
    video.release()
    return ((rgb / 255.0 - np.float32(MEAN)) / np.float32(STD)).astype(np.float32)


def original_skeleton(path):
    """Parse the text line by line; returns float32 (3, T, 25, 2), with the origin subtracted."""
    import numpy as np

    with open(path, encoding="ascii") as file:
        total = int(file.readline())
        joints = np.zeros((3, total, 25, 2), dtype=np.float32)
        for frame in range(total):
            for person in range(int(file.readline())):
                file.readline()
                file.readline()
                for joint in range(25):
                    words = file.readline().split()
                    if person < 2:
                        joints[:, frame, joint, person] = [float(word) for word in words[:3]]
    joints = np.nan_to_num(joints)
    return joints - joints[:, :, 1:2, 0:1]


def check_equal(folder, tree, store):
    """Check that both ways give the same skeletons and, apart from compression, the same frames."""
    import torch

    rgb, skeleton = original_sample(folder, tree, 0, 0)
    ours = {"tree": normalised(tree, [0], 0), "store": normalised(store, [0], 0)}
    assert torch.allclose(ours["tree"]["rgb"][0], rgb, atol=1e-4)
    assert (ours["store"]["rgb"][0] - rgb).abs().mean() < 0.1
    for batch in ours.values():
        assert torch.allclose(batch["skeleton"][0], skeleton, atol=1e-4)


def prepare(args, folder):
    """Make the raw clips, the originals' folder of videos, and the store, unless they exist."""
    from datasets.prepare_ntu import prepare_store, prepare_tree
    from datasets.storage.workers import map_tasks
    from util.processors import usable_processors

    videos = (folder / "nturgb+d_rgb").resolve()
    # Ids of subject 1, which is in the train split.
    names = [f"S001C001P001R{clip:03d}A001" for clip in range(1, args.clips + 1)]
    tasks = [(name, args.frames, str(folder)) for name in names if not (videos / f"{name}_rgb.avi").exists()]
    for (name, *_), done in map_tasks(write_clip, tasks, usable_processors()):
        if not done:
            raise UserError(f"the process that made {name} died: out of memory? pass a smaller --frames")
    prepare_tree(videos, size=args.size)
    prepare_store(videos, folder / "nturgb+d_skeletons", folder / "store", size=args.size, quality=args.quality)


def write_clip(task):
    """Write a raw video and skeleton: a textured figure in front of a textured wall, with camera noise."""
    import av
    import cv2
    import numpy as np

    from datasets.demo import ntu_clips as scenes
    from util.files import atomic_path, write_text

    name, length, folder = task
    draw = np.random.default_rng([ord(letter) for letter in name])
    wall, cloth = texture(*RAW_SIZE, draw), texture(RAW_SIZE[0] // 6, RAW_SIZE[1] // 2, draw)
    height, width = cloth.shape[:2]
    path = Path(folder) / "nturgb+d_rgb" / f"{name}_rgb.avi"
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height = RAW_SIZE
        stream.pix_fmt, stream.bit_rate = "yuv420p", 20_000_000
        for moment in np.linspace(0, 2 * np.pi, length):
            picture = wall.copy()
            left = int(RAW_SIZE[0] * (0.4 + 0.2 * np.sin(moment)))
            lean = cv2.getRotationMatrix2D((width / 2, height), 15 * float(np.sin(3 * moment)), 1)
            moved = cv2.warpAffine(cloth, lean, (width, height), borderMode=cv2.BORDER_REFLECT)
            picture[-height:, left : left + width] = moved
            picture += draw.standard_normal(picture.shape, dtype=np.float32) * 6
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    figure = scenes.figure(0, length, scenes.draw_subject(draw), draw)
    write_text(
        Path(folder) / "nturgb+d_skeletons" / f"{name}.skeleton", scenes.skeleton_text([[one] for one in figure])
    )
    return True


def texture(width, height, draw):
    """Smooth random colours at many scales, float32 (height, width, 3)."""
    import cv2
    import numpy as np

    total = np.zeros((height, width, 3), dtype=np.float32)
    for scale in (2, 4, 8, 16, 32, 64):
        grid = (max(2, height // scale), max(2, width // scale))
        light = draw.standard_normal(grid).astype(np.float32)[..., None] + draw.standard_normal((*grid, 3)) * 0.3
        total += scale**0.8 * cv2.resize(light.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return ((total - total.mean()) / total.std() * 40 + 110).astype(np.float32)


if __name__ == "__main__":
    run_cli(main)
