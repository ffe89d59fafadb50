"""The games for Gymnasium: its own checks, its semantics, and the same games as tfdqn plays."""

import subprocess
import sys
import warnings

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

import tfdqn.adapters.gymnasium  # noqa: F401 - registers the games
from benchmarks.peers import environments
from tests.own_games import Line, Planes
from tfdqn import envs
from tfdqn.adapters.gymnasium import GameEnv, GameVectorEnv
from tfdqn.envs import registry

IDS = {spec.kwargs["game"]: name for name, spec in gymnasium.registry.items() if spec.namespace == "tfdqn"}


class Limited(Line):
    """Ends of the line cannot be walked over."""

    def legal_actions(self, state):
        return tf.stack([state.place > 0, state.place < self.cells - 1], axis=-1)


class OnHost(Line):
    steps_on_host = True


def check_quietly(env, allowed=("infinity",)):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        check_env(env)
    assert [str(line.message) for line in told if not any(word in str(line.message) for word in allowed)] == []


def test_every_game_is_registered_with_the_version_of_its_rules():
    assert set(IDS) == set(registry.names())
    for game, name in IDS.items():
        assert name.endswith(f"-v{envs.make(game).version}")
    assert {IDS[game].split("-")[0] for game in ("catch8", "catch8_single", "cave", "cartpole")} == {
        *("tfdqn/Catch8", "tfdqn/Catch8Single", "tfdqn/Cave", "tfdqn/CartPole")
    }


