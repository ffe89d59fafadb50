"""The check of games: good ones pass every check, and each planted fault is found first by the check of its name."""

import importlib
import json
import math
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import envs, seeds
from tfdqn.envs import Environment, ObservationSpec, TimeStep, check
from tfdqn.envs.check import nests, playing
from tfdqn.errors import UserError
from tfdqn.runtime import compiled
from tfdqn.templates.game import MyGame

ROOT = Path(__file__).parent.parent.parent
GAME_FILE = ROOT / "tfdqn" / "templates" / "game.py"
NAMES = [each.name for each in check.CHECKS]
SMALL = {"num_envs": 6, "steps": 8}


@pytest.fixture(autouse=True)
def short_play(monkeypatch):
    monkeypatch.setattr(playing, "LONG_PLAY_FRAMES", (300, 2_000))


def verdicts(env, **sizes):
    results = check.check_env(env, **{**SMALL, **sizes})
    assert [result.name for result in results] == NAMES
    assert all("\n" not in str(result) for result in results)
    return {result.name: result for result in results}


def assert_passes(env, **sizes):
    found = verdicts(env, **sizes)
    assert not [str(result) for result in found.values() if result.verdict not in ("ok", "info")]
    return found


@pytest.mark.parametrize("name", ["catch8", "catch8_single", "catch16", "cave"])
def test_the_games_here_keep_the_contract(name):
    found = assert_passes(envs.make(name))
    assert found["time limit"].verdict == "ok"
    assert found["eager and XLA"].message == "in every bit"


class CartState(NamedTuple):
    time: tf.Tensor  # [N] int32
    angle: tf.Tensor  # [N] float32
    speed: tf.Tensor  # [N] float32


class Cart(Environment):
    """Physics in floats, a vector to see, as little said as a game may say."""

    observation_spec = ObservationSpec((3,), "float32")
    num_actions = 2
    time_limit = 40

    def sample_noise(self, seed, num_envs):
        return seeds.draw(seed, num_envs)

    def reset(self, noise):
        angle = tf.cast(noise % 1000, tf.float32) / 5000 - 0.1
        return CartState(tf.zeros_like(noise, tf.int32), angle, tf.zeros_like(angle))

    def step(self, state, action, noise):
        push = tf.cast(2 * action - 1, tf.float32)
        speed = state.speed + 0.1 * (9.8 * tf.sin(state.angle) + push * tf.cos(state.angle))
        state = CartState(state.time + 1, state.angle + 0.1 * speed, speed)
        falls = tf.abs(state.angle) > 0.7
        reward = tf.ones_like(speed)
        return state, TimeStep(self.observe(state), reward, falls, (state.time > self.time_limit) & ~falls)

    def observe(self, state):
        return tf.stack([tf.sin(state.angle), tf.cos(state.angle), state.speed], axis=1)


class PlaneState(NamedTuple):
    cell: tf.Tensor  # [N] int32


class Planes(Environment):
    """Bool planes, legal actions, no time limit: walk right, or jump where there is room, to the end of a row."""

    observation_spec = ObservationSpec((1, 6, 2), "bool")
    action_names = ("walk", "jump", "stay")

    def sample_noise(self, seed, num_envs):
        return (tf.cast(seeds.draw(seed, num_envs) % 2, tf.int32),)

    def reset(self, noise):
        return PlaneState(noise[0])

    def step(self, state, action, noise):
        state = PlaneState(tf.minimum(state.cell + tf.gather([1, 2, 0], action), 5))
        is_there = state.cell == 5
        return state, TimeStep(self.observe(state), tf.where(is_there, 1.0, -0.1), is_there, tf.zeros_like(is_there))

    def observe(self, state):
        here = tf.range(6)[tf.newaxis] == state.cell[:, tf.newaxis]
        return tf.stack([here, ~here], axis=-1)[:, tf.newaxis]

    def legal_actions(self, state):
        yes = tf.ones_like(state.cell, tf.bool)
        return tf.stack([yes, state.cell < 4, yes], axis=1)


class Stops(Planes):
    """Allows nothing at the end of the row, where the episode is over."""

    def legal_actions(self, state):
        return super().legal_actions(state) & (state.cell < 5)[:, tf.newaxis]


class Once(Planes):
    """Draws nothing, has one action, and is over after it."""

    action_names = ("go",)
    legal_actions = Environment.legal_actions

    def sample_noise(self, seed, num_envs):
        return (tf.zeros([num_envs], tf.int32),)

    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(termination=tf.ones_like(timestep.termination))


