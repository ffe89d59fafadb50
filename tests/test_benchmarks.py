"""The benchmarks' own arithmetic and checks. Nothing here asserts a time."""

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from benchmarks import (
    build,
    compare,
    decision,
    env_case,
    floor,
    line,
    loop_case,
    network_cases,
    operations,
    process_case,
    results,
    run,
    specs,
    timing,
    worker,
)
from tfdqn import cli, heads, networks
from tfdqn import config as configuration
from tfdqn.envs.catch import Catch
from tfdqn.errors import UserError

ROOT = Path(__file__).parent.parent


# Operations.


def network(name, shape, actions):
    return networks.build(name, shape, heads.ScalarHead(actions), 0, "online")


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
    pair = networks.build("mlp", (8, 8, 1), heads.ScalarHead(3), 0, "online", members=2)
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


# The decision rule, on made-up noise.


def pairs_of(rng, slowdown, count=9, noise=0.15):
    """Ratios as a noisy machine gives them: each time off by some percent, one in eight hit by a neighbour."""

    def times():
        return np.exp(rng.normal(0, noise, count)) * np.where(rng.random(count) < 1 / 8, rng.uniform(1, 3, count), 1)

    return list(slowdown * times() / times())


def test_rule_passes_an_unchanged_tree_ten_times_of_ten():
    """Ten whole comparisons of eight cases, each measured again where it looked slower, as `compare` does."""
    rng = np.random.default_rng(1)
    for _ in range(10 * 8):
        ratios = pairs_of(rng, 1.0)
        if decision.decide(ratios).is_regression:
            ratios += pairs_of(rng, 1.0)
        assert not decision.decide(ratios).is_regression


def test_rule_catches_a_planted_slowdown():
    """30% on a quiet machine nearly always; twice as slow on the noisy one likewise."""
    rng = np.random.default_rng(2)
    quiet = [decision.decide(list(1.3 * np.exp(rng.normal(0, 0.05, 9)))).is_regression for _ in range(200)]
    assert np.mean(quiet) > 0.98
    noisy = [decision.decide(pairs_of(rng, 2.0)).is_regression for _ in range(200)]
    assert np.mean(noisy) > 0.9


def test_rule_needs_both_the_median_and_the_interval():
    assert decision.decide([1.21] * 7).is_regression
    assert not decision.decide([1.19] * 7).is_regression  # sure, but too little
    assert not decision.decide([0.9] + [1.5] * 6).is_regression  # much, but the interval of seven is their range
    assert decision.decide([0.9] + [1.5] * 8).is_regression  # nine pairs can spare one
    assert not decision.decide([0.5] * 9).is_regression


def test_intervals_rank_is_the_sign_tests():
    """Published: 7 and 8 values range from first to last, 9 to 11 from second to last but one, 12 from third."""
    assert [decision.interval_rank(n) for n in (7, 8, 9, 11, 12, 20)] == [1, 1, 2, 2, 3, 6]


@pytest.mark.parametrize("ratios", [[1.0] * 6, [1.0] * 7 + [float("nan")], [1.0] * 7 + [0.0]])
def test_rule_refuses_what_is_no_measurement(ratios):
    with pytest.raises(ValueError):
        decision.decide(ratios)


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


def test_names_are_unique_and_patterns_choose_whole_parts():
    names = [spec.name for spec in specs.all_specs()]
    assert len(names) == len(set(names))
    assert {spec.case for spec in specs.select([])} == set(specs.CASES)
    assert all(spec.env == "catch8" for spec in specs.select(["env/catch8"]))  # and not catch8_single
    assert 0 < len(specs.select([], quick=True)) < len(names)
    assert {spec.case for spec in specs.select([], gate=True)} == {"env", "replay", "learner", "loop"}


def fields_that_decide(config):
    """What of a configuration decides how quick it is, or what it computes."""
    others = [
        n for n, f in configuration.FIELDS.items() if f.metadata["group"] in ("length", "evaluation", "checkpoints")
    ]
    return {name: value for name, value in dataclasses.asdict(config).items() if name not in others}