@pytest.mark.parametrize("game", IDS)
def test_it_passes_gymnasiums_check(game):
    # Nothing but that cart-pole's speeds know no bound is worth a warning.
    check_quietly(gymnasium.make(IDS[game], render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("game", [Line, Planes, Limited], ids=lambda game: game.__name__)
def test_a_game_of_ones_own_passes_gymnasiums_check(game):
    check_quietly(GameEnv(game()), allowed=("infinity", "not having a spec"))


def test_a_stranger_makes_a_game_by_where_it_is():
    """In a process that has not imported tfdqn, as Gymnasium's page on registering shows it."""
    code = """
import gymnasium
env = gymnasium.make("tfdqn.adapters.gymnasium:tfdqn/Catch8-v1")
observation, info = env.reset(seed=1)
for _ in range(20):
    observation, reward, terminated, truncated, info = env.step(env.action_space.sample())
    if terminated or truncated:
        env.reset()
many = gymnasium.make_vec("tfdqn/Catch8-v1", num_envs=3)
print(observation.shape, observation.dtype, many.reset(seed=1)[0].shape, type(many).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(8, 8) uint8 (3, 8, 8) GameVectorEnv", done.stderr


def play(env, actions, seed=None):
    """What reset and each step show, an episode after another."""
    shown = [env.reset(seed=seed)]
    for action in actions:
        shown.append(env.step(action))
        if shown[-1][2] or shown[-1][3]:
            shown.append(env.reset())
    return shown


def test_a_seed_decides_everything_that_follows():
    env, other = GameEnv("catch8"), GameEnv("catch8")
    actions = np.random.default_rng(0).integers(0, 3, 120)
    first, again, elsewhere = play(env, actions, 5), play(env, actions, 5), play(other, actions, 5)
    different = play(env, actions, 6)
    assert sum(len(step) == 2 for step in first) > 5
    for others in (again, elsewhere):
        for left, right in zip(first, others, strict=True):
            np.testing.assert_array_equal(left[0], right[0])
            assert left[1:] == right[1:]
    assert any((left[0] != right[0]).any() for left, right in zip(first, different, strict=False))
    unseeded = [play(GameEnv("catch8"), actions) for _ in range(2)]
    assert any((left[0] != right[0]).any() for left, right in zip(*unseeded, strict=False))


def test_ends_are_told_apart():
    env = GameEnv(Line(cells=30))
    env.reset(seed=0)
    goal = env._played._state.goal.numpy()[0]
    ends = []
    for _ in range(Line.time_limit + 1):
        # Away from the goal, so that nothing but time ends the episode.
        place = env._played._state.place.numpy()[0]
        _, reward, terminated, truncated, _ = env.step(int(place > goal))
        ends.append((reward, terminated, truncated))
    assert ends == [(0.0, False, False)] * Line.time_limit + [(0.0, False, True)]
    with pytest.raises(ResetNeeded, match=r"call reset\(\) before step"):
        env.step(0)
    env = GameEnv("catch8_single")
    env.reset(seed=0)
    steps = [env.step(0) for _ in range(7)]
    assert [step[2] for step in steps] == [False] * 6 + [True] and not any(step[3] for step in steps)


def test_legal_actions_are_a_mask_that_the_action_space_takes():
    env, many = GameEnv(Limited(cells=3)), GameVectorEnv(Limited(cells=3), 4)
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    seen = set()
    for _ in range(60):
        mask = info["action_mask"]
        place = int(env._played._state.place[0])
        assert mask.dtype == np.int8 and mask.tolist() == [place > 0, place < 2]
        action = env.action_space.sample(mask)
        assert mask[action]
        seen.add(tuple(mask))
        *_, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            _, info = env.reset()
    assert len(seen) == 3
    _, info = many.reset(seed=0)
    assert info["action_mask"].shape == (4, 2) and info["_action_mask"].all()
    assert "action_mask" not in GameEnv("catch8").reset()[1]


# --- Many ---


@pytest.mark.parametrize("num_envs", [1, 5])
def test_many_games_begin_anew_in_the_step_after_an_end(num_envs):
    """With reward 0 and no end, whatever the action; and game i is the same beside any number of others."""
    many, more = gymnasium.make_vec(IDS["catch8"], num_envs=num_envs), GameVectorEnv("catch8", 7)
    assert many.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    dice = np.random.default_rng(0)
    observation, _ = many.reset(seed=3)
    np.testing.assert_array_equal(observation, more.reset(seed=3)[0][:num_envs])
    was_over, resets = np.zeros(num_envs, bool), 0
    for _ in range(60):
        action = dice.integers(0, 3, 7)
        # What stands where an episode begins anew is not even looked at.
        observation, reward, terminated, truncated, _ = many.step(np.where(was_over, 99, action[:num_envs]))
        assert (reward.dtype, terminated.dtype) == (np.float64, bool) and observation in many.observation_space
        for left, right in zip(more.step(action)[:4], (observation, reward, terminated, truncated), strict=True):
            np.testing.assert_array_equal(left[:num_envs], right)
        assert not reward[was_over].any() and not (terminated | truncated)[was_over].any()
        # A fresh screen has its first ball in the top row, and nothing but the paddle in the others.
        fresh = observation[was_over]
        assert (np.count_nonzero(fresh[:, 0], axis=1) == 1).all() and not fresh[:, 1:-1].any()
        resets += was_over.sum()
        was_over = terminated | truncated
    assert resets > 2 * num_envs


def test_the_first_of_many_is_the_one_alone():
    one, many = GameEnv("catch16"), GameVectorEnv("catch16", 3)
    np.testing.assert_array_equal(one.reset(seed=9)[0], many.reset(seed=9)[0][0])
    is_over, resets = False, 0
    for action in np.random.default_rng(1).integers(0, 3, 100):
        shown = many.step([action, 0, 0])
        if is_over:
            np.testing.assert_array_equal(one.reset()[0], shown[0][0])
            is_over, resets = False, resets + 1
            continue
        alone = one.step(action)
        np.testing.assert_array_equal(alone[0], shown[0][0])
        assert alone[1:4] == tuple(part[0] for part in shown[1:4])
        is_over = alone[2] or alone[3]
    assert resets >= 2


def test_a_step_is_the_games_own_step():
    """The same states, draws and all, as `compiled_step` makes from the same seeds."""
    many, env = GameVectorEnv("cave", 4), envs.make("cave")
    many.reset(seed=2)
    state = env.compiled_reset(env.sample_noise([many._played._stream, 0], 4))
    for t in range(1, 30):
        action = np.random.default_rng(t).integers(0, 2, 4)
        shown = many.step(action)
        state, timestep = env.compiled_step(state, action, env.sample_noise([many._played._stream, t], 4))
        np.testing.assert_array_equal(shown[0], timestep.observation)
        for left, right in zip(shown[1:4], timestep[1:], strict=True):
            np.testing.assert_array_equal(left, right)
        if shown[2].any():
            break
    assert t > 10


def test_bits_are_shown_as_zeros_and_ones():
    env = GameEnv(Planes())
    observation, _ = env.reset(seed=0)
    assert env.observation_space == gymnasium.spaces.Box(0, 1, (2, 7, 2), np.uint8)
    assert observation.dtype == np.uint8 and observation.sum() == 4


def test_pictures_are_drawn_where_there_are_any():
    env = gymnasium.make(IDS["catch8"], render_mode="rgb_array")
    env.reset(seed=0)
    assert (env.render().shape, env.render().dtype) == ((8, 8, 3), np.uint8)
    many = GameVectorEnv("cartpole", 2, render_mode="rgb_array")
    many.reset(seed=0)
    assert [picture.shape for picture in many.render()] == [(60, 120, 3)] * 2
    assert GameEnv(Line()).metadata["render_modes"] == [] and GameEnv("catch8").render() is None
    with pytest.raises(ValueError, match=r"^render_mode 'rgb_array': this game has no pictures$"):
        GameEnv(Line(), render_mode="rgb_array")
    with pytest.raises(ValueError, match=r"^render_mode 'human': use 'rgb_array'$"):
        GameEnv("catch8", render_mode="human")


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: GameEnv("catch9"), "catch9: unknown; did you mean 'catch8'"),
        (lambda: GameEnv(Line(), cells=3), "cells: this game is made already"),
        (lambda: GameEnv(OnHost()), "OnHost steps in Python"),
        (lambda: GameVectorEnv("catch8", 0), "num_envs is 0: must be at least 1"),
        (lambda: GameEnv("catch8").step(0), r"call reset\(\) before step"),
        (lambda: GameVectorEnv("catch8", 2).step([0, 0]), r"call reset\(\) before step"),
    ],
)
def test_mistakes_are_one_line(make, message):
    with pytest.raises((ValueError, ResetNeeded), match=message) as error:
        make()
    assert "\n" not in str(error.value)


def test_wrong_actions_are_one_line():
    one, many = GameEnv("catch8"), GameVectorEnv("catch8", 2)
    one.reset()
    many.reset()
    for env, action, message in [
        (one, 3, r"holds 3, but this game has the actions 0\.\.2"),
        (many, [0, -1], r"holds -1, but this game has the actions 0\.\.2"),
        (many, [0], r"has the shape \[1\], expected \[2\]"),
        (many, [0.5, 1.0], "is float64, expected whole numbers"),
    ]:
        with pytest.raises((ValueError, TypeError), match=message) as error:
            env.step(action)
        assert "\n" not in str(error.value)


def test_without_gymnasium_one_line_says_what_to_install():
    code = "import sys; sys.modules['gymnasium'] = None; import tfdqn.adapters.gymnasium"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    said = 'tfdqn.adapters.gymnasium: needs Gymnasium; run python -m pip install "tfdqn[gymnasium]"'
    assert done.stderr.strip().splitlines()[-1] == f"tfdqn.errors.UserError: {said}"


# --- As Stable-Baselines3 uses it ---

STRANGER = """
import gymnasium
from stable_baselines3 import DQN
from stable_baselines3.common.env_checker import check_env

for name in ("Catch8-v1", "CartPole-v1"):
    env = gymnasium.make("tfdqn.adapters.gymnasium:tfdqn/" + name)
    check_env(env)
    model = DQN("MlpPolicy", env, learning_starts=200, seed=0, device="cpu").learn(2_000)
    assert model.num_timesteps == 2_000 and model._n_updates > 400, (model.num_timesteps, model._n_updates)
    action, _ = model.predict(env.reset(seed=1)[0], deterministic=True)
    print(name, env.action_space.contains(int(action)))
"""


@pytest.mark.slow
def test_stable_baselines3_trains_on_it():
    python = environments.python("gymnasium")
    done = subprocess.run([python, "-c", STRANGER], capture_output=True, text=True, check=False, cwd=environments.ROOT)
    assert done.stdout.split("\n")[-3:-1] == ["Catch8-v1 True", "CartPole-v1 True"], done.stderr
