"""Play a game yourself, in the terminal: `python -m tfdqn.play catch8`."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdqn import cli
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.runtime import devices
from tfdqn.shown import screen as screens

if TYPE_CHECKING:
    from tfdqn.shown.games import OneGame

SCORES_FILE = "scores.jsonl"
ARROWS = ("left", "right", "up", "down")
IDLE = ("none", "stay", "noop", "no-op", "wait", "nothing")
WAIT_SECONDS = 1.0  # between looks at the terminal's size while nothing happens


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m tfdqn.play", description="Play a game yourself, in the terminal.")
    parser.add_argument("game", metavar="GAME", help="as train's --env: a name, or path/to/file.py:Class")
    parser.add_argument("--env-args", default="", help="arguments of a game of your own, a JSON object")
    parser.add_argument(
        "--seed", type=cli.converter("--seed", int), default=None, help="seed of the game's draws; another each time"
    )
    parser.add_argument(
        "--fps", type=cli.converter("--fps", float), default=None, help="frames a second; the game's own if absent"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if arguments.seed is not None and not 0 <= arguments.seed < 2**31:
        raise UserError(f"--seed {arguments.seed}: must be between 0 and {2**31 - 1}")
    if arguments.fps is not None and not 0.1 <= arguments.fps <= 240:
        raise UserError(f"--fps {arguments.fps}: must be between 0.1 and 240")
    try:
        config = configuration.resolve({"env": arguments.game, "env_args": arguments.env_args})
    except UserError as error:
        raise UserError(str(error).removeprefix("--env ")) from None
    screens.require()
    device = devices.choose_device("cpu")
    cli.say("loading ...")

    import tensorflow as tf

    from tfdqn.envs import make_for
    from tfdqn.shown import games

    env = make_for(config)
    seed = time.time_ns() % 2**31 if arguments.seed is None else arguments.seed
    scores = Scores(config.env)
    with tf.device(device):
        game = games.OneGame(config, env, seed)
        try:
            _play(game, config.env, arguments.fps or env.frames_per_second, scores)
        finally:
            game.close()
    if scores.problem:
        cli.say(f"tfdqn: warning: {scores.path}: {scores.problem}; scores are not kept")
    if scores.played:
        best = f"; your best ever is {scores.best:,.6g}, in {scores.path}" if not scores.problem else ""
        cli.say(f"{config.env}: {', '.join(f'{score:,.6g}' for score in scores.played)}{best}")
    return 0


class Keys:
    """Which key is which action: the arrows, the space bar and digits.

    A game of two actions keeps to the last one chosen, and the space bar changes it, as a terminal does not tell when a
    key is let go. In others a key is for one frame, and after it the idle action is taken, if there is one.
    """

    def __init__(self, names: Sequence[str]):
        self._names = names
        words = [name.lower() for name in names]
        self.idle = next((number for number, word in enumerate(words) if word in IDLE), 0)
        self._keeps = len(names) == 2
        self._is_switched = self._keeps and not set(words) & set(ARROWS)
        self._actions = {str(number + 1): number for number in range(min(len(names), 9))}
        self._shown = {number: str(number + 1) for number in range(min(len(names), 9))}
        for number, word in enumerate(words):
            key = word if word in ARROWS else None
            if key is None and number != self.idle and "space" not in self._actions and not self._is_switched:
                key = "space"
            if key:
                self._actions[key], self._shown[number] = number, key
        self.action = self.idle

    @property
    def help(self) -> list[str]:
        """A line for each key."""
        if self._is_switched:
            return [f"space  {self._names[0]} or {self._names[1]}"]
        lines = [f"{self._shown.get(number, ''):<6} {name}" for number, name in enumerate(self._names)]
        return lines[:9]

    def press(self, keys: Sequence[str]) -> None:
        """Take the last of these keys that is one of the game's."""
        for key in keys:
            if self._is_switched and key == "space":
                self.action = 1 - self.action
            elif key in self._actions:
                self.action = self._actions[key]

    def taken(self) -> int:
        """The action of the next frame."""
        action = self.action
        if not self._keeps:
            self.action = self.idle
        return action


class Scores:
    """What people have reached in a game, a line each in a file of the user's data folder."""

    def __init__(self, game: str, folder: Path | None = None):
        self._game, self.played, self.problem = game, [], ""
        self.path = (_data_folder() if folder is None else folder) / SCORES_FILE
        self.best: float | None = None
        with contextlib.suppress(OSError, ValueError):
            for line in self.path.read_text(encoding="utf-8").splitlines():
                self._take(json.loads(line))

    def _take(self, entry: Any) -> None:
        if isinstance(entry, dict) and entry.get("game") == self._game and isinstance(entry.get("score"), int | float):
            self.best = entry["score"] if self.best is None else max(self.best, entry["score"])

    def add(self, score: float, frames: int) -> None:
        """Keep a score; where that cannot be, `problem` says why."""
        entry = {"game": self._game, "score": score, "frames": frames, "time": time.strftime("%Y-%m-%d %H:%M:%S")}
        self.played.append(score)
        self._take(entry)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        except OSError as error:
            self.problem = error.strerror or str(error)


def _data_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME", "")
    return Path(home if os.path.isabs(home) else os.path.expanduser("~/.local/share")) / "tfdqn"


def _play(game: OneGame, name: str, frames_per_second: float, scores: Scores) -> None:
    """Games until it is enough."""
    import tensorflow as tf

    from tfdqn.shown import stage

    def step(action: int) -> None:
        legal = game.legal_actions()
        game.step(tf.constant([action if legal is None else allowed(legal.numpy()[0].tolist(), action)]))

    step(0)  # compiles, while the terminal still shows that it is loading
    game.begin(0)
    keys, clock, episode, is_paused = Keys(game.env.action_names), screens.Clock(), 0, True
    with screens.Screen() as screen:
        while True:
            best = "" if scores.best is None else f"  best {scores.best:,.6g}"
            title = f"{name}  score {game.score:,.6g}{best}"
            if game.is_over:
                state = f"over: {game.score:,.6g}, enter plays again"
            elif is_paused:
                state = "paused" if game.frames else "any key begins"
            else:
                state = game.env.action_names[keys.action]
            words = [state, "", *keys.help, "", f"frame {game.frames:,}"]
            if (picture := game.picture()) is None:
                words = [state, "", *_numbers(game), *words[1:]]
            stage.show(screen, title, picture, words, "q quit  p pause  enter new game")
            is_waiting = is_paused or game.is_over
            pressed = screen.wait(WAIT_SECONDS if is_waiting else clock.left)
            if "q" in pressed or "escape" in pressed:
                return
            if "enter" in pressed and (game.is_over or game.frames):
                episode, is_paused = episode + 1, True
                game.begin(episode)
                keys = Keys(game.env.action_names)
                continue
            if "p" in pressed:
                is_paused = not is_paused
            elif pressed and is_paused:
                is_paused = False
                clock = screens.Clock()
            keys.press(pressed)
            if is_paused or game.is_over or clock.left:
                continue
            step(keys.taken())
            clock.begin(1 / frames_per_second)
            if game.is_over:
                scores.add(game.score, game.frames)


def allowed(legal: Sequence[bool], action: int) -> int:
    """The action, or the first that the rules allow in its place."""
    return action if legal[action] else list(legal).index(True)


def _numbers(game: OneGame) -> list[str]:
    """What a game without pictures shows."""
    import numpy as np

    values = np.asarray(game.frame[0]).ravel()[:12]
    return ["what it shows:", *(f"  {value:>10.4g}" for value in values)]


if __name__ == "__main__":
    cli.run(main)
