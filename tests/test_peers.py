"""The comparison with peers, as far as it needs none of their environments. Nothing here asserts a time."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import line, results, specs
from benchmarks.peers import __main__ as peers
from benchmarks.peers import contender, contenders, environments, numpy_catch, report, traces
from benchmarks.timing import WrongResult
from tfdqn.errors import UserError

ROOT = Path(__file__).parent.parent

BAD = [
    (["--peer", "jaxx"], "did you mean 'jax'"),
    (["--row", "update-every-2"], "did you mean 'update-every-3'"),
    (["--repeats", "2"], "use 3"),
    (["--repeats", "x"], "whole number"),
    (["--repeat-seconds", "0"], "above 0"),
    (["--learn-seconds", "nan"], "above 0"),
    (["--peer", "keras", "--row", "batch-512"], "does not play it"),
    (["--json", "/nowhere/at/all.json"], "can be written"),
    (["--peers", "jax"], "did you mean '--peer'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        peers.main(arguments)
    assert "\n" not in str(raised.value)


def test_bad_arguments_end_with_code_2():
    command = [sys.executable, "-m", "benchmarks.peers", "--peer", "nobody"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("tfdqn: error: --peer nobody") and len(result.stderr.splitlines()) == 1


# The games.


def test_the_numpy_game_plays_the_recorded_games():
    assert numpy_catch.play_recorded() == len(np.load(traces.FOLDER / "catch8.npz")["action"])


def test_a_wrong_pixel_and_a_wrong_reward_are_seen(monkeypatch):
    draw = numpy_catch.Catch8._draw

    def wrong(game):
        draw(game)
        game.frame[0, 0] += game.time == 3

    with monkeypatch.context() as patch:
        patch.setattr(numpy_catch.Catch8, "_draw", wrong)
        with pytest.raises(WrongResult, match="frame 3: pixels"):
            numpy_catch.play_recorded()
    step = numpy_catch.Catch8.step
    monkeypatch.setattr(numpy_catch.Catch8, "step", lambda *arguments: (0.0, *step(*arguments)[1:]))
    with pytest.raises(WrongResult, match="frame 7: reward"):
        numpy_catch.play_recorded()


def test_greedy_play_counts_one_episode_of_each_game():
    games = [numpy_catch.Catch8(seed) for seed in range(4)]

    def follow(frames):
        """Go to under the lowest ball: perfect play."""
        actions = []
        for game in games:
            column = game.balls[0][1] if game.balls[0][0] < 7 or len(game.balls) == 1 else game.balls[1][1]
            actions.append(1 if column <= game.paddle else 2 if column >= game.paddle + 2 else 0)
        return actions

    assert numpy_catch.play_greedy(games, follow) == contender.PERFECT


# Learning.


class Scripted(contender.Contender):
    """Scores 99 after so many rounds."""

    def __init__(self, rounds):
        self._rounds, self._done = rounds, 0

    def run(self, count):
        self._done += count
        return {"env_frames": 64.0 * count, "updates": float(count)}

    def evaluate(self):
        return contender.PERFECT if self._done > self._rounds else 12.0


def test_learning_stops_at_a_perfect_score_or_when_the_time_is_over():
    found = contender.learn(Scripted(rounds=1000), 64, max_seconds=60.0)
    assert found["is_perfect"] and found["updates"] >= 1000 and found["env_frames"] == 64 * found["updates"]
    never = contender.learn(Scripted(rounds=10**12), 64, max_seconds=1e-3)
    assert not never["is_perfect"] and never["best"] == 12.0


# Tables.


def samples(frames, seconds):
    fixed = {"cpu_seconds": 1.0, "updates": 10.0, "matmul_operations_per_second": 90e9}
    return [{"env_frames": frames, "seconds": second, **fixed} for second in seconds]


def test_ratios_are_taken_repeat_by_repeat():
    timed = {"tfdqn": samples(300.0, [1.0, 2.0, 4.0]), "jax": samples(100.0, [1.0, 2.0, 8.0])}
    rows = report.rate_rows("update-every-3", timed)
    assert json.loads(json.dumps(rows)) == rows
    ours, _, theirs, updates = rows
    assert (ours["median"], ours["ratio"], ours["contender"]) == (150.0, None, "tfdqn")
    assert (theirs["median"], theirs["ratio"], theirs["cpu_ratio"], theirs["bar"]) == (50.0, 3.0, 3.0, 1.5)
    assert updates["bar"] is None and updates["metric"] == "updates"
    learnt = {"seconds": 2.5, "env_frames": 1e5, "updates": 9.0, "best": 99.0, "is_perfect": True}
    gave_up = {**learnt, "best": 5.0, "is_perfect": False}
    rows += report.learning_rows("update-every-3", "tfdqn", learnt, 60.0)
    rows += report.learning_rows("update-every-3", "jax", gave_up, 60.0)
    report.judge(rows)
    table = report.table(rows)
    assert "| 3 (±" in table and "1.5: met" in table
    assert "2.5 s, 100,000 frames" in table and "not reached in 60 s (best 5.0)" in table
    # 50 env frames/s are fewer than half of 20,000, as the matmul is half as quick as where that is asked for.
    assert "DOES NOT COUNT" in table and "needed 10,000 at 90 GFLOP/s" in table


@pytest.mark.parametrize(
    ("frames", "is_perfect", "counts", "verdict"),
    [
        (20_000.0, True, True, "the JAX loop counts (20,000"),
        (20_000.0, None, None, "is quick enough; not known to learn: add --learn"),
        (20_000.0, False, False, "DOES NOT COUNT"),
        (50.0, True, False, "DOES NOT COUNT"),
        (50.0, None, False, "DOES NOT COUNT"),
    ],
)
def test_the_jax_loop_counts_if_it_is_quick_and_learns(frames, is_perfect, counts, verdict):
    rows = report.rate_rows("update-every-3", {name: samples(frames, [1.0] * 3) for name in ("tfdqn", "jax")})
    if is_perfect is not None:
        learnt = {"seconds": 2.5, "env_frames": 1e5, "updates": 9.0, "best": 99.0, "is_perfect": is_perfect}
        rows += report.learning_rows("update-every-3", "jax", learnt, 60.0)
    report.judge(rows)
    assert [row["counts"] for row in rows if "counts" in row] == [counts]  # in one row, that of its env frames
    assert json.loads(json.dumps(rows)) == rows
    assert verdict in report.table(rows).splitlines()[-1]


def test_nobody_has_said_how_quick_the_jax_loop_must_be_in_the_cave():
    rows = report.rate_rows("article-conv", {name: samples(1.0, [1.0] * 3) for name in ("tfdqn", "jax")})
    report.judge(rows)
    assert not any("counts" in row for row in rows) and "JAX loop counts" not in report.table(rows)


def test_a_row_says_whether_its_contender_had_one_thread():
    timed = {name: samples(1.0, [1.0] * 3) for name in ("tfdqn", "jax", "one-thread", "tf-agents", "sb3")}
    rows = [results.placed(row, {"threads": 8}) for row in report.rate_rows("update-every-3", timed)]
    threads = {row["contender"]: row["threads"] for row in rows}
    assert threads == {"tfdqn": 8, "jax": 1, "one-thread": 1, "tf-agents": 8, "sb3": 1}
    cave = report.rate_rows("article-conv", {name: samples(1.0, [1.0]) for name in ("tfdqn", "jax")})
    assert not any("threads" in row for row in cave)  # JAX gets all of them there


# The command, with contenders that answer at once.


class Fake:
    """A contender; `faults`: (name, request) to how many of these requests it answers before it fails."""

    def __init__(self, name, faults):
        self._name, self._left = name, {do: left for (who, do), left in faults.items() if who == name}

    def ask(self, do, **_):
        if do in self._left:
            self._left[do] -= 1
            if self._left[do] < 0:
                raise line.WorkerFailed(self, "the process ended with code -9", is_gone=True)
        rates = {"env_frames": 6e6, "updates": 10.0}
        return {
            "build": None,
            "count": 10,
            "time": {"seconds": 1.0, "cpu_seconds": 1.0, **rates},
            "learn": {"seconds": 3.0, "best": 99.0, "is_perfect": True, **rates},
        }[do]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


@pytest.fixture
def beside(monkeypatch, tmp_path, capsys):
    """Runs the command and returns its exit code, the rows, and what it said."""

    def run(faults, *arguments):
        monkeypatch.setattr(contenders, "start", lambda name: Fake(name, faults))
        monkeypatch.setattr(peers, "_matmul", lambda: lambda: 180e9)
        monkeypatch.setattr(peers.signal, "signal", lambda *_: None)
        file = tmp_path / "peers.json"
        fixed = ["--row", "update-every-3", "--peer", "jax", "--peer", "one-thread", "--repeats", "3"]
        code = peers.main([*fixed, "--json", str(file), *arguments])
        return code, json.loads(file.read_text()), capsys.readouterr()

    return run


def test_the_command_measures_and_learns(beside):
    code, rows, printed = beside({}, "--learn")
    assert code == 0
    assert [row["contender"] for row in rows if row["metric"] == "env_frames"] == ["tfdqn", "jax", "one-thread"]
    assert sum(row["metric"] == "perfect catch8" for row in rows) == 3
    assert "the JAX loop counts" in printed.out
    assert [row["limit"] for row in rows if "limit" in row] == [3600.0] * 3  # an hour, where nothing else was said


def test_a_contender_that_fails_while_it_is_timed_is_dropped(beside):
    code, rows, printed = beside({("jax", "time"): 1}, "--learn")
    assert code == 1 and {row["contender"] for row in rows} == {"tfdqn", "one-thread"}
    assert "jax is dropped in repeat 2: the process ended with code -9" in printed.err
    assert next(row for row in rows if row["contender"] == "one-thread")["ratio"] == 1.0


@pytest.mark.parametrize("fault", [("tfdqn", "build"), ("tfdqn", "time")])
def test_without_tfdqn_itself_nothing_is_reported_and_nobody_learns(beside, fault):
    code, rows, printed = beside({fault: 0}, "--learn")
    assert (code, rows) == (1, [])
    assert "learns" not in printed.err and "| contender |" in printed.out


def test_a_contender_that_fails_to_train_sets_the_code(beside):
    code, rows, printed = beside({("jax", "learn"): 0}, "--learn")
    assert code == 1 and "jax did not learn: the process ended" in printed.err
    assert [row["contender"] for row in rows if row["metric"] == "perfect catch8"] == ["tfdqn", "one-thread"]
    assert "not known to learn" in printed.out


# What contenders are given.


def test_infinities_stay_here_and_all_else_is_pinned():
    settings = contenders.settings("article-conv", "jax")
    assert [name for name in specs.PINNED if name not in settings] == ["max_gradient_norm"]
    assert (settings["discount"], settings["epsilon_end"], settings["optimizer_epsilon"]) == (0.99, 0.05, 1e-4)
    assert (settings["device"], settings["one_thread"], settings["frame_stack"]) == ("cpu", False, 4)


def test_our_own_worker_has_the_infinities_again(monkeypatch):
    from benchmarks.peers import tfdqn_worker

    class Built(Exception):
        pass

    def build(variant, settings, device, **_):
        raise Built(settings)

    monkeypatch.setattr(tfdqn_worker, "LoopBench", build)
    with pytest.raises(Built) as raised:
        tfdqn_worker.make(contenders.settings("article-conv"))
    pinned = {**contenders.spec("article-conv").settings, "device": "cpu"}
    assert raised.value.args == ({**pinned, "eval_episodes": contender.EVAL_EPISODES},)


def test_every_peer_plays_rows_that_exist_with_adam_and_without_double():
    for name, peer in contenders.PEERS.items():
        assert peer.environment in (None, *environments.REQUIREMENTS) and peer.rows, name
        assert (ROOT / "benchmarks" / "peers" / f"{peer.module}.py").exists()
    for row in contenders.ROWS:
        settings = contenders.settings(row)
        assert (settings["optimizer"], settings["double"], settings["n_step"]) == ("adam", False, 1)
        assert json.loads(json.dumps(settings)) == settings
    assert all(peer in contenders.PEERS and row in contenders.PEERS[peer].rows for peer, row in contenders.BARS)


def test_every_version_is_exact():
    pins = report.pins()
    assert {"jax", "torch", "stable_baselines3", "tf-agents", "tensorflow"} <= pins.keys()
    assert f"jax=={pins['jax']}" in environments.REQUIREMENTS["jax"][0][0].read_text("utf-8").splitlines()
    assert all(version[0].isdigit() and "*" not in version for version in pins.values())


def test_a_worker_needs_neither_tfdqn_nor_tensorflow():
    """Peers' environments have no TensorFlow, so the line's end over there must do without."""
    code = (
        "import sys\n"
        "from benchmarks.peers import contender, numpy_catch, traces\n"
        "assert not {'tfdqn', 'tensorflow'} & set(sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=120).returncode == 0


def test_a_worker_answers_with_results_and_with_errors(tmp_path):
    code = (
        "from benchmarks.peers import contender\n"
        "class Fixed(contender.Contender):\n"
        "    def __init__(self, settings):\n"
        "        self.frames = settings['num_envs']\n"
        "    def run(self, count):\n"
        "        print('no answer')\n"
        "        return {'env_frames': float(self.frames * count), 'updates': float(count)}\n"
        "    def evaluate(self):\n"
        "        return 99.0\n"
        "contender.serve(Fixed)\n"
    )
    with line.Process([sys.executable, "-c", code], {"PYTHONPATH": str(ROOT)}) as worker:
        worker.ask(do="build", settings={"num_envs": 2})
        assert worker.ask(do="time", count=5)["env_frames"] == 10.0
        settings = {"num_envs": 2, "iterations_per_update": 1}
        assert worker.ask(do="learn", settings=settings, max_seconds=5.0)["is_perfect"]
        with pytest.raises(line.WorkerFailed, match="KeyError") as raised:
            worker.ask(do="build", settings={})
        assert raised.value.worker is worker and not raised.value.is_gone


def test_a_worker_that_has_ended_is_gone():
    with line.Process([sys.executable, "-c", "raise SystemExit(3)"], {}) as worker:
        with pytest.raises(line.WorkerFailed, match="ended with code 3") as raised:
            worker.ask(do="build")
        assert raised.value.worker is worker and raised.value.is_gone
