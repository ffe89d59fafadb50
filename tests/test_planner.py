"""The planner of the cave: it counts what the game then plays."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.envs.helpers import noise_of, to_numpy
from tfdqn import envs, evaluate
from tfdqn.envs.cave import planner
from tfdqn.envs.cave import rules as cave
from tfdqn.errors import UserError

NUM_ENVS = 4


@pytest.fixture(scope="module")
def flights():
    """Games in the narrowest tunnel with blocks on the screen, all alive: an environment and a state of arrays."""
    env = envs.make("cave")
    state = env.compiled_reset(noise_of(env, 50, 0, NUM_ENVS))
    state = state._replace(
        time=tf.fill([NUM_ENVS], cave.NARROWEST_TIME + 60), block_tops=tf.fill([NUM_ENVS, 3], cave.NOWHERE)
    )
    for t in range(75):
        action = tf.constant(planner.act(state))
        state, timestep = env.compiled_step(state, action, noise_of(env, 51, t, NUM_ENVS))
        assert not timestep.termination.numpy().any()
    assert (timestep.observation.numpy() == cave.BLOCK_LEVEL).any((1, 2)).all()
    return env, to_numpy(state)


def test_counts_are_those_of_playing_every_sequence(flights):
    env, start = flights
    length = 7
    counts = np.zeros((NUM_ENVS, 2))
    for plan in itertools.product([0, 1], repeat=length):
        state, is_alive = start, np.ones(NUM_ENVS, bool)
        for t, action in enumerate(plan):
            state, timestep = env.compiled_step(
                state, np.full(NUM_ENVS, action, np.int32), noise_of(env, 52, t, NUM_ENVS)
            )
            is_alive &= ~timestep.termination.numpy()
        counts[:, plan[0]] += is_alive
    np.testing.assert_array_equal(planner.count_safe_plans(start, length), counts)


def test_safety_is_what_the_game_decides_as_far_as_the_screen_shows(flights):
    env, start = flights
    generator = np.random.default_rng(0)
    middles = planner._middles(np.asarray(start.centres), np.asarray(start.tail)[:, -1:])
    crashes = 0
    for trial in range(12):
        state = start
        for d in range(1, planner.LOOKAHEAD + 1):
            action = generator.integers(0, 2, NUM_ENVS, np.int32)
            state, timestep = env.compiled_step(state, action, noise_of(env, 53 + trial, d, NUM_ENVS))
            heights = np.asarray(state.tail)[:, -1:]
            safe = planner._is_safe(d, start.time, heights.astype(np.int64), middles, start.block_tops)
            np.testing.assert_array_equal(safe[:, 0], ~timestep.termination.numpy())
            crashes += int((~safe).sum())
    assert crashes > 50


@pytest.mark.parametrize("screens", [-22, 22])
def test_plans_are_the_same_where_centres_have_passed_what_int32_holds(flights, screens):
    _, near = flights
    rows = 48 * screens
    far = near._replace(
        centres=(near.centres.astype(np.int64) + screens * 10**8).astype(np.uint32).astype(np.int32),
        tail=near.tail + np.int32(rows * 25 // 2),
        block_tops=near.block_tops + np.int32(rows),
    )
    assert (np.sign(far.centres) == -np.sign(screens)).any()  # wrapped
    counts = planner.count_safe_plans(near)
    assert counts.any()
    np.testing.assert_array_equal(planner.count_safe_plans(far), counts)


def test_it_survives_where_the_tunnel_is_narrowest(flights):
    env, state = flights
    for t in range(120):
        state, timestep = env.compiled_step(state, planner.act(state), noise_of(env, 54, t, NUM_ENVS))
        assert not timestep.termination.numpy().any()


def test_the_command_plays_it_from_the_start_and_refuses_what_makes_no_sense(monkeypatch, capfd):
    monkeypatch.setattr(planner, "play", lambda episodes, seed, progress: np.full(episodes, 7, np.int32))
    assert evaluate.main(["--player", "planner", "--env", "cave", "--episodes", "3"]) == 0
    assert "cave: mean score 7.00 over 3 episodes" in capfd.readouterr().err
    assert evaluate.main(["--player", "planner", "--env", "cave"]) == 0
    assert "over 8 episodes" in capfd.readouterr().err  # 256 would take a day
    for arguments, message in [
        (["--player", "planner"], "plays cave only, not None; use --env cave"),
        (["--player", "planner", "--env", "catch8"], "use --env cave"),
        (["--player", "planner", "--env", "cave", "runs/x"], "plays by itself"),
        (["--player", "planner", "--env", "cave", "--epsilon", "0.1"], "no random actions"),
        (["--player", "planner", "--env", "cave", "--episodes", "10001"], "at most 10000"),
        (["--player", "planner", "--env", "cave", "--model", "final"], "leave out --device and --model"),
        (["--env", "cave", "runs/x"], "no such run folder"),
        ([], "name either the folder of a run"),
        (["runs/x", "--pretrained", "cave"], "name either the folder of a run"),
        (["--pretrained", "cav"], "no such agent"),
    ]:
        with pytest.raises(UserError, match=message):
            evaluate.main(arguments)


def test_play_counts_the_frames_of_standard_starts(monkeypatch):
    monkeypatch.setattr(planner, "act", lambda state: np.zeros(len(state.time), np.int32))
    # Always releasing: 24 + 0.08 * t (t + 1) / 2 rows reach the lower wall, 37.2, in frame 18.
    np.testing.assert_array_equal(planner.play(3), [18, 18, 18])
    np.testing.assert_array_equal(planner.play(2, max_frames=5), [5, 5])
