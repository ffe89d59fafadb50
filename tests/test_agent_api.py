"""Python first: an agent made, trained, played, saved and loaded in one process, with the numbers of the commands."""

import contextlib
import dataclasses
import gc
import io
import json
import math
import os
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests import own_games
from tests.faults import harness
from tests.own_games import Line, Planes
from tests.whole_runs import SETTINGS
from tfdqn import agent_api, evaluate, train
from tfdqn.envs import loading
from tfdqn.errors import EXIT_IO, EXIT_REFUSED, UserError
from tfdqn.programs import training
from tfdqn.runs import checkpoints, locks, models, run_config

ROOT = Path(__file__).parent.parent
TINY = {**SETTINGS, "jit": False, "eval_every_frames": 250, "log_every_frames": 300, "total_env_frames": 1500}
SPEC = f"{own_games.__file__}:Line"


def python(code, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=300
    )


class Told(tf.keras.callbacks.Callback):
    """Notes what it is told; and sends a signal at the end of an epoch, if it is to."""

    def __init__(self, signals=()):
        super().__init__()
        self.signals, self.calls, self.logs = dict(signals), [], []

    def on_train_begin(self, logs=None):
        self.calls.append("train_begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.calls.append(f"begin {epoch}")

    def on_epoch_end(self, epoch, logs=None):
        self.calls.append(f"end {epoch}")
        self.logs.append(dict(logs))
        if epoch in self.signals:
            os.kill(os.getpid(), self.signals[epoch])

    def on_train_end(self, logs=None):
        self.calls.append("train_end")


class Trained(NamedTuple):
    agent: tfdqn.Agent
    histories: list
    told: Told
    first_action: int
    made: list  # weak references to every trainer and its replay
    said: str  # by the last fit


@pytest.fixture(scope="module")
def commanded(tmp_path_factory):
    """The run of the command."""
    logdir = tmp_path_factory.mktemp("commanded")
    valued = {name.replace("_", "-"): value for name, value in TINY.items() if name != "jit"}
    flags = [word for name, value in valued.items() for word in (f"--{name}", str(value))]
    assert train.main([*flags, "--no-jit", "--logdir", str(logdir), "--run-name", "run"]) == 0
    return logdir / "run"


@pytest.fixture(autouse=True, scope="module")
def interruptible():
    """As Python has it, unless it was started in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An agent whose training was interrupted, went on, was stopped by a callback, and ended in another thread."""
    logdir = tmp_path_factory.mktemp("trained")
    made, said = [], io.StringIO()

    class Noted(training.Trainer):
        def __init__(self, *args):
            super().__init__(*args)
            made.extend(map(weakref.ref, (self, self.replay)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Trainer", Noted)
        agent = tfdqn.Agent(**TINY)
        told = Told({0: signal.SIGINT})
        histories = [agent.fit(logdir=logdir, run_name="run", callbacks=[told])]
        first_action = agent.act(np.zeros([8, 8, 2], np.uint8))

        stopping = tf.keras.callbacks.EarlyStopping("score_mean", min_delta=1e6, patience=1, mode="max")
        keeping = tf.keras.callbacks.ModelCheckpoint(str(logdir / "{env_frames:.0f}.keras"), monitor="score_mean")
        # Of the evaluations that it sees, the first is the best so far, and the second is no better.
        histories.append(agent.fit(total_env_frames=1200, callbacks=[stopping, keeping]))
        thread = threading.Thread(target=lambda: histories.append(agent.fit(verbose=0)))
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            thread.start()
            thread.join()
    return Trained(agent, histories, told, first_action, made, said.getvalue())


def test_fit_is_the_command_bit_by_bit_however_often_it_was_interrupted(commanded, trained):
    agent, histories = trained.agent, trained.histories
    assert agent.run_dir.name == "run"
    assert harness.differences(commanded, agent.run_dir) == []
    # Each went on where the one before had ended.
    assert [history.params["env_frames"] // 250 for history in histories] == [1, 3, 6]
    assert histories[-1].params["score_mean"] == agent.evaluate(4)["score_mean"]
    assert (agent.config.total_env_frames, agent.config.minutes) == (1500, float("inf"))


def test_ctrl_c_ends_a_fit_that_says_so_and_leaves_an_agent(trained):
    told = trained.told
    assert trained.histories[0].params["exit_code"] == 128 + signal.SIGINT
    assert told.calls == ["train_begin", "begin 0", "end 0", "begin 1", "train_end"]
    assert trained.first_action in (0, 1, 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_callbacks_are_told_of_each_evaluation_and_may_stop_and_save(trained):
    agent, histories, told = trained.agent, trained.histories, trained.told
    expected = {"score_mean", "score_std", "score_median", "score_min", "score_max", "episode_frames"}
    expected |= {"env_frames", "updates"}
    assert set(told.logs[0]) == set(histories[0].history) == expected
    assert all(isinstance(value, float) for value in told.logs[0].values())
    # Stopped by `EarlyStopping` before the frames that were asked for.
    assert 750 <= histories[1].params["env_frames"] < 800
    reported = [line for line in harness.reports(agent.run_dir) if "eval/score_mean" in line]
    for name in ("score_mean", "episode_frames"):
        values = [value for history in histories for value in history.history[name]]
        assert values == [line[f"eval/{name}"] for line in reported]
    kept = sorted(agent.run_dir.parent.glob("*.keras"))
    assert [path.stem for path in kept] == [str(line["env_frames"]) for line in reported[1:3]]
    tf.keras.models.load_model(kept[0])


def test_silence_is_silence(trained):
    assert trained.said == ""


def test_minutes_count_from_this_fit_and_one_fits_length_is_not_the_nexts(trained, monkeypatch):
    agent, asked = tfdqn.load(trained.agent.run_dir), []
    monkeypatch.setattr(train, "resume", lambda run_dir, given, *_, **__: asked.append(given) or 1 / 0)
    monkeypatch.setattr(agent_api, "_minutes_so_far", lambda _: 5.0)
    for length in ({"minutes": 2.0}, {"total_env_frames": 7000}, {}):
        with pytest.raises(ZeroDivisionError):
            agent.fit(**length)
    assert [(each["minutes"], each["total_env_frames"]) for each in asked] == [
        (7.0, 1500),
        (float("inf"), 7000),
        (float("inf"), 1500),
    ]
    assert {each["env"] for each in asked} == {"catch8"}


def test_a_fit_that_goes_on_takes_no_other_folder_and_no_minutes_that_are_none(trained, monkeypatch):
    agent, asked = tfdqn.load(trained.agent.run_dir), []
    monkeypatch.setattr(train, "resume", lambda run_dir, given, *_, **__: asked.append(run_dir) or 1 / 0)
    with pytest.raises(UserError, match="this agent has its run already"):
        agent.fit(logdir=agent.run_dir.parent / "other")
    with pytest.raises(UserError, match=r"--minutes -0.001: must be greater than 0"):
        agent.fit(minutes=-0.001)
    assert not asked
    for logdir in (agent.run_dir.parent, "runs"):
        with pytest.raises(ZeroDivisionError):
            agent.fit(logdir=logdir, callbacks=None)
    assert asked == [agent.run_dir] * 2


def test_what_a_callback_raises_loses_nothing(tmp_path):
    class Raising(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise ZeroDivisionError

    agent = tfdqn.Agent(**TINY)
    with pytest.raises(ZeroDivisionError):
        agent.fit(logdir=tmp_path, run_name="run", callbacks=Raising(), verbose=0)  # one alone, as Keras takes it, too
    assert agent.run_dir == tmp_path / "run"
    progress = checkpoints.peek(agent.run_dir)["progress"]  # what it goes on from, once it is called again
    assert 250 <= progress["evaluated_env_frames"] < progress["next_eval"] == 500


def test_an_agent_knows_its_run_from_any_working_directory(trained, tmp_path, monkeypatch):
    run_dir, zeros = trained.agent.run_dir, np.zeros([8, 8, 2], np.uint8)
    monkeypatch.chdir(run_dir.parent)
    agent = tfdqn.load(run_dir.name)
    monkeypatch.chdir(tmp_path)
    assert agent.run_dir == run_dir
    np.testing.assert_array_equal(agent.q_values(zeros), trained.agent.q_values(zeros))
    agent = tfdqn.Agent(**TINY)
    agent.fit(logdir="runs", verbose=0)
    assert agent.run_dir.is_absolute() and agent.run_dir.parent == tmp_path / "runs"


def test_a_population_is_named_by_what_grid_makes(tmp_path):
    with pytest.raises(UserError, match=r"population 4: must be what tfdqn.grid makes, as tfdqn.grid\(seed="):
        tfdqn.Agent("catch8").fit(population=4, logdir=tmp_path)


def test_a_folder_of_the_home_is_found_there(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(train, "start", lambda given, stop, logdir, **_: asked.append(logdir) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tfdqn.Agent("catch8").fit(logdir="~/runs")
    assert asked == [f"{tmp_path}/runs"]
    for use in (tfdqn.load, tfdqn.Agent("catch8").save):
        with pytest.raises(UserError, match="no such user"):
            use("~nobody-of-that-name/mine")


def test_evaluate_gives_the_commands_numbers(trained, capsys):
    agent = trained.agent
    flags = ["--episodes", "6", "--seed", "3", "--epsilon", "0.5", "--json"]
    assert evaluate.main([str(agent.run_dir), *flags]) == 0
    told = capsys.readouterr().out
    scores = agent.evaluate(6, seed=3, epsilon=0.5)
    assert scores["episodes"] == 6
    for name, value in scores.items():
        assert f'"{name}": {value!r}' in told
    # Nobody waits for episodes that are not asked for, and those that are stay the same.
    assert agent.evaluate(2, seed=3, epsilon=0.5)["score_max"] <= scores["score_max"]
    assert agent._evaluator.config.eval_episodes == 2 < agent.config.eval_episodes


def test_actions_and_their_values_for_one_and_for_many(trained):
    agent = trained.agent
    many = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 2)).astype(np.uint8)
    values = agent.q_values(many)
    assert values.shape == (5, 3) and values.dtype == np.float32
    actions = agent.act(many)
    assert actions.dtype == np.int32 and actions.tolist() == values.argmax(1).tolist()
    for given in (many, tf.constant(many), many.tolist(), many.astype(np.int64)):
        np.testing.assert_array_equal(agent.q_values(given), values)
        np.testing.assert_allclose(agent.q_values(given[0]), values[0], rtol=1e-5, atol=1e-6)
        action = agent.act(given[0])
        assert type(action) is int and action == actions[0]
    explored = agent.act(np.repeat(many[:1], 300, 0), epsilon=1.0, seed=1)
    assert set(explored.tolist()) == {0, 1, 2}
    assert not np.array_equal(explored, agent.act(np.repeat(many[:1], 300, 0), epsilon=1.0, seed=2))


@pytest.mark.parametrize(
    "observation, kind, message",
    [
        (np.zeros([8, 8], np.uint8), ValueError, r"shape \(8, 8\): must be \(8, 8, 2\), frames along the last axis"),
        (np.zeros([3, 8, 8], np.uint8), ValueError, r"or a batch of these"),
        (np.zeros([8, 8, 2], np.float32), TypeError, "multiply by 255"),
        (np.full([8, 8, 2], 300), ValueError, "must lie between 0 and 255"),
        ([[0], [0, 1]], ValueError, "lists of different lengths"),
        (7, ValueError, r"shape \(\)"),
    ],
)
def test_what_is_no_observation_is_said_in_one_line(trained, observation, kind, message):
    for method in (trained.agent.act, trained.agent.q_values):
        with pytest.raises(kind, match=message) as error:
            method(observation)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("epsilon", [-0.1, 1.1, math.nan])
def test_a_share_of_random_actions_is_one(trained, epsilon):
    with pytest.raises(ValueError, match=f"epsilon is {epsilon}, but must be between 0 and 1"):
        trained.agent.act(np.zeros([8, 8, 2], np.uint8), epsilon=epsilon)


def test_without_stacks_an_observation_is_as_the_game_shows_it():
    for env in ("catch8", Line(), Planes()):
        agent = tfdqn.Agent(env, device="cpu")
        shown = agent.env.observe(agent.env.reset(agent.env.sample_noise(tf.constant([0, 1], tf.int64), 4)))
        assert agent.act(shown).shape == (4,)
        assert agent.act(shown[0]) == agent.act(shown)[0]
        values = np.asarray(shown[0]).tolist()
        assert agent.act(values) == agent.act(shown)[0]


def test_a_wrong_setting_is_one_line_with_the_nearest(tmp_path):
    for given, message in [
        ({"learning_rte": 1}, "--learning-rte: unknown setting; did you mean 'learning_rate'"),
        ({"env": "catch9"}, "--env catch9: unknown; did you mean 'catch8'"),
        ({"num_envs": 0}, "--num-envs 0: must be at least 1; use 1"),
        ({"network": "mpl"}, "--network mpl: unknown; did you mean 'mlp'"),
        ({"network": 3}, "network 3: must be a name, or a function"),
        ({"env": 3}, "env 3: must be a game's name, or a tfdqn.envs.Environment"),
        ({"env": Line}, r"must be a game's name, or a tfdqn.envs.Environment; write Line\(\)"),
        ({"env": tfdqn.Agent("catch8").env}, 'name a game that comes along, with its settings: "catch8"'),
        ({"env": "no_such.py:Game"}, "no such file"),
    ]:
        with pytest.raises(UserError, match=message) as error:
            tfdqn.Agent(**given)
        assert "\n" not in str(error.value)
    for length, message in [
        ({"minutes": 0}, "minutes 0.0: must be greater"),
        ({"total_env_frames": 0}, "at least 1"),
    ]:
        with pytest.raises(UserError, match=message):
            tfdqn.Agent().fit(logdir=tmp_path / "runs", **length)
    assert not (tmp_path / "runs").exists()


def test_settings_of_numpy_are_those_of_python(trained, monkeypatch):
    given = {
        "seed": np.int64(3),
        "learning_rate": np.float32(0.5),
        "double": np.bool_(False),
        "discount": np.array(0.5),
    }
    config = tfdqn.Agent("catch8", **given).config
    held = [config.seed, config.learning_rate, config.double, config.discount]
    assert held == [3, 0.5, False, 0.5]
    assert [type(value) for value in held] == [int, float, bool, float]
    for setting, message in [
        ({"seed": "3"}, "--seed '3': must be a whole number"),
        ({"seed": np.bool_(True)}, "--seed True: must be a whole number"),
        ({"learning_rate": np.array([0.5])}, r"--learning-rate array\(\[0.5\]\): must be a number"),
    ]:
        with pytest.raises(UserError, match=message):
            tfdqn.Agent("catch8", **setting)
    asked = []
    monkeypatch.setattr(train, "resume", lambda run_dir, given, *_, **__: asked.append(given) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tfdqn.load(trained.agent.run_dir).fit(minutes=np.float32(0.5))
    assert type(asked[0]["minutes"]) is float


# --- Saving and loading. ---


def make_body(units):
    def body(spec):
        return tf.keras.Sequential([tf.keras.layers.Flatten(), tf.keras.layers.Dense(units, "relu")])

    return body


def small_body(spec):
    return make_body(5)(spec)


def test_a_saved_agent_plays_alike_wherever_it_is_loaded(trained, tmp_path):
    agent, zeros = trained.agent, np.zeros([8, 8, 2], np.uint8)
    expected = agent.q_values(zeros)
    agent.save(tmp_path / "mine")
    for place in (tmp_path / "mine", str(agent.run_dir)):
        np.testing.assert_array_equal(tfdqn.load(place).q_values(zeros), expected)
    loaded = tfdqn.load(tmp_path / "mine")
    assert loaded.config.init_from == "" and loaded.run_dir is None
    assert tfdqn.load(agent.run_dir).run_dir == agent.run_dir
    with pytest.raises(UserError, match="mine: holds an agent already"):
        agent.save(tmp_path / "mine")
    with pytest.raises(UserError, match="is no folder; name one"):
        agent.save("")
    with pytest.raises(UserError, match="model") as error:
        agent.save(tmp_path / "mine" / "model.keras")
    assert error.value.exit_code == EXIT_IO


def test_what_is_carried_on_is_of_as_many_as_see(tmp_path):
    """One of another batch would be broadcast, and the wrong memory taken."""
    agent, screens = tfdqn.Agent("catch8", learner="pqn", cell="gru"), np.zeros([2, 8, 8], np.uint8)
    _, one = agent.act_with_state(screens[0])
    _, two = agent.act_with_state(screens)
    for seen, carried in ((screens, one), (screens[0], two), (screens, 3), (screens, ())):
        with pytest.raises(ValueError, match="agent_state: is not what was returned with"):
            agent.act_with_state(seen, carried)
    agent.act_with_state(screens, two)


def test_a_loaded_agent_learns_on_from_what_it_knows(trained, tmp_path):
    trained.agent.save(tmp_path / "mine")
    agent = tfdqn.load(tmp_path / "mine")
    seen = []

    class Look(tf.keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.extend([self.model.online.get_weights(), self.model.target.get_weights()])
            raise KeyboardInterrupt

    expected = agent.model.online.get_weights()
    with pytest.raises(KeyboardInterrupt):
        agent.fit(logdir=tmp_path, run_name="run", callbacks=[Look()], verbose=0)
    for weights in seen:
        for ours, theirs in zip(weights, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert len(seen) == 2
    locks.lock(tmp_path / "run").close()  # free for others
    assert agent.run_dir is None


def test_packaged_agents_are_loaded_by_name():
    agent = tfdqn.load("pretrained:catch8")
    assert agent.config.env == "catch8"
    assert agent.act(np.zeros([*agent.model.online.input_shape[1:]], np.uint8)) in (0, 1, 2)
    with pytest.raises(UserError, match="no such agent; did you mean 'catch8'"):
        tfdqn.load("pretrained:catch9")


def test_what_is_no_agent_is_not_loaded(tmp_path):
    tfdqn.Agent("catch8").save(tmp_path / "mine")
    (tmp_path / "mine" / models.BEST_MODEL).unlink()
    for place, message in [("nothing", "no such run folder"), (".", "not a run folder"), ("mine", "holds no agent")]:
        with pytest.raises(UserError, match=message) as error:
            tfdqn.load(tmp_path / place)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "env, network, again",
    [
        (Line(cells=5), None, {"env": Line(cells=5)}),
        (SPEC, None, {"env": SPEC}),
        ("catch8", small_body, {"network": small_body}),
        ("catch8", f"{__file__}:small_body", {"network": f"{__file__}:small_body"}),
        (Planes(), make_body(4), {"env": Planes(), "network": make_body(4)}),
    ],
    ids=["game", "file", "function", "function in a file", "both"],
)
def test_code_of_ones_own_has_to_be_named_again(env, network, again, tmp_path):
    agent = tfdqn.Agent(env, network=network, device="cpu")
    shown = agent.env.observe(agent.env.reset(agent.env.sample_noise(tf.constant([0, 1], tf.int64), 4)))
    agent.save(tmp_path / "mine")
    loaded = tfdqn.load(tmp_path / "mine", **again)
    np.testing.assert_array_equal(loaded.q_values(shown), agent.q_values(shown))
    for name in again:
        with pytest.raises(UserError, match=f"its {name}, .* does not come along with tfdqn.* add --{name}") as error:
            tfdqn.load(tmp_path / "mine", **{key: value for key, value in again.items() if key != name})
        assert "\n" not in str(error.value)
    for name, other in (("env", Line() if env == "catch8" else "catch8"), ("network", "mlp")):
        if name in again:
            with pytest.raises(UserError, match=f"--{name} {other}: .* has "):
                tfdqn.load(tmp_path / "mine", **{**again, name: other})


def test_a_registered_game_goes_by_its_name(tmp_path):
    tfdqn.register("my_line", Line, preset={"num_envs": 8, "discount": 0.5})
    agent = tfdqn.Agent("my_line", env_args='{"cells": 3}')
    assert (agent.config.discount, agent.env.cells) == (0.5, 3)
    agent.save(tmp_path / "mine")
    assert tfdqn.load(tmp_path / "mine").env.cells == 3
    done = python("import sys, tfdqn; tfdqn.load(sys.argv[1])", tmp_path / "mine")
    assert "UserError: --env my_line: unknown" in done.stderr
    with pytest.raises(ValueError, match="choose a plain name"):
        tfdqn.register("catch8", Line)


def test_two_of_one_name_do_not_mix():
    """Functions made by one function have one name, and so have games of one class."""
    first = tfdqn.Agent(Line(cells=3), network=make_body(3), device="cpu")
    second = tfdqn.Agent(Line(cells=9), network=make_body(9), device="cpu")
    assert first.config.replace(env_args=second.config.env_args) == second.config
    assert (first.env.cells, second.env.cells) == (3, 9)
    assert [agent.model.online.get_weights()[0].shape for agent in (first, second, first)] == [(3, 3), (3, 9), (3, 3)]


def test_what_a_game_was_made_with_is_kept_and_one_made_otherwise_is_refused(tmp_path):
    settings = {name: value for name, value in SETTINGS.items() if name != "env"}
    agent = tfdqn.Agent(Line(5), **settings, jit=False)
    agent.fit(total_env_frames=500, logdir=tmp_path, verbose=0)
    run_dir = agent.run_dir
    assert run_config.read_settings(run_dir)["env_args"] == agent.config.env_args == '{"cells": 5}'
    for other, told in ((Line(9), r'\{"cells": 9\}'), (Line(), r"\{\}")):
        message = rf'env_args is {{"cells": 5}} there, but tests.own_games:Line was made with {told}; make it with'
        with pytest.raises(UserError, match=message) as error:
            tfdqn.load(run_dir, env=other)
        assert error.value.exit_code == EXIT_REFUSED and "\n" not in str(error.value)
    resumed = tfdqn.load(run_dir, env=Line(cells=5))
    resumed.fit(total_env_frames=600, verbose=0)
    assert resumed.run_dir == run_dir and resumed.config.env_args == '{"cells": 5}'
    with pytest.raises(UserError, match=r"env_args is .* there, but"):
        tfdqn.Agent(Line(5), env_args='{"cells": 6}')


class Sized(Line):
    def __init__(self, size, shape=(2, 2), *more, by=None, **rest):
        super().__init__(cells=size)


@dataclasses.dataclass
class Plain(Line):
    cells: int = 7
    speed: float = 1.0


class Silent(Line):
    pass


@pytest.mark.parametrize(
    "env, arguments",
    [
        (Line(), {}),
        (Line(7), {}),
        (Line(8), {"cells": 8}),
        (Silent(cells=np.int64(8)), {"cells": 8}),
        (Sized(7), {"size": 7}),
        (Sized(3, (2, 2), by="x", far=[1]), {"size": 3, "by": "x", "far": [1]}),
        (Sized(3, shape=(4, 2)), {"size": 3, "shape": [4, 2]}),
        (Plain(speed=2.0), {"speed": 2.0}),
        (Sized(3, by=print), None),
        (Sized(3, by=float("nan")), None),
        (Sized(3, 4, 5), None),
    ],
)
def test_what_a_game_was_made_with_is_known_where_json_holds_it(env, arguments, capfd):
    assert loading.arguments_of(env) == arguments
    agent = tfdqn.Agent(env)
    assert agent.config.env_args == (json.dumps(arguments) if arguments else "")
    assert ("JSON does not hold" in capfd.readouterr().err) == (arguments is None)


# --- The process. ---


def test_importing_and_making_an_agent_imports_no_tensorflow():
    code = "import sys, tfdqn; dir(tfdqn); tfdqn.Agent('catch8', seed=1); print('tensorflow' in sys.modules)"
    assert python(code).stdout == "False\n"


def test_nothing_of_a_fit_is_left_nor_of_an_agent_that_is_gone(trained):
    gc.collect()
    assert [ref() for ref in trained.made] == [None] * 6

    def play():  # TensorFlow looks at the variables of its callers, and Python keeps what it saw while they run
        agent = tfdqn.Agent(Line(), device="cpu", eval_episodes=4)
        agent.evaluate(4)
        return [weakref.ref(each) for each in (agent, agent.model, agent._evaluator)]

    kept = play()
    gc.collect()
    assert [ref() for ref in kept] == [None] * 3


@pytest.mark.slow
def test_nothing_is_left_of_fifty_fits(tmp_path):
    """But for the code that XLA has compiled, which TensorFlow never drops."""

    def fit(number):
        agent = tfdqn.Agent(**{**TINY, "total_env_frames": 300, "seed": number, "jit": number % 2 == 0})
        agent.fit(logdir=tmp_path, verbose=0)
        agent.evaluate(4)

    counts = []
    for number in range(50):
        fit(number)
        gc.collect()
        counts.append(len(gc.get_objects()))
    # The first ten make what is made once. One fit that stayed, or the graph of its loops, is 20,000 objects.
    assert counts[-1] - counts[9] < 40 * 1000, counts
