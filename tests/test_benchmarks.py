"""The benchmarks' own arithmetic and checks. Nothing here asserts a time."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import (
    build,
    env_case,
    floor,
    loop_case,
    network_cases,
    operations,
    results,
    run,
    specs,
    timing,
)
from tfdqn import config as configuration
from tfdqn.envs import ObservationSpec
from tfdqn.envs.catch.rules import Catch
from tfdqn.envs.minatar.freeway import Freeway
from tfdqn.errors import UserError
from tfdqn.learners.dqn import heads
from tfdqn.networks import catalogue

ROOT = Path(__file__).parent.parent


# Operations.


def network(name, shape, actions):
    return catalogue.build(name, ObservationSpec(shape), heads.ScalarHead(actions), 0, "online")


def test_multiply_adds_are_the_hand_count():
    assert operations.multiply_adds(network("mlp", (8, 8, 1), 3)) == [64 * 64, 64 * 32, 32 * 3]
    # 48x48x4: 4x4 stride 2 to 24x24x16, 2x2 to 24x24x32, 2x2 to 24x24x32, dense 18,432 to 128, 128 to 2.
    conv = [24 * 24 * 16 * 64, 24 * 24 * 32 * 64, 24 * 24 * 32 * 128, 18_432 * 128, 128 * 2]
    assert operations.multiply_adds(network("conv", (48, 48, 4), 2)) == conv
    # 8x8 stride 4 to 12x12x16, 4x4 stride 2 to 6x6x32, dense 1,152 to 128, 128 to 2.
    stride4 = [12 * 12 * 16 * 256, 6 * 6 * 32 * 256, 1_152 * 128, 128 * 2]
    assert operations.multiply_adds(network("conv_stride4", (48, 48, 4), 2)) == stride4
    # 24 groups of 2 columns of 48 rows in 2 frames to 32, dense 768 to 256, 128, 2.
    columns = [24 * 192 * 32, 768 * 256, 256 * 128, 128 * 2]
    assert operations.multiply_adds(network("columns", (48, 48, 2), 2)) == columns
    deep = [*columns[:2], 256 * 256, 256 * 256, 256 * 256, *columns[2:]]
    assert operations.multiply_adds(network("columns_deep", (48, 48, 2), 2)) == deep
    wide = [columns[0], 768 * 512, 512 * 512, 512 * 512, 512 * 512, 512 * 128, 128 * 2]
    assert operations.multiply_adds(network("columns_wide", (48, 48, 2), 2)) == wide


def test_operations_of_a_step_are_the_hand_count():
    model = network("mlp", (8, 8, 1), 3)
    every, first = 6_240, 4_096
    assert operations.act_operations(model, 10) == 2 * 10 * every
    # Online on both observations, target, gradients of weights; gradients of inputs but the screen's.
    double = operations.learn_operations(model, 32, double=True, target="hard")
    assert double == 2 * 32 * (4 * every + every - first)
    single = operations.learn_operations(model, 32, double=False, target="hard")
    assert single == double - 2 * 32 * every
    # Without a target network Double DQN is plain Q-learning.
    assert operations.learn_operations(model, 32, double=True, target="none") == single
    pair = catalogue.build("mlp", ObservationSpec((8, 8, 1)), heads.ScalarHead(3), 0, "online", members=2)
    assert operations.act_operations(pair, 10) == 2 * operations.act_operations(model, 10)
    assert operations.learn_operations(pair, 32, double=True, target="hard") == 2 * double


def test_a_kernel_without_a_rule_is_refused():
    model = tf.keras.Sequential([tf.keras.layers.InputLayer((8, 2)), tf.keras.layers.Conv1D(3, 2)])
    with pytest.raises(ValueError, match="rank 3"):
        operations.multiply_adds(model)


# The check that nothing is optimised away.


class WrongUnderXla(Catch):
    """Catch whose compiled program draws one pixel wrongly, in one frame or in all."""

    def __init__(self, wrong_time=None):
        super().__init__(size=8)
        self._wrong_time = wrong_time

    def observe(self, state):
        frames = super().observe(state)
        if tf.inside_function():
            is_wrong = tf.ones_like(state.time, tf.bool) if self._wrong_time is None else state.time == self._wrong_time
            pixel = tf.reshape(tf.one_hot(37, 64, dtype=tf.uint8), [1, 8, 8])
            frames += tf.where(is_wrong[:, None, None], pixel, tf.zeros_like(pixel))
        return frames


class WrongRewardUnderXla(Catch):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(reward=timestep.reward + float(tf.inside_function()))


def test_check_passes_the_game_and_a_step_in_the_loop_counts():
    bench = env_case.EnvBench("catch8", 3, True, "/CPU:0")
    bench.check()
    assert bench.run(5) == {"env_frames": 15.0}
    assert bench.bytes == 3 * 64


def test_games_that_show_planes_are_measured_and_checked_too():
    bench = env_case.EnvBench("minatar_freeway", 3, True, "/CPU:0")
    bench.check()
    assert bench.bytes == 3 * 10 * 10 * 7

    class Blank(Freeway):
        def observe(self, state):
            shown = super().observe(state)
            return tf.zeros_like(shown) if tf.inside_function() else shown

    with pytest.raises(timing.WrongResult, match="differs from the eager"):
        env_case.EnvBench(Blank(), 3, True, "/CPU:0").check()


@pytest.mark.parametrize("game", [WrongUnderXla(), WrongUnderXla(wrong_time=2), WrongRewardUnderXla(8)])
def test_check_fails_on_a_wrong_frame_or_reward(game):
    with pytest.raises(timing.WrongResult, match="differs from the eager"):
        env_case.EnvBench(game, 3, True, "/CPU:0").check()


def test_digest_depends_on_frames_of_earlier_steps():
    """The last frame may be right: the digest still tells that one before it was not."""
    env, count = Catch(size=8), tf.constant(40)
    right = env_case.play_random(env, 2, True, env_case.initial_carry(env, 2, True), count)

    class Blank(Catch):
        def observe(self, state):
            return tf.where(state.time[:, None, None] % 2 == 1, 0, super().observe(state))

    wrong_env = Blank(size=8)
    wrong = env_case.play_random(wrong_env, 2, True, env_case.initial_carry(wrong_env, 2, True), count)
    assert np.array_equal(right.state.time, wrong.state.time)
    assert int(right.digest) != int(wrong.digest)


def test_floats_may_differ_in_the_last_bits_and_integers_in_none():
    env_case.require_equal([tf.constant(1.0)], [tf.constant(1.0 + 1e-6)], "x")
    with pytest.raises(timing.WrongResult, match="x: tensor 0"):
        env_case.require_equal([tf.constant(1.0)], [tf.constant(1.001)], "x")
    with pytest.raises(timing.WrongResult):
        env_case.require_equal([tf.constant([2**60 + 1])], [tf.constant([2**60])], "x")


def test_peak_memory_is_the_processes_own_and_not_its_parents():
    code = "from benchmarks import process_case; print(process_case._peak_host_bytes())"
    ballast = bytearray(b"x") * 400_000_000
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert 1_000_000 < int(result.stdout) < len(ballast) / 2


def test_a_run_under_the_clock_reports_as_its_settings_say(tmp_path):
    """As many reports as fit into the frames, however far apart they are, or none."""
    config = configuration.resolve({"env": "catch8", "log_every_frames": 40_000})
    for reports in (True, False):
        folder = tmp_path / str(reports)
        bench = loop_case.RunBench(config, reports, folder, "/CPU:0")
        bench.check()

        def lines(folder=folder):
            return len((folder / "metrics.jsonl").read_text().splitlines())

        before = lines()
        due = bench.run(3)["env_frames"] / config.log_every_frames
        assert due >= 3
        assert abs(lines() - before - due) <= 1 if reports else lines() == 0  # rounds do not end on a frame


def test_a_replay_that_is_one_percent_full_stays_so():
    settings = {**specs.PINNED, **specs.LOOPS["large-1-percent-catch8"]}
    bench = loop_case.LoopBench("large-1-percent-catch8", settings, "/CPU:0")
    trainer, chunks = bench.trainer, []
    run_chunk = trainer.run_chunk
    trainer.run_chunk = lambda carry, rounds, stop: chunks.append(rounds) or run_chunk(carry, rounds, stop)
    work = bench.run(1_000)
    assert work["updates"] == sum(chunks) == 1_000 and work["env_frames"] > 50_000  # five percent of the capacity
    assert 0.01 <= int(trainer.replay.num_rows) / trainer.replay.capacity < 0.02
    # What it is held against starts as many chunks, and a loop that is held against nothing does not stop.
    settings = {**specs.PINNED, **specs.LOOPS["small-full-catch8"]}
    assert loop_case.LoopBench("small-full-catch8", settings, "/CPU:0")._chunk_rounds == max(chunks) == 78
    assert loop_case.LoopBench("update-every-step", settings, "/CPU:0")._chunk_rounds == timing.MAX_COUNT


def test_the_copys_words_are_of_a_type_that_a_gpu_keeps():
    copy = floor.Copy("/CPU:0", 8)
    assert copy._source.dtype == copy._to.dtype == tf.int64
    assert copy.run(3) == {"bytes": 3 * 2 * 8 * 8.0}
    assert floor.COPY_WORDS * tf.int64.size == 128 * 2**20


def test_a_network_that_reads_columns_learns_from_frames_that_lie_so():
    """The observations are the same; only how they lie differs."""
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (3, 2, 5, 5), np.uint8))
    flip = tf.constant(0, tf.uint8)
    turned = network_cases.as_observation(tf.linalg.matrix_transpose(frames), flip, column_major=True)
    assert np.array_equal(network_cases.as_observation(frames, flip), turned)


# Rows.


class Fixed(timing.Bench):
    units = {"things": "things/s"}  # noqa: RUF012
    operations, bytes = 100.0, 50.0

    def run(self, count):
        return {"things": 2.0 * count}


def test_a_row_is_held_against_the_limit_that_binds():
    limits = {
        "floor/copy": [timing.Sample(1.0, 1, {"bytes": 1000.0})] * 3,
        "floor/matmul": [timing.Sample(1.0, 1, {"operations": 1000.0})] * 3,
    }
    samples = [timing.Sample(seconds, 10, {"things": 20.0}) for seconds in (2.0, 4.0, 8.0)]
    (row,) = results.rate_rows(specs.select(["env/catch8/frames/n64"])[0], Fixed(), samples, limits)
    # 0.1 s of arithmetic an iteration, 0.05 s of bytes: 2 things in 0.1 s at best.
    assert (row["median"], row["floor"], row["ratio"], row["reference"]) == (5.0, 20.0, 0.25, "matmul")
    assert row["spread"] == pytest.approx((7.5 - 3.75) / 5.0)
    assert {"case", "env", "num_envs", "batch", "metric", "unit", "game_version"} <= row.keys()


def test_burn_in_finds_a_count_that_takes_long_enough(monkeypatch):
    clock = [0.0]

    class Slow(Fixed):
        def run(self, count):
            clock[0] += 1.0 + 0.001 * count  # a second to start, as a compilation or a slow device would be
            return super().run(count)

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    count = timing.burn_in(Slow(), timing.Effort(repeat_seconds=5.0, burn_in_seconds=1.0))
    assert 3_000 <= count <= 6_000


def test_build_refuses_a_case_that_it_does_not_know():
    with pytest.raises(ValueError, match="no bench for the case reports"):
        build.build(specs.select(["reports/catch8"])[0], "/CPU:0")


# The commands.

BAD_RUN = [
    (["--case", "enw"], "did you mean 'env'"),
    (["--case", "env/catch9"], "unknown"),
    (["--kase", "env"], "did you mean '--case'"),
    (["--json", "/nowhere/at/all.json"], "cannot be written|can be written"),
    (["--device", "tpu"], "choose one of"),
    (["--threads", "-1"], "use 0"),
    (["--threads", "5000"], "use 4096"),
    (["--threads", "two"], "whole number"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_RUN)
def test_bad_arguments_of_run_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        run.main(arguments)
    assert "\n" not in str(raised.value)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ,
        timeout=600,
    )


@pytest.mark.parametrize("module", ["benchmarks.run", "benchmarks.compare"])
def test_bad_arguments_end_with_code_2(module):
    result = command(module, "--case", "nothing")
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("tfdqn: error: --case nothing")


def test_a_quick_case_end_to_end(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert run.main(["--quick", "--case", "env/catch8/frames/n1", "--device", "cpu", "--json", str(file)]) == 0
    rows = json.loads(file.read_text())
    assert [row["case"] for row in rows] == ["floor", "floor", "env"]
    wanted = (
        "case env num_envs batch metric unit median spread floor ratio reference game_version device cpu versions date"
    )
    assert all(row.keys() >= set(wanted.split()) for row in rows)
    row = rows[-1]
    assert row["median"] > 0 and row["reference"] == "copy" and row["quick"] is True
    assert row["floor"] > 0 and row["ratio"] > 0
    assert "env/catch8/frames/n1" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]  # no scratch file is left


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        (["--quick", "--json", "a b"], ["-P", "-m", "benchmarks.run", "--quick", "--json", "a b"]),
        (["--gate", "--base", "HEAD~1"], ["-P", "-m", "benchmarks.compare", "--base", "HEAD~1"]),
        (["--learning", "--only", "x"], ["-P", "-m", "benchmarks.learning", "gate", "--only", "x"]),
        ([], ["-P", "-m", "benchmarks.run"]),
    ],
)
def test_script_calls_the_right_command_from_any_folder(tmp_path, arguments, called):
    """Set-up itself has tests of its own: here it only says that there is an interpreter."""
    scripts, python = tmp_path / "my code" / "scripts", tmp_path / "python"
    scripts.mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "bench", scripts)
    (scripts / "_setup.sh").write_text(f'set_up() {{ [ "$1" = base ] && python={python}; }}\n')
    python.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$PYTHONPATH" "$@"\nexit 7\n')
    python.chmod(0o755)
    result = subprocess.run([scripts / "bench", *arguments], capture_output=True, text=True, cwd=tmp_path)
    path, *words = result.stdout.splitlines()
    assert (words, result.returncode) == (called, 7)
    assert path.split(":")[0] == str(tmp_path / "my code")
