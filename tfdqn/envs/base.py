"""The contract that games share.

A game is a set of pure functions on tensors. Randomness enters as integers that were drawn beforehand, so a
transition is deterministic: a recorded game can be replayed frame by frame, and eager, compiled, CPU and GPU
results are equal in every bit. Shapes use one alphabet: N environments, H rows and W columns of a frame.
"""

from __future__ import annotations

import abc
import functools
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from tfdqn.envs.spec import ObservationSpec


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
    def observation_spec(self) -> ObservationSpec:
        return ObservationSpec(self.observation_shape)

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
        """Return the state of N fresh episodes, a NamedTuple of tensors [N, ...]."""

    def training_reset(self, noise: Any, curriculum: float) -> Any:
        """`reset`, with a share `curriculum` of the episodes starting at a difficulty that is drawn.

        For training only. A game that is equally difficult throughout has no use for it.

        Raises:
          ValueError: a share above 0 in a game without difficulties.
        """
        if curriculum > 0:
            raise ValueError(f"{self.name} is equally difficult from start to end")
        return self.reset(noise)

    @abc.abstractmethod
    def step(self, state: Any, action: tf.Tensor, noise: Any) -> tuple[Any, TimeStep]:
        """Play one frame; `action` is [N] int32 in 0..num_actions-1."""

    @abc.abstractmethod
    def observe(self, state: Any) -> tf.Tensor:
        """Draw the screen: [N, H, W] uint8, grey levels times 255, rounded."""

    @functools.cached_property
    def compiled_reset(self):
        """`reset` under XLA, for use from Python; compiled once per N."""
        from tfdqn import compiled

        return compiled.xla(self.reset)

    @functools.cached_property
    def compiled_step(self):
        """`step` under XLA, for use from Python; compiled once per N."""
        from tfdqn import compiled

        return compiled.xla(self.step)