@pytest.mark.parametrize("variant", specs.LOOPS)
def test_pinned_loops_take_nothing_from_a_preset(variant):
    (spec,) = [spec for spec in specs.all_specs() if (spec.case, spec.variant) == ("loop", variant)]
    wanted = configuration.Config(**{**specs.PLAIN, **specs.LOOPS[variant]})
    assert fields_that_decide(configuration.resolve(spec.settings)) == fields_that_decide(wanted)
    # Nor the sizes for a GPU.
    assert fields_that_decide(configuration.resolve(spec.settings, on_gpu=True)) == fields_that_decide(wanted)


@pytest.mark.parametrize(("network_name", "env", "stack"), specs.NETWORKS)
def test_networks_take_nothing_from_a_preset(network_name, env, stack):
    settings = {"network": network_name, "frame_stack": stack}
    config = network_cases.agent_config(env, settings, "rmsprop_graves")
    chosen = {**specs.PLAIN, **settings, "env": env, "optimizer": "rmsprop_graves", "double": True}
    assert fields_that_decide(config) == fields_that_decide(configuration.Config(**chosen))


def test_the_caves_pinned_loop_is_plain_dqn():
    config = configuration.resolve(specs.select(["loop/cave/article-conv"])[0].settings)
    assert (config.head, config.dueling, config.prioritized, config.double) == ("scalar", False, False, False)
    assert (config.restart_share, config.start_curriculum, config.learning_rate_decay_updates) == (0, 0, 0)
    assert (config.epsilon_end, config.discount, config.optimizer) == (0.05, 0.99, "adam")


def test_every_presets_network_is_measured():
    presets = {(configuration.resolve({"env": env}).network, env) for env in ("catch8", "catch16", "cave")}
    assert presets <= {(name, env) for name, env, _ in specs.NETWORKS}
    gate = [spec.name for spec in specs.select(["learner"], gate=True)]
    assert gate == ["learner/catch8/mlp/b256", "learner/cave/conv/b256", "learner/cave/columns_deep/b256"]
    quick = {spec.variant for case in ("act", "learner") for spec in specs.select([case], quick=True)}
    assert quick == {"mlp", "conv_stride4"}


def test_presets_have_a_gpus_sizes_on_a_gpu():
    for case in ("loop/catch8/preset-default", "compile/catch8/default", "reports/catch8"):
        (small,), (large,) = specs.select([case]), specs.select([case], on_gpu=True)
        assert (small.num_envs, small.batch, large.num_envs, large.batch) == (64, 32, 2048, 512)
        # Either name will do on either device: which one it will be is not known when arguments are read.
        assert specs.select([small.name], on_gpu=True) == [large] and specs.select([large.name]) == [small]
    assert specs.select(["loop/catch8/update-every-3"]) == specs.select(["loop/catch8/update-every-3"], on_gpu=True)


def test_a_presets_loop_and_process_are_built_with_a_gpus_sizes_there(monkeypatch):
    class Built(Exception):
        pass

    def trainer(config, device):
        raise Built(config.num_envs, device)

    settings = {"env": "catch8", "preset": "default"}
    monkeypatch.setattr(loop_case, "Trainer", trainer)
    for device, num_envs in (("/CPU:0", 64), ("/GPU:0", 2048)):
        monkeypatch.setattr(cli, "choose_device", lambda *_, device=device: device)
        with pytest.raises(Built) as raised:
            loop_case.LoopBench("preset-default", settings, device)
        assert raised.value.args == (num_envs, device)
        config, found = process_case._start({"settings": settings, "device": device})
        assert (config.num_envs, found) == (num_envs, device)


def test_build_refuses_a_case_that_it_does_not_know():
    with pytest.raises(ValueError, match="no bench for the case reports"):
        build.build(specs.select(["reports/catch8"])[0], "/CPU:0")


# Threads and processes.


def test_threads_are_those_that_were_chosen_or_all_cores(monkeypatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "3")
    assert results.threads() == 3
    for value in ("0", "many", ""):
        monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", value)
        assert results.threads() == len(os.sched_getaffinity(0))
    row = results.placed({"name": "x", "threads": 1}, {"threads": 2, "cpu": "y"})
    assert row == {"name": "x", "threads": 1, "cpu": "y"}


@pytest.mark.parametrize(("env", "threads"), [("catch8", 1), ("cave", 5)])
def test_a_process_has_its_presets_threads_or_those_of_the_run(monkeypatch, env, threads):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "5")
    process_case._start({"settings": {"env": env}, "device": "/CPU:0"})
    assert os.environ["TF_NUM_INTRAOP_THREADS"] == str(threads) and results.threads() == threads


