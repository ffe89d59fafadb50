"""Checkpoints: what is saved comes back bit by bit, damage is never taken for whole, nothing foreign is run."""

import errno
import json
import os
import shutil
import tracemalloc
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tfdqn.errors import EXIT_NUMERIC, EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, monitor, saving
from tfdqn.runs.checkpoints import DATA, FOLDER, MANIFEST

TENSORS = {
    "agent/online/0": np.arange(12, dtype=np.float32).reshape(3, 4),
    "carry/iteration": np.array(2**40, np.int64),
    "carry/is_first": np.array([True, False]),
    "replay/frame": np.arange(5 * 2 * 4, dtype=np.uint8).reshape(5, 2, 4),
    "replay/empty": np.zeros([0, 3], np.float32),
}


def save(run_dir, updates=100, tensors=TENSORS, **facts):
    return checkpoints.save(run_dir, tensors, {"updates": updates, "env_frames": 10 * updates, **facts})


def test_tensors_come_back_bit_by_bit_and_facts_as_they_were(tmp_path):
    path = save(tmp_path, text="é", numbers=[1, 0.1 + 0.2, None])
    assert path == tmp_path / FOLDER / "100"
    checkpoint, problems = checkpoints.load_newest(tmp_path)
    assert problems == []
    assert checkpoint.manifest["text"] == "é" and checkpoint.manifest["numbers"] == [1, 0.1 + 0.2, None]
    assert {"tfdqn", "tensorflow", "python"} <= set(checkpoint.manifest["versions"])
    values = checkpoint.read(TENSORS)
    for name, value in TENSORS.items():
        assert values[name].dtype == value.dtype
        np.testing.assert_array_equal(values[name], value)


def test_large_variables_go_by_in_blocks_and_only_their_filled_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "BLOCK_BYTES", 100)
    source = np.random.default_rng(0).integers(0, 256, [37, 2, 8], np.uint8)
    variables = {"replay/frame": tf.Variable(source), "optimizer/0": tf.Variable(7, dtype=tf.int64)}
    checkpoints.save(tmp_path, variables, {"updates": 1, "env_frames": 1}, {"replay/frame": 23})
    assert (tmp_path / FOLDER / "1" / DATA).stat().st_size == 23 * 16 + 8
    restored = {"replay/frame": tf.Variable(tf.zeros_like(source)), "optimizer/0": tf.Variable(0, dtype=tf.int64)}
    checkpoint, _ = checkpoints.load_newest(tmp_path)
    checkpoint.restore(restored, {"replay/frame"})
    np.testing.assert_array_equal(restored["replay/frame"][:23], source[:23])
    assert not restored["replay/frame"][23:].numpy().any()
    assert int(restored["optimizer/0"]) == 7


def test_what_a_game_may_keep_comes_back(tmp_path):
    """Numbers of any type, in tuples, lists and dicts of any depth: a check of the game finds no fault in them."""
    kept = {
        "low": tf.constant([[1.5, -2.0]], tf.bfloat16),
        "deep": (tf.constant([3], tf.uint32), [{"b": tf.constant([1j], tf.complex64), "a": tf.constant([True])}], ()),
    }
    carry = namedtuple("Carry", "state")(kept)
    save(tmp_path, tensors=saving.named_tensors(carry, "carry"))
    checkpoint, problems = checkpoints.load_newest(tmp_path)
    assert problems == []
    arrays = checkpoint.read(saving.named_tensors(carry, "carry"))
    zeros = tf.nest.map_structure(tf.zeros_like, carry)
    found = saving.from_arrays(zeros, "carry", arrays, "/CPU:0")
    tf.nest.assert_same_structure(found, carry)
    for ours, theirs in zip(tf.nest.flatten(found), tf.nest.flatten(carry), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="not finite"):
        save(tmp_path, tensors={"agent/online/0": tf.constant([np.nan], tf.bfloat16)})


class OnGpu:
    """A variable that says that it lives on a GPU, and counts the bytes that are put there at once."""

    device = "/job:localhost/replica:0/task:0/device:GPU:0"

    def __init__(self, variable):
        self.variable, self.dtype, self.shape, self.largest = variable, variable.dtype, variable.shape, 0

    def assign(self, value):
        self.largest = max(self.largest, np.asarray(value).nbytes)
        self.variable.assign(value)

    def scatter_update(self, slices):
        self.largest = max(self.largest, np.asarray(slices.values).nbytes)
        self.variable.scatter_update(slices)


