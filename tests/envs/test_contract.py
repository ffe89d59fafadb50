"""What every game keeps, whatever its rules: shapes, types, and equal bits however and wherever it runs."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.envs.helpers import noise_of, restarted, seed, to_numpy
from tfdqn import envs
from tfdqn.runtime import compiled

NAMES = ["catch8", "catch8_single", "catch16", "cave"]
LEVELS = {0, 102, 128, 204, 255}


def play(env, num_envs, frames, compile_step):
    """Play at random, restarting ended episodes; return all frames, rewards and ends as arrays [T, N, ...]."""
    step, reset = (env.compiled_step, env.compiled_reset) if compile_step else (env.step, env.reset)
    action = np.random.default_rng(0).integers(0, env.num_actions, (frames, num_envs), np.int32)
    state = to_numpy(reset(noise_of(env, 0, 99, num_envs)))
    rows = []
    for t in range(frames):
        noise = noise_of(env, 0, t, num_envs)
        state, timestep = to_numpy(step(*tf.nest.map_structure(tf.constant, (state, action[t], noise))))
        rows.append(timestep)
        fresh = to_numpy(reset(tf.nest.map_structure(tf.constant, noise)))
        state = restarted(timestep.termination | timestep.truncation, fresh, state)
    return envs.TimeStep(*(np.stack(column) for column in zip(*rows, strict=True)))


@functools.cache
def long_play(name):
    return play(envs.make(name), 64, 150, compile_step=True)


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_types(name):
    env = envs.make(name)
    assert env.name == name
    assert isinstance(env.version, int)
    assert env.num_actions == len(env.action_names) == len(set(env.action_names))
    height, width = env.observation_shape
    noise = env.sample_noise(seed(1, 2), 5)
    state = env.reset(noise)
    for field in tf.nest.flatten((noise, state)):
        assert field.dtype.is_integer
        assert field.shape[0] == 5
    frame = env.observe(state)
    assert (frame.shape, frame.dtype) == ([5, height, width], tf.uint8)
    following, timestep = env.step(state, tf.zeros([5], tf.int32), noise)
    tf.nest.map_structure(lambda new, old: tf.debugging.assert_type(new, old.dtype), following, state)
    shapes = [[tensor.shape for tensor in tf.nest.flatten(each)] for each in (following, state)]
    assert shapes[0] == shapes[1]
    assert (timestep.observation.shape, timestep.observation.dtype) == ([5, height, width], tf.uint8)
    assert (timestep.reward.shape, timestep.reward.dtype) == ([5], tf.float32)
    assert (timestep.termination.shape, timestep.termination.dtype) == ([5], tf.bool)
    assert (timestep.truncation.shape, timestep.truncation.dtype) == ([5], tf.bool)
    np.testing.assert_array_equal(timestep.observation, env.observe(following))


@pytest.mark.parametrize("name", NAMES)
def test_frames_hold_known_levels_with_a_colour(name):
    env = envs.make(name)
    seen = set(np.unique(long_play(name).observation).tolist())
    assert seen <= LEVELS
    assert seen == set(env.palette)
    assert all(0 <= channel <= 255 for colour in env.palette.values() for channel in colour)


@pytest.mark.parametrize(("name", "frames"), [("catch8", 60), ("catch8_single", 20), ("catch16", 60), ("cave", 60)])
def test_eager_and_xla_agree_in_every_bit(name, frames):
    env = envs.make(name)
    eager, xla = (play(env, 16, frames, compile_step) for compile_step in (False, True))
    for left, right in zip(eager, xla, strict=True):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("name", NAMES)
def test_an_environment_does_not_depend_on_how_many_there_are(name):
    env = envs.make(name)
    frames = 100
    noise = [env.sample_noise(seed(7, t), 33) for t in range(3)]
    sample = compiled.xla(lambda value: env.sample_noise(value, 33))
    for t, many in enumerate(noise):
        for few in (1, 2, 7):
            for left, right in zip(env.sample_noise(seed(7, t), few), many, strict=True):
                np.testing.assert_array_equal(left, right[:few])
        for left, right in zip(sample(seed(7, t)), many, strict=True):
            np.testing.assert_array_equal(left, right, err_msg="eager and XLA draw differently")

    few, many = (
        env.compiled_reset(env.sample_noise(seed(5, 0), 3)),
        env.compiled_reset(env.sample_noise(seed(5, 0), 33)),
    )
    for t in range(frames):
        action = tf.random.stateless_uniform([33], seed(1, t), 0, env.num_actions, tf.int32)
        few, left = env.compiled_step(few, action[:3], env.sample_noise(seed(5, t), 3))
        many, right = env.compiled_step(many, action, env.sample_noise(seed(5, t), 33))
        for a, b in zip(left, right, strict=True):
            np.testing.assert_array_equal(a, b[:3])


@pytest.mark.parametrize("name", NAMES)
def test_draws_differ_between_seeds_and_environments(name):
    env = envs.make(name)
    rank = env.sample_noise(seed(3, 4), 1000)[-1].numpy()
    assert len(np.unique(rank)) == 1000
    assert not np.array_equal(rank, env.sample_noise(seed(3, 5), 1000)[-1])


def test_termination_and_truncation_exclude_each_other():
    for name in NAMES:
        timestep = long_play(name)
        assert timestep.termination.any()
        assert not (timestep.termination & timestep.truncation).any()


def test_an_unknown_game_is_one_line_with_a_hint():
    with pytest.raises(ValueError, match=r"^cavee: unknown; did you mean 'cave'\? "):
        envs.make("cavee")


@pytest.mark.parametrize("name", ["catch8", "catch8_single", "catch16"])
def test_catch_cannot_be_downsampled(name):
    with pytest.raises(ValueError, match="cannot be downsampled") as error:
        envs.make(name, downsample=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["catch8", "catch8_single", "catch16"])
def test_catch_has_no_difficulty_to_start_at(name):
    env = envs.make(name)
    noise = env.sample_noise(tf.constant([0, 0], tf.int64), 4)
    for ours, reset in zip(env.training_start(noise, 0.0)[0], env.reset(noise), strict=True):
        np.testing.assert_array_equal(ours, reset)
    with pytest.raises(ValueError, match="equally difficult"):
        env.training_start(noise, 0.5)
