"""Clips that are in no data set are read as those of one."""

import shutil

import pytest
import torch

from datasets.ego.single import read_single as read_gesture
from datasets.ntu import open_ntu
from datasets.ntu.single import read_single as read_action
from datasets.prepare_ntu import prepare_store
from tests.datasets.ntu_files import write_raw
from util.cli import UserError

NAME = "S001C001P003R001A002"
OPTIONS = {"frame_sampling": "corrected", "channel_order": "rgb", "absent_person": "zero"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A video and a skeleton as they are recorded, with a tree and a store of them."""
    folder = tmp_path_factory.mktemp("single")
    videos, skeletons = write_raw(folder, {NAME: 30}, persons=1)
    prepare_store(videos, skeletons, folder / "store", size=32, workers=1)
    shutil.copytree(videos, folder / "tree" / "nturgb+d_rgb_256x256_30")
    shutil.copytree(skeletons, folder / "tree" / "nturgb+d_skeletons")
    return folder, *(next(place.iterdir()) for place in (videos, skeletons))


@pytest.mark.parametrize(("source", "size"), [("tree", 0), ("store", 32)])
def test_a_clip_is_read_as_one_of_the_tree_or_the_store(clip, source, size):
    folder, video, skeleton = clip
    want = open_ntu(folder / source, "test", **OPTIONS).read([0])
    found = read_action(video, skeleton, size=size, **OPTIONS)
    assert set(found) == {"rgb", "skeleton"}
    for name, value in found.items():
        assert value.dtype == want[name].dtype and torch.equal(value, want[name][0]), name
    assert torch.equal(read_action(None, skeleton, **OPTIONS)["skeleton"], found["skeleton"])


def test_what_is_no_clip_is_refused_in_one_line(clip, tmp_path):
    _, video, skeleton = clip
    with pytest.raises(UserError, match=r"--video no\.avi does not exist"):
        read_action("no.avi", None, **OPTIONS)
    with pytest.raises(UserError, match=r"is not a readable video|has no frames|; name a readable video"):
        read_action(skeleton, None, **OPTIONS)
    with pytest.raises(UserError, match=f"{video.name} "):
        read_action(None, video, **OPTIONS)
    sizes = {"sample_size": 16, "sample_duration": 8}
    with pytest.raises(UserError, match="--depth nowhere is not a folder"):
        read_gesture(None, "nowhere", **sizes)
    with pytest.raises(UserError, match="has no pictures"):
        read_gesture(tmp_path, None, **sizes)
    (tmp_path / "1.jpg").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"1\.jpg cannot be read .*; fetch it again"):
        read_gesture(tmp_path, None, **sizes)
