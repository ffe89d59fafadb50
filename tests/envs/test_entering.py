"""What enters a game from Python: played as it was meant, or refused in one line."""

import numpy as np
import pytest
import tensorflow as tf

from tests.envs.helpers import noise_of, to_numpy
from tfdqn import seeds
from tfdqn.envs import entering, make
from tfdqn.envs.cave import planner

GAMES = ["catch8", "cave"]


@pytest.fixture(params=GAMES, scope="module")
def game(request):
    env = make(request.param)
    return env, env.compiled_reset(noise_of(env, 1, 0, 4)), noise_of(env, 2, 0, 4)


@pytest.fixture(params=["compiled", "eager", "traced"])
def play(request, game):
    """A way to call `step` from Python."""
    env = game[0]
    if request.param == "traced":
        return lambda state, action, noise: tf.function(
            lambda state, noise: env.step(state, action, noise), autograph=False, jit_compile=True
        )(state, noise)
    return env.compiled_step if request.param == "compiled" else env.step


def same(left, right):
    tf.nest.map_structure(np.testing.assert_array_equal, to_numpy(left), to_numpy(right))


def test_actions_mean_the_same_in_any_container(game, play):
    env, state, noise = game
    expected = env.step(state, tf.constant([1, 1, 0, 1]), noise)
    for action in (
        [1, 1, 0, 1],
        (1, 1, 0, 1),
        np.array([1, 1, 0, 1]),
        np.array([1, 1, 0, 1], np.uint8),
        tf.constant([1, 1, 0, 1], tf.int64),
        tf.Variable([1, 1, 0, 1]),
    ):
        same(play(state, action, noise), expected)


BAD_ACTIONS = [
    ([1], ValueError, r"action: has the shape [1], expected [4]"),
    ([1, 1, 1, 1, 1], ValueError, r"action: has the shape [5], expected [4]"),
    (1, ValueError, r"action: has the shape [], expected [4]"),
    ([[1], [1], [1], [1]], ValueError, r"action: has the shape [4, 1], expected [4]"),
    ([0, 1, 7, 1], ValueError, r"action: holds 7, but this game has the actions 0..{last}"),
    ([0, -1, 1, 1], ValueError, r"action: holds -1, but this game has the actions 0..{last}"),
    (tf.constant([0, 9, 1, 1]), ValueError, r"action: holds 9, but this game has the actions 0..{last}"),
    (np.array([0, 2**32, 1, 1]), ValueError, r"action: holds 4294967296, but"),
    ([1.0, 1.0, 1.0, 1.0], TypeError, r"action: is float64, expected whole numbers (int32)"),
    ([True, True, False, True], TypeError, r"action: is bool, expected whole numbers (int32)"),
    (["1", "1", "0", "1"], TypeError, r"action: is no tensor, array or list of numbers"),
    ([[1], [1, 0]], TypeError, r"action: is no tensor, array or list of numbers"),
    (None, TypeError, r"action: is no tensor, array or list of numbers"),
]


@pytest.mark.parametrize("action, kind, message", BAD_ACTIONS)
def test_actions_that_mean_nothing_are_refused(game, play, action, kind, message):
    env, state, noise = game
    with pytest.raises(kind) as error:
        play(state, action, noise)
    assert str(error.value).startswith(message.replace("{last}", str(env.num_actions - 1)))
    assert "\n" not in str(error.value)


def test_states_and_noise_that_are_none_are_refused(game, play):
    env, state, noise = game
    action = [0, 0, 0, 0]
    field = noise._fields[0]
    wide, narrow = noise_of(env, 2, 0, 5), noise_of(env, 2, 0, 1)
    floats = noise._replace(**{field: tf.cast(noise[0], tf.float32)})
    for bad_state, bad_noise, kind, message in (
        (state, wide, ValueError, f"noise.{field}: has the shape [5], expected [4]"),
        (state, narrow, ValueError, f"noise.{field}: has the shape [1], expected [4]"),
        (state, floats, TypeError, f"noise.{field}: is float32, expected int32"),
        (state, state, TypeError, "noise: is a State, expected the game's own Noise"),
        (noise, noise, TypeError, "state: is a Noise, expected the game's own State"),
        (state._replace(time=[0.5] * 4), noise, TypeError, "state.time: is float64, expected int32"),
        (state._replace(time=[2**31] * 4), noise, ValueError, "state.time: holds numbers that are too large for int32"),
    ):
        with pytest.raises(kind) as error:
            play(bad_state, action, bad_noise)
        assert str(error.value) == message
    # NumPy's own widths are what it makes of plain numbers.
    wider = tf.nest.map_structure(lambda values: np.asarray(values, np.int64), to_numpy(state))
    for step in (env.step, env.compiled_step):
        same(step(wider, action, noise), env.step(state, action, noise))


def test_a_reset_takes_the_games_own_noise(game):
    env, _, noise = game
    for reset in (env.reset, env.compiled_reset):
        same(reset(to_numpy(noise)), env.reset(noise))
        with pytest.raises(TypeError, match="noise: is a list, expected the game's own Noise"):
            reset([1, 2, 3])
    with pytest.raises(ValueError, match="must be two whole numbers"):
        env.sample_noise(7, 4)
    with pytest.raises(ValueError, match="must be two whole numbers"):
        seeds.draw([1, 2, 3], 4)


def test_a_share_is_a_share_and_rows_are_whole():
    env = make("cave")
    with pytest.raises(ValueError, match=r"curriculum is 1\.5, but must be a share between 0 and 1"):
        env.training_start(noise_of(env, 1, 0, 4), 1.5)
    for downsample in (2.0, "2", True, 0):
        with pytest.raises(ValueError, match="cannot be downsampled by"):
            make("cave", downsample=downsample)


def test_the_planner_takes_what_it_can_see():
    env = make("cave")
    state = env.reset(noise_of(env, 1, 0, 2))
    with pytest.raises(ValueError, match="lookahead is 40, but must be between 1 and 32"):
        planner.count_safe_plans(state, 40)
    with pytest.raises(TypeError, match="state: is a Noise, expected the cave's State"):
        planner.act(noise_of(env, 1, 0, 2))
    with pytest.raises(ValueError, match="0 episodes"):
        planner.play(0)


def test_states_in_lists_and_dicts_are_as_good_as_in_named_tuples():
    specs = {"at": tf.TensorSpec([1], tf.int32), "more": (tf.TensorSpec([1, 2], tf.float32), [])}
    given = {"at": [1, 2, 3], "more": (np.zeros([3, 2], np.float32), [])}
    assert entering.count_envs(given, specs) == 3
    found = entering.like("state", given, specs, 3)
    tf.nest.assert_same_structure(found, specs)
    assert found["at"].dtype == tf.int32
    for bad, message in (
        ({"at": [1, 2, 3]}, "state: must be a dict of 'at', 'more'"),
        ({**given, "more": [given["more"][0], [1]]}, "state.more.1: has 1 parts, expected 0"),
        ({**given, "at": [1.5] * 3}, "state.at: is float64, expected int32"),
    ):
        with pytest.raises(TypeError) as error:
            entering.like("state", bad, specs, entering.count_envs(bad, specs))
        assert str(error.value) == message