def test_a_process_says_that_it_does_not_fit_and_which_threads_it_had(monkeypatch):
    monkeypatch.setattr(process_case, "_needs", lambda request, config, device: {"seconds": 1.0})
    request = {"case": "compile", "settings": {"env": "catch8"}, "device": "/CPU:0"}
    assert process_case._probe(request) == {"seconds": 1.0, "threads": 1}

    def wrong(request, config, device):
        raise UserError("the loss is not finite", 4)

    with monkeypatch.context() as patch:
        patch.setattr(process_case, "_needs", wrong)
        with pytest.raises(UserError, match="not finite"):  # which ends the process with a code
            process_case._probe(request)
    monkeypatch.setattr(configuration, "available_memory_bytes", lambda: 0)
    assert "GB are free" in process_case._probe(request)["does_not_fit"]


@pytest.mark.parametrize(
    ("code", "stdout", "stderr", "error"),
    [
        (0, '{"does_not_fit": "too large"}', "", UserError("too large")),
        (1, "", "Traceback\nRuntimeError: boom", process_case.ProcessFailed("RuntimeError: boom")),
        (-9, "", "", process_case.ProcessFailed("exit code -9")),
    ],
)
def test_a_process_that_does_not_fit_is_not_one_that_failed(monkeypatch, code, stdout, stderr, error):
    done = subprocess.CompletedProcess([], code, stdout, stderr)
    monkeypatch.setattr(process_case.subprocess, "run", lambda *_, **__: done)
    with pytest.raises(type(error), match=str(error)):
        process_case.measure("memory", {"env": "catch8"}, "/CPU:0")


def test_processes_share_a_gpu_unless_the_user_has_said_otherwise():
    code = "import sys, os, benchmarks; print('tensorflow' in sys.modules, os.environ['TF_FORCE_GPU_ALLOW_GROWTH'])"
    variables = {name: value for name, value in os.environ.items() if name != "TF_FORCE_GPU_ALLOW_GROWTH"}
    for given, wanted in (({}, "False true"), ({"TF_FORCE_GPU_ALLOW_GROWTH": "false"}, "False false")):
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables | given)
        assert result.stdout.strip() == wanted


@pytest.fixture
def processes(monkeypatch):
    """Answers or errors of processes by their case, in the place of processes."""
    found = {"compile": {"seconds": 2.0, "threads": 1}, "reports": {"ratios": [1.5] * 3, "threads": 1}}

    def measure(case, settings, device, quick):
        if isinstance(found[case], Exception):
            raise found[case]
        return found[case]

    monkeypatch.setattr(process_case, "measure", measure)
    return found


def test_a_process_that_fails_is_named_and_ends_the_run_with_a_code(tmp_path, processes, capsys):
    file = tmp_path / "rows.json"
    processes["compile"] = process_case.ProcessFailed("RuntimeError: boom")
    processes["memory"] = UserError("does not fit")
    cases = ["--case", "compile/catch8/default", "--case", "memory/catch8/default", "--case", "reports/catch8"]
    rest = ["--device", "cpu", "--threads", "3", "--json", str(file)]
    assert run.main([*cases, *rest]) == run.EXIT_WRONG
    failed, skipped, reports = json.loads(file.read_text())
    keys = ("case", "median", "skipped", "failed")
    assert [failed[key] for key in keys] == ["compile", None, "RuntimeError: boom", True]
    assert [skipped[key] for key in keys] == ["memory", None, "does not fit", False]
    assert (reports["case"], reports["median"]) == ("reports", 1.5)  # what comes after is measured all the same
    # Its own preset's threads; a row that has no process has those of the run.
    assert (reports["threads"], failed["threads"]) == (1, 3)
    printed = capsys.readouterr()
    assert "FAILED compile/catch8/default/n64/b32: RuntimeError: boom" in printed.err
    assert "RuntimeError: boom" in printed.out and "skipped" in printed.out
    assert run.main([*cases[2:], *rest]) == 0  # what does not fit is no fault


