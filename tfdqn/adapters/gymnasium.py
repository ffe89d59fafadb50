"""tfdqn's games for Gymnasium 1.x: `gymnasium.make("tfdqn.adapters.gymnasium:tfdqn/Catch8-v1")`.

Importing this registers the games that come along, as `tfdqn/<Name>-v<version of the rules>`; a game of one's own is
made with `GameEnv` or `GameVectorEnv`. A step is one XLA program: draws, rules, resets and legal actions.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from tfdqn.errors import UserError

try:  # before TensorFlow, which takes seconds
    import gymnasium
except ModuleNotFoundError:
    raise UserError('tfdqn.adapters.gymnasium: needs Gymnasium; run python -m pip install "tfdqn[gymnasium]"') from None

import numpy as np
import tensorflow as tf
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tfdqn import envs
from tfdqn.envs import Environment, entering, registry
from tfdqn.envs.rollout import select
from tfdqn.envs.spec import ObservationSpec
from tfdqn.runtime import compiled

__all__ = ["GameEnv", "GameVectorEnv"]

_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"]}  # before a game is made; one may have no picture


class GameEnv(gymnasium.Env):
    """One game as a `gymnasium.Env`.

    Observations are arrays of the game's shape, uint8 or float32; a game of bits shows 0 and 1 as uint8. `info` has
    "action_mask", [A] int8, where the rules limit what may be done: `action_space.sample(mask)` takes it.

    Args:
      game: a game, or what `--env` calls it.
      render_mode: "rgb_array", or None.
      **arguments: of the game, where it is named.

    Raises:
      ValueError: no such game, one that steps on the host, or another render mode; one line.
    """

    metadata = _METADATA

    def __init__(self, game: str | Environment, render_mode: str | None = None, **arguments: Any):
        self.game = _made(game, arguments)
        self.observation_space = _observation_space(self.game.observation_spec)
        self.action_space = spaces.Discrete(self.game.num_actions)
        self._played = _Played(self.game, 1)
        self.metadata = self._played.metadata()
        self.render_mode = _checked_mode(render_mode, self.metadata)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode; what follows is the same whenever the same seed is given."""
        super().reset(seed=seed)
        shown = self._played.reset(self.np_random, is_seeded=seed is not None)
        return shown.observation[0], self._info(shown)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Play one frame.

        Raises:
          ResetNeeded: the episode is over, or none was begun.
          TypeError, ValueError: no action of this game.
        """
        if not self._played.is_begun or self._played.is_over.any():
            raise ResetNeeded("this episode is over, or none was begun: call reset() before step()")
        shown = self._played.step(np.asarray(action).reshape(1))
        return (
            shown.observation[0],
            float(shown.reward[0]),
            bool(shown.termination[0]),
            bool(shown.truncation[0]),
            self._info(shown),
        )

    def render(self) -> np.ndarray | None:
        """The picture for people, [H, W, 3] uint8; None without a render mode."""
        return None if self.render_mode is None else self._played.picture()[0]

    def _info(self, shown: _Shown) -> dict[str, Any]:
        return {} if shown.legal is None else {"action_mask": shown.legal[0]}


class GameVectorEnv(VectorEnv):
    """N games as a `gymnasium.vector.VectorEnv`, each reset in the step after its end (`AutoresetMode.NEXT_STEP`).

    Game i of a seed does not depend on N, and game 0 is that of a `GameEnv` with the same seed. `info` has
    "action_mask", [N, A] int8, where the rules limit what may be done.

    Args:
      game: a game, or what `--env` calls it.
      num_envs: N.
      render_mode: "rgb_array", or None.
      **arguments: of the game, where it is named.

    Raises:
      ValueError: no such game, one that steps on the host, another render mode, or less than one game; one line.
    """

    metadata = {**_METADATA, "autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, game: str | Environment, num_envs: int = 1, render_mode: str | None = None, **arguments: Any):
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: must be at least 1")
        self.game, self.num_envs = _made(game, arguments), num_envs
        self.single_observation_space = _observation_space(self.game.observation_spec)
        self.single_action_space = spaces.Discrete(self.game.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._played = _Played(self.game, num_envs)
        self.metadata = {**self.metadata, **self._played.metadata()}
        self.render_mode = _checked_mode(render_mode, self.metadata)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Begin an episode of each game; what follows is the same whenever the same seed is given."""
        super().reset(seed=seed)
        shown = self._played.reset(self.np_random, is_seeded=seed is not None)
        return shown.observation, self._info(shown)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict]:
        """Play one frame of each game; where the last one ended an episode, begin the next and ignore the action.

        Raises:
          ResetNeeded: no episode was begun.
          TypeError, ValueError: no actions of these games.
        """
        if not self._played.is_begun:
            raise ResetNeeded("no episode was begun: call reset() before step()")
        shown = self._played.step(actions)
        # Gymnasium's own vector environments have rewards of this type.
        return (
            shown.observation,
            shown.reward.astype(np.float64),
            shown.termination,
            shown.truncation,
            self._info(shown),
        )

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The pictures for people, N of [H, W, 3] uint8; None without a render mode."""
        return None if self.render_mode is None else tuple(self._played.picture())

    def _info(self, shown: _Shown) -> dict[str, Any]:
        if shown.legal is None:
            return {}
        # Gymnasium's way to say of which games an entry tells.
        return {"action_mask": shown.legal, "_action_mask": np.ones(self.num_envs, bool)}


class _Shown(NamedTuple):
    """What one step of N games shows, as arrays of its own."""

    observation: np.ndarray  # [N, ...]
    reward: np.ndarray  # [N] float32
    termination: np.ndarray  # [N] bool
    truncation: np.ndarray  # [N] bool
    legal: np.ndarray | None  # [N, A] int8


class _Played:
    """N games and where they are. Frame t of a seed draws at counter t, resets included."""

    def __init__(self, env: Environment, num_envs: int):
        self._env, self._num_envs = env, num_envs
        self._programs = _programs(env, num_envs)
        self._state, self._stream, self._counter = None, None, 0
        self.is_over = np.zeros(num_envs, bool)

    @property
    def is_begun(self) -> bool:
        return self._state is not None

    def metadata(self) -> dict[str, Any]:
        noise = self._env.sample_noise(tf.zeros([2], tf.int64), 1)
        has_picture = self._env.render(self._env.reset(noise)) is not None
        return {"render_modes": ["rgb_array"] * has_picture, "render_fps": self._env.frames_per_second}

    def reset(self, dice: np.random.Generator, is_seeded: bool) -> _Shown:
        if is_seeded or self._stream is None:
            self._stream, self._counter = int(dice.integers(2**63)), 0
        self._state, *shown = self._programs.begin(self._next_seed())
        return self._show(*shown)

    def step(self, action: Any) -> _Shown:
        # Whoever acts for many may not know what to say where an episode begins anew: nothing is asked of it there.
        action = np.where(self.is_over, 0, action) if np.shape(action) == self.is_over.shape else action
        action = entering.actions(action, self._num_envs, self._env.num_actions)
        self._state, *shown = self._programs.move(self._state, action, tf.constant(self.is_over), self._next_seed())
        return self._show(*shown)

    def picture(self) -> np.ndarray:
        if not self.is_begun:
            raise ResetNeeded("no episode was begun: call reset() before render()")
        return self._programs.draw(self._state).numpy()

    def _next_seed(self) -> tf.Tensor:
        self._counter += 1
        return tf.constant([self._stream, self._counter - 1], tf.int64)

    def _show(self, timestep: envs.TimeStep, legal: Any) -> _Shown:
        shown = _Shown(*(part.numpy() for part in timestep), None if legal is None else legal.numpy())
        self.is_over = shown.termination | shown.truncation
        return shown


class _Programs:
    """What is compiled for N games."""

    def __init__(self, env: Environment, num_envs: int):
        self._env, self._num_envs = env, num_envs
        self.begin, self.move, self.draw = (compiled.xla(each) for each in (self._reset, self._step, env.render))

    def _reset(self, seed):
        state = self._env.reset(self._env.sample_noise(seed, self._num_envs))
        never = tf.zeros([self._num_envs], tf.bool)
        return state, *self._told(state, tf.zeros([self._num_envs]), never, never)

    def _step(self, state, action, is_over, seed):
        noise = self._env.sample_noise(seed, self._num_envs)
        stepped, timestep = self._env.step(state, action, noise)
        state = select(is_over, self._env.reset(noise), stepped)
        ends = (~is_over & end for end in timestep[2:])
        return state, *self._told(state, tf.where(is_over, 0.0, timestep.reward), *ends)

    def _told(self, state, reward, termination, truncation):
        observation, legal = self._env.observe(state), self._env.legal_actions(state)
        if observation.dtype == tf.bool:
            observation = tf.cast(observation, tf.uint8)
        timestep = envs.TimeStep(observation, reward, termination, truncation)
        return timestep, None if legal is None else tf.cast(legal, tf.int8)


# As many games as one likes of one kind, each a `GameEnv`, share a game, which keeps nothing, and its programs.
_programs = functools.lru_cache(maxsize=16)(_Programs)
_shared = functools.lru_cache(maxsize=16)(envs.make)


def _made(game: str | Environment, arguments: dict[str, Any]) -> Environment:
    if isinstance(game, str):
        # A file of one's own may have changed since.
        is_shared = game in registry.names() and all(isinstance(value, int | str) for value in arguments.values())
        game = (_shared if is_shared else envs.make)(game, **arguments)
    elif arguments:
        raise ValueError(f"{', '.join(arguments)}: this game is made already; give its arguments where it is made")
    if game.steps_on_host:
        raise ValueError(f"{game.name} steps in Python, not in tfdqn's programs: it has no need of this door")
    return game


def _observation_space(spec: ObservationSpec) -> spaces.Box:
    """Of bits too a box, of uint8: Stable-Baselines3 and others flatten a MultiBinary, and lose the planes."""
    dtype = np.dtype("uint8" if spec.dtype == "bool" else spec.dtype)
    return spaces.Box(dtype.type(spec.low), dtype.type(spec.high), spec.shape, dtype.type)


def _checked_mode(mode: str | None, metadata: dict[str, Any]) -> str | None:
    modes = metadata["render_modes"]
    if mode is not None and mode not in modes:
        raise ValueError(f"render_mode {mode!r}: {'use ' + repr(modes[0]) if modes else 'this game has no pictures'}")
    return mode


def _id(name: str, env: Environment) -> str:
    """The name for Gymnasium: that of the game, its words run together; its class tells where a word begins."""
    own = type(env).__name__
    words = own if own.lower() == name else "".join(word.capitalize() for word in name.split("_"))
    return f"tfdqn/{words}-v{env.version}"


def _register() -> None:
    for game in registry.games():
        gymnasium.register(
            _id(game.name, game.make()),
            entry_point="tfdqn.adapters.gymnasium:GameEnv",
            vector_entry_point="tfdqn.adapters.gymnasium:GameVectorEnv",
            kwargs={"game": game.name},
        )


_register()