def test_other_games_that_keep_the_contract_pass():
    found = assert_passes(MyGame())
    assert found["time limit"].message == "" and "truncated" in found["random play"].message
    found = assert_passes(Cart())
    assert found["eager and XLA"].message.startswith("floats to within") or "bit" in found["eager and XLA"].message
    assert found["render"].message == "none"
    found = assert_passes(Planes())
    assert "on average" in found["legal actions"].message
    assert found["time limit"].verdict == "info" and "sets none" in found["time limit"].message
    assert_passes(Stops())
    found = assert_passes(Once())
    assert (found["noise"].message, found["actions"].message) == ("nothing is drawn", "only one")


def test_an_action_that_is_another_is_told():
    class Twin(MyGame):
        action_names = ("up", "down", "left", "right", "right too")

        def step(self, state, action, noise):
            return super().step(state, tf.minimum(action, 3), noise)

    assert "'right too' did the same as 'right'" in assert_passes(Twin())["actions"].message


# --- Planted faults: each a game that breaks one promise. ---

FAULTS = []


def fault(name, message):
    """A broken game: the first check that fails is `name`, and says so."""

    def add(game):
        FAULTS.append(pytest.param(game, name, message, id=game.__name__))
        return game

    return add


@fault("description", "does not say what it shows: set observation_spec")
class ShowsWhat(MyGame):
    def __init__(self):
        self.size = 5


@fault("description", "must be 5 different words, as num_actions says")
class FiveActionsOfFour(MyGame):
    num_actions = 5


@fault("description", "observation_shape (5, 5) is not observation_spec's, (4, 4)")
class TwoShapes(MyGame):
    observation_shape = (5, 5)

    def __init__(self):
        super().__init__()
        self.observation_spec = ObservationSpec((4, 4))


@fault("noise", "drew the same numbers from another seed")
class IgnoresTheSeed(MyGame):
    def sample_noise(self, seed, num_envs):
        return super().sample_noise([0, 0], num_envs)


@fault("noise", "gave all environments the same draw")
class OneDrawForAll(MyGame):
    def sample_noise(self, seed, num_envs):
        return tf.nest.map_structure(lambda draw: tf.repeat(draw, num_envs), super().sample_noise(seed, 1))


@fault("noise", "drew other numbers from an equal seed")
class DrawsInPython(MyGame):
    def sample_noise(self, seed, num_envs):
        return super().sample_noise([random.getrandbits(60), 0], num_envs)


@fault("noise", "sample_noise[1] is float32: draw whole numbers")
class DrawsFloats(MyGame):
    def sample_noise(self, seed, num_envs):
        return super().sample_noise(seed, num_envs), tf.random.stateless_uniform([num_envs], seed)

    def reset(self, noise):
        return super().reset(noise[0])


@fault("number of environments", "sample_noise drew other numbers for the first 1 of 6 environments")
class DrawsByNumber(MyGame):
    def sample_noise(self, seed, num_envs):
        return super().sample_noise(seed + num_envs, num_envs)


@fault("reset", "reset.time has shape []: must begin with N, 6 here")
class OneClockForAll(MyGame):
    def reset(self, noise):
        return super().reset(noise)._replace(time=tf.constant(0))


@fault("reset", "reset.time is a int, not a tensor")
class CountsInPython(MyGame):
    def reset(self, noise):
        return super().reset(noise)._replace(time=0)


