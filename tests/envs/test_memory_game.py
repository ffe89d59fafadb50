"""The memory game against one in plain Python, its draws, and that nothing but the cue tells the answer."""

import numpy as np
import pytest
import tensorflow as tf

from tests.envs.helpers import noise_of
from tfdqn import config as configuration
from tfdqn import envs
from tfdqn.envs import check
from tfdqn.envs.memory import rules
from tfdqn.errors import UserError


class Plain:
    """One episode: an action for the cue when all below is lit."""

    def __init__(self, cue, delay):
        self.cue, self.delay, self.time = cue, delay, 0

    def frame(self):
        screen = [[0] * 4, [0] * 4]
        if self.time == 0:
            screen[0][self.cue] = 255
        if self.time == self.delay:
            screen[1] = [255] * 4
        return screen

    def step(self, action):
        is_over = self.time == self.delay
        reward = 1 if is_over and action == self.cue else 0
        self.time += 1
        return self.frame(), reward, is_over


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
def test_it_plays_as_plain_python(compiled):
    env, size = rules.Memory(2, 6), 64
    noise = noise_of(env, 1, 0, size)
    state = (env.compiled_reset if compiled else env.reset)(noise)
    plain = [Plain(int(cue), 2 + int(rank) % 5) for cue, rank in zip(noise.cue, noise.delay_rank, strict=True)]
    np.testing.assert_array_equal(env.observe(state), [game.frame() for game in plain])
    live, dice = np.ones(size, bool), np.random.default_rng(0)
    rewards = []
    for _ in range(7):
        action = dice.integers(0, 4, size).astype(np.int32)
        state, timestep = (env.compiled_step if compiled else env.step)(state, action, noise_of(env, 2, 0, size))
        frames, reward, is_over = (np.array(each) for each in zip(*map(Plain.step, plain, action), strict=True))
        for name, expected in (("observation", frames), ("reward", reward), ("termination", is_over)):
            np.testing.assert_array_equal(getattr(timestep, name).numpy()[live], expected[live])
        assert not timestep.truncation.numpy().any()
        rewards += list(reward[live])
        live &= ~is_over
    assert not live.any() and 0 < sum(rewards) < size


def test_cues_and_delays_are_uniform_and_tell_nothing_of_each_other():
    env = envs.make("memory")
    state = env.reset(noise_of(env, 3, 0, 31 * 4 * 1000))
    counts = np.zeros((4, 31))
    np.add.at(counts, (state.cue.numpy(), state.delay.numpy() - 10), 1)
    assert abs(counts - 1000).max() < 5 * np.sqrt(1000)


def test_between_cue_and_question_nothing_is_seen():
    env = rules.Memory(3, 3)
    state = env.reset(rules.Noise(tf.range(4), tf.zeros([4], tf.int32)))
    for time in range(4):
        frame = env.observe(state).numpy()
        if time:
            assert (frame == frame[0]).all()  # of all cues
            assert (frame[0, 1] == (255 if time == 3 else 0)).all() and (frame[0, 0] == 0).all()
        state, _ = env.step(state, tf.zeros([4], tf.int32), noise_of(env, 0, 0, 4))


def test_it_keeps_the_contract():
    assert not [str(result) for result in check.check_env(envs.make("memory")) if result.is_fault]


def test_delays_that_are_none_are_refused():
    with pytest.raises(UserError, match="--delay-min 9: above --delay-max; use at most 5"):
        configuration.resolve({"env": "memory", "delay_min": 9, "delay_max": 5})
    with pytest.raises(ValueError, match="must be 1 <= min <= max"):
        rules.Memory(0, 4)
    assert configuration.resolve({"env": "memory", "delay_min": 90}).delay_max == 90
