"""A scripted player of the cave that looks ahead: the yardstick for what can be reached.

It uses the rules and what the screen shows, nothing else: the walls of the 32 columns that have yet to reach the
player, the blocks among them, and the player's own speed. For each action it counts the sequences of 32 actions that
begin with it and touch nothing, and takes the action with more of them: not only a way out, but the side with more
room.

The count is exact, by dynamic programming from the last column back to the player. With height m and speed k in units
of 0.08 rows (see `tfdqn.envs.cave.rules`), the sequences from (m, k) that are safe in frames d, d + 1, ..., are

    N_d(m, k) = safe_d(m) * (N_{d+1}(m + k - 1, k - 1) + N_{d+1}(m + k + 1, k + 1))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tfdqn import seeds
from tfdqn.envs.cave import rules as cave

LOOKAHEAD = cave.SIZE - 1 - cave.PLAYER_COLUMN  # frames; the walls of so many lie ahead on the screen
MAX_SPEED = 24  # 0.08 rows a frame; a player within walls is rarely as fast
REACH = 320  # 0.08 rows up and down from the player; what lies further is out of reach of most plans


def play(
    episodes: int, seed: int = 0, max_frames: int = cave.TIME_LIMIT, progress: Callable[[str], None] | None = None
) -> np.ndarray:
    """Frames [episodes] int32 that the planner survives, at most `max_frames`, from standard starts.

    Args:
      seed: decides the draws, as for `tfdqn.programs.evaluation.Evaluator.evaluate`: the episodes are the same.
      progress: called with a line now and then; a frame of eight games takes some hundredths of a second.
    """
    if episodes < 1 or max_frames < 1:
        raise ValueError(f"{episodes} episodes of {max_frames} frames: both must be at least 1")
    env = cave.Cave()
    stream = seeds.stream(seed, "final_evaluation", 0, 0)
    state = env.compiled_reset(env.sample_noise(seeds.at(stream, 0), episodes))
    is_alive, frames = np.ones(episodes, bool), np.zeros(episodes, np.int32)
    for t in range(1, max_frames + 1):
        state, timestep = env.compiled_step(state, act(state), env.sample_noise(seeds.at(stream, t), episodes))
        frames += is_alive
        is_alive &= ~(timestep.termination | timestep.truncation).numpy()
        if progress is not None and t % 500 == 0:
            progress(f"frame {t:,}: {is_alive.sum()} of {episodes} alive")
        if not is_alive.any():
            break
    return frames


def act(state: Any) -> np.ndarray:
    """The planner's actions [N] int32 in a cave's `State` of arrays or tensors."""
    counts = count_safe_plans(state)
    return np.greater(counts[:, cave.HOLD], counts[:, 1 - cave.HOLD]).astype(np.int32)


def count_safe_plans(state: Any, lookahead: int = LOOKAHEAD) -> np.ndarray:
    """Sequences of `lookahead` actions that touch nothing, by their first action: [N, 2] float32, release and hold."""
    if not 1 <= lookahead <= LOOKAHEAD:
        raise ValueError(f"lookahead is {lookahead}, but must be between 1 and {LOOKAHEAD}, which a screen shows")
    if not isinstance(state, cave.State):
        raise TypeError(f"state: is a {type(state).__name__}, expected the cave's State")
    time, tail, centres, tops = (np.asarray(part) for part in (state.time, state.tail, state.centres, state.block_tops))
    heights = tail[:, -1:].astype(np.int64) + np.arange(-REACH, REACH + 1)  # [N, M]
    middles = _middles(centres, tail[:, -1:])
    speeds = range(-MAX_SPEED, MAX_SPEED + 1)
    # counts[k]: [N, M], sequences that are safe from frame d on, by the speed with which the player arrives in it.
    counts = [_is_safe(lookahead, time, heights, middles, tops).astype(np.float32) for _ in speeds]
    for d in range(lookahead - 1, 0, -1):
        safe = _is_safe(d, time, heights, middles, tops)
        counts = [safe * _continuations(counts, k) for k in speeds]
    found = np.zeros([len(time), 2], np.float32)
    for i, speed in enumerate(np.asarray(state.speed)):
        for action, change in ((1 - cave.HOLD, 1), (cave.HOLD, -1)):
            arriving = int(np.clip(speed + change, -MAX_SPEED, MAX_SPEED))
            found[i, action] = counts[arriving + MAX_SPEED][i, arriving + REACH]
    return found


def _continuations(counts: list[np.ndarray], speed: int) -> np.ndarray:
    """What follows from each height [N, M] when the player left it with `speed`."""
    total = 0.0
    for next_speed in (speed - 1, speed + 1):
        if abs(next_speed) <= MAX_SPEED:
            total = total + _moved(counts[next_speed + MAX_SPEED], next_speed)
    return total


def _moved(values: np.ndarray, by: int) -> np.ndarray:
    """values[:, m + by] at m; what lies out of reach counts as unsafe."""
    moved = np.zeros_like(values)
    if by >= 0:
        moved[:, : values.shape[1] - by] = values[:, by:]
    else:
        moved[:, -by:] = values[:, :by]
    return moved


def _middles(centres: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Where wall centres [N, W], which have wrapped far from the start, are in the world: [N, W] int64, in 1/ROW rows.

    Args:
      height: the player's, [N, 1] int32.
    """
    distance = np.int32(cave.EDGE_PER_CENTRE) * centres - np.int32(cave.EDGE_PER_HEIGHT) * height  # wraps back
    return distance + cave.EDGE_PER_HEIGHT * height.astype(np.int64)


def _is_safe(d: int, time: np.ndarray, heights: np.ndarray, middles: np.ndarray, tops: np.ndarray) -> np.ndarray:
    """Whether a player at each height [N, M] touches nothing d frames from now, [N, M] bool."""
    made = time + d - (cave.SIZE - 1 - cave.PLAYER_COLUMN)  # the frame that made the wall which is then at the player
    opening = np.maximum(cave.START_OPENING - np.maximum(made, 0) // cave.WALL_SHRINK_PERIOD, cave.MIN_OPENING)
    middle = middles[:, cave.PLAYER_COLUMN + d]
    half = cave.EDGE_PER_OPENING * opening
    y = cave.PLAYER_ROW * cave.ROW + cave.EDGE_PER_HEIGHT * heights
    is_safe = ((middle - half)[:, None] < y) & (y < (middle + half)[:, None])
    since_first = time - cave.FIRST_BLOCK_TIME
    for k in range(cave.NUM_BLOCKS):
        age = since_first % cave.BLOCK_PERIOD + k * cave.BLOCK_PERIOD
        column = cave.SIZE - age - d
        is_there = (column <= cave.PLAYER_COLUMN) & (cave.PLAYER_COLUMN <= column + cave.BLOCK_WIDTH)
        is_there &= age <= since_first
        above = 25 * cave.PLAYER_ROW + 2 * heights - 25 * tops[:, k : k + 1].astype(np.int64)
        is_safe &= ~(is_there[:, None] & (0 <= above) & (above <= 25 * cave.BLOCK_HEIGHT))
    return is_safe
