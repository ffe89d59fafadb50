"""Recorded play of the original games, replayed: every decided pixel, reward and end of every frame.

The environment variable TFDQN_TRACES names another folder of recordings in the same format.
"""

import functools
import os
import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tests.envs import reference
from tfdqn import envs
from tfdqn.envs.catch import rules as catch
from tfdqn.envs.cave import rules as cave

FOLDER = pathlib.Path(os.environ.get("TFDQN_TRACES") or pathlib.Path(__file__).parents[1] / "data" / "traces")
NO_BALL = -1
NO_BLOCK = -1_000_000


@functools.cache
def game(name):
    """A game, with the programs that an earlier test has compiled."""
    return envs.make(name)


class Trace:
    """A recording as arrays [E, T, ...] with one row an episode, padded after its end with zeros."""

    def __init__(self, name):
        data = dict(np.load(FOLDER / f"{name}.npz"))
        self.start = data["start_index"]
        self.length = np.diff(np.append(self.start, len(data["action"])))
        self.grey = np.round(data["levels"] * 255).astype(np.uint8)
        self.data = data

    def __getitem__(self, key):
        rows = self.data[key]
        padded = np.zeros((len(self.start), self.length.max(), *rows.shape[1:]), rows.dtype)
        for episode, (start, length) in enumerate(zip(self.start, self.length, strict=True)):
            padded[episode, :length] = rows[start : start + length]
        return padded

    def is_live(self, t):
        return t < self.length


def catch_noise(trace, max_jump):
    """What to feed for each frame [T]: the recorded columns as ranks among the allowed ones."""
    size = trace.data["frame"].shape[1]
    ranks = np.zeros((len(trace.start), trace.length.max()), np.int32)
    posted = trace["posted_column"]
    for episode, length in enumerate(trace.length):
        last = trace.data["start_column"][episode]
        for t in range(length):
            column = posted[episode, t]
            if column != NO_BALL:
                ranks[episode, t] = [c for c in range(size) if 3 <= abs(c - last) <= max_jump].index(column)
                last = column
    start = (trace.data["start_paddle"].astype(np.int32), trace.data["start_column"].astype(np.int32))
    return [catch.Noise(*start, ranks[:, t]) for t in range(ranks.shape[1])]


@functools.cache
def cave_noise():
    """What to feed for each frame [T]: u in 1e-7, and the recorded rows as ranks among the allowed ones."""
    trace = Trace("cave")
    wall = np.round(trace["u"] * 1e7).astype(np.int32)
    ranks = np.zeros_like(wall)
    action, block_top = trace["action"], trace["block_top"]
    for episode, length in enumerate(trace.length):
        game = reference.CaveReference()
        game.reset()
        for t in range(length):
            game.advance(action[episode, t], int(wall[episode, t]), 0)
            if block_top[episode, t] != NO_BLOCK:
                ranks[episode, t] = game.block_rows().index(block_top[episode, t])
    return [cave.Noise(wall[:, t], ranks[:, t]) for t in range(wall.shape[1])]


def replay(env, trace, noise, compiled, undecided=None):
    """Compare every frame; return how many were compared and how many of them ended an episode."""
    reset, step = (env.compiled_reset, env.compiled_step) if compiled else (env.reset, env.step)
    frame, action = trace.grey[trace["frame"]], trace["action"].astype(np.int32)
    reward, done = trace["reward"], trace["done"]
    noise = [tf.nest.map_structure(tf.constant, draws) for draws in noise]
    state = reset(noise[0])
    if "start_frame" in trace.data:
        np.testing.assert_array_equal(env.observe(state), trace.grey[trace.data["start_frame"]])
    frames = ends = 0
    for t in range(trace.length.max()):
        live = trace.is_live(t)
        state, timestep = step(state, tf.constant(action[:, t]), noise[t])
        differs = timestep.observation.numpy() != frame[:, t]
        if undecided is not None:
            differs &= ~undecided[:, t]
        where = np.argwhere(differs[live])
        assert not where.size, f"frame {t + 1}: pixels (live episode, row, column) {where[:5].tolist()} differ"
        termination, truncation = timestep.termination.numpy(), timestep.truncation.numpy()
        np.testing.assert_array_equal(timestep.reward.numpy()[live], reward[live, t], err_msg=f"frame {t + 1}")
        np.testing.assert_array_equal((termination | truncation)[live], done[live, t], err_msg=f"frame {t + 1}")
        np.testing.assert_array_equal(termination[live], reward[live, t] < 0, err_msg=f"frame {t + 1}")
        frames += live.sum()
        ends += (termination | truncation)[live].sum()
    return frames, ends


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "xla"])
@pytest.mark.parametrize(("name", "max_jump"), [("catch8", 7), ("catch16", 6)])
def test_catch_plays_the_recorded_games(name, max_jump, compiled):
    trace = Trace(name)
    frames, ends = replay(game(name), trace, catch_noise(trace, max_jump), compiled)
    assert frames == len(trace.data["action"])
    assert ends == trace.data["done"].sum() > 0


# Op by op it takes long; `test_contract.py` compares that with XLA in every bit.
@pytest.mark.parametrize("compiled", [pytest.param(False, marks=pytest.mark.slow), True], ids=["eager", "xla"])
def test_cave_plays_the_recorded_games(compiled):
    trace = Trace("cave")
    undecided = np.unpackbits(trace["undecided_bits"], axis=-1).astype(bool)
    frames, ends = replay(game("cave"), trace, cave_noise(), compiled, undecided)
    assert frames == len(trace.data["action"])
    assert ends == trace.data["done"].sum() > 0


def test_cave_heights_are_the_recorded_floats():
    trace = Trace("cave")
    env = game("cave")
    noise = cave_noise()
    state = env.reset(noise[0])
    y, speed, centre = trace["y"], trace["speed"], trace["centre"]
    for t in range(trace.length.max()):
        live = trace.is_live(t)
        state, _ = env.compiled_step(state, trace["action"][:, t].astype(np.int32), noise[t])
        np.testing.assert_allclose(24 + 0.08 * state.tail.numpy()[live, -1], y[live, t], atol=1e-6)
        np.testing.assert_allclose(0.08 * state.speed.numpy()[live], speed[live, t], atol=1e-9)
        # The recorded u has more digits than 1e-7: half a unit a frame, at most.
        np.testing.assert_allclose(48e-8 * state.centres.numpy()[live, -1], centre[live, t], atol=2e-4)


def test_a_wrong_pixel_is_seen():
    """The comparison itself can fail."""
    trace = Trace("catch8")
    noise = catch_noise(trace, 7)
    trace.data["frame"] = trace.data["frame"].copy()
    trace.data["frame"][trace.start[3] + 4, 0, 0] += 1
    with pytest.raises(AssertionError, match="frame 5: pixels"):
        replay(game("catch8"), trace, noise, compiled=True)
