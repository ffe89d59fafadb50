"""What a game must say of itself, and what follows where it says no more: observations, actions, pictures."""

import math
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import envs
from tfdqn.envs import Environment, ObservationSpec, TimeStep
from tfdqn.envs.rendering import PLANE_COLOURS
from tfdqn.runtime import compiled

ROOT = Path(__file__).parent.parent.parent


class Numbers(NamedTuple):
    number: tf.Tensor  # [N] int32


class Shown(Environment):
    """Shows one number in every cell; says as little of itself as a game may."""

    num_actions = 3

    def __init__(self, spec):
        self.observation_spec = spec

    def sample_noise(self, seed, num_envs):
        return Numbers(tf.range(num_envs))

    def reset(self, noise):
        return Numbers(noise.number)

    def step(self, state, action, noise):
        state, no = Numbers(state.number + action), tf.zeros_like(action, tf.bool)
        return state, TimeStep(self.observe(state), tf.cast(action, tf.float32), no, no)

    def observe(self, state):
        shape = [-1, *self.observation_spec.shape]
        cells = tf.repeat(state.number[:, tf.newaxis], math.prod(shape[1:]), axis=1)
        return tf.cast(tf.reshape(cells, shape), self.observation_spec.dtype)


def test_bounds_are_those_of_the_type_unless_they_are_narrower():
    assert ObservationSpec((4,)) == ObservationSpec([4], tf.uint8, 0, 255) == ObservationSpec((np.int64(4),), np.uint8)
    spec = ObservationSpec((2, 3), "float32")
    assert (spec.low, spec.high) == (-math.inf, math.inf)
    spec = ObservationSpec((2, 3, 4), bool)
    assert (spec.dtype, spec.low, spec.high) == ("bool", 0, 1)
    spec = ObservationSpec((2,), tf.float32, low=-1, high=1)
    assert (spec.low, spec.high) == (-1.0, 1.0)
    assert len({spec, ObservationSpec((2,), "float32", -1.0, 1.0)}) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (((),), r"shape \(\) has 0 axes: must be \[D\], \[H, W\] or \[H, W, C\], without N"),
        (((1, 2, 3, 4),), "has 4 axes"),
        ((8,), r"shape 8 must be whole numbers, .*; write \(8,\)"),
        (((8, 2.0),), "must be whole numbers"),
        (((8, None),), "must be whole numbers"),
        (((8, 0),), "has an axis of 0: use at least 1"),
        (((8,), "unit8"), "dtype 'unit8': did you mean 'uint8'"),
        (((8,), tf.float64), "dtype 'float64': did you mean 'float32'"),
        (((8,), None), "dtype 'None': choose one of uint8, float32, bool"),
        (((8,), "uint8", -1), "low -1 of uint8: must be a whole number from 0 to 255"),
        (((8,), "uint8", 0, 256), "high 256 of uint8"),
        (((8,), "uint8", 0, 0.5), "high 0.5 of uint8: must be a whole number"),
        (((8,), "float32", 0.0, math.nan), "high nan of float32"),
        (((8,), "float32", "0"), "low '0' of float32: must be a number"),
        (((8,), "float32", 1, 1), "low 1.0 must be below high 1.0"),
    ],
)
def test_what_is_no_observation_is_one_line(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        ObservationSpec(*arguments)
    assert "\n" not in str(error.value)


def test_the_games_here_show_bytes_of_their_shape():
    for name in ("catch8", "catch8_single", "catch16", "cave"):
        env = envs.make(name)
        assert env.observation_spec == ObservationSpec(env.observation_shape, "uint8")
        assert env.legal_actions(env.reset(env.sample_noise([0, 0], 2))) is None
        assert env.has_difficulties == (name == "cave")


def test_what_a_game_does_not_say_follows():
    env = Shown(ObservationSpec((2, 3), "float32"))
    assert (env.name, env.version, env.observation_shape) == ("Shown", 1, (2, 3))
    assert env.action_names == ("action 0", "action 1", "action 2")
    assert (env.best_score, env.has_difficulties, env.time_limit) == (math.inf, False, 10_000)
    state = env.reset(env.sample_noise([0, 0], 2))
    assert env.legal_actions(state) is None
    timestep = TimeStep(None, tf.constant([0.5, -2.0]), None, None)
    assert env.score(state, timestep) is timestep.reward
    started, difficulty = env.training_start(state, 0.0)
    assert started == state and difficulty.numpy().tolist() == [0, 0]
    with pytest.raises(ValueError, match="equally difficult"):
        env.training_start(state, 0.5)


def test_a_game_with_difficulties_says_how_one_begins_at_them():
    class Climbs(Shown):
        def difficulties(self, noise, share):
            return tf.where(tf.constant([True, share == 1]), 3, 0)

    env = Climbs(ObservationSpec((2, 3), "float32"))
    noise = env.sample_noise([0, 0], 2)
    with pytest.raises(
        NotImplementedError, match=r"Climbs draws difficulties, but has no reset_at\(noise, difficulty\)"
    ):
        env.training_start(noise, 0.5)
    Climbs.reset_at = lambda self, noise, difficulty: difficulty
    state, difficulty = env.training_start(noise, 0.5)
    assert env.has_difficulties and state is difficulty and difficulty.numpy().tolist() == [3, 0]


@pytest.mark.parametrize("name", ["score_is_frames", "has_difficulties", "is_moved_start", "training_reset"])
def test_what_is_no_longer_read_is_refused_and_never_ignored(name):
    with pytest.raises(TypeError, match=rf"Old\.{name} is no longer read: write \w+\(") as error:
        type("Old", (Shown,), {name: True})
    assert "\n" not in str(error.value)


def test_a_game_that_does_not_say_what_it_shows_or_takes_is_one_line():
    class Silent(Shown):
        num_actions = Environment.num_actions

        def __init__(self):
            pass

    for name in ("observation_spec", "observation_shape"):
        with pytest.raises(TypeError, match="Silent does not say what it shows: set observation_spec"):
            getattr(Silent(), name)
    for name in ("num_actions", "action_names"):
        with pytest.raises(TypeError, match="Silent does not say what one can do: set num_actions or action_names"):
            getattr(Silent(), name)


BLACK, WHITE, GREY = (0, 0, 0), (255, 255, 255), (128, 128, 128)


@pytest.mark.parametrize(
    "spec, numbers, colours",
    [
        (ObservationSpec((2, 3), "uint8", high=2), [0, 1, 2], [BLACK, GREY, WHITE]),
        (ObservationSpec((2, 3), "bool"), [0, 1], [BLACK, WHITE]),
        (ObservationSpec((2, 3), "float32", -2, 2), [-3, 0, 2], [BLACK, GREY, WHITE]),
        (ObservationSpec((2, 3, 4), "bool"), [0, 1], [BLACK, PLANE_COLOURS[3]]),
        (ObservationSpec((2, 3, 12), "float32"), [0, 5], [BLACK, PLANE_COLOURS[1]]),
        (ObservationSpec((2, 3, 3), "uint8"), [0, 7], [BLACK, (7, 7, 7)]),
    ],
)
@pytest.mark.parametrize("is_compiled", [False, True])
def test_observations_have_pictures(spec, numbers, colours, is_compiled):
    env = Shown(spec)
    render = compiled.xla(env.render) if is_compiled else env.render
    pictures = render(Numbers(tf.constant(numbers)))
    assert (pictures.shape, pictures.dtype) == ([len(numbers), 2, 3, 3], tf.uint8)
    np.testing.assert_array_equal(pictures, np.array(colours)[:, None, None] + np.zeros([1, 2, 3, 1], int))


def test_the_first_planes_are_covered_by_the_later_ones():
    class Planes(Shown):
        def observe(self, state):
            return tf.constant([[[[True, False, False], [True, True, False], [False, True, True]]]])

    pictures = Planes(ObservationSpec((1, 3, 3), "bool")).render(Numbers(tf.constant([0])))
    np.testing.assert_array_equal(pictures[0, 0], PLANE_COLOURS[:3])


def test_a_palette_colours_the_screen():
    env = envs.make("cave")
    state = env.reset(env.sample_noise([0, 0], 2))
    screen, pictures = env.observe(state).numpy(), env.render(state).numpy()
    for level, colour in env.palette.items():
        assert (pictures[screen == level] == colour).all()
    assert pictures.any()


@pytest.mark.parametrize("spec", [ObservationSpec((4,)), ObservationSpec((2, 3), "float32")])
def test_a_vector_and_numbers_without_bounds_have_no_picture(spec):
    assert Shown(spec).render(Numbers(tf.constant([0]))) is None


def test_the_contract_needs_no_tensorflow():
    code = "import sys; from tfdqn.envs import Environment, ObservationSpec; assert 'tensorflow' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