@pytest.mark.parametrize("filled", [0, 7, 23, 40])
def test_no_device_holds_a_second_copy_of_what_is_restored_to_it(tmp_path, monkeypatch, filled):
    monkeypatch.setattr(checkpoints, "BLOCK_BYTES", 1000)
    source = tf.Variable(tf.reshape(tf.range(40 * 50, dtype=tf.int64), [40, 50]))  # 400 bytes a row
    facts = {"updates": 1, "env_frames": 1}
    checkpoints.save(tmp_path, {"replay/frame": source}, facts, {"replay/frame": filled})
    checkpoint, _ = checkpoints.load_newest(tmp_path)
    restored = OnGpu(tf.Variable(tf.zeros_like(source)))
    checkpoint.restore({"replay/frame": restored}, {"replay/frame"})
    assert restored.largest <= 1000
    np.testing.assert_array_equal(restored.variable[:filled], source[:filled])
    assert not restored.variable[filled:].numpy().any()


def test_the_newest_two_are_kept_and_none_is_ever_replaced(tmp_path):
    foreign = tmp_path / FOLDER / "notes"
    foreign.mkdir(parents=True)
    for updates in (0, 0, 9, 10, 10, 10, 100):
        save(tmp_path, updates)
    assert {path.name for path in (tmp_path / FOLDER).iterdir()} == {"10.3", "100", "notes"}
    assert checkpoints.load_newest(tmp_path)[0].path.name == "100"


def test_everything_is_flushed_before_it_is_renamed_and_the_old_go_last(tmp_path, monkeypatch):
    for updates in (1, 2):
        save(tmp_path, updates)
    events = []

    def note(name, function, describe):
        def wrapper(*arguments, **options):
            events.append((name, describe(arguments[0])))
            return function(*arguments, **options)

        return wrapper

    def target(descriptor):
        return Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.split("-")[0]

    monkeypatch.setattr(os, "fsync", note("fsync", os.fsync, target))
    monkeypatch.setattr(os, "rename", note("rename", os.rename, lambda path: path.name.split("-")[0]))
    monkeypatch.setattr(shutil, "rmtree", note("remove", shutil.rmtree, lambda path: path.name))
    save(tmp_path, 3)
    assert events == [
        *(("fsync", DATA), ("fsync", MANIFEST), ("fsync", ".partial"), ("rename", ".partial"), ("fsync", FOLDER)),
        ("remove", "1"),
    ]


@pytest.mark.parametrize("point", ["write", "fsync", "rename"])
def test_a_save_that_fails_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path, monkeypatch, point):
    save(tmp_path, 1)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    module, name = {"write": (checkpoints, "_write_tensors"), "fsync": (os, "fsync"), "rename": (os, "rename")}[point]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, fail)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 2)
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["1"]
    assert checkpoints.load_newest(tmp_path)[0].manifest["updates"] == 1


def test_what_a_killed_save_left_is_neither_read_nor_kept(tmp_path):
    whole = save(tmp_path, 1)
    shutil.copytree(whole, tmp_path / FOLDER / ".partial-77")
    checkpoint, problems = checkpoints.load_newest(tmp_path)
    assert checkpoint.path == whole and problems == []
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["1"]


