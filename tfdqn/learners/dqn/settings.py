"""What DQN lets a user choose, room by room. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tfdqn.errors import UserError
from tfdqn.learners.rooms import (
    Bootstrap,
    Dueling,
    Exploration,
    Network,
    Optimizer,
    Replay,
    Returns,
    Sizes,
    Updates,
)
from tfdqn.settings import room, setting

HEADS = ("scalar", "categorical")
TARGETS = ("hard", "soft", "none")


@room("head", "the network's head")
class Head:
    members: int = setting(1, "networks side by side, whose values are averaged", low=1, high=100, once_in="network")
    head: str = setting(
        "scalar",
        "expected returns, or probabilities of returns learnt by cross-entropy",
        choices=HEADS,
        once_in="network",
    )
    atoms: int = setting(51, "returns that the categorical head tells apart", low=2, high=201, once_in="network")
    value_min: float = setting(-1.0, "least return of the categorical head", low=-1e6, high=1e6, once_in="network")
    value_max: float = setting(1.0, "largest return of the categorical head", low=-1e6, high=1e6, once_in="network")

    def check(self, config: Any) -> None:
        if self.head != "categorical":
            return
        # In float32 the atoms must lie apart.
        if not self.value_max - self.value_min >= 1e-3 * max(1.0, abs(self.value_min)):
            raise UserError(
                f"--value-max {self.value_max}: must be well above --value-min {self.value_min} for --head categorical"
            )
        if config.loss != "huber":
            raise UserError(
                f"--loss {config.loss}: --head categorical learns by cross-entropy; leave out --loss, or use "
                "--head scalar"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.head != "categorical":
            return
        least = 1e-3 * max(1.0, abs(self.value_min))
        if not self.value_max - self.value_min >= least:
            width = max(2.0, 1e-2 * abs(self.value_max))  # 2: that of the defaults
            yield {"value_min": self.value_max - width}
            yield {"value_max": self.value_min + max(width, 2 * least)}
            yield {"head": "scalar"}
        if config.loss != "huber":
            yield {"head": "scalar"}
            yield {"loss": "huber"}


@room("dqn", "the learning rule")
class Rule:
    loss: str = setting("huber", "loss of the TD error", choices=("huber", "mse"))
    double: bool = setting(True, "Double DQN: the online network chooses the next action")
    target: str = setting("hard", "target network: copied, tracked or none", choices=TARGETS)
    target_tau: float = setting(0.005, "share of the online weights in a soft update", above=0, high=1)
    play_target: bool = setting(
        False, "the soft target network, an average of weights, is evaluated and kept as the agent"
    )
    target_epsilon: float = setting(
        0.0, "random actions of the player whose returns are learnt (Expected Sarsa)", low=0, high=1
    )
    advantage_alpha: float = setting(
        0.0, "how much of an action's lag behind the best is taken off its reward", low=0, high=0.99
    )

    def window_rows(self, config: Any) -> int:
        """Consecutive replay rows that one sampled transition spans."""
        return (config.frame_stack - 1) * config.frame_stride + 1 + config.n_step

    def check(self, config: Any) -> None:
        if self.play_target and self.target != "soft":
            raise UserError(f"--play-target: a {self.target} target is no average of weights; add --target soft")

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.play_target and self.target != "soft":
            yield {"target": "soft"}
            yield {"play_target": False}


ROOMS = (Sizes, Updates, Network, Head, Dueling, Optimizer, Returns, Bootstrap, Rule, Replay, Exploration)
PRESET: dict[str, Any] = {}
FIELDS = {field.name: field for each in ROOMS for field in dataclasses.fields(each)}

# What feeds a GPU, used when no size is given: thousands of environments and a sampled transition for each frame, so
# that an update comes every 512 frames, and more frames, as they are cheap there. Not yet measured on a GPU.
GPU_SIZES = {
    "num_envs": 2048,
    "batch_size": 512,
    "updates_per_iteration": 4,
    "replay_capacity": 1_048_576,
    "replay_min_rows": 65_536,
    "total_env_frames": 50_000_000,
    "epsilon_decay_env_frames": 1_000_000,
    "eval_every_frames": 1_000_000,
    "log_every_frames": 200_000,
}
