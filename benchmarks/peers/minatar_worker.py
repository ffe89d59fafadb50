"""The MinAtar package's games, played with given actions and draws: `python -m benchmarks.peers.minatar_worker IN OUT`.

NumPy and the package alone. IN and OUT are .npz files; axes are T frames, N games played one after the other, and B
bytes of a screen's planes as bits (`np.packbits` of [10, 10, C], flattened). IN holds

  game             the package's name of the game
  sticky, ramping  the probability that an action sticks, and whether the game becomes harder
  action           [T, N], the place of the action among those that have an effect
  over             [T, N], whether a new episode starts after the frame, with the draws of that frame
  first.X          [N], the draws X of the first reset
  noise.X          [T, N, ...], the draws X of each frame
  start.X          [N, ...], where given: the state to start from, as our game has it, in place of the reset's

and OUT what the package shows: `frame` [T, N, B], `reward` and `end` [T, N], and `fresh` [T + 1, N, B], the screens
that episodes begin with: of the first reset, then of those after each frame, zeros where none followed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

SIZE = 10
STICKY_DRAWS = 2**20


class Call(NamedTuple):
    """A draw that the package asks for."""

    noise: Mapping[str, Any]  # the numbers of this game and frame, by the names of our game's draws
    number: int  # how many were asked for before it, in this frame or reset; a frame's number 0 is the sticky action's
    is_reset: bool
    method: str  # of NumPy's generator: "rand" or "randint"
    arguments: tuple  # of it, by place or name
    game: Any  # the package's, as it stands


class Planted:
    """Stands where the package has NumPy's generator, and answers each draw from ours."""

    def __init__(self, answer: Callable[[Call], Any]):
        self._answer = answer
        self.game = None
        self.begin({}, True)

    def begin(self, noise: Mapping[str, Any], is_reset: bool) -> None:
        """The numbers for what comes next."""
        self._noise, self._is_reset, self._number = noise, is_reset, 0

    def rand(self, *shape):
        return self._drawn("rand", shape)

    def randint(self, *arguments, **named):
        return self._drawn("randint", (*arguments, *named.values()))

    def _drawn(self, method: str, arguments: tuple):
        number, self._number = self._number, self._number + 1
        if number == 0 and not self._is_reset:
            return (float(self._noise["sticky"]) + 0.5) / STICKY_DRAWS
        return self._answer(Call(self._noise, number, self._is_reset, method, arguments, self.game))


# Of each game: what answers its draws, and what puts it into a state of ours.


def _breakout_draw(call: Call) -> Any:
    return int(call.noise["start"]) % 2


def _breakout_plant(game: Any, state: Mapping[str, Any]) -> None:
    game.ball_x, game.ball_y, game.pos = int(state["ball_x"]), int(state["ball_y"]), int(state["paddle"])
    game.ball_dir = {(-1, -1): 0, (1, -1): 1, (1, 1): 2, (-1, 1): 3}[int(state["move_x"]), int(state["move_y"])]
    game.last_y, game.last_x = divmod(int(state["trail"]), SIZE)
    game.strike = bool(state["is_inside"])
    game.brick_map[1:4] = (int(state["bricks"]) >> np.arange(30) & 1).reshape(3, SIZE)


def _asterix_draw(call: Call) -> Any:
    if call.method == "randint":
        return int(call.noise["lane"]) * int(call.arguments[0]) >> 22
    if call.number == 1:
        return 0.25 if call.noise["side"] == 1 else 0.75
    return (float(call.noise["gold"]) + 0.5) / 2**20