def test_free_space_is_asked_for_first(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")(10**9, 10**9, 5000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(OSError, match=r"needs 4\.2 MB, but 0\.0 MB are free"):
        save(tmp_path)
    assert not any((tmp_path / FOLDER).iterdir())


def test_a_save_and_a_fallback_take_no_more_memory_than_they_need(tmp_path):
    """Naming a checkpoint once made a million names to choose from: 70 MB, and half a second of each save."""
    save(tmp_path, 1)
    tracemalloc.start()
    try:
        save(tmp_path, 1)
        (tmp_path / FOLDER / "1.2" / DATA).write_bytes(b"")
        checkpoint, _ = checkpoints.load_newest(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert checkpoint.path.name == "1"
    assert peak < 2 * 2**20


@pytest.mark.parametrize("group", ["agent/online/0", "optimizer/3"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_learner_is_never_kept(tmp_path, group, value):
    save(tmp_path, 1)
    with pytest.raises(UserError, match=f"{group} is not finite") as error:
        save(tmp_path, 2, {group: np.array([1, value], np.float32)})
    assert error.value.exit_code == EXIT_NUMERIC
    assert [path.name for path in (tmp_path / FOLDER).iterdir()] == ["1"]


# Damage.


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path):
    path, dice = save(tmp_path), np.random.default_rng(0)
    total = missed = 0
    for name in (MANIFEST, DATA):
        data = (path / name).read_bytes()
        for position in range(len(data)):
            damaged = bytearray(data)
            damaged[position] ^= 1 << dice.integers(8)
            (path / name).write_bytes(damaged)
            total += 1
            try:
                checkpoints._verify(path)
                missed += 1
            except (checkpoints.Damaged, UserError):
                pass
        (path / name).write_bytes(data)
    checkpoints._verify(path)
    print(f"{total} bits flipped, one in each byte; {missed} not noticed")
    assert missed == 0 and total > 1000


@pytest.mark.parametrize("name", [MANIFEST, DATA])
def test_truncated_grown_and_missing_files_are_named_and_the_one_before_is_taken(tmp_path, name):
    earlier = save(tmp_path, 1)
    for number, damage in enumerate(("", "half", "less one", "more", "missing", "link"), start=2):
        path = save(tmp_path, number) / name
        data = path.read_bytes()
        path.unlink()
        if damage == "link":
            path.symlink_to(earlier / name)
        elif damage != "missing":
            changed = {"": b"", "half": data[: len(data) // 2], "less one": data[:-1], "more": data + b"\0"}[damage]
            path.write_bytes(changed)
        checkpoint, problems = checkpoints.load_newest(tmp_path)
        assert checkpoint.path == earlier
        assert len(problems) == 1
        assert f"checkpoint {number} is not whole: {name}" in problems[0] and f"damaged-{number}" in problems[0]
        assert (tmp_path / FOLDER / f"damaged-{number}").is_dir()


def test_parts_of_two_checkpoints_are_no_checkpoint(tmp_path):
    first = save(tmp_path, 1)
    second = save(tmp_path, 2, {**TENSORS, "carry/iteration": np.array(5, np.int64)})
    shutil.copy(first / DATA, second / DATA)
    checkpoint, problems = checkpoints.load_newest(tmp_path)
    assert checkpoint.path == first and "does not match its SHA-256" in problems[0]


def test_without_a_whole_checkpoint_nothing_starts_anew(tmp_path):
    for setup, message in ((lambda: None, "before its first one"), (lambda: save(tmp_path), "tensors.bin has 0 bytes")):
        path = setup()
        if path is not None:
            (path / DATA).write_bytes(b"")
        with pytest.raises(UserError, match=message) as error:
            checkpoints.load_newest(tmp_path)
        assert error.value.exit_code == EXIT_REFUSED and "\n" not in str(error.value)
    assert (tmp_path / FOLDER / "100").is_dir()  # nothing is set aside where there is nothing to go back to


# Hostile folders.


def forge(path, change):
    """Change a manifest and make it consistent again, as someone would who knows the format."""
    manifest = json.loads((path / MANIFEST).read_text())
    del manifest["manifest_sha256"]
    change(manifest)
    (path / MANIFEST).write_text(checkpoints._serialise(manifest))


HOSTILE = {
    "path outside": lambda m: m["files"].update({"../../../evil": m["files"].pop(DATA)}),
    "absolute path": lambda m: m["files"].update({"/etc/passwd": {"bytes": 1, "sha256": ""}}),
    "huge shape": lambda m: m["tensors"][0].update(shape=[2**40, 2**40]),
    "huge shape, huge size": lambda m: m["tensors"][-1].update(shape=[2**40, 3], bytes=2**40 * 12),
    "negative shape": lambda m: m["tensors"][0].update(shape=[-3, -4]),
    "objects": lambda m: m["tensors"][0].update(dtype="object"),
    "text for a table": lambda m: m.update(tensors="abc"),
    "number for a shape": lambda m: m["tensors"][0].update(shape=5),
    "overlapping": lambda m: m["tensors"][1].update(offset=0),
    "no files": lambda m: m.pop("files"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_refused_in_one_line(tmp_path, name):
    before = save(tmp_path)
    forge(before, HOSTILE[name])
    with pytest.raises(UserError, match="not whole") as error:
        checkpoints.load_newest(tmp_path)
    assert error.value.exit_code == EXIT_REFUSED and "\n" not in str(error.value)
    assert {path.name for path in tmp_path.rglob("*")} == {FOLDER, "100", MANIFEST, DATA}


def test_a_size_that_is_consistent_but_not_ours_is_refused_before_it_is_read(tmp_path):
    save(tmp_path, tensors={"agent/online/0": np.zeros([40], np.float32)})
    checkpoint, _ = checkpoints.load_newest(tmp_path)
    variable = tf.Variable(tf.zeros([4]))
    for call in (checkpoint.read, checkpoint.restore):
        with pytest.raises(UserError, match=r"float32 \[40\], expected float32 \[4\]") as error:
            call({"agent/online/0": variable})
        assert error.value.exit_code == EXIT_REFUSED
    with pytest.raises(UserError, match="holds no agent/online/1"):
        checkpoint.read({"agent/online/1": variable})


def test_a_newer_format_is_refused_and_not_set_aside(tmp_path):
    save(tmp_path, 1)
    forge(save(tmp_path, 2), lambda m: m.update(format=checkpoints.FORMAT + 1))
    with pytest.raises(UserError, match=r"newer tfdqn \(format 2") as error:
        checkpoints.load_newest(tmp_path)
    assert error.value.exit_code == EXIT_REFUSED
    assert (tmp_path / FOLDER / "2").is_dir()


@pytest.mark.parametrize("facts", [{}, {"progress": 5}, {"progress": {"next_log": "x", "next_eval": []}}])
def test_a_whole_checkpoint_of_something_else_is_refused(tmp_path, facts):
    save(tmp_path, config={}, reports={}, device="/CPU:0", **facts)
    checkpoint, _ = checkpoints.load_newest(tmp_path)
    with pytest.raises(UserError, match="not a run's checkpoint") as error:
        saving.read_facts(checkpoint)
    assert error.value.exit_code == EXIT_REFUSED


def test_links_and_foreign_files_are_refused(tmp_path):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    save(elsewhere.parent / "run", 1)
    (run / FOLDER).rename(elsewhere)
    (run / FOLDER).symlink_to(elsewhere)
    with pytest.raises(UserError, match="links are not followed"):
        checkpoints.load_newest(run)
    (run / FOLDER).unlink()
    (run / FOLDER).mkdir()
    (run / FOLDER / "1").symlink_to(elsewhere / "1")
    with pytest.raises(UserError, match="it is no folder"):
        checkpoints.load_newest(run)
    (run / FOLDER / "1").unlink()
    shutil.copytree(elsewhere / "1", run / FOLDER / "1")
    (run / FOLDER / "1" / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(UserError, match=r"'model\.pkl' does not belong there"):
        checkpoints.load_newest(run)


def test_reports_are_taken_back_only_in_their_own_places(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "precious"
    (run / "train").mkdir(parents=True)
    outside.write_text("precious")
    (run / "metrics.jsonl").write_text('{"a": 1}\n{"b": 2}\n{"c"')
    old, new = (run / "train" / f"events.out.tfevents.{i}.host" for i in (1, 2))
    old.write_bytes(b"12345678")
    new.write_bytes(b"123")
    sizes = {"metrics.jsonl": 18, "train/events.out.tfevents.1.host": 5, "../precious": 0, str(outside): 0}
    assert monitor.rewind(run, sizes) == []
    assert (run / "metrics.jsonl").read_text() == '{"a": 1}\n{"b": 2}\n'
    assert old.read_bytes() == b"12345" and not new.exists()
    assert outside.read_text() == "precious"
    assert "reports are lost" in monitor.rewind(run, {**sizes, "metrics.jsonl": 30})[0]
    (run / "metrics.jsonl").unlink()
    (run / "metrics.jsonl").symlink_to(outside)
    with pytest.raises(UserError, match="links are not followed"):
        monitor.rewind(run, {})
    assert outside.read_text() == "precious"


@pytest.mark.parametrize("name", monitor.PROFILE_FOLDERS)
def test_a_profile_is_not_written_through_a_link(name, tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    outside.mkdir()
    (run / name).parent.mkdir(parents=True)
    (run / name).symlink_to(outside)
    with pytest.raises(UserError, match=f"{name}: is a link, and links are not followed"):
        monitor.rewind(run, {})
