"""Gymnasium's environments as games: `--env gym:CartPole-v1`. They step in Python, so N of them share one process.

Shapes: N environments.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import importlib.util
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdqn.envs.host import HostEnvironment, HostGames, HostStep
from tfdqn.envs.spec import BOUNDS, ObservationSpec
from tfdqn.errors import UserError, nearest

try:
    import gymnasium
    from gymnasium.vector import AutoresetMode
except ImportError:
    raise UserError('--env gym:...: Gymnasium is not installed; run pip install "tfdqn[gymnasium]"') from None

NO_TIME_LIMIT = 10_000  # frames; where an environment has no limit of its own, evaluations cut its episodes here
VECTORIZATION_MODES = ("sync", "async", "vector_entry_point")


def require(name: str) -> None:
    """Refuse what Gymnasium has no environment of. None is made.

    Raises:
      UserError: it names the nearest.
    """
    if ":" in name:  # "module:name": the module registers it, and Gymnasium imports that when it makes the environment
        return
    try:
        gymnasium.spec(name)
    except gymnasium.error.NameNotFound:
        close = difflib.get_close_matches(name, gymnasium.registry, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "gymnasium.pprint_registry() lists them"
        raise UserError(f"--env gym:{name}: Gymnasium knows no such environment; {hint}") from None
    except (gymnasium.error.Error, ImportError) as error:
        raise UserError(f"--env gym:{name}: {_line(error)}") from None


def make(name: str, **arguments: Any) -> GymnasiumGame:
    """The game of an environment in Gymnasium's registry; see `GymnasiumGame`."""
    return GymnasiumGame(name, **arguments)


def sha256_of(name: str) -> str:
    """The SHA-256, in hexadecimal digits, of the file that an environment's class is in; empty where none is found.

    What that file imports in its turn is not looked at.
    """
    registering, _, name = name.rpartition(":")
    try:
        if registering:  # Gymnasium looks for a spec under the whole name, and finds none
            importlib.import_module(registering)
        point = gymnasium.spec(name).entry_point
        module = point.partition(":")[0] if isinstance(point, str) else point.__module__
        return hashlib.sha256(Path(importlib.util.find_spec(module).origin).read_bytes()).hexdigest()
    except Exception:  # the user's code; what is wrong is said where the environment is made
        return ""


class GymnasiumGame(HostEnvironment):
    """An environment of Gymnasium's registry.

    Args:
      name: as `gymnasium.make` takes it.
      vectorization_mode: "sync", "async" (a process each) or "vector_entry_point" (its own).
      **arguments: of the environment.

    Raises:
      UserError: it cannot be made, or its observations or actions are none that tfdqn learns from.
    """

    def __init__(self, name: str, vectorization_mode: str = "sync", **arguments: Any):
        if vectorization_mode not in VECTORIZATION_MODES:
            hint = nearest(vectorization_mode, VECTORIZATION_MODES)
            raise UserError(f"--env-args: vectorization_mode {vectorization_mode!r}: {hint}")
        self.name = f"gym:{name}"
        self._id, self._mode, self._arguments = name, vectorization_mode, arguments
        with _in_one_line(self.name):
            one = gymnasium.make(name, **arguments)
            self.observation_spec = spec_of(one.observation_space, self.name)
            self.num_actions = _actions_of(one.action_space, self.name)
            self.time_limit = one.spec.max_episode_steps or NO_TIME_LIMIT
            self.frames_per_second = float(one.metadata.get("render_fps") or 10)
            self._draws = "rgb_array" in one.metadata.get("render_modes", ())
            one.close()

    def begin(self, num_envs: int, with_pictures: bool = False) -> HostGames:
        arguments = dict(self._arguments)
        if with_pictures and self._draws:
            arguments["render_mode"] = "rgb_array"
        # Where the choice is ours, the mode in which a last frame takes a step of its own, as it takes a row here, and
        # no copies of the frames: they are read before the next step.
        is_own = self._mode == "vector_entry_point"
        chosen = {} if is_own else {"vector_kwargs": {"autoreset_mode": AutoresetMode.NEXT_STEP, "copy": False}}
        with _in_one_line(self.name):
            made = gymnasium.make_vec(self._id, num_envs=num_envs, vectorization_mode=self._mode, **chosen, **arguments)
        games = SteppedGames if self._mode == "sync" else VectorGames
        return games(made, self.observation_spec)


