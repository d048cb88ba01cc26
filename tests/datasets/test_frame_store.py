"""The frame store gives back what was put in, survives kills, and names what is damaged."""

import json
import os
import pickle
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from datasets.storage.blobs import BlobWriter, Schema
from datasets.storage.frames import FrameStore, FrameStoreWriter
from util.cli import UserError

ROOT = Path(__file__).resolve().parents[2]
CLIPS = {"b": (50, [0, 3, 49]), "c": (2, [1]), "a": (7, [0, 6]), "empty": (9, [])}


def image(name, number):
    return f"{name}{number}".encode() * (number + 1)


def fill(folder, clips=CLIPS, finish=True):
    with FrameStoreWriter(folder, {"size": 32}) as writer:
        for name, (length, numbers) in clips.items():
            writer.add(name, length, numbers, [image(name, number) for number in numbers])
        if finish:
            writer.finish({"kind": "test"})
    return folder


def check(folder, clips=CLIPS):
    store = FrameStore(folder, "make it")
    assert store.names == sorted(clips)
    for name, (length, numbers) in clips.items():
        row = store.row(name)
        assert store.length(row) == length
        assert store.numbers(row).tolist() == numbers
        assert [store.jpeg(row, at).tobytes() for at in range(len(numbers))] == [image(name, n) for n in numbers]
    store.verify()
    return store


