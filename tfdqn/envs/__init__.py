"""The games, and the contract that they share.

A game is a set of pure functions on tensors. Randomness enters as integers that were drawn beforehand, so a
transition is deterministic: a recorded game can be replayed frame by frame, and eager, compiled, CPU and GPU
results are equal in every bit. Shapes use one alphabet: N environments, H rows and W columns of a frame.
"""

from __future__ import annotations

import abc
import functools
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import tensorflow as tf

from tfdqn import compiled
from tfdqn.envs import checks

if TYPE_CHECKING:
    from tfdqn.config import Config


class TimeStep(NamedTuple):
    """What a transition shows. `termination` and `truncation` are never both true."""

    observation: tf.Tensor  # [N, H, W] uint8, the frame after the transition
    reward: tf.Tensor  # [N] float32
    termination: tf.Tensor  # [N] bool, ended by the rules: nothing follows, discount 0
    truncation: tf.Tensor  # [N] bool, ended by the time limit: a learner bootstraps through it


class Environment(abc.ABC):
    """A vectorised game: `state = reset(noise)`, then `state, timestep = step(state, action, noise)`.

    No method keeps anything: state and noise are NamedTuples of tensors with leading axis N. An environment does not
    restart by itself; the caller chooses between `step` and `reset` (see `tfdqn.training`).
    """

    name: ClassVar[str]
    # Raised when the behaviour changes, never for speed: equal versions mean comparable results.
    version: ClassVar[int]
    action_names: ClassVar[tuple[str, ...]]
    frames_per_second: ClassVar[float]  # playing speed for people
    time_limit: ClassVar[int]  # an episode is truncated in the frame that passes this many
    best_score: ClassVar[float]  # what perfect play reaches
    score_is_frames: ClassVar[bool]  # score: frames survived, capped at the limit; else the sum of rewards
    # Colour of each grey level for people: {level: (red, green, blue)}, each 0..255.
    palette: ClassVar[dict[int, tuple[int, int, int]]]

    @property
    @abc.abstractmethod
    def observation_shape(self) -> tuple[int, int]:
        """(H, W) of a frame."""

    @property
    def num_actions(self) -> int:
        return len(self.action_names)

    @abc.abstractmethod
    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Any:
        """Draw what one transition, and one reset, may need.

        Args:
          seed: [2] int64, as from `tfdqn.seeds.at`; equal seeds give equal draws (`tfdqn.seeds.draw`).
          num_envs: N. Environment i's draws depend on (seed, i), not on N.

        Returns:
          A NamedTuple of integer tensors [N].
        """

    @abc.abstractmethod
    def reset(self, noise: Any) -> Any:
        """Return the state of N fresh episodes, a NamedTuple of tensors [N, ...]. Begins with `checked_noise`."""

    def training_reset(self, noise: Any, curriculum: float) -> Any:
        """`reset`, with a share `curriculum` of the episodes starting at a difficulty that is drawn.

        For training only. A game that is equally difficult throughout has no use for it.

        Raises:
          ValueError: a share above 0 in a game without difficulties.
        """
        if curriculum > 0:
            raise ValueError(f"{self.name} is equally difficult from start to end")
        return self.reset(noise)

    def is_moved_start(self, noise: Any, curriculum: float) -> tf.Tensor:
        """Which episodes `training_reset` starts at a drawn difficulty, [N] bool: their scores are no measure."""
        return tf.zeros([tf.nest.flatten(noise)[0].shape[0]], tf.bool)

    @abc.abstractmethod
    def step(self, state: Any, action: tf.Tensor, noise: Any) -> tuple[Any, TimeStep]:
        """Play one frame; `action` is [N] int32 in 0..num_actions-1. Begins with `checked`, as its callers are many."""

    @abc.abstractmethod
    def observe(self, state: Any) -> tf.Tensor:
        """Draw the screen: [N, H, W] uint8, grey levels times 255, rounded."""

    def checked(self, state: Any, action: Any, noise: Any) -> tuple[Any, tf.Tensor, Any]:
        """What `step` takes, as tensors of its dtypes and shapes; from lists and arrays, too.

        Raises:
          TypeError: something of another structure or dtype.
          ValueError: something of another shape, or (where it is on the host) out of range.
        """
        num_envs = checks.count_envs(state)
        return (
            checks.like("state", state, self._state_specs, num_envs),
            checks.actions(action, num_envs, self.num_actions),
            checks.like("noise", noise, self._noise_specs, num_envs),
        )

    def checked_noise(self, noise: Any) -> Any:
        """What `reset` takes, likewise."""
        return checks.like("noise", noise, self._noise_specs, checks.count_envs(noise))

    @functools.cached_property
    def _noise_specs(self) -> Any:
        """Dtypes and shapes of the noise of one environment."""
        with tf.init_scope():  # also while tracing: what is kept must not hang on a graph
            return tf.nest.map_structure(tf.TensorSpec.from_tensor, self.sample_noise(tf.zeros([2], tf.int64), 1))

    @functools.cached_property
    def _state_specs(self) -> Any:
        """Dtypes and shapes of the state of one environment."""
        with tf.init_scope():
            return compiled.xla(self.reset).get_concrete_function(self._noise_specs).structured_outputs

    @functools.cached_property
    def compiled_reset(self):
        """`reset` under XLA, for use from Python, on anything that `checked_noise` takes; compiled once per N."""
        reset = compiled.xla(self.reset)
        return lambda noise: reset(self.checked_noise(noise))

    @functools.cached_property
    def compiled_step(self):
        """`step` under XLA, for use from Python, on anything that `checked` takes; compiled once per N."""
        step = compiled.xla(self.step)
        return lambda state, action, noise: step(*self.checked(state, action, noise))


def make_for(config: Config) -> Environment:
    """Make the game that a configuration names, as it is seen there."""
    return make(config.env, config.downsample, config.super_resolution)


def make(name: str, downsample: int = 1, super_resolution: bool = False) -> Environment:
    """Make a game by its name.

    Args:
      name: one of `tfdqn.config.GAMES`.
      downsample: keep every `downsample`-th row and column of the screen. The game itself is unchanged.
      super_resolution: show what all screens so far told (the cave only, see `tfdqn.envs.cave.Cave`).

    Raises:
      ValueError: no such game (the message names the nearest), or one that cannot be seen so.
    """
    from tfdqn.envs.catch import Catch
    from tfdqn.envs.cave import Cave

    constructors = {
        "catch8": functools.partial(Catch, size=8),
        "catch8_single": functools.partial(Catch, size=8, single_ball=True),
        "catch16": functools.partial(Catch, size=16),
        "cave": functools.partial(Cave, super_resolution=super_resolution),
    }
    if name not in constructors:
        from tfdqn.errors import nearest

        raise ValueError(f"unknown game {name!r}: {nearest(name, constructors)}")
    if super_resolution and name != "cave":
        raise ValueError(f"super-resolution of {name}: its screens show all there is; leave it out")
    return constructors[name](downsample=downsample)
