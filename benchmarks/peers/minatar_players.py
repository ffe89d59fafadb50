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


# --- Space invaders ---


def _wave(aliens: np.ndarray, top: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Where there are aliens, [N, 10, 10] bool."""
    i = (np.arange(SIZE) - top[:, None])[:, :, None] % SIZE
    j = (np.arange(SIZE) - left[:, None])[:, None, :]
    is_inside = (i < 4) & (j >= 0) & (j < 6)
    return is_inside & (aliens[:, None, None] >> np.where(is_inside, 6 * i + j, 0) & 1 == 1)


def _space_invaders_act(state: Any) -> np.ndarray:
    # Out of a bomb's and low aliens' way, then under the nearest column of aliens; fire where it stays.
    columns, aliens = np.arange(SIZE), _wave(state.aliens, state.top, state.left)
    is_bombed = (
        (state.bomb[:, None] % SIZE == columns) & (state.bomb[:, None] // SIZE >= 6) & (state.bomb[:, None] < 100)
    )
    low = aliens[:, 8:].any(1)
    beside = np.pad(low, [[0, 0], [1, 1]])
    is_bad = is_bombed | low | beside[:, 2:] | beside[:, :-2]
    far = np.where(aliens.any(1)[:, None, :], np.abs(columns[:, None] - columns), SIZE).min(2)
    cost = np.where(is_bad, 100, 0) + far
    games = np.arange(len(cost))
    places = [np.clip(state.cannon + move, 0, SIZE - 1) for move in (0, -1, 1)]
    best = np.argmin([cost[games, place] for place in places], axis=0)
    fires = (state.reload == 0) & (cost[games, state.cannon] < 4)
    return np.where(fires, 3, best)


def _space_invaders_draw(generator: np.random.Generator, num: int) -> dict[str, np.ndarray]:
    density = generator.choice([0.0, 0.0, 0.1, 0.5, 1.0], num)
    aliens = 1 << generator.integers(0, 24, num)
    for bit in range(24):
        aliens |= (generator.random(num) < density).astype(np.int64) << bit
    rows, columns = (
        np.stack([aliens & (mask << step * k) != 0 for k in range(count)], axis=1)
        for mask, step, count in ((63, 6, 4), (0x41041, 1, 6))
    )
    first, last = columns.argmax(1), 5 - columns[:, ::-1].argmax(1)
    lowest = 3 - rows[:, ::-1].argmax(1)
    time = generator.integers(0, 41, num)
    since_bomb = np.where(time > 10, (time - 1) % 10, SIZE)
    bomb_row = np.where(generator.random(num) < 0.7, generator.integers(since_bomb, SIZE + 1), SIZE)
    since_shot = generator.integers(0, 12, num)
    newest, older = 8 - since_shot, 8 - since_shot - 5 - generator.integers(0, 4, num)
    left = generator.integers(-first, SIZE - last)
    # Many where an alien is or comes.
    near = np.clip(left + first + generator.integers(-1, 2, num), 0, SIZE - 1)
    column = [np.where(generator.random(num) < 0.6, near, generator.integers(0, SIZE, num)) for _ in range(2)]
    cells = [np.where(row >= 0, row * SIZE + x, -SIZE) for row, x in zip((newest, older), column, strict=True)]
    return {
        "time": time,
        "last_action": generator.integers(0, 4, num),
        "cannon": generator.integers(0, SIZE, num),
        "reload": np.maximum(4 - since_shot, 0),
        "shots": np.stack(cells, axis=1),
        "bomb": np.where(bomb_row < SIZE, bomb_row * SIZE + generator.integers(0, SIZE, num), SIZE * SIZE),
        "aliens": aliens,
        "top": np.where(generator.random(num) < 0.3, SIZE - 1 - lowest, generator.integers(0, SIZE - lowest)),
        "left": left,
        "heading": generator.choice([-1, 1], num),
        "march_wait": generator.choice([0, 0, 1, 3, 11], num),
        "march_period": generator.integers(6, 13, num),
    }


def _space_invaders_events(before: Any, noise: Any, after: Any, timestep: Any) -> dict[str, np.ndarray]:
    was, is_now = (_wave(state.aliens, state.top, state.left) for state in (before, after))
    count, turns = was.sum((1, 2)), after.heading != before.heading
    is_cleared = (timestep.reward > 0) & (count == timestep.reward)
    met = timestep.termination & is_now[np.arange(len(count)), SIZE - 1, after.cannon]
    is_landed = turns & was[:, SIZE - 1].any(1)
    at_shots = np.where(after.shots >= 0, np.take_along_axis(is_now.reshape(-1, 100), after.shots % 100, axis=1), False)
    bombed = timestep.termination & (after.bomb == 90 + after.cannon)
    return {
        "alien shot": timestep.reward > 0,
        "fire while reloading": (after.last_action == 3) & (before.reload > 0),
        "stepped": after.left != before.left,
        "turned": turns,
        "landed": is_landed,
        "landed away from the cannon": is_landed & ~bombed & ~met,
        "bombed": bombed,
        "met an alien": met,
        "the last alien steps in each frame": (count == 1) & (before.march_wait == 0) & (after.march_wait == 0),
        "cleared": is_cleared,
        "faster": after.march_period < before.march_period,
        "cleared at the last level": is_cleared & (before.march_period == 6),
        "a new wave over a shot": is_cleared & at_shots.any(1),
        "bomb dropped": (before.time % 10 == 0) & (before.time > 0),
    }


# --- Seaquest ---

GONE = 100


def _seaquest_act(state: Any) -> np.ndarray:
    # Away from what swims or flies toward the boat; up with six divers or little air (every second game with any), else
    # to the nearest diver; fire at what is ahead.
    games, enemies = np.arange(len(state.x)), state.enemies
    frames = (state.time - 1) % 30 + 1
    steps = frames[:, None] // 6 + 5 * np.arange(2)
    diver_x = np.where(state.divers.heading > 0, steps, 9 - steps)
    far = np.abs(diver_x - state.x[:, None]) + np.abs(state.divers.row - state.y[:, None])
    far = np.where(state.divers.row > 0, far, GONE)
    nearest = far.argmin(1)
    some = far.min(1) < GONE
    goes_up = (state.aboard == 6) | (state.aboard != 0) & ((state.oxygen < 60) | (games % 2 == 1))
    to_y = np.where(state.y == 0, 2, np.where(goes_up, 0, np.where(some, state.divers.row[games, nearest], 4)))
    to_x = np.where(goes_up | ~some, state.x, diver_x[games, nearest])
    costs = []
    for dx, dy in ((0, 0), (-1, 0), (0, -1), (1, 0), (0, 1)):
        x, y = np.clip(state.x + dx, 0, 9), np.clip(state.y + dy, 0, 8)
        in_row = enemies.row == y[:, None]
        ahead = (x[:, None] - enemies.x) * enemies.heading
        shot_ahead = (x[:, None] - enemies.shot_x) * enemies.heading
        is_bad = (in_row & (enemies.x != GONE) & (ahead >= 0) & (ahead <= 1)).any(1)
        is_bad |= (in_row & (enemies.shot_x != GONE) & (shot_ahead >= 0) & (shot_ahead <= 2)).any(1)
        is_bad |= (y == 0) & (state.aboard == 0) & ~state.is_up
        costs.append(1000 * is_bad + np.abs(to_x - x) + np.abs(to_y - y))
    in_front = (enemies.x - state.x[:, None]) * state.heading[:, None] > 0
    targets = (enemies.row == state.y[:, None]) & (enemies.x != GONE) & in_front
    fires = (state.reload == 0) & targets.any(1)
    return np.where(fires & (costs[0] < 1000), 5, np.argmin(costs, axis=0))


def _seaquest_draw(generator: np.random.Generator, num: int) -> dict[str, np.ndarray]:
    def some(low, high, *shape):
        return generator.integers(low, high, [num, *shape])

    side = np.array([1, -1])
    time, level = some(0, 200), np.where(generator.random(num) < 0.4, 19, some(0, 20))
    step_wait, period = np.maximum(5 - level // 2, 2), np.maximum(20 - level, 1)
    spawn_wait = some(0, period)

    # Enemies as if the level had always been the same, some of them gone.
    slot = some(0, 32)
    since = (slot[:, None] - 1 - np.arange(32)) % 32  # enemies that came since
    age = (period - 1 - spawn_wait)[:, None] + period[:, None] * since

    def columns(age):
        return (age + 1) // (step_wait + 1)[:, None]

    row = some(1, 9, 32)
    heading = side[some(0, 2, 9)][np.arange(num)[:, None], row]
    is_submarine = generator.random([num, 32]) < generator.choice([0.1, 0.33, 0.9], [num, 1])
    fired = age - (age - 10) % 11  # its age when it last fired
    flown = columns(fired) + 1 + age - fired
    has_shot = is_submarine & (age >= 10) & (columns(fired) < SIZE) & (flown < SIZE)
    is_there = (columns(age) < SIZE) & (generator.random([num, 32]) < generator.choice([0.3, 0.8, 1.0], [num, 1]))

    def place(steps, is_there):
        return np.where(is_there, np.where(heading > 0, steps, 9 - steps), GONE)

    # Shots are before the boat, on either side; the older before the newer where they are on the same.
    x, y = some(0, SIZE), some(0, 9)
    since_shot, ways = some(0, 9), side[some(0, 2, 2)]
    newest = x + ways[:, 0] * (1 + some(0, 2 * since_shot + 1))
    ahead = np.where(ways[:, 0] == ways[:, 1], np.abs(newest - x), 0)
    older = x + ways[:, 1] * (ahead + 1 + some(0, 6))
    shot_x = np.stack([newest, older], axis=1)
    # Each has flown a column a frame, the older for five frames more at least.
    flown_since = np.where(ways > 0, shot_x, 9 - shot_x) - since_shot[:, None] - np.array([1, 6])
    shot_x = np.where((flown_since >= 0) & (shot_x >= 0) & (shot_x < SIZE), shot_x, GONE)

    swum = ((time - 1) % 30 + 1)[:, None] // 6 + 5 * np.arange(2)
    comes = (time[:, None] > 30 * (1 + np.arange(2))) & (swum < SIZE) & (generator.random([num, 2]) < 0.8)
    return {
        "time": time,
        "last_action": some(0, 6),
        "x": x,
        "y": y,
        "heading": np.where(x == 0, -1, np.where(x == 9, 1, side[some(0, 2)])),
        "reload": np.maximum(4 - since_shot, 0),
        "oxygen": generator.choice([0, 1, 15, 16, 100, 199, 200], num),
        "aboard": generator.choice([-2, -1, 0, 0, 1, 2, 5, 6, 6], num),
        "is_up": y == 0,
        "level": level,
        "spawn_wait": spawn_wait,
        "slot": slot,
        "shots.x": shot_x,
        "shots.row": np.clip(y[:, None] + some(-1, 2, 2), 0, 8),
        "shots.heading": ways,
        "divers.row": np.where(comes, some(1, 9, 2), 0),
        "divers.heading": side[some(0, 2, 2)],
        "enemies.x": place(columns(age), is_there),
        "enemies.row": row,
        "enemies.heading": heading,
        "enemies.is_submarine": is_submarine,
        "enemies.step_wait": (step_wait[:, None] - 1 - age) % (step_wait + 1)[:, None],
        "enemies.shot_wait": (9 - age) % 11,
        "enemies.shot_x": place(flown, has_shot),
    }


def _seaquest_events(before: Any, noise: Any, after: Any, timestep: Any) -> dict[str, np.ndarray]:
    then, now = before.enemies, after.enemies
    x, y = after.x[:, None], after.y[:, None]
    was_there, is_there = then.x != GONE, now.x != GONE
    shot_x = before.shots.x + before.shots.heading
    at_shot = (
        was_there[:, None] & (then.x[:, None] == shot_x[..., None]) & (then.row[:, None] == before.shots.row[..., None])
    )
    is_spent = (before.shots.x != GONE) & (shot_x >= 0) & (shot_x < SIZE) & (after.last_action != 5)[:, None]
    is_spent &= after.shots.x == GONE
    fires = was_there & then.is_submarine & (then.shot_wait == 0)
    surfaces = ~before.is_up & after.is_up
    cells = np.where(is_there, now.row * SIZE + now.x, -1 - np.arange(32))
    shares = (np.sort(cells)[:, 1:] == np.sort(cells)[:, :-1]).any(1)
    came_up_with = before.aboard[:, None] == np.arange(-9, 7)
    met = ((now.row == y) & (now.x == x)).any(1)
    has_room = before.aboard < 6
    diver_gone = ((before.divers.row != 0) & (after.divers.row == 0)).any(1) & (after.time % 30 != 1)
    return {
        "enemy shot": timestep.reward > 0,
        "one of several enemies in a cell shot": (at_shot.sum(2) > 1).any(1),
        "a fish and a submarine in a cell, shot at": (
            (at_shot & then.is_submarine[:, None]).any(2) & (at_shot & ~then.is_submarine[:, None]).any(2)
        ).any(1),
        "swam into a shot": (is_spent & ~at_shot.any(2)).any(1) & (timestep.reward > 0),
        "enemy came": after.slot != before.slot,
        "enemy refused": (before.spawn_wait == 0) & (after.slot == before.slot),
        "enemies share a cell": shares,
        "more than 20 enemies": is_there.sum(1) > 20,
        "enemy left": (was_there & ~is_there & ((then.x == 0) | (then.x == 9)) & (then.step_wait == 0)).any(1),
        "submarine fired": fires.any(1),
        "submarine fired and is gone": (fires & ~is_there).any(1),
        "more than 3 shots of submarines": (now.shot_x != GONE).sum(1) > 3,
        "two shots of the boat": (after.shots.x != GONE).all(1),
        "fire while reloading": (after.last_action == 5) & (before.reload > 0),
        "diver taken": (after.aboard > before.aboard) & ~surfaces,
        "diver left": diver_gone & (after.aboard == before.aboard),
        "over a diver without room": ~has_room & (after.divers.row == y).any(1),
        "came up": surfaces,
        "came up with six": surfaces & came_up_with[:, 15],
        "came up below zero": surfaces & (before.aboard < 0),
        "came up with nobody": ~before.is_up & (after.y == 0) & ~after.is_up,
        "came up without air": surfaces & timestep.termination & (before.oxygen == 0),
        "harder": after.level > before.level,
        "at the last level": after.level == 19,
        "no air": timestep.termination & (before.oxygen == 0),
        "met an enemy": timestep.termination & met,
        "met a shot": timestep.termination & ((now.row == y) & (now.shot_x == x)).any(1),
        "shot at before it flew on": timestep.termination & ((then.row == y) & (then.shot_x == x)).any(1),
    }


PLAYERS = {
    "breakout": Player(_breakout_act, _breakout_draw, _breakout_events),
    "asterix": Player(_asterix_act, _asterix_draw, _asterix_events),
    "freeway": Player(_freeway_act, _freeway_draw, _freeway_events),
    "space_invaders": Player(_space_invaders_act, _space_invaders_draw, _space_invaders_events),
    "seaquest": Player(_seaquest_act, _seaquest_draw, _seaquest_events),
}
