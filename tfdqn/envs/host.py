"""Games that step on the host, in Python: the contract of those that no program can hold, such as Gymnasium's.

Training is a program that calls them, or several around their steps, as evaluation is (`tfdqn.programs.host`).
Importing this module does not import TensorFlow. Shapes: N environments.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tfdqn.envs.base import Environment


class HostStep(NamedTuple):
    """What a step of all environments shows. `termination` and `truncation` are never both true."""

    frame: np.ndarray  # [N, ...] as the game's `observation_spec`, after the action: of an episode that ended, its last
    reward: np.ndarray  # [N] float32
    termination: np.ndarray  # [N] bool, ended by the rules
    truncation: np.ndarray  # [N] bool, cut off
    # [N, ...], what the next action answers to: where a new episode has begun already, its first frame; else `frame`.
    shown: np.ndarray


class HostGames(abc.ABC):
    """N environments under way. Each begins a new episode by itself.

    Attributes:
      skips_resets: when that is. True: in the step after an end, which takes no action and gives the first frame,
        reward 0 and no end (Gymnasium's next-step autoreset). False: before that step, which plays the new episode's
        first action already.
    """

    skips_resets: bool = True

    @abc.abstractmethod
    def reset(self, seeds: Sequence[int]) -> np.ndarray:
        """Begin new episodes everywhere, environment i by its seed; their first frames [N, ...]."""

    @abc.abstractmethod
    def step(self, action: np.ndarray) -> HostStep:
        """Play one frame; `action` is [N] int32 in 0..num_actions-1."""

    def render(self) -> np.ndarray | None:
        """The first environment's picture, [H, W, 3] uint8; None where it has none."""
        return None

    def close(self) -> None:  # noqa: B027 (most hold nothing)
        """Free what they hold."""


class HostEnvironment(Environment):
    """A game that steps on the host. It must say what any game says of itself, and `begin` games."""

    steps_on_host = True

    @abc.abstractmethod
    def begin(self, num_envs: int, with_pictures: bool = False) -> HostGames:
        """Make N environments.

        Args:
          num_envs: N.
          with_pictures: whether `HostGames.render` will be asked for.

        Raises:
          UserError: they cannot be made; one line.
        """

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"{self.name} steps on the host: its states are not tensors; use begin()")

    sample_noise = reset = step = observe = _refuse

    @property
    def limits_actions(self) -> bool:
        """Whether `legal_actions` says anything: of these it is not asked."""
        return False
