"""The rooms that learners share: what each lets a user choose of these. Nothing here imports TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tfdqn.envs import loading
from tfdqn.errors import UserError, nearest
from tfdqn.networks.names import CONVOLUTIONS, NETWORKS, PRECISIONS
from tfdqn.settings import room, setting


@room("sizes", "how much at a time")
class Sizes:
    num_envs: int = setting(64, "environments played side by side", low=1, high=1_000_000, common=True, size=True)


@room("network", "the network")
class Network:
    network: str = setting(
        "mlp",
        f"its body: {', '.join(NETWORKS)}, package.module:function or path/to/file.py:function",
        common=True,
        code=True,
    )
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


@room("returns", "what is learnt")
class Returns:
    discount: float = setting(0.99, "discount a decision", low=0, high=1, common=True, once_in="dqn")


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
