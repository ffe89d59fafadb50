"""Checkpoints: what is saved comes back bit by bit, damage is never taken for whole, nothing foreign is run."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.faults import harness
from tfdqn import checkpoints, monitor, runs, saving, train, training
from tfdqn import config as configuration
from tfdqn.checkpoints import DATA, FOLDER, MANIFEST
from tfdqn.errors import EXIT_IO, EXIT_NUMERIC, EXIT_REFUSED, UserError
from tfdqn.loop import Run
from tfdqn.signals import StopRequest

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


# Whole runs, in this process.

SETTINGS = {
    "env": "catch8",
    "device": "cpu",
    "seed": 3,
    "num_envs": 8,
    "batch_size": 16,
    "frame_stack": 2,
    "replay_capacity": 1000,
    "replay_min_rows": 200,
    "target_update_period_updates": 50,
    "epsilon_decay_env_frames": 2000,
    "total_env_frames": 4000,
    "eval_every_frames": 1500,
    "log_every_frames": 700,  # not a divisor: the last report is a short one
    "eval_episodes": 4,
    "final_eval_episodes": 4,
    "goal_score": 1000.0,
}


def make_run(run_dir, **changes):
    return Run(configuration.resolve({**SETTINGS, **changes}), run_dir, "/CPU:0", StopRequest())


def resume(run_dir, **changes):
    config = runs.resumed_config(str(run_dir), changes)
    lock = runs.lock(run_dir)
    checkpoint, _ = checkpoints.load_newest(run_dir)
    return Run(config, run_dir, "/CPU:0", StopRequest(), lock, checkpoint)


def train_until(run, env_frames, chunk=13):
    """Train a while and save, as a signal would make it."""
    while run.env_frames < env_frames:
        run.progress.rounds = chunk
        run.train_chunk()
    run.saver.save_last()


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    result = make_run(run_dir).train()
    return run_dir, result


def test_a_run_broken_in_two_places_ends_like_the_unbroken_one(unbroken, tmp_path):
    """One break while the replay is still half empty, and one, in between two reports, that loses some work."""
    run_dir = tmp_path / "run"
    run = make_run(run_dir, total_env_frames=3300)  # shorter: more frames are asked for below
    train_until(run, 500)
    run._lock.close()
    run = resume(run_dir)
    train_until(run, 2000, chunk=29)
    train_until(run, 3000, chunk=7)  # this one will be damaged: all its reports must be taken back
    (run.saver.path / DATA).write_bytes(b"")
    run._lock.close()
    run = resume(run_dir, total_env_frames=4000)
    assert 2000 <= run.env_frames < 2300
    result = run.train()
    assert run.trainer.trace_count == 1  # after resuming, reports, evaluations and checkpoints
    assert run.evaluator.trace_count == 1
    assert harness.differences(unbroken[0], run_dir) == []
    assert {k: result[k] for k in ("env_frames", "updates", "score_mean", "best_env_frames")} == {
        k: unbroken[1][k] for k in ("env_frames", "updates", "score_mean", "best_env_frames")
    }
    assert configuration.read_toml(run_dir / "config.toml")["total_env_frames"] == 4000


EVERY_RULE = {
    "env": "cave",
    "network": "columns",
    "start_curriculum": 0.5,
    "restart_share": 0.5,
    "target": "soft",
    "play_target": True,
    "prioritized": True,
    "dueling": True,
    "head": "categorical",
    "atoms": 2,
    "value_max": 0.0,
    "n_step": 3,
    "optimizer": "adam",
    "eval_max_frames": 50,
    "total_env_frames": 2000,
    "goal_score": float("inf"),
}


def test_a_run_with_every_rule_is_resumed_bit_by_bit(tmp_path):
    make_run(tmp_path / "unbroken", **EVERY_RULE).train()
    run = make_run(tmp_path / "broken", **EVERY_RULE)
    run.compile()
    train_until(run, 900)
    run.monitor.close()
    run._lock.close()
    resume(tmp_path / "broken").train()
    assert harness.differences(tmp_path / "unbroken", tmp_path / "broken") == []
    held = checkpoints.load_newest(tmp_path / "broken")[0].names
    assert {"replay/priority", "replay/max_priority", "replay/num_updates"} <= held


def test_the_averaged_network_is_evaluated_and_kept(tmp_path):
    run = make_run(tmp_path / "run", target="soft", target_tau=0.01, play_target=True, total_env_frames=1000)
    agent, played = run.trainer.agent, []
    evaluate = run.evaluator.evaluate
    run.evaluator.evaluate = lambda *args, **more: played.append(agent.online.get_weights()) or evaluate(*args, **more)
    run.compile()
    train_until(run, 1000)
    online, target = agent.online.get_weights(), agent.target.get_weights()
    assert not np.array_equal(online[0], target[0])
    run._evaluate()
    np.testing.assert_array_equal(played[-1][0], target[0])
    np.testing.assert_array_equal(agent.online.get_weights()[0], online[0])
    run.train()  # nothing is left but to save and evaluate
    kept = training.build_agent(run.config, run.trainer.env)
    runs.load_weights(kept, tmp_path / "run" / runs.FINAL_MODEL)
    for ours, expected in zip(kept.online.get_weights(), target, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_run_starts_from_anothers_best_agent_and_refuses_one_that_does_not_fit(unbroken, tmp_path):
    donor = harness.weights(unbroken[0] / runs.BEST_MODEL)
    run = make_run(tmp_path / "run", seed=9, init_from=str(unbroken[0]))
    ours = run.trainer.agent.online.get_weights()
    assert sum(any(np.array_equal(w, held) for held in donor.values()) for w in ours) == len(ours)
    for online, target in zip(ours, run.trainer.agent.target.get_weights(), strict=True):
        np.testing.assert_array_equal(online, target)
    run.monitor.close()
    for changes, message in [
        ({"dueling": True}, "its dueling is False, not True"),
        ({"env": "cave"}, "its env is catch8, not cave"),
        ({"init_from": str(tmp_path)}, "not a run folder"),
    ]:
        config = configuration.resolve({**SETTINGS, "init_from": str(unbroken[0]), **changes})
        with pytest.raises(UserError, match=f"--init-from .*{message}"):
            runs.check_donor(config)
    runs.check_donor(configuration.resolve({**SETTINGS, "init_from": str(unbroken[0]), "value_max": 3.0}))


def test_settings_that_an_older_run_did_not_know_are_not_todays_presets(tmp_path):
    (tmp_path / "config.toml").write_text('env = "cave"\nnetwork = "conv"\n')
    config = runs.read_config(tmp_path)
    assert (config.env, config.network, config.dueling, config.head) == ("cave", "conv", False, "scalar")


def test_a_finished_run_says_so_and_is_not_changed(unbroken, tmp_path, capfd):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    result = resume(run_dir).train()
    assert "nothing more to train" in capfd.readouterr().err
    assert result["score_mean"] == unbroken[1]["score_mean"]
    assert harness.differences(unbroken[0], run_dir) == []


@pytest.mark.parametrize(
    "given, message",
    [
        ({"env": "catch16"}, "env is catch8 in this run, not catch16"),
        ({"discount": 0.5}, r"discount is 0\.99 in this run"),
        ({"replay_capacity": 5000}, "replay_capacity is 1000"),
        ({"num_envs": 16}, "num_envs is 8"),
        ({"seed": 4}, "seed is 3"),
    ],
)
def test_settings_that_would_change_the_run_are_refused_by_name(unbroken, given, message):
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with pytest.raises(UserError, match=message) as error:
        train.main(["--resume", str(unbroken[0]), *flags])
    assert error.value.exit_code == EXIT_REFUSED


def test_an_edited_config_is_refused_by_the_fields_name(unbroken, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    text = (run_dir / "config.toml").read_text()
    (run_dir / "config.toml").write_text(text.replace("n_step = 1 ", "n_step = 2 "))
    with pytest.raises(UserError, match="n_step is 1 in this run, not 2") as error:
        train.main(["--resume", str(run_dir)])
    assert error.value.exit_code == EXIT_REFUSED


def test_resume_refuses_what_is_no_run_and_flags_that_mean_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError) as error:
            train.main(["--resume", str(path)])
        assert error.value.exit_code == EXIT_REFUSED and "\n" not in str(error.value)
    with pytest.raises(UserError, match="--run-name") as error:
        train.main(["--resume", str(tmp_path), "--run-name", "x"])
    assert error.value.exit_code == 2


def test_a_second_process_is_kept_out_by_name_and_a_dead_ones_lock_is_free(tmp_path):
    code = (
        "import pathlib, sys; from tfdqn import runs\n"
        "lock = runs.lock(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"process {holder.pid} trains in it") as error:
            runs.lock(tmp_path)
        assert error.value.exit_code == EXIT_REFUSED
    finally:
        holder.kill()
        holder.communicate()
    runs.lock(tmp_path).close()


def test_without_the_replay_a_resumed_run_fills_a_new_one(unbroken, tmp_path, capfd):
    run_dir = tmp_path / "run"
    run = make_run(run_dir, checkpoint_replay=False, eval_every_frames=10**6)
    train_until(run, 1000)
    run._lock.close()
    assert not any(name.startswith("replay/") for name in checkpoints.load_newest(run_dir)[0].names)
    resumed = resume(run_dir)
    assert "holds no replay" in capfd.readouterr().err
    assert int(resumed.trainer.replay.num_rows) == 0 and resumed.updates == run.updates
    resumed._lock.close()


def test_a_full_disk_is_survived_in_training_and_told_at_the_end(unbroken, tmp_path, monkeypatch, capfd):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    run = resume(run_dir, total_env_frames=5000, checkpoint_every_seconds=0.001)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "_write_tensors", fail)
    run.saver.save_if_due()
    assert "No space left" in capfd.readouterr().err
    run.carry = run.carry._replace(iteration=run.carry.iteration + 1)
    with pytest.raises(UserError, match="No space left") as error:
        run.saver.save_last()
    assert error.value.exit_code == EXIT_IO
    run._lock.close()
    assert checkpoints.load_newest(run_dir)[0].manifest["env_frames"] == unbroken[1]["env_frames"]


def test_a_run_whose_folder_is_removed_ends_by_its_name(unbroken, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    run = resume(run_dir, total_env_frames=5000, checkpoint_every_seconds=0.001)
    shutil.rmtree(run_dir)
    run.carry = run.carry._replace(iteration=run.carry.iteration + 1)
    for save in (run.saver.save_if_due, run.saver.save_last):
        with pytest.raises(UserError, match=f"{run_dir}: the run's folder was removed") as error:
            save()
        assert error.value.exit_code == EXIT_IO
    run._lock.close()


def test_checkpoints_that_cannot_be_written_any_more_are_told_and_the_run_goes_on(unbroken, tmp_path, capfd):
    """As where a folder was made read-only meanwhile, which stops everyone but root."""
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    run = resume(run_dir, total_env_frames=5000, checkpoint_every_seconds=0.001)
    shutil.rmtree(run_dir / FOLDER)
    (run_dir / FOLDER).write_text("in the way")
    run.carry = run.carry._replace(iteration=run.carry.iteration + 1)
    run.saver.save_if_due()
    assert "no checkpoint made: File exists" in capfd.readouterr().err
    with pytest.raises(UserError, match=f"{run_dir}: no checkpoint made: File exists") as error:
        run.saver.save_last()
    assert error.value.exit_code == EXIT_IO
    run._lock.close()


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_no_part(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        runs.write_atomically(path, fail)
    assert [item.name for item in tmp_path.iterdir()] == ["model.keras"] and path.read_text() == "old"


def test_a_number_that_is_not_finite_ends_the_run_within_a_chunk_by_name(unbroken, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in (run_dir / FOLDER).rglob("*.*")}
    run = resume(run_dir, total_env_frames=6000, checkpoint_every_seconds=0.001)
    agent = run.trainer.agent
    online = agent.online.trainable_variables[0]
    learner = [*agent.variables, *agent.optimizer.variables]
    good = [variable.numpy() for variable in learner]
    carry = run.carry
    for value, where, message in (
        (np.nan, "reward", "the TD target is not finite"),
        (np.inf, "reward", "the TD target is not finite"),
        (np.nan, "weights", "(the TD target|the loss) is not finite"),
        (1e38, "weights", ".* is not finite"),
    ):
        run.carry = carry._replace(metrics=type(carry.metrics).zeros())
        for variable, value_before in zip(learner, good, strict=True):
            variable.assign(value_before)
        reward = run.trainer.replay.state["reward"]
        reward.assign(tf.fill(reward.shape, value) if where == "reward" else tf.zeros(reward.shape))
        if where == "weights":
            online.assign(tf.fill(online.shape, value))
        update = run.updates
        with pytest.raises(UserError, match=f"diverged at update {update + 1}: {message}") as error:
            run.train_chunk()
        assert error.value.exit_code == EXIT_NUMERIC and "last checkpoint is" in str(error.value)
        assert run.updates <= update + 70
        run.monitor = monitor.Monitor(run.config, run_dir, run.trainer.env, is_resumed=True)
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in (run_dir / FOLDER).rglob("*.*")}
    assert before == after
    run._lock.close()


def test_weights_files_that_unpack_to_more_than_an_agent_are_refused_unread(unbroken, tmp_path):
    from tfdqn.envs import make
    from tfdqn.training import build_agent

    config = runs.read_config(unbroken[0])
    agent = build_agent(config, make(config.env))
    runs.load_weights(agent, unbroken[0] / "model.keras")
    path = tmp_path / "model.keras"
    import h5py

    def with_weights(write):
        with h5py.File(tmp_path / "w.h5", "w") as file:
            write(file)
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "w.h5", "model.weights.h5")

    def bomb():
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model.weights.h5", b"\0" * 2**26)

    def traversal():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../evil", b"x")

    cases = {
        "unpacks to 67108864 bytes": bomb,
        "does not belong there": traversal,
        "tensors unpack to more": lambda: with_weights(lambda f: f.create_dataset("a", [2**40], "f4", chunks=True)),
        "is a link": lambda: with_weights(lambda f: f.update({"a": h5py.ExternalLink("/etc/passwd", "/")})),
        "reads another file": lambda: with_weights(
            lambda f: f.create_dataset("a", [4], "u1", external=[("/etc/passwd", 0, 4)])
        ),
    }
    for message, make_file in cases.items():
        make_file()
        with pytest.raises(UserError, match=message) as error:
            runs.load_weights(agent, path)
        assert "\n" not in str(error.value)