class VectorGames(HostGames):
    """A `gymnasium.vector.VectorEnv` under way, in whichever of the three autoreset modes it is.

    Args:
      vector: the environments.
      spec: what they show (`spec_of`).
    """

    def __init__(self, vector: gymnasium.vector.VectorEnv, spec: ObservationSpec):
        self._vector, self._dtype = vector, spec.dtype
        mode = vector.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        self._mode = AutoresetMode(mode)
        self.skips_resets = self._mode == AutoresetMode.NEXT_STEP
        self._first = int(vector.single_action_space.start)

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        return self._frames(self._vector.reset(seed=list(seeds))[0])

    def step(self, action: np.ndarray) -> HostStep:
        shown, reward, termination, truncation, info = self._vector.step(action + self._first)
        shown = frame = self._frames(shown)
        ended = termination | truncation
        if not self.skips_resets and ended.any():
            if self._mode == AutoresetMode.SAME_STEP:
                frame = shown.copy()
                frame[ended] = self._frames(np.stack(list(info["final_obs"][ended])))
            else:  # nobody begins an episode but who steps them
                begun = self._frames(self._vector.reset(options={"reset_mask": ended})[0])
                shown = frame.copy()
                shown[ended] = begun[ended]
        return HostStep(frame, np.asarray(reward, np.float32), termination, truncation & ~termination, shown)

    def _frames(self, observation: np.ndarray) -> np.ndarray:
        return np.asarray(observation, self._dtype)

    def render(self) -> np.ndarray | None:
        try:
            pictures = self._vector.render() if self._vector.render_mode == "rgb_array" else None
        except gymnasium.error.DependencyNotInstalled as error:  # of pictures alone
            name = self._vector.spec.id if self._vector.spec else type(self._vector).__name__
            raise UserError(f"gym:{name}: {_line(error)}") from None
        return None if not pictures else np.asarray(pictures[0])

    def close(self) -> None:
        self._vector.close()


class SteppedGames(VectorGames):
    """The same, of a `SyncVectorEnv` that skips resets; its environments are stepped here, one after another.

    What is played is what its own `step` plays, which for a single environment takes several times as long as a
    cart-pole: it splits and joins spaces and copies four arrays.
    """

    def __init__(self, vector: gymnasium.vector.SyncVectorEnv, spec: ObservationSpec):
        super().__init__(vector, spec)
        space = vector.single_observation_space
        self._shown = np.zeros([vector.num_envs, *space.shape], space.dtype)
        self._ended = [True] * vector.num_envs

    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        self._ended = [False] * self._vector.num_envs
        return super().reset(seeds)

    def step(self, action: np.ndarray) -> HostStep:
        shown, ended = self._shown, self._ended
        reward, termination, truncation = np.zeros(len(action), np.float32), *np.zeros([2, len(action)], bool)
        for i, env in enumerate(self._vector.envs):
            if ended[i]:
                observation, ended[i] = env.reset()[0], False
            else:
                observation, reward[i], is_terminated, is_truncated, _ = env.step(action[i] + self._first)
                if is_terminated or is_truncated:
                    ended[i], termination[i], truncation[i] = True, is_terminated, not is_terminated
            if np.shape(observation) != shown.shape[1:]:
                raise ValueError(f"shows {np.shape(observation)}, in a space of {shown.shape[1:]}")
            np.copyto(shown[i], observation, casting="same_kind")
        frame = self._frames(shown)
        return HostStep(frame, reward, termination, truncation, frame)


def spec_of(space: gymnasium.Space, name: str) -> ObservationSpec:
    """What observations of a space are here: uint8 stays, other numbers become float32, binary ones bool.

    Raises:
      UserError: a space that is no box of one to three axes.
    """
    if isinstance(space, gymnasium.spaces.MultiBinary):
        return ObservationSpec(space.shape, "bool")
    if not isinstance(space, gymnasium.spaces.Box) or not 1 <= len(space.shape) <= 3:
        raise UserError(
            f"{name}: shows {space}; tfdqn learns from boxes of one to three axes: wrap it, as with "
            "gymnasium.wrappers.FlattenObservation"
        )
    dtype = "uint8" if space.dtype == np.uint8 else "float32"
    low, high = float(space.low.min()), float(space.high.max())
    if not low < high or (low, high) == BOUNDS[dtype]:
        return ObservationSpec(space.shape, dtype)
    return ObservationSpec(space.shape, dtype, low, high)


def _actions_of(space: gymnasium.Space, name: str) -> int:
    if not isinstance(space, gymnasium.spaces.Discrete):
        raise UserError(f"{name}: takes {space}; Q-learning needs Discrete actions")
    return int(space.n)


@contextlib.contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Inside, Gymnasium makes environments: what it raises becomes one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"--env {name}: {_line(error)}") from None


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
