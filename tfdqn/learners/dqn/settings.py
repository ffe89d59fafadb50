"""What DQN lets a user choose, room by room. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tfdqn.errors import UserError
from tfdqn.learners.rooms import Exploration, Network, Optimizer, Returns, Sizes
from tfdqn.settings import room, setting

HEADS = ("scalar", "categorical")
TARGETS = ("hard", "soft", "none")


@room("updates", "updates")
class Updates:
    batch_size: int = setting(
        32, "transitions in one update", low=1, high=1_000_000, common=True, size=True, once_in="sizes"
    )
    iterations_per_update: int = setting(
        1, "vector steps between updates", low=1, high=1_000, size=True, once_in="sizes"
    )
    updates_per_iteration: int = setting(
        1, "updates made each time an update is due", low=1, high=1_000, size=True, once_in="sizes"
    )


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
    dueling: bool = setting(False, "value and advantages from hidden layers of their own", once_in="network")

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
    n_step: int = setting(1, "decisions of reward before bootstrapping", low=1, high=128, common=True)
    target: str = setting("hard", "target network: copied, tracked or none", choices=TARGETS)
    target_update_period_updates: int = setting(500, "updates between hard copies", low=1, high=2**62)
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

    def check(self, config: Any) -> None:
        if self.play_target and self.target != "soft":
            raise UserError(f"--play-target: a {self.target} target is no average of weights; add --target soft")

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.play_target and self.target != "soft":
            yield {"target": "soft"}
            yield {"play_target": False}


@room("replay", "the replay")
class Replay:
    replay_capacity: int = setting(100_000, "rows in the replay, over all environments", low=1, high=2**62, size=True)
    replay_min_rows: int = setting(5_000, "rows in the replay before learning starts", low=1, size=True)
    prioritized: bool = setting(False, "draw transitions by their TD error")
    priority_alpha: float = setting(0.6, "0 draws uniformly, 1 in proportion to the TD error", low=0, high=1)
    priority_beta: float = setting(0.4, "how far weights undo the bias of the draws, at first", low=0, high=1)
    priority_beta_updates: int = setting(100_000, "updates over which priority_beta rises to 1", low=1, high=2**53)

    def check(self, config: Any) -> None:
        capacity = self.replay_capacity - self.replay_capacity % config.num_envs
        smallest = config.window_rows * config.num_envs
        if capacity < smallest:
            raise UserError(
                f"--replay-capacity {self.replay_capacity}: one transition spans {config.window_rows} rows of each of "
                f"{config.num_envs} environments; use at least {smallest}"
            )
        if config.batch_size > capacity:
            raise UserError(
                f"--batch-size {config.batch_size}: larger than the replay of {capacity} rows; use at most {capacity}"
            )
        if self.replay_min_rows > capacity:
            raise UserError(
                f"--replay-min-rows {self.replay_min_rows}: the replay holds {capacity} rows; use at most {capacity}"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        window, num_envs = config.window_rows, config.num_envs
        capacity = self.replay_capacity - self.replay_capacity % num_envs
        if capacity < window * num_envs:
            yield {"replay_capacity": window * num_envs}
            yield {"num_envs": max(self.replay_capacity // window, 1)}
            lookback = (config.frame_stack - 1) * config.frame_stride
            yield {"n_step": max(self.replay_capacity // num_envs - 1 - lookback, 1)}
            yield {"frame_stride": 1}
            yield {"frame_stack": 1}
        if config.batch_size > capacity:
            yield {"replay_capacity": -(-config.batch_size // num_envs) * num_envs}
            yield {"batch_size": max(capacity, 1)}
        if self.replay_min_rows > capacity:
            # Raised if the user wants to begin later; a smaller replay is learnt from once it is full.
            yield {"replay_min_rows": max(capacity, 1)}
            yield {"replay_capacity": -(-self.replay_min_rows // num_envs) * num_envs}


ROOMS = (Sizes, Updates, Network, Head, Optimizer, Returns, Rule, Replay, Exploration)
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