def test_what_does_not_fit_is_a_row_without_numbers(tmp_path, monkeypatch):
    def too_large(spec, device):
        raise UserError("a replay of 9 GB does not fit")

    monkeypatch.setattr(build, "build", too_large)
    file = tmp_path / "rows.json"
    case = ["--quick", "--case", "replay/cave/sample/n64/b256", "--device", "cpu", "--json", str(file)]
    assert run.main(case) == 0
    (row,) = json.loads(file.read_text())
    assert (row["name"], row["median"]) == ("replay/cave/sample/n64/b256", None)
    assert row["skipped"] == "a replay of 9 GB does not fit"


def test_a_run_measures_presets_in_the_sizes_of_the_device_that_it_found(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(cli, "choose_device", lambda *_, **__: "/GPU:0")
    monkeypatch.setattr(results, "machine", lambda _: {"load_before": 0.0, "threads": 2})
    file = tmp_path / "rows.json"
    assert run.main(["--case", "compile/catch8/default/n64/b32", "--json", str(file)]) == 0
    (row,) = json.loads(file.read_text())
    assert (row["name"], row["num_envs"], row["batch"]) == ("compile/catch8/default/n2048/b512", 2048, 512)


# A comparison.

FIRST, SECOND = "env/catch8/frames/n1024", "env/cave/frames/n1024"


@pytest.fixture
def sides(monkeypatch):
    """Workers that answer at once. `faults`: what (side, case, request) goes wrong with; "dies" ends the process."""

    sides = types.SimpleNamespace(faults={}, started=[])

    class Side:
        def __init__(self, tree, device):
            self.name = "new" if tree == compare.ROOT else "base"
            self.is_gone = False
            sides.started.append(self.name)

        def ask(self, do, name=None, **_):
            self.case = name or self.case
            fault = sides.faults.get((self.name, self.case, do))
            self.is_gone |= fault == "dies"
            if self.is_gone:
                raise line.WorkerFailed(self, "the process ended with code -11", is_gone=True)
            if fault:
                raise line.WorkerFailed(self, fault)
            return {"build": None, "count": 10, "time": 1.0}[do]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(compare, "Worker", Side)
    monkeypatch.setattr(compare, "checkout", lambda revision: contextlib.nullcontext(Path("base")))
    monkeypatch.setattr(compare.signal, "signal", lambda *_: None)
    return sides


def compared(capsys, *names):
    """Exit code, the JSON object, and what was said of comparing cases with a base."""
    cases = [word for name in names for word in ("--case", name)]
    code = compare.main(["--device", "cpu", "--json", *cases])
    printed = capsys.readouterr()
    return code, json.loads(printed.out.splitlines()[-1]), printed.err


@pytest.mark.parametrize("request_name", ["build", "count", "time"])
def test_what_the_new_tree_cannot_do_fails(sides, capsys, request_name):
    sides.faults["new", FIRST, request_name] = "WrongResult: env: tensor 0 differs"
    code, found, said = compared(capsys, FIRST, SECOND)
    assert (code, found["failed"], list(found["cases"])) == (1, [FIRST], [SECOND])
    assert found["broken"] == {FIRST: "WrongResult: env: tensor 0 differs"}
    assert f"{FIRST}: WrongResult: env: tensor 0 differs" in said.splitlines()[-1]
    assert "1 compared, 0 slower, 1 broken" in said


def test_what_the_base_cannot_do_is_not_compared(sides, capsys):
    sides.faults["base", FIRST, "build"] = "AttributeError: no such thing"
    code, found, said = compared(capsys, FIRST, SECOND)
    assert (code, found["failed"], found["broken"], list(found["cases"])) == (0, [], {}, [SECOND])
    assert f"not compared: {FIRST}: AttributeError" in said
    with pytest.raises(UserError, match="nothing could be compared"):
        compared(capsys, FIRST)


@pytest.mark.parametrize(("side", "code"), [("new", 1), ("base", 0)])
def test_a_process_that_dies_does_not_spoil_the_cases_after_it(sides, capsys, side, code):
    sides.faults[side, FIRST, "build"] = "dies"
    found_code, found, said = compared(capsys, FIRST, SECOND)
    assert (found_code, list(found["cases"])) == (code, [SECOND])
    assert "the process ended with code -11" in said
    assert sides.started == ["base", "new"] * 2


def test_a_new_tree_that_can_do_nothing_fails(sides, capsys):
    sides.faults["new", FIRST, "build"] = "dies"
    code, found, _ = compared(capsys, FIRST)
    assert (code, found["failed"], found["cases"]) == (1, [FIRST], {})


def test_a_comparison_on_a_gpu_is_of_the_sizes_there(sides, capsys, monkeypatch):
    monkeypatch.setattr(compare, "_device", lambda wanted: "/GPU:0")
    assert compare.main(["--json", "--case", "loop/catch8/preset-default/n64/b32"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["cases"]) == ["loop/catch8/preset-default/n2048/b512"]


def test_a_worker_on_a_gpu_finds_the_row_of_the_sizes_there(monkeypatch):
    built = []
    monkeypatch.setattr(build, "build", lambda spec, device: built.append(spec) or Fixed())
    worker._build(ROOT, "/GPU:0", "loop/catch8/preset-default/n2048/b512", True)
    assert (built[0].num_envs, built[0].batch) == (2048, 512)
    with pytest.raises(LookupError, match="no row here"):
        worker._build(ROOT, "/CPU:0", "loop/catch8/preset-default/n2048/b512", True)


def test_workers_get_the_users_xla_flags_and_not_those_of_this_trees_tfdqn(monkeypatch):
    """Else a base would run with the options of the tree that it is compared with."""
    started = []
    monkeypatch.setattr(line.Process, "__init__", lambda self, command, variables: started.append(variables))
    ours = tfdqn.ONE_KERNEL_OPTION
    cases = {
        ours: "",
        f"--xla_dump_to=x {ours}": "--xla_dump_to=x",
        f"{ours} --xla_dump_to=x": "--xla_dump_to=x",
        f"{ours},another=1": f"{ours},another=1",  # the user's own, to which tfdqn adds nothing
        "--xla_dump_to=x": "--xla_dump_to=x",
    }
    for flags, wanted in cases.items():
        monkeypatch.setenv("XLA_FLAGS", flags)
        worker.Worker(ROOT, "/CPU:0")
        assert started.pop()["XLA_FLAGS"] == wanted
    monkeypatch.delenv("XLA_FLAGS")
    worker.Worker(ROOT, "/CPU:0")
    assert started.pop()["XLA_FLAGS"] == ""


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
BAD_COMPARE = [
    (["--base", "no-such-revision"], "no such revision"),
    (["--base", "--help"], "expected one argument"),
    (["--pairs", "3"], "use 7"),
    (["--pairs", "x"], "whole number"),
    (["--plant", "env"], "factor from 1 to 100"),
    (["--plant", "env/none=1.3"], "is not compared"),
    (["--case", "compile"], "nothing in it is compared"),
    (["--case", "memory/cave"], "nothing in it is compared"),
    (["--case", "env", "--case", "reports/catch8"], "reports/catch8: nothing in it is compared"),
    (["--case", "act"], "nothing in it is compared"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_RUN)
def test_bad_arguments_of_run_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        run.main(arguments)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("arguments", "message"), BAD_COMPARE)
def test_bad_arguments_of_compare_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        compare.main(arguments)
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


def test_a_quick_case_end_to_end(tmp_path):
    file = tmp_path / "rows.json"
    result = command("benchmarks.run", "--quick", "--case", "env/catch8/frames/n1", "--device", "cpu", "--json", file)
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())
    assert [row["case"] for row in rows] == ["floor", "floor", "env"]
    wanted = (
        "case env num_envs batch metric unit median spread floor ratio reference game_version device cpu versions date"
    )
    assert all(row.keys() >= set(wanted.split()) for row in rows)
    row = rows[-1]
    assert row["median"] > 0 and row["reference"] == "copy" and row["quick"] is True
    assert row["floor"] > 0 and row["ratio"] > 0
    assert "env/catch8/frames/n1" in result.stdout
    assert list(tmp_path.iterdir()) == [file]  # no scratch file is left


def test_a_revision_is_checked_out_and_taken_away_again():
    if subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True).returncode:
        pytest.skip("not a git repository")
    with compare.checkout("HEAD") as tree:
        assert (tree / "tfdqn" / "__init__.py").exists()
    assert not tree.exists()
    listed = subprocess.run(["git", "-C", ROOT, "worktree", "list"], capture_output=True, text=True).stdout
    assert str(tree) not in listed


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
