"""What DQN lets a user choose, room by room. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from tfdqn.envs import loading
from tfdqn.errors import UserError, nearest
from tfdqn.networks.names import CONVOLUTIONS, NETWORKS, PRECISIONS
from tfdqn.settings import room, setting

HEADS = ("scalar", "categorical")
TARGETS = ("hard", "soft", "none")


@room("sizes", "how much at a time")
class Sizes:
    num_envs: int = setting(64, "environments played side by side", low=1, high=1_000_000, common=True, size=True)
    batch_size: int = setting(32, "transitions in one update", low=1, high=1_000_000, common=True, size=True)
    iterations_per_update: int = setting(1, "vector steps between updates", low=1, high=1_000, size=True)
    updates_per_iteration: int = setting(1, "updates made each time an update is due", low=1, high=1_000, size=True)


@room("network", "the Q-network")
class Network:
    network: str = setting(
        "mlp",
        f"body of the Q-network: {', '.join(NETWORKS)}, package.module:function or path/to/file.py:function",
        common=True,
        code=True,
    )
    members: int = setting(1, "networks side by side, whose values are averaged", low=1, high=100)
    head: str = setting(
        "scalar", "expected returns, or probabilities of returns learnt by cross-entropy", choices=HEADS
    )
    atoms: int = setting(51, "returns that the categorical head tells apart", low=2, high=201)
    value_min: float = setting(-1.0, "least return of the categorical head", low=-1e6, high=1e6)
    value_max: float = setting(1.0, "largest return of the categorical head", low=-1e6, high=1e6)
    dueling: bool = setting(False, "value and advantages from hidden layers of their own")
    init_from: str = setting("", "folder of a run whose best agent's weights to start from", path=True)
    convolution: str = setting(
        "auto",
        "convolutions as patches times a matrix, or TensorFlow's native ones; auto: patches on a CPU, on a GPU what is "
        "quicker when measured at the start",
        choices=("auto", *CONVOLUTIONS),
    )
    precision: str = setting(
        "float32",
        "factors of the products in wide hidden dense layers; bfloat16: rounded, and summed in float32, which is "
        "quicker on CPUs with AMX (not measured on a GPU)",
        choices=PRECISIONS,
    )

    def check(self, config: Any) -> None:
        if loading.is_spec(self.network):
            loading.require(self.network)
        elif self.network not in NETWORKS:
            raise UserError(
                f"--network {self.network}: unknown; {nearest(self.network, NETWORKS)} (or your own: "
                "path/to/my_network.py:my_body)"
            )
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


@room("optimizer", "the optimizer")
class Optimizer:
    optimizer: str = setting("rmsprop_graves", "optimizer", choices=("rmsprop_graves", "rmsprop", "adam"), common=True)
    learning_rate: float = setting(2.5e-4, "step size of the optimizer", above=0, high=100, common=True)
    learning_rate_decay_updates: int = setting(
        0, "updates over which the rate falls linearly to learning_rate_end; 0 keeps it", low=0, high=2**53
    )
    learning_rate_end: float = setting(1e-5, "rate after learning_rate_decay_updates", above=0, high=100)
    optimizer_rho: float = setting(0.95, "decay of RMSProp's averages", low=0, high=0.999999)
    optimizer_momentum: float = setting(0.9, "momentum of RMSProp", low=0, high=0.999999)
    optimizer_epsilon: float = setting(1e-4, "constant in the optimizer's denominator", above=0, high=1)
    max_gradient_norm: float = setting(math.inf, "clip the gradient's global norm", above=0)

    def check(self, config: Any) -> None:
        if self.learning_rate_decay_updates and self.learning_rate_end > self.learning_rate:
            raise UserError(
                f"--learning-rate-end {self.learning_rate_end}: above --learning-rate; use at most {self.learning_rate}"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.learning_rate_decay_updates and self.learning_rate_end > self.learning_rate:
            yield {"learning_rate_end": self.learning_rate}
            yield {"learning_rate": self.learning_rate_end}


@room("dqn", "the learning rule")
class Rule:
    loss: str = setting("huber", "loss of the TD error", choices=("huber", "mse"))
    double: bool = setting(True, "Double DQN: the online network chooses the next action")
    discount: float = setting(0.99, "discount a decision", low=0, high=1, common=True)
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


@room("exploration", "exploration")
class Exploration:
    epsilon_start: float = setting(1.0, "random actions at first", low=0, high=1)
    epsilon_end: float = setting(0.05, "random actions at last", low=0, high=1, common=True)
    epsilon_decay_env_frames: int = setting(
        100_000, "frames from first to last, linearly", low=1, high=2**62, common=True
    )

    def check(self, config: Any) -> None:
        if self.epsilon_end > self.epsilon_start:
            raise UserError(
                f"--epsilon-end {self.epsilon_end}: above --epsilon-start; use at most {self.epsilon_start}"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.epsilon_end > self.epsilon_start:
            yield {"epsilon_end": self.epsilon_start}
            yield {"epsilon_start": self.epsilon_end}


ROOMS = (Sizes, Network, Optimizer, Rule, Replay, Exploration)
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
