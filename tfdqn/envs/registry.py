"""The games by name: the only list of them. Nothing here imports TensorFlow, or a game before it is made."""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tfdqn.envs import loading
from tfdqn.envs.base import Environment
from tfdqn.errors import UserError, nearest

if TYPE_CHECKING:
    from tfdqn.envs.spec import ObservationSpec

DEFAULT = "catch8"  # what is played where nobody says what: seconds tell whether all works

# What stands before the names of other libraries' games, `gym:CartPole-v1`, and what makes them: each module has
# `require(name)`, which refuses what is not there, `make(name, **arguments)` and `sha256_of(name)`.
_DOORS = {"gym": "tfdqn.adapters.from_gymnasium"}

# The rooms of the games that come along; each module has its `GAMES`.
_ROOMS = tuple(f"tfdqn.envs.{room}.settings" for room in ("catch", "cave", "cartpole", "minatar", "memory"))


@dataclasses.dataclass(frozen=True)
class Game:
    """What is known of a game before it is made.

    Args:
      name: what `--env` calls it.
      factory: "module:Class", "path/to/file.py:Class", or what makes an `Environment` when called.
      arguments: of the factory, always the same.
      settings: a room (`tfdqn.settings.room`) whose fields are arguments of the factory, too.
      presets: named settings; "default" is taken where no other is asked for.
      gpu_presets: what is taken on a GPU in the place of those of the same names: sizes and schedules chosen together.
      has_difficulties: whether training may begin at one (`Environment.difficulties`); None where only the game knows.
      takes_arguments: whether the user may give it more arguments.
      planner: the module of a scripted player, with `play(episodes, seed, progress) -> scores`; None where it has none.
      observation_spec: from the game's settings (None without a room) to what it shows; None where only the game knows.
      require: refuses, in a `UserError`, what can be told to be missing before the game is made.
      sha256: of the source of another library's game, in hexadecimal digits; empty where it cannot be told.
    """

    name: str
    factory: str | Callable[..., Environment]
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    settings: type | None = None
    presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=lambda: {"default": {}})
    gpu_presets: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    has_difficulties: bool | None = None
    observation_spec: Callable[[Any], ObservationSpec] | None = None
    takes_arguments: bool = False
    planner: str | None = None
    require: Callable[[], None] = lambda: None
    sha256: Callable[[], str] = lambda: ""

    def make(self, settings: Any = None, arguments: str | Mapping[str, Any] = "") -> Environment:
        """Make the game.

        Args:
          settings: of its room, if it has one.
          arguments: more arguments of the factory, a JSON object.
        """
        given = dict(self.arguments) | loading.parse_arguments(arguments)
        if settings is not None:
            given |= dataclasses.asdict(settings)
        if callable(self.factory):
            return loading.call(self.factory, given, self.name, f"--env {self.name}")
        return loading.load(self.factory, given)


# What a game of one's own begins with. On the game that `new_game` writes, with all else at its default, Adam at this
# rate is perfect after a million frames, where RMSPropGraves has half of the score.
OWN_PRESET = {"optimizer": "adam", "optimizer_epsilon": 1e-6, "learning_rate": 5e-4}

# And what one behind a door begins with, which is a vector of numbers more often than a screen: solves Gymnasium's
# CartPole and LunarLander.
DOOR_PRESET = {
    **OWN_PRESET,
    "network": "mlp_norm",
    "num_envs": 16,
    "batch_size": 128,
    "updates_per_iteration": 2,
    "learning_rate_decay_updates": 75_000,
    "n_step": 4,
    "target": "soft",
    "target_tau": 0.005,
    "replay_min_rows": 2_000,
    "epsilon_decay_env_frames": 50_000,
    "total_env_frames": 600_000,
    "eval_every_frames": 20_000,
    "eval_episodes": 32,
    "threads": 1,  # operations take microseconds, beside which the games' Python runs
}

_registered: dict[str, Game] = {}


@functools.cache
def _ours() -> dict[str, Game]:
    rooms = (importlib.import_module(module).GAMES for module in _ROOMS)
    return {game.name: game for games in rooms for game in games}


def names() -> list[str]:
    """The games that come along."""
    return list(_ours())


def games() -> list[Game]:
    """The games that come along."""
    return list(_ours().values())


def entry(env: str) -> Game:
    """What is known of a game by its name, or by where it is: "package.module:Class" or "path/to/file.py:Class".

    Raises:
      UserError: no game has that name; it names the nearest.
    """
    known = _ours() | _registered
    if env in known:
        return known[env]
    door, colon, name = env.partition(":")
    if colon and door in _DOORS:
        return _behind(door, name)
    if loading.is_spec(env):
        require = functools.partial(loading.require, env)
        return Game(env, env, presets={"default": OWN_PRESET}, takes_arguments=True, require=require)
    raise UserError(f"--env {env}: unknown; {nearest(env, known)} (or your own: path/to/my_game.py:MyGame)")


@functools.cache
def _behind(door: str, name: str) -> Game:
    """Another library's game. Its library is imported when the game is asked for."""

    def call(function: str, **arguments: Any) -> Any:
        return getattr(importlib.import_module(_DOORS[door]), function)(name, **arguments)

    return Game(
        f"{door}:{name}",
        functools.partial(call, "make"),
        presets={"default": DOOR_PRESET},
        takes_arguments=True,
        require=functools.partial(call, "require"),
        sha256=functools.partial(call, "sha256_of"),
    )


def adopt(env: Environment) -> str:
    """Give a game that is there already a name, for this process: that of its class, with its module where it has one.

    Returns:
      The name, for `--env`. Another game of the same class takes its place.

    Raises:
      UserError: it is no game, or one that comes along with tfdqn.
    """
    if not isinstance(env, Environment):
        hint = f"; write {env.__name__}()" if isinstance(env, type) else ""
        raise UserError(f"env {env!r}: must be a game's name, or a tfdqn.envs.Environment{hint}")
    cls = type(env)
    if cls.__module__.startswith("tfdqn.envs."):
        raise UserError(
            f'{cls.__name__}: name a game that comes along, with its settings: "{env.name}", not a game that is made'
        )
    name = cls.__qualname__ if cls.__module__ == "__main__" else f"{cls.__module__}:{cls.__qualname__}"
    _registered[name] = Game(
        name,
        lambda **_: env,  # made with these already
        presets={"default": OWN_PRESET},
        has_difficulties=env.has_difficulties,
        observation_spec=lambda _: env.observation_spec,
        takes_arguments=True,
    )
    return name


def register(name: str, factory: str | Callable[..., Environment], preset: Mapping[str, Any] | None = None) -> None:
    """Give a game of your own a name, for this process.

    Args:
      name: what `--env` and `tfdqn.Agent` shall call it.
      factory: "module:Class", "path/to/file.py:Class", or what makes an `Environment` when called.
      preset: settings to train it with, in place of the defaults, by the names that `-h` lists.

    Raises:
      ValueError: a game that comes along has that name, or it is no plain name.
    """
    if name in _ours() or not name or loading.is_spec(name):
        raise ValueError(f"register {name!r}: choose a plain name that no game has yet, such as my_{name or 'game'}")
    _registered[name] = Game(name, factory, presets={"default": OWN_PRESET | dict(preset or {})}, takes_arguments=True)
