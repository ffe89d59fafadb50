"""What R2D2 lets a user choose, room by room. Nothing here imports TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfdqn.errors import UserError
from tfdqn.learners.rooms import (
    Bootstrap,
    Dueling,
    Exploration,
    Network,
    Optimizer,
    Population,
    Recurrence,
    Replay,
    Returns,
    Sizes,
    Updates,
)
from tfdqn.networks.names import CELLS
from tfdqn.settings import room, setting


@room("r2d2", "R2D2's windows")
class Rule:
    previous_action_reward: bool = setting(
        False, "the action and the reward before enter the cell, too; on in new runs"
    )
    burn_in: int = setting(
        10, "decisions before those learnt, which only bring the stored state up to date", low=0, high=1024
    )
    sequence_length: int = setting(20, "decisions of a window that are learnt", low=1, high=1024, common=True)
    sequence_period: int = setting(
        10, "decisions from one window's start to the next's; windows overlap where it is shorter", low=1, high=1024
    )
    priority_eta: float = setting(
        0.9, "a window's priority: 1 its largest TD error, 0 their mean, or between", low=0, high=1, varies=True
    )
    rescale_epsilon: float = setting(1e-3, "the linear part of the function that squeezes returns", low=0, high=1)

    def window(self, config: Any) -> int:
        """Rows of a window: the burn-in, what is learnt, and what its last returns bootstrap from."""
        return self.burn_in + self.sequence_length + config.n_step

    def window_rows(self, config: Any) -> int:
        """Consecutive replay rows of an environment that are needed to hold a window at any time."""
        least = (config.frame_stack - 1) * config.frame_stride + self.window(config) + self.sequence_period - 1
        return -(-least // self.sequence_period) * self.sequence_period

    def row_bytes(self, config: Any) -> int:
        """What the replay keeps beside each row on average: a state and a priority a window."""
        # The action before fills the place of two.
        numbers = CELLS[config.cell] * config.cell_units + 3 * self.previous_action_reward + 1
        return -(-4 * numbers // self.sequence_period)

    def check(self, config: Any) -> None:
        if config.cell == "none":
            raise UserError("--cell none: what R2D2 adds to DQN is a memory; use lstm, or --learner dqn")
        if self.sequence_period > self.sequence_length:
            raise UserError(
                f"--sequence-period {self.sequence_period}: decisions between windows of --sequence-length "
                f"{self.sequence_length} would never be learnt; use at most {self.sequence_length}"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if config.cell == "none":
            yield {"cell": "lstm"}
        if self.sequence_period > self.sequence_length:
            yield {"sequence_period": self.sequence_length}
            yield {"sequence_length": self.sequence_period}
        window, length = config.window_rows, config.replay_capacity // config.num_envs
        if length < window:
            yield {"replay_capacity": window * config.num_envs}
            yield {"num_envs": max(config.replay_capacity // window, 1)}
            yield {"burn_in": max(self.burn_in - (window - length), 0)}
            yield {"sequence_period": 1}
            yield {"sequence_length": max(self.sequence_length - (window - length), self.sequence_period)}


ROOMS = (
    Sizes,
    Updates,
    Network,
    Dueling,
    Recurrence,
    Optimizer,
    Returns,
    Bootstrap,
    Rule,
    Replay,
    Exploration,
    Population,
)

# What is learnt is that of Kapturowski et al. 2019, table 2, but that beta rises. How much at a time, and how fast, is
# made for small games on a CPU: there a rate of 1e-4, Adam's epsilon 1e-3, and a target copied every 2,500 updates.
PRESET = {
    "cell": "lstm",
    "previous_action_reward": True,
    "n_step": 5,
    "discount": 0.997,
    "prioritized": True,
    "priority_alpha": 0.9,
    "priority_beta": 0.6,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-5,
    "learning_rate": 5e-4,
    "max_gradient_norm": 10.0,
    "target_update_period_updates": 400,
}
# What feeds a GPU, used when no size is given. Not yet measured on one.
GPU_SIZES = {
    "num_envs": 2048,
    "batch_size": 256,
    "replay_capacity": 1_048_576,
    "replay_min_rows": 131_072,
    "total_env_frames": 50_000_000,
    "epsilon_decay_env_frames": 1_000_000,
    "eval_every_frames": 1_000_000,
    "log_every_frames": 200_000,
}
