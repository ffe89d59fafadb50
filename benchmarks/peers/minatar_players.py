"""For `minatar_parity`, of each of MinAtar's games: a player that lasts, states that are drawn, and what can happen.

States are ours as arrays [N, ...]. Each game has
  act(state) -> actions [N] that make an episode last and bring about what random play seldom meets
  draw(generator, num) -> the fields of N states that may occur, by name; `time` is 0 where it is not among them
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


# --- Asterix ---


def _asterix_act(state: Any) -> np.ndarray:
    # One frame ahead: away from enemies that are or come near, then from the sides, where they appear; toward gold.
    lanes, games = np.arange(1, 9), np.arange(len(state.x))
    forward = np.where(state.is_from_left, 1, -1)
    scores = []
    for dx, dy in ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1)):
        x, y = np.clip(state.player_x + dx, 0, SIZE - 1), np.clip(state.player_y + dy, 1, 8)
        there, lane = state.x >= 0, y - 1
        ahead = (x[:, None] - state.x) * forward  # columns until it is here
        danger = np.where(there & ~state.is_gold, np.where((ahead >= 0) & (ahead < 3), 30 - 10 * ahead, 0), 0)
        gold = there & state.is_gold
        far = np.abs(state.x - x[:, None]) + np.abs(lanes - y[:, None])
        near = np.min(np.where(gold, far, 15), axis=1)
        scores.append(-danger[games, lane] - 0.3 * near - 4.0 * ((x < 2) | (x > 7)))
    return np.argmax(scores, axis=0)


def _asterix_draw(generator: np.random.Generator, num: int) -> dict[str, np.ndarray]:
    fullness = generator.choice([0.2, 0.6, 0.9, 1.0], [num, 1])
    return {
        "time": generator.integers(0, 11, num) * 102 + generator.integers(85, 110, num),
        "last_action": generator.integers(0, 5, num),
        "player_x": generator.integers(0, SIZE, num),
        "player_y": generator.integers(1, 9, num),
        "spawn_wait": generator.integers(0, 4, num),
        "move_wait": generator.integers(0, 4, num),
        "x": np.where(generator.random([num, 8]) < fullness, generator.integers(0, SIZE, [num, 8]), -1),
        "is_from_left": generator.random([num, 8]) < 0.5,
        "is_gold": generator.random([num, 8]) < 0.4,
    }


def _asterix_events(before: Any, noise: Any, after: Any, timestep: Any) -> dict[str, np.ndarray]:
    games, lane = np.arange(len(before.x)), after.player_y - 1
    is_met = (timestep.reward > 0) | timestep.termination
    was = before.x[games, lane]
    is_due = before.spawn_wait == 0
    return {
        "gold": timestep.reward > 0,
        "caught": timestep.termination,
        "met before it moved": is_met & (was == after.player_x),
        "met after it moved": is_met & (was >= 0) & (was != after.player_x),
        "met as it appeared": is_met & (was < 0),
        "appeared": is_due & (before.x < 0).any(1),
        "due with all lanes taken": is_due & (before.x >= 0).all(1),
        "left the screen": ((before.x >= 0) & (after.x < 0)).sum(1) > (timestep.reward > 0),
        "a new level in time": (after.time % 102 == 0) & (after.time <= 918),
        "past the last level in time": after.time > 918,
        "moved twice in a row": (before.move_wait == 0) & (after.move_wait == 0),
    }


# --- Freeway ---


def _freeway_act(state: Any) -> np.ndarray:
    # Up, unless the car of the lane above is about to be there.
    games, above = np.arange(len(state.row)), np.maximum(state.row - 2, 0)
    x, forward = state.car_x[games, above], np.sign(state.car_speed[games, above])
    ahead = (4 - x) * forward
    return np.where((state.row >= 2) & (ahead >= 0) & (ahead < 2), 0, 1)


def _freeway_draw(generator: np.random.Generator, num: int) -> dict[str, np.ndarray]:
    speed = generator.integers(1, 6, [num, 8])
    return {
        "time": generator.choice([0, 1000, 2470, 2485, 2499, 2500], num),
        "last_action": generator.integers(0, 3, num),
        "row": generator.integers(1, SIZE, num),
        "move_wait": generator.integers(0, 3, num),
        "car_x": generator.integers(0, SIZE, [num, 8]),
        "car_wait": generator.integers(0, speed + 1),
        "car_speed": speed * generator.choice([-1, 1], [num, 8]),
    }


def _freeway_events(before: Any, noise: Any, after: Any, timestep: Any) -> dict[str, np.ndarray]:
    is_across = timestep.reward > 0
    games, lane = np.arange(len(before.row)), np.clip(before.row - 1, 0, 7)
    is_sent_back = (after.row == SIZE - 1) & (before.row < SIZE - 2) & ~is_across
    moved = after.car_x - before.car_x
    return {
        "across": is_across,
        "sent back": is_sent_back,
        "sent back without a car's moving": is_sent_back & (moved[games, lane] == 0) & (before.move_wait > 0),
        "a car over the left side": (moved == SIZE - 1).any(1),
        "a car over the right side": (moved == 1 - SIZE).any(1),
        "up": after.row == before.row - 1,
        "down": (after.row == before.row + 1) & (before.row < SIZE - 2),
        "down at the bottom": (before.row == SIZE - 1) & (after.last_action == 2) & (before.move_wait == 0),
        "ended by time": timestep.truncation,
        "across in the last frame": timestep.truncation & is_across,
    }


PLAYERS = {
    "breakout": Player(_breakout_act, _breakout_draw, _breakout_events),
    "asterix": Player(_asterix_act, _asterix_draw, _asterix_events),
    "freeway": Player(_freeway_act, _freeway_draw, _freeway_events),
}