def error_of(action):
    with pytest.raises(UserError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_goes_in_comes_out_sorted(tmp_path):
    store = check(fill(tmp_path))
    assert store.meta["kind"] == "test"
    assert (len(store), store.meta["clips"], store.meta["frames"]) == (4, 4, 6)
    assert store.jpeg(store.row("a"), 0).dtype == np.uint8
    assert store.crc(store.row("a")) == zlib.crc32(image("a", 0) + image("a", 6))
    with pytest.raises(KeyError):
        store.row("d")


def test_pickle_is_small_and_reads_on(tmp_path):
    store = check(
        fill(tmp_path, {f"clip{i:04d}": (5, [0, 4]) for i in range(300)}),
        {f"clip{i:04d}": (5, [0, 4]) for i in range(300)},
    )
    packed = pickle.dumps(store)
    assert len(packed) < 1000
    again = pickle.loads(packed)
    assert again.jpeg(7, 1).tobytes() == image("clip0007", 4)
    assert again.names == store.names


def test_fingerprint_follows_content_not_order_of_writing(tmp_path):
    one = FrameStore(fill(tmp_path / "one"), "").fingerprint()
    turned = dict(reversed(CLIPS.items()))
    assert FrameStore(fill(tmp_path / "two", turned), "").fingerprint() == one
    other = FrameStore(fill(tmp_path / "three", CLIPS | {"a": (8, [0, 6])}), "")
    assert other.fingerprint() != one
    rows = [other.row("b"), other.row("c")]
    assert other.fingerprint(rows) == FrameStore(tmp_path / "one", "").fingerprint(rows)


def test_unfinished_store_goes_on_after_torn_writes(tmp_path):
    fill(tmp_path, {name: CLIPS[name] for name in ("b", "c")}, finish=False)
    assert "not finished" in error_of(lambda: FrameStore(tmp_path, "make it"))
    with open(tmp_path / "frames.bin", "ab") as file:
        file.write(b"half a clip")
    with open(tmp_path / "journal.jsonl", "ab") as file:
        file.write(b'{"name": "a", "off')
    with FrameStoreWriter(tmp_path, {"size": 32}) as writer:
        assert writer.done == {"b", "c"}
    fill(tmp_path, {name: CLIPS[name] for name in ("a", "empty")})
    check(tmp_path)


def test_data_that_never_reached_the_disk_is_done_again(tmp_path):
    fill(tmp_path, {name: CLIPS[name] for name in ("b", "c", "a")}, finish=False)
    path = tmp_path / "frames.bin"
    content = bytearray(path.read_bytes())
    content[-1] ^= 255
    path.write_bytes(content)
    with FrameStoreWriter(tmp_path, {"size": 32}) as writer:
        assert writer.done == {"b", "c"}
    path.write_bytes(path.read_bytes()[:-1])
    with FrameStoreWriter(tmp_path, {"size": 32}) as writer:
        assert writer.done == {"b"}
    fill(tmp_path, {name: CLIPS[name] for name in ("a", "c", "empty")})
    check(tmp_path)


KILLED = """
import sys
from datasets.storage.frames import FrameStoreWriter
with FrameStoreWriter(sys.argv[1], {"size": 32}) as writer:
    for number in range(10**6):
        name = f"clip{number:06d}"
        if name not in writer.done:
            writer.add(name, 5, [0, 4], [name.encode() * 99, b"end" * 999])
        if number == 20:
            print("going", flush=True)
"""


def test_kill_loses_nothing_that_the_journal_knows(tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"going\n"
        os.kill(process.pid, signal.SIGKILL)
    with FrameStoreWriter(tmp_path, {"size": 32}) as writer:
        done = sorted(writer.done)
        assert len(done) > 20
        assert done == [f"clip{number:06d}" for number in range(len(done))]
        writer.finish({})
    store = FrameStore(tmp_path, "")
    store.verify()
    assert store.jpeg(20, 0).tobytes() == b"clip000020" * 99


def test_growing_takes_back_the_finish(tmp_path):
    fill(tmp_path, {"a": CLIPS["a"]})
    with FrameStoreWriter(tmp_path, {"size": 32}) as writer:
        writer.add("b", 50, [0], [b"x"])
    assert "not finished" in error_of(lambda: FrameStore(tmp_path, "make it"))


def test_other_settings_are_refused(tmp_path):
    fill(tmp_path)
    message = error_of(lambda: FrameStoreWriter(tmp_path, {"size": 64}))
    assert "begun with size 32, not 64" in message and str(tmp_path) in message
    (tmp_path / "settings.json").unlink()
    assert "settings.json is missing" in error_of(lambda: FrameStoreWriter(tmp_path, {"size": 32}))


def test_other_data_are_left_alone(tmp_path):
    (tmp_path / "meta.json").write_text("{}")
    assert "contains other data" in error_of(lambda: FrameStoreWriter(tmp_path, {}))
    assert [path.name for path in tmp_path.iterdir()] == ["meta.json"]


def test_two_writers_do_not_mix(tmp_path):
    with FrameStoreWriter(tmp_path, {}):
        assert "another run is writing" in error_of(lambda: FrameStoreWriter(tmp_path, {}))


def test_a_clip_is_added_once_and_whole(tmp_path):
    with FrameStoreWriter(tmp_path, {}) as writer:
        writer.add("a", 1, [0], [b"x"])
        with pytest.raises(ValueError, match="a is already in"):
            writer.add("a", 1, [0], [b"x"])
        with pytest.raises(ValueError, match="2 numbers for 1 images"):
            writer.add("b", 3, [0, 1], [b"x"])


@pytest.mark.parametrize("part", ["names", "starts", "lengths", "crcs", "numbers", "offsets", "sizes"])
@pytest.mark.parametrize("damage", ["cut", "gone", "shape"])
def test_damaged_index_is_named(tmp_path, part, damage):
    path = fill(tmp_path) / f"{part}.npy"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        np.save(path, np.load(path)[:-1])
    message = error_of(lambda: FrameStore(tmp_path, "make it"))
    assert str(path) in message and "`make it`" in message


def test_damaged_frames_are_named(tmp_path):
    path = fill(tmp_path) / "frames.bin"
    content = bytearray(path.read_bytes())
    content[0] ^= 255
    path.write_bytes(content)
    store = FrameStore(tmp_path, "make it")
    assert "1 damaged clips, first b" in error_of(store.verify)
    path.write_bytes(content[:-1])
    assert f"has {len(content) - 1} bytes, expected {len(content)}" in error_of(lambda: FrameStore(tmp_path, ""))
    path.unlink()
    assert "frames.bin is missing" in error_of(lambda: FrameStore(tmp_path, ""))


@pytest.mark.parametrize("name", ["frames.bin", "starts.npy", "offsets.npy"])
def test_a_store_cut_short_while_it_is_open_is_no_bus_error(tmp_path, name):
    store = FrameStore(fill(tmp_path), "make it")
    assert store.jpeg(1, 0).size
    os.truncate(tmp_path / name, 0)
    message = error_of(lambda: store.jpeg(1, 0))
    assert f"{name} was cut short while it was open" in message and "`make it`" in message


def test_foreign_meta(tmp_path):
    path = fill(tmp_path) / "meta.json"
    path.write_text(json.dumps({"format": "other"}))
    assert "not a frame-store of version 1" in error_of(lambda: FrameStore(tmp_path, "make it"))


def test_offsets_outside_the_data(tmp_path):
    path = fill(tmp_path) / "offsets.npy"
    np.save(path, np.load(path) + 10**9)
    assert "points outside frames.bin" in error_of(lambda: FrameStore(tmp_path, "make it"))


class Words(BlobWriter):
    schema = Schema("data", "journal", {})


def test_full_disk_is_one_line(tmp_path):
    words = Words(tmp_path)
    words.append("a", b"12345")
    words.sync()
    with open("/dev/full", "ab") as full:
        blobs, words._blobs = words._blobs, words._files.enter_context(full)
        assert "run the same command again" in error_of(lambda: words.append("b", b"12345"))
        # What could not be written is still in the buffer.
        assert "No space left" in error_of(words.close)
    assert blobs.closed and words._lines.closed
    with Words(tmp_path) as again:
        assert set(again.entries) == {"a"}


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "data").mkdir()
    message = error_of(lambda: Words(tmp_path))
    assert f"cannot write {tmp_path / 'data'}" in message


def without_checksum(line):
    """A journal line as version 0.1.0 wrote it."""
    entry = json.loads(line)
    del entry["line"]
    return json.dumps(entry, separators=(",", ":")).encode() + b"\n"


def test_journal_lines_have_the_documented_form(tmp_path):
    fill(tmp_path, {"a": CLIPS["a"]})
    (line,) = (tmp_path / "journal.jsonl").read_bytes().splitlines()
    head, checksum = line.rsplit(b',"line":', 1)
    assert int(checksum[:-1]) == zlib.crc32(head + b"}")
    blob = image("a", 0) + image("a", 6)
    facts = {"length": 7, "numbers": [0, 6], "sizes": [2, 14]}
    assert json.loads(head + b"}") == {"name": "a", "offset": 0, "bytes": 16, "crc": zlib.crc32(blob)} | facts


def test_a_store_begun_by_version_0_1_0_goes_on(tmp_path):
    fill(tmp_path, {name: CLIPS[name] for name in ("b", "c")}, finish=False)
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"".join(map(without_checksum, path.read_bytes().splitlines())))
    fill(tmp_path, {name: CLIPS[name] for name in ("a", "empty")})
    check(tmp_path)
    assert [b'"line"' in line for line in path.read_bytes().splitlines()] == [False, False, True, True]


@pytest.mark.parametrize("place", range(1, 80, 8))
def test_a_damaged_journal_line_is_not_believed(tmp_path, place):
    fill(tmp_path, {name: CLIPS[name] for name in ("b", "c", "a")}, finish=False)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1][:place] + bytes([lines[1][place] ^ 1]) + lines[1][place + 1 :]
    path.write_bytes(b"".join(lines))
    with FrameStoreWriter(tmp_path, {"size": 32}) as writer:
        assert writer.done == {"b"}
    fill(tmp_path, {name: CLIPS[name] for name in ("c", "a", "empty")})
    check(tmp_path)


@pytest.mark.parametrize(
    "facts", [{"length": "7"}, {"length": None}, {"numbers": 0}, {"sizes": ["2", "14"]}, {"bytes": -16}, {"crc": True}]
)
def test_facts_of_other_types_are_not_believed(tmp_path, facts):
    fill(tmp_path, {"a": CLIPS["a"]}, finish=False)
    path = tmp_path / "journal.jsonl"
    entry = json.loads(without_checksum(path.read_bytes()))
    path.write_text(json.dumps(entry | facts) + "\n")
    with FrameStoreWriter(tmp_path, {"size": 32}) as writer:
        assert not writer.done