@fault("step", "state.time is [6] int64 after step, but [6] int32 after reset")
class WidensItsClock(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state._replace(time=tf.cast(state.time, tf.int64)), timestep


@fault("step", "step returned a tuple, but reset a State(time, player, goal)")
class OtherFields(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return tuple(state)[:2], timestep


@fault("step", "step must return (state, TimeStep(observation, reward, termination, truncation))")
class AsGymnasium(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, *timestep


@fault("step", "raised InvalidArgumentError: ")
class ActionOutOfTable(MyGame):
    action_names = ("up", "down", "left", "right", "stay")


@fault("observation", "is [6, 5, 5, 1] uint8, but observation_spec says [6, 5, 5] uint8")
class OneAxisMore(MyGame):
    def observe(self, state):
        return super().observe(state)[..., tf.newaxis]


@fault("observation", "is [6, 5, 5] int32, but observation_spec says [6, 5, 5] uint8")
class OtherType(MyGame):
    def observe(self, state):
        return tf.cast(super().observe(state), tf.int32)


@fault("observation range", "outside observation_spec's 0 to 1: clip it, or give")
class TooBright(MyGame):
    def __init__(self):
        super().__init__()
        self.observation_spec = ObservationSpec((5, 5), "uint8", 0, 1)


@fault("observation range", "numbers of observations of random play are outside the finite numbers")
class RunsAway(Cart):
    def observe(self, state):
        return super().observe(state) / tf.cast(state.time[:, tf.newaxis] != 20, tf.float32)


@fault("observe", "step's observation is not what observe shows of step's state, in frame 1")
class ShowsTheFrameBefore(MyGame):
    def step(self, state, action, noise):
        after, timestep = super().step(state, action, noise)
        return after, timestep._replace(observation=self.observe(state))


@fault("reward", "reward is [6] int32, must be [6] float32, one an environment")
class WholeRewards(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(reward=tf.cast(timestep.reward, tf.int32))


@fault("finite rewards", "rewards of random play are infinite or not a number: look for divisions by 0")
class RewardOverTimeLeft(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(reward=1 / tf.cast(20 - state.time, tf.float32))


@fault("flags", "termination is [6] float32, must be [6] bool")
class EndsInFloats(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(termination=timestep.reward)


@fault("one end", "termination and truncation were both true")
class BothEnds(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(truncation=timestep.truncation | timestep.termination)


@fault("episodes end", "no episode ended within 300 frames of random play: end it by a rule")
class NeverEnds(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        no = tf.zeros_like(timestep.termination)
        return state, timestep._replace(termination=no, truncation=no)


@fault("time limit", "truncated in frame 50, but time_limit is 50: truncate in the frame that passes it, 51")
class AFrameEarly(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(truncation=(state.time >= 50) & ~timestep.termination)


@fault("time limit", "an episode went on after frame 51")
class GoesOn(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(truncation=tf.zeros_like(timestep.truncation))


@fault("time limit", "with the state's time set to time_limit, 5000, the next step went on")
class GoesOnUnseen(MyGame):
    time_limit = 5000

    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(truncation=tf.zeros_like(timestep.truncation))


@fault("best score", "an episode of random play scored 1, more than best_score, 0.5: raise it")
class BetterThanTheBest(MyGame):
    best_score = 0.5


@fault("legal actions", "legal_actions allows no action in frame 0: end the episode, or allow one")
class NothingIsLegal(Planes):
    def legal_actions(self, state):
        return super().legal_actions(state) & (state.cell > 0)[:, tf.newaxis]


@fault("legal actions", "legal_actions is [6, 2] bool, must be [6, 3] bool")
class LegalOfTwo(Planes):
    def legal_actions(self, state):
        return super().legal_actions(state)[:, :2]


@fault("actions", "no action changes anything: step must read `action`")
class IgnoresActions(MyGame):
    def step(self, state, action, noise):
        return super().step(state, tf.zeros_like(action), noise)


@fault("repeated calls", "step gave another result when it was called again with the same arguments (in ")
class DrawsWhileStepping(MyGame):
    def step(self, state, action, noise):
        return super().step(state, tf.random.uniform(action.shape, 0, 4, tf.int32), noise)


@fault("repeated calls", "step gave another result when it was called again with the same arguments (in [1].reward")
class CountsCalls(MyGame):
    calls = 0

    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        self.calls += 1
        return state, timestep._replace(reward=timestep.reward + self.calls)


@fault("order of calls", "came out another way after other games had been played")
class KeepsTheGoal(MyGame):
    def reset(self, noise):
        self.goal = noise.goal
        return super().reset(noise)

    def step(self, state, action, noise):
        return super().step(state._replace(goal=self.goal), action, noise)


@fault("number of environments", "an environment came out another way")
class AllEndTogether(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(reward=timestep.reward - tf.reduce_mean(tf.cast(state.player, tf.float32)))


@fault("number of environments", "alone (in stepped.player [6] int32, then [1] int32)")
class SixEnvironments(MyGame):
    def step(self, state, action, noise):
        return super().step(state, action + tf.zeros([6], tf.int32), noise)


@fault("second trace", "Python's if, and, or cannot see into a tensor: use tf.where")
class AsksInPython(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        if tf.reduce_any(timestep.termination):
            timestep = timestep._replace(reward=timestep.reward * 2)
        return state, timestep


@fault("second trace", "(test_check.py line ")
class UsesNumPy(MyGame):
    def step(self, state, action, noise):
        return super().step(state, tf.constant(action.numpy() % 4), noise)


@fault("compiles", "XLA cannot compile ")
class CallsPython(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        reward = tf.py_function(lambda reward: reward, [timestep.reward], tf.float32)
        return state, timestep._replace(reward=tf.ensure_shape(reward, timestep.reward.shape))


@fault("eager and XLA", "XLA and op by op disagree in frame 1 (in timestep.reward of environment 0: ")
class OtherWhenCompiled(MyGame):
    def step(self, state, action, noise):
        state, timestep = super().step(state, action, noise)
        return state, timestep._replace(reward=timestep.reward + (0.0 if tf.executing_eagerly() else 0.5))


class Farther(MyGame):
    """Begins as the game does, but for the noise's sake."""

    def difficulties(self, noise, share):
        return tf.fill([tf.nest.flatten(noise)[0].shape[0]], 1 if share else 0)

    def reset_at(self, noise, difficulty):
        state = self.reset(noise)
        return tf.nest.map_structure(lambda value: _where(difficulty > 0, value + 1, value), state)


def _where(condition, one, other):
    return tf.where(tf.reshape(condition, [-1] + [1] * (other.shape.rank - 1)), one, other)


def test_difficulties_that_keep_the_contract_pass():
    found = verdicts(Farther())["difficulties"]
    assert (found.verdict, found.message) == ("ok", "1 to 1 drawn")


@fault("difficulties", "draws difficulties, but has no reset_at(noise, difficulty)")
class NoDifficulties(MyGame):
    difficulties = Farther.difficulties


@fault("difficulties", "difficulties with a share of 0 drew another than 0")
class AlwaysFarther(Farther):
    def difficulties(self, noise, share):
        return super().difficulties(noise, 1.0)


@fault("difficulties", "difficulties with a share of 1 drew 0")
class NeverFarther(Farther):
    def difficulties(self, noise, share):
        return super().difficulties(noise, 0.0)


@fault("difficulties", "difficulties is [6] float32, must be [6] int32")
class HalfFarther(Farther):
    def difficulties(self, noise, share):
        return tf.cast(super().difficulties(noise, share), tf.float32)


@fault("difficulties", "reset_at a difficulty of 0 is not reset")
class ShiftsAll(Farther):
    def reset_at(self, noise, difficulty):
        return super().reset_at(noise, difficulty + 1)


@fault("difficulties", "reset_at a difficulty above 0 is reset")
class ShiftsNothing(Farther):
    def reset_at(self, noise, difficulty):
        return super().reset_at(noise, 0 * difficulty)


@fault("score", "score is [6] int32, must be [6] float32")
class CountsInWholeNumbers(MyGame):
    def score(self, state, timestep):
        return tf.cast(timestep.reward, tf.int32)


@fault("score", "score returned infinity or no number at all")
class ScoresByDivision(MyGame):
    def score(self, state, timestep):
        return timestep.reward / 0.0


@fault("render", "render is [6, 5, 5] uint8, must be [6, H, W, 3] uint8, or None")
class RendersGrey(MyGame):
    def render(self, state):
        return self.observe(state)


def test_every_check_has_a_fault_that_it_finds():
    assert len(FAULTS) >= 10
    # These only tell numbers.
    assert {param.values[1] for param in FAULTS} | {"random play", "speed"} == set(NAMES)


@pytest.mark.parametrize("game, name, message", FAULTS)
def test_a_planted_fault_is_found_by_its_name(game, name, message):
    results = check.results_of(game(), **SMALL)
    first = next((result for result in results if result.is_fault), None)
    assert first is not None, "not found"
    assert first.name == name and message in first.message, str(first)
    assert "\n" not in first.message


def test_what_hangs_on_a_failed_check_is_skipped():
    found = verdicts(WidensItsClock())
    assert found["step"].verdict == "FAIL"
    assert found["compiles"].verdict == "skip" and "step must pass first" in found["compiles"].message
    assert {result.verdict for result in list(found.values())[:3]} == {"ok"}


def test_the_long_play_counts_right():
    """Totals of the compiled loop against the same games played in Python."""
    game = playing.Game(Planes(), 5, 4, 3)
    totals, frames = game.play(1), game.long_play_frames
    env, score, lengths = game.env, [], []
    state = env.reset(env.sample_noise(game.at(playing.PLAY, 0), 5))
    sums, length = np.zeros(5, np.float32), np.zeros(5, int)
    step = compiled.xla(lambda state, t: _one_frame(game, state, t))
    for t in range(1, frames + 1):
        state, reward, is_over = nests.arrays(step(state, tf.constant(t)))
        sums, length = sums + reward, length + 1
        score += sums[is_over].tolist()
        lengths += length[is_over].tolist()
        sums, length = np.where(is_over, 0, sums), np.where(is_over, 0, length)
    assert len(score) == totals.episodes > 300 and totals.cut == 0
    assert math.isclose(sum(score), totals.score, rel_tol=1e-4)
    assert (sum(lengths), max(lengths)) == (totals.episode_frames, totals.longest)
    np.testing.assert_array_equal(length, totals.frames)


def _one_frame(game, state, t):
    at = game.at(playing.PLAY, 2 * tf.cast(t, tf.int64))
    rank = tf.cast(seeds.draw(at, 5) % 2**31, tf.int32)
    can_jump = state.cell < 4
    action = tf.where(can_jump, 1, tf.where(rank % 2 == 0, 0, 2))
    noise = game.env.sample_noise(at + tf.constant([0, 1], tf.int64), 5)
    state, timestep = game.env.step(state, action, noise)
    is_over = timestep.termination
    return PlaneState(tf.where(is_over, game.env.reset(noise).cell, state.cell)), timestep.reward, is_over


@pytest.mark.parametrize("sizes", [{"num_envs": 3}, {"steps": 0}])
def test_too_few_to_tell_are_refused(sizes):
    with pytest.raises(ValueError, match="at least 4 environments and 1 step"):
        check.check_env(MyGame(), **sizes)


# --- The command ---


@pytest.fixture(scope="module")
def command():
    return importlib.import_module("tfdqn.check_env")


def test_the_command_prints_a_line_a_check(command, capsys):
    assert command.main([f"{GAME_FILE}:MyGame", "--env-args", '{"size": 3}', "--num-envs", "4", "--steps", "2"]) == 0
    out = capsys.readouterr()
    lines = out.out.splitlines()
    assert len(lines) == len(NAMES) and lines[0] == "ok   description: MyGame, [3, 3] uint8 0..255, 4 actions"
    assert out.err.endswith(":MyGame: keeps the contract\n")


def test_the_command_ends_with_1_for_a_fault_and_prints_json(command, capsys, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text(GAME_FILE.read_text().replace("tf.cast(is_there, tf.float32)", "is_there"))
    assert command.main([f"{path}:MyGame", "--json", "--num-envs", "4", "--steps", "2"]) == 1
    out = capsys.readouterr()
    report = json.loads(out.out)
    assert report["passed"] is False and [row["name"] for row in report["checks"]] == NAMES
    (failed,) = (row for row in report["checks"] if row["verdict"] == "FAIL")
    assert (failed["name"], failed["message"]) == (
        "reward",
        "reward is [4] bool, must be [4] float32, one an environment",
    )
    assert "1 failed: reward" in out.err


def test_the_command_is_the_function_too(command):
    results = command(MyGame(), num_envs=4, steps=1)
    assert [result.name for result in results] == NAMES and not any(result.is_fault for result in results)


BAD_INPUT = [
    ([], "spec"),
    (["cach8"], "cach8: unknown; did you mean 'catch8'"),
    (["nothing.py:Game"], "no such file nothing.py"),
    (["a-file"], "a-file: unknown; choose one of"),
    (["./a-file:Game"], "its name must end in .py"),
    (["catch8", "--num-envs", "3"], "--num-envs 3: must be between 4 and 4096; use 4"),
    (["catch8", "--steps", "many"], "--steps many: must be a whole number"),
    (["catch8", "--env-args", "{"], "--env-args {: not JSON"),
    (["catch8", "--stepz", "1"], "did you mean '--steps'"),
]


@pytest.mark.parametrize("arguments, message", BAD_INPUT)
def test_bad_input_is_one_line_without_tensorflow(command, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a-file").write_text("")
    with pytest.raises(UserError) as error:
        command.main(arguments)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_arguments_of_a_game_here_are_checked(command):
    with pytest.raises(UserError, match=r"--env-args .*: catch8 takes none; leave it out"):
        command.main(["catch8", "--env-args", '{"size": 8}'])


def test_help_and_bad_input_need_no_tensorflow():
    code = (
        "import sys, importlib\n"
        "from tfdqn.errors import UserError\n"
        "command = importlib.import_module('tfdqn.check_env')\n"
        "for words in (['-h'], ['cach8'], ['no.py:Game'], ['catch8', '--env-args', '8']):\n"
        "    try: command.main(words)\n"
        "    except (SystemExit, UserError): assert 'tensorflow' not in sys.modules, words\n"
        "    else: raise AssertionError(words)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr
    assert "one line a check" in result.stdout