def _asterix_plant(game: Any, state: Mapping[str, Any]) -> None:
    game.player_x, game.player_y = int(state["player_x"]), int(state["player_y"])
    game.spawn_timer, game.move_timer = int(state["spawn_wait"]), int(state["move_wait"])
    if game.ramping:
        game.ramp_index = min(int(state["time"]) // 102, 9)
        game.ramp_timer = 100 - (int(state["time"]) % 102 if game.ramp_index < 9 else 0)
        game.spawn_speed, game.move_speed = 10 - game.ramp_index, 5 - game.ramp_index // 2
    lanes = zip(state["x"].tolist(), state["is_from_left"].tolist(), state["is_gold"].tolist(), strict=True)
    game.entities = [[x, row + 1, left, gold] if x >= 0 else None for row, (x, left, gold) in enumerate(lanes)]


def _freeway_draw(call: Call) -> Any:
    kinds = np.array([int(call.noise["cars"]) * 10 ** (lane + 1) // 2**43 % 10 for lane in range(8)])
    return kinds % 5 + 1 if call.method == "randint" else np.where(kinds < 5, 0.25, 0.75)


def _freeway_plant(game: Any, state: Mapping[str, Any]) -> None:
    game.pos, game.move_timer = int(state["row"]), int(state["move_wait"])
    game.terminate_timer = 2500 - int(state["time"])
    lanes = zip(*(state[name].tolist() for name in ("car_x", "car_wait", "car_speed")), strict=True)
    game.cars = [[x, row + 1, wait, speed] for row, (x, wait, speed) in enumerate(lanes)]


def _space_invaders_draw(call: Call) -> Any:
    raise AssertionError("space invaders draws nothing")


def _space_invaders_plant(game: Any, state: Mapping[str, Any]) -> None:
    game.pos, game.shot_timer = int(state["cannon"]), int(state["reload"])
    game.alien_dir, game.alien_move_timer = int(state["heading"]), int(state["march_wait"])
    game.enemy_move_interval = int(state["march_period"])
    game.alien_shot_timer = (10 - int(state["time"])) % 10 if state["time"] else 10
    game.alien_map[:] = 0
    for bit in np.flatnonzero(int(state["aliens"]) >> np.arange(24) & 1).tolist():
        game.alien_map[int(state["top"]) + bit // 6, int(state["left"]) + bit % 6] = 1
    for cell in state["shots"].tolist():
        if cell >= 0:
            game.f_bullet_map.flat[cell] = 1
    if state["bomb"] < SIZE * SIZE:
        game.e_bullet_map.flat[int(state["bomb"])] = 1


def _seaquest_draw(call: Call) -> Any:
    # An enemy's side, kind and row, if one comes, then a diver's side and row.
    of_diver = call.game.e_spawn_timer > 0 or call.number > 3
    if call.method == "randint":
        return int(call.noise["diver_row" if of_diver else "enemy_row"])
    if not of_diver and call.number == 2:
        return (float(call.noise["enemy_kind"]) + 0.5) / 3
    return (float(call.noise["diver_side" if of_diver else "enemy_side"]) + 0.5) / 2


def _seaquest_plant(game: Any, state: Mapping[str, Any]) -> None:
    time, level, gone = int(state["time"]), int(state["level"]), 100
    game.sub_x, game.sub_y, game.sub_or = int(state["x"]), int(state["y"]), state["heading"] > 0
    game.shot_timer, game.oxygen = int(state["reload"]), int(state["oxygen"])
    game.diver_count, game.surface = int(state["aboard"]), bool(state["is_up"])
    game.ramp_index, game.e_spawn_speed, game.move_speed = level, max(20 - level, 1), max(5 - level // 2, 2)
    game.e_spawn_timer, game.d_spawn_timer = int(state["spawn_wait"]), (30 - time) % 30 if time else 30

    def slots(part: str, *names: str) -> list[list]:
        return [list(values) for values in zip(*(state[f"{part}.{name}"].tolist() for name in names), strict=True)]

    # The package has the oldest of each first.
    shots = reversed(slots("shots", "x", "row", "heading"))
    game.f_bullets = [[x, row, heading > 0] for x, row, heading in shots if x != gone]
    for k, (row, heading) in reversed(list(enumerate(slots("divers", "row", "heading")))):
        age = (time - 1) % 30 + 30 * k
        steps = (age + 1) // 6
        if row:
            game.divers.append([steps if heading > 0 else 9 - steps, row, heading > 0, (4 - age) % 6])
    names = ("x", "row", "heading", "is_submarine", "step_wait", "shot_wait", "shot_x")
    ring = slots("enemies", *names)
    for x, row, heading, is_submarine, step_wait, shot_wait, shot_x in ring[state["slot"] :] + ring[: state["slot"]]:
        if x != gone and is_submarine:
            game.e_subs.append([x, row, heading > 0, step_wait, shot_wait])
        elif x != gone:
            game.e_fish.append([x, row, heading > 0, step_wait])
        if shot_x != gone:
            game.e_bullets.append([shot_x, row, heading > 0])


GAMES = {
    "breakout": (_breakout_draw, _breakout_plant),
    "asterix": (_asterix_draw, _asterix_plant),
    "freeway": (_freeway_draw, _freeway_plant),
    "space_invaders": (_space_invaders_draw, _space_invaders_plant),
    "seaquest": (_seaquest_draw, _seaquest_plant),
}


def play(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the package shows, as above."""
    logging.disable(logging.WARNING)  # that it cannot draw pictures
    from minatar import Environment

    answer, plant = GAMES[str(given["game"])]
    action, over = given["action"], given["over"]
    frames, num_games = action.shape
    planted = Planted(answer)
    env = Environment(str(given["game"]), float(given["sticky"]), bool(given["ramping"]))
    env.random = env.env.random = planted
    planted.game = env.env
    actions = env.minimal_action_set()
    parts = {name: _fields(given, name) for name in ("first", "noise", "start")}
    width = len(_bits(env))
    shown = {
        "frame": np.zeros([frames, num_games, width], np.uint8),
        "fresh": np.zeros([frames + 1, num_games, width], np.uint8),
        "reward": np.zeros([frames, num_games], np.float32),
        "end": np.zeros([frames, num_games], bool),
    }

    def reset(noise: Mapping[str, Any]) -> None:
        planted.begin(noise, True)
        env.reset()
        env.last_action = actions[0]  # the package carries it over from the episode before

    for n in range(num_games):
        reset(_at(parts["first"], n))
        if parts["start"]:
            state = _at(parts["start"], n)
            plant(env.env, state)
            env.last_action = actions[int(state["last_action"])]
        shown["fresh"][0, n] = _bits(env)
        for t in range(frames):
            noise = _at(parts["noise"], (t, n))
            planted.begin(noise, False)
            shown["reward"][t, n], shown["end"][t, n] = env.act(actions[action[t, n]])
            shown["frame"][t, n] = _bits(env)
            if over[t, n]:
                reset(noise)
                shown["fresh"][t + 1, n] = _bits(env)
    return shown


def _fields(given: Mapping[str, np.ndarray], part: str) -> dict[str, np.ndarray]:
    return {name.split(".", 1)[1]: array for name, array in given.items() if name.startswith(part + ".")}


def _at(fields: Mapping[str, np.ndarray], index: Any) -> dict[str, Any]:
    return {name: array[index] for name, array in fields.items()}


def _bits(env: Any) -> np.ndarray:
    return np.packbits(env.state())


if __name__ == "__main__":
    with np.load(sys.argv[1]) as file:
        shown = play(dict(file))
    np.savez(sys.argv[2], **shown)
