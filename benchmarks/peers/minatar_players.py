"""For `minatar_parity`, of each of MinAtar's games: a player that lasts, states that are drawn, and what can happen.

States are ours as arrays [N, ...]. Each game has
  act(state) -> actions [N] that make an episode last and bring about what random play seldom meets
  draw(generator, num) -> the fields of N states that may occur, by name, without `time`
  events(before, noise, after, timestep) -> what happened in a frame, by name, [N] bool each
NumPy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

SIZE = 10


class Player(NamedTuple):
    """What is known of a game, as above."""

    act: Callable[[Any], np.ndarray]
    draw: Callable[[np.random.Generator, int], Mapping[str, np.ndarray]]
    events: Callable[[Any, Any, Any, Any], Mapping[str, np.ndarray]]


def _toward(here: np.ndarray, there: np.ndarray, less: int, more: int) -> np.ndarray:
    return np.where(here > there, less, np.where(here < there, more, 0))


# --- Breakout ---


def _breakout_act(state: Any) -> np.ndarray:
    # Where the ball will be in the row above the paddle's, if it meets no brick.
    x, y, move_x = state.ball_x.copy(), state.ball_y.copy(), state.move_x.copy()
    for _ in range(SIZE):
        falls = (state.move_y > 0) & (y < SIZE - 2)
        following = x + move_x
        move_x = np.where(falls & ((following < 0) | (following >= SIZE)), -move_x, move_x)
        x, y = np.where(falls, np.clip(following, 0, SIZE - 1), x), y + falls
    return _toward(state.paddle, x, 1, 2)


def _breakout_draw(generator: np.random.Generator, num: int) -> dict[str, np.ndarray]:
    bricks = np.zeros(num, np.int32)
    density = generator.choice([0.0, 0.03, 0.3, 0.7, 1.0], num)
    for bit in range(30):
        bricks |= (generator.random(num) < density).astype(np.int32) << bit
    return {
        "last_action": generator.integers(0, 3, num),
        "paddle": generator.integers(0, SIZE, num),
        "ball_x": generator.integers(0, SIZE, num),
        "ball_y": generator.integers(0, SIZE - 1, num),
        "move_x": generator.choice([-1, 1], num),
        "move_y": generator.choice([-1, 1], num),
        "trail": generator.integers(0, SIZE * SIZE, num),
        "bricks": bricks,
        "is_inside": generator.random(num) < 0.3,
    }


def _breakout_events(before: Any, noise: Any, after: Any, timestep: Any) -> dict[str, np.ndarray]:
    turns_x, turns_y = after.move_x != before.move_x, after.move_y != before.move_y
    at_side = (before.ball_x + before.move_x < 0) | (before.ball_x + before.move_x >= SIZE)
    at_paddle = before.ball_y + before.move_y == SIZE - 1
    return {
        "brick broken": timestep.reward > 0,
        "brick flown through": after.is_inside & (timestep.reward == 0),
        "turned at a side": at_side,
        "turned at a side into a brick": at_side & (timestep.reward > 0),
        "turned at the top": before.ball_y + before.move_y < 0,
        "thrown from above": at_paddle & turns_y & (turns_x == at_side),
        "thrown from beside": at_paddle & turns_y & (turns_x != at_side),
        "a new wall": (before.bricks == 0) & (after.bricks != 0),
        "lost with a new wall": (before.bricks == 0) & timestep.termination,
        "lost": timestep.termination,
    }


PLAYERS = {
    "breakout": Player(_breakout_act, _breakout_draw, _breakout_events),
}
