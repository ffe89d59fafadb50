"""Our MinAtar games beside the package's, frame by frame: `python -m benchmarks.peers.minatar_parity [--game NAME]`.

Ours are played first, N side by side under XLA, half of the frames from new episodes on, by players of all skills from
scripted to random, and half from states that are drawn, a few frames each: what play seldom meets. Then the package's
game is played in an environment of its own with the same actions and draws (`minatar_worker`), and every plane of every
frame, every reward and every end must be equal. With sticky actions and a rising difficulty, and without.

`--record FOLDER` writes what the package showed in a short play to FOLDER, for the tests.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import contenders, environments, minatar_players
from benchmarks.timing import WrongResult
from tfdqn import cli
from tfdqn.errors import UserError

GAMES = tuple(minatar_players.PLAYERS)
STICKY = 0.1
# From new episodes on: at least so many games, and no more frames of each, which pass the 2,500th of freeway.
PLAYED_GAMES, PLAYED_FRAMES = 8, 2_600
DRAWN_FRAMES = 20  # from each state that is drawn
RECORDED = (1000, 4)  # frames and games of a recording


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m benchmarks.peers.minatar_parity", description="Hold our MinAtar games against the package's."
    )
    parser.add_argument("--game", action="append", default=[], metavar="NAME", help=f"one of {', '.join(GAMES)}")
    parser.add_argument(
        "--frames", type=cli.converter("--frames", int), default=100_000, help="of each game and setting, at least"
    )
    parser.add_argument("--record", metavar="FOLDER", default=None, help="write a short recording of each game here")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    games = contenders.choose(arguments.game, list(GAMES), "--game")
    if arguments.frames < 1:
        raise UserError(f"--frames {arguments.frames}: must be at least 1; use 1")
    if arguments.record is not None:
        for game in games:
            path = Path(arguments.record) / f"{game}.npz"
            np.savez_compressed(path, **recording(game))
            print(f"{path}: {path.stat().st_size:,} bytes")
        return 0
    for game in games:
        for sticky, ramping in itertools.product((STICKY, 0.0), (True, False)):
            compared, events = compare(game, arguments.frames, sticky, ramping)
            print(f"{game}, sticky {sticky:g}, ramping {'on' if ramping else 'off'}: {compared:,} frames are equal")
            print("  " + ", ".join(f"{name} {count:,}" for name, count in events.items()), flush=True)
    return 0


def compare(game: str, frames: int, sticky: float, ramping: bool, seed: int = 0) -> tuple[int, dict[str, int]]:
    """Play so many frames in both.

    Returns:
      How many frames were compared, and how often what happened in them.

    Raises:
      WrongResult: the first frame that differs.
      UserError: the package cannot be installed.
    """
    half = -(-frames // 2)
    length = min(-(-half // PLAYED_GAMES), PLAYED_FRAMES)
    num_drawn = -(-half // DRAWN_FRAMES)
    starts = minatar_players.PLAYERS[game].draw(np.random.default_rng([seed, 1]), num_drawn)
    compared, events = 0, Counter()
    for frames_each, num_games, start in ((length, -(-half // length), None), (DRAWN_FRAMES, num_drawn, starts)):
        given, ours, happened = played(game, frames_each, num_games, sticky, ramping, seed, start)
        where = f"{game}, sticky {sticky:g}, ramping {ramping}, {'play' if start is None else 'drawn states'}"
        require_equal(ours, theirs(given), where)
        compared += frames_each * num_games
        events.update(happened)
    return compared, dict(events)


def played(
    game: str,
    length: int,
    num_games: int,
    sticky: float,
    ramping: bool,
    seed: int,
    start: Mapping[str, np.ndarray] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], Counter]:
    """Our game: what the worker needs to play it again, what the worker should then show, and what happened.

    Args:
      start: fields of the states to start from, in place of new episodes.
    """
    import tensorflow as tf

    from tfdqn import envs

    env = envs.make(f"minatar_{game}", sticky_actions=sticky, difficulty_ramping=ramping)
    player, generator = minatar_players.PLAYERS[game], np.random.default_rng([seed, 2])
    skill = np.linspace(1, 0, num_games)

    def arrays(nest):
        return tf.nest.map_structure(np.asarray, nest)

    def draws(t: int) -> Any:
        return arrays(env.sample_noise(tf.constant([seed, t], tf.int64), num_games))

    first = draws(0)
    state = arrays(env.compiled_reset(first))
    if start is not None:
        assert start.keys() | {"time"} == set(_fields(state))
        state = _planted(state, start)
    given = {"game": np.array(game), "sticky": np.array(sticky), "ramping": np.array(ramping)}
    given |= {f"first.{name}": field for name, field in first._asdict().items()}
    given |= {f"start.{name}": field for name, field in _fields(state).items() if start is not None}
    fresh = [_bits(env.observe(state))]
    rows: list[dict[str, np.ndarray]] = []
    events: Counter = Counter()
    for t in range(length):
        noise = draws(t + 1)
        is_scripted = generator.random(num_games) < skill
        action = np.where(is_scripted, player.act(state), generator.integers(0, env.num_actions, num_games))
        following, timestep = arrays(env.compiled_step(state, action.astype(np.int32), noise))
        over = timestep.termination | timestep.truncation
        happened = {**player.events(state, noise, following, timestep), "ended": over}
        happened["another action than the one chosen"] = following.last_action != action
        events.update({name: int(np.sum(which)) for name, which in happened.items()})
        restarted = arrays(env.compiled_reset(noise))
        state = tf.nest.map_structure(lambda new, old, over=over: _chosen(over, new, old), restarted, following)
        fresh.append(_bits(env.observe(state)) * over[:, np.newaxis])
        row = {f"noise.{name}": field for name, field in noise._asdict().items()}
        row |= {"action": action.astype(np.uint8), "over": over, "end": over, "reward": timestep.reward}
        rows.append({**row, "frame": _bits(timestep.observation)})
    columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    shown = {name: columns.pop(name) for name in ("frame", "reward", "end")} | {"fresh": np.stack(fresh)}
    return given | columns, shown, events


def theirs(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the package shows, as the worker has it."""
    interpreter = environments.python("minatar")
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, name) for name in ("in.npz", "out.npz")]
        np.savez(files[0], **given)
        command = [str(interpreter), "-P", "-m", "benchmarks.peers.minatar_worker", *files]
        done = subprocess.run(
            command,
            env={**os.environ, "PYTHONPATH": str(environments.ROOT)},
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        if done.returncode:
            raise WrongResult(f"the package's game failed: {done.stderr.strip().splitlines()[-1:]}")
        with np.load(files[1]) as file:
            return dict(file)


def require_equal(ours: Mapping[str, np.ndarray], package: Mapping[str, np.ndarray], where: str) -> None:
    """Compare all that was shown.

    Raises:
      WrongResult: the first frame that differs, and in what.
    """
    found = []
    for name, wanted in package.items():
        differs = ours[name] != wanted
        if differs.any():
            # `fresh` has one row more: its row t + 1 follows frame t.
            t, n, *rest = np.argwhere(differs)[0]
            found.append((t - (name == "fresh"), n, name, ours[name][t, n], wanted[t, n], *rest))
    if found:
        t, n, name, mine, other, *_ = min(found, key=lambda each: each[:3])
        if mine.ndim:
            mine, other = (np.flatnonzero(np.unpackbits(each)).tolist() for each in (mine, other))
            only = sorted(set(mine) ^ set(other))
            raise WrongResult(f"{where}: frame {t} of game {n}: {name}: entries {only[:8]} differ")
        raise WrongResult(f"{where}: frame {t} of game {n}: {name} is {mine}, the package has {other}")


def recording(game: str) -> dict[str, np.ndarray]:
    """A short play of the package's, with sticky actions and a rising difficulty."""
    given, ours, _ = played(game, *RECORDED, STICKY, True, seed=1)
    package = theirs(given)
    require_equal(ours, package, f"{game}, recording")
    return given | package


def _fields(state: Any) -> dict[str, np.ndarray]:
    """The arrays of a state by name, "part.name" where a field has fields."""
    found = {}
    for name, field in state._asdict().items():
        parts = {f"{name}.{part}": array for part, array in _fields(field).items()} if hasattr(field, "_fields") else {}
        found |= parts or {name: field}
    return found


def _planted(state: Any, fields: Mapping[str, np.ndarray], prefix: str = "") -> Any:
    """The state with those of its arrays that are given, by the names of `_fields`."""

    def planted(name: str, field: Any) -> Any:
        if hasattr(field, "_fields"):
            return _planted(field, fields, f"{prefix}{name}.")
        return np.asarray(fields.get(prefix + name, field), field.dtype)

    return type(state)(*(planted(*pair) for pair in state._asdict().items()))


def _chosen(which: np.ndarray, new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """`new` [N, ...] where [N] `which`, else `old`."""
    return np.where(which.reshape([-1] + [1] * (old.ndim - 1)), new, old)


def _bits(observation: Any) -> np.ndarray:
    planes = np.asarray(observation)
    return np.packbits(planes.reshape(len(planes), -1), axis=-1)


if __name__ == "__main__":
    cli.run(main)
