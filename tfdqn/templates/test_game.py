"""The rules of MyGame, and the contract of all games: `python -m pytest test_my_game.py`."""

from pathlib import Path

import tensorflow as tf

from tfdqn.envs import check, loading

SPEC = f"{Path(__file__).with_name('my_game.py')}:MyGame"


def test_it_keeps_the_contract():
    results = check.check_env(loading.load(SPEC))
    assert not [str(result) for result in results if result.is_fault]


def test_the_goal_pays_and_ends_the_episode():
    env = loading.load(SPEC, {"size": 3})
    state = env.reset(env.sample_noise(tf.constant([0, 0], tf.int64), 2))
    # Both players are in the middle; one goal is to the left, one below.
    state = state._replace(player=tf.constant([4, 4]), goal=tf.constant([3, 7]))
    state, timestep = env.step(state, tf.constant([2, 2]), env.sample_noise(tf.constant([0, 1], tf.int64), 2))
    assert timestep.reward.numpy().tolist() == [1.0, 0.0]
    assert timestep.termination.numpy().tolist() == [True, False]
    assert timestep.observation.numpy()[0].tolist() == [[0, 0, 0], [255, 0, 0], [0, 0, 0]]
