"""What is said of a death in the cave is what happened."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import deaths
from tests.envs.helpers import noise_of
from tfdqn import envs
from tfdqn.envs.cave import rules as cave
from tfdqn.errors import UserError
from tfdqn.runs import models


@pytest.fixture(scope="module")
def flight():
    """A player that holds the button until it crashes: an environment, the states, and the last one."""
    env, past = envs.make("cave"), []
    state = env.compiled_reset(noise_of(env, 60, 0, 1))
    while True:
        past.append(tf.nest.map_structure(np.asarray, state))
        state, timestep = env.compiled_step(state, tf.ones([1], tf.int32), noise_of(env, 61, len(past), 1))
        if timestep.termination.numpy()[0]:
            return env, past, tf.nest.map_structure(np.asarray, state)


def survives(env, state, length):
    """Whether any sequence of actions lives so long; all of them are played."""
    plans = np.array(list(itertools.product([0, 1], repeat=length)), np.int32)
    now = tf.nest.map_structure(lambda field: np.repeat(field, len(plans), axis=0), state)
    alive = np.ones(len(plans), bool)
    for t in range(length):
        now, timestep = env.compiled_step(now, plans[:, t], noise_of(env, 62, t, len(plans)))
        alive &= ~timestep.termination.numpy()
    return alive.any()


def test_a_look_back_finds_the_cause_and_the_last_way_out(flight):
    env, past, last = flight
    death = deaths.look_back(env, last, past, 0)
    assert (death.cause, death.frame, death.kind) == ("wall", len(past), "caught")
    assert death.opening == pytest.approx(cave.START_OPENING * 0.48)
    # With the speed of a long rise there is no way out in the last frames; what is found is what can be played.
    assert 0 < death.saveable < len(past) - 1
    assert not survives(env, past[-death.saveable], 12)
    assert survives(env, past[-1 - death.saveable], 12)
    np.testing.assert_array_equal(death.screens[-1], env.observe(last).numpy()[0])
    np.testing.assert_array_equal(death.screens[1], env.observe(past[-deaths.MOMENTS[1]]).numpy()[0])


def test_the_picture_holds_a_row_for_each_death(flight):
    env, past, last = flight
    death = deaths.look_back(env, last, past, 0)
    image = deaths.picture([death, death])
    size = 48 * deaths.SCALE
    assert image.size[0] >= len(deaths.MOMENTS) * size and image.size[1] >= 2 * size
    crop = np.asarray(image.crop((4, 2 * deaths.MARGIN, 4 + size, 2 * deaths.MARGIN + size)))
    assert (crop[:: deaths.SCALE, :: deaths.SCALE] == (0, 204, 255)).all(-1).sum() == (death.screens[0] == 102).sum()
    found = deaths.summary([death, death], 3)
    assert (found["games"], found["deaths"], found["by wall"], found["grazes"]) == (3, 2, 2, 0)


def test_only_an_agent_of_the_whole_cave_is_taken(tmp_path):
    for arguments, message in [
        (["--pretrained", "catch8"], "not an agent that plays every frame"),
        (["--pretrained", "cave", "--episodes", "0"], "--episodes 0"),
        (["--pretrained", "cave", "--out", str(tmp_path / "nowhere" / "a.png")], "--out"),
        (["--pretrained", "cave", "--out", str(tmp_path / "a.gif")], "--out"),
    ]:
        with pytest.raises(UserError, match=message):
            deaths.main(arguments)
    assert (models.PRETRAINED / "cave").is_dir() and not list(tmp_path.iterdir())
