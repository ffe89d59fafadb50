"""The rooms that learners share: what each lets a user choose of these. Nothing here imports TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

from tfdqn import population
from tfdqn.envs import loading
from tfdqn.errors import UserError, nearest
from tfdqn.networks.names import CELLS, CONVOLUTIONS, NETWORKS, PRECISIONS
from tfdqn.settings import room, setting


@room("sizes", "how much at a time")
class Sizes:
    num_envs: int = setting(64, "environments played side by side", low=1, high=1_000_000, common=True, size=True)


@room("updates", "updates")
class Updates:
    batch_size: int = setting(
        32,
        "transitions in one update; of a recurrent learner, windows",
        low=1,
        high=1_000_000,
        common=True,
        size=True,
        once_in="sizes",
    )
    iterations_per_update: int = setting(
        1, "vector steps between updates", low=1, high=1_000, size=True, once_in="sizes"
    )
    updates_per_iteration: int = setting(
        1, "updates made each time an update is due", low=1, high=1_000, size=True, once_in="sizes"
    )


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
        "convolutions as patches times a matrix, or TensorFlow's native ones; auto: patches, but for dqn on a GPU what "
        "is quicker when measured at the start",
        choices=("auto", *CONVOLUTIONS),
    )
    precision: str = setting(
        "float32",
        "factors of a network's products: float32 on every device; tf32: a GPU may round them to 11 significant bits, "
        "a CPU takes float32; bfloat16: those in wide hidden dense layers rounded to 8 and summed in float32, which is "
        "quicker on CPUs with AMX (neither is measured on a GPU)",
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
        if self._is_ignored(config):
            raise UserError("--convolution native: agents side by side compute theirs as patches; leave it out")

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self._is_ignored(config):
            yield {"convolution": "patches"}

    def _is_ignored(self, config: Any) -> bool:
        """Whether native convolutions were asked of what has none."""
        return self.convolution == "native" and population.is_one(config)


@room("dueling", "the value and the advantages apart")
class Dueling:
    dueling: bool = setting(False, "value and advantages from hidden layers of their own", once_in="head network")


@room("recurrence", "what the network remembers")
class Recurrence:
    cell: str = setting(
        "none",
        "what remembers the episode so far, behind the network's body; none: an observation is all that is seen",
        choices=("none", *CELLS),
        once_in="r2d2",
    )
    cell_units: int = setting(64, "numbers that it puts out", low=1, high=4096, common=True, once_in="r2d2")

    def check(self, config: Any) -> None:
        if self.cell != "none" and config.restart_share:
            raise UserError(
                f"--restart-share {config.restart_share}: practice begins in the middle of an episode, whose past a "
                "recurrent agent would have to learn from, too; use 0"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.cell != "none" and config.restart_share:
            yield {"restart_share": 0.0}


@room("optimizer", "the optimizer")
class Optimizer:
    optimizer: str = setting("rmsprop_graves", "optimizer", choices=("rmsprop_graves", "rmsprop", "adam"), common=True)
    learning_rate: float = setting(2.5e-4, "step size of the optimizer", above=0, high=100, common=True, varies=True)
    learning_rate_decay_updates: int = setting(
        0, "updates over which the rate falls linearly to learning_rate_end; 0 keeps it", low=0, high=2**53
    )
    learning_rate_end: float = setting(1e-5, "rate after learning_rate_decay_updates", above=0, high=100, varies=True)
    optimizer_rho: float = setting(0.95, "decay of RMSProp's averages", low=0, high=0.999999)
    optimizer_momentum: float = setting(0.9, "momentum of RMSProp", low=0, high=0.999999)
    optimizer_epsilon: float = setting(1e-4, "constant in the optimizer's denominator", above=0, high=1)
    max_gradient_norm: float = setting(math.inf, "clip the gradient's global norm", above=0, varies=True)

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
    discount: float = setting(0.99, "discount a decision", low=0, high=1, common=True, once_in="dqn", varies=True)


@room("bootstrap", "what is bootstrapped from")
class Bootstrap:
    n_step: int = setting(1, "decisions of reward before bootstrapping", low=1, high=128, common=True, once_in="dqn")
    target_update_period_updates: int = setting(
        500, "updates between hard copies to the target network", low=1, high=2**62, once_in="dqn", varies=True
    )


@room("replay", "the replay")
class Replay:
    replay_capacity: int = setting(100_000, "rows in the replay, over all environments", low=1, high=2**62, size=True)
    replay_min_rows: int = setting(5_000, "rows in the replay before learning starts", low=1, size=True)
    prioritized: bool = setting(False, "draw what is learnt from by its TD error")
    priority_alpha: float = setting(
        0.6, "0 draws uniformly, 1 in proportion to the TD error", low=0, high=1, varies=True
    )
    priority_beta: float = setting(
        0.4, "how far weights undo the bias of the draws, at first", low=0, high=1, varies=True
    )
    priority_beta_updates: int = setting(
        100_000, "updates over which priority_beta rises to 1", low=1, high=2**53, varies=True
    )

    def rows_held(self, config: Any) -> int:
        """Rows that it holds when it is full: as many of each environment, and of windows whole periods."""
        step = _ring_step(config)
        return self.replay_capacity // step * step

    def check(self, config: Any) -> None:
        capacity = self.rows_held(config)
        smallest = config.window_rows * config.num_envs
        if capacity < smallest:
            raise UserError(
                f"--replay-capacity {self.replay_capacity}: what is drawn spans {config.window_rows} rows of each of "
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
        capacity, step = self.rows_held(config), _ring_step(config)
        if capacity < window * num_envs:
            yield {"replay_capacity": window * num_envs}
            yield {"num_envs": max(self.replay_capacity // window, 1)}
            yield {"n_step": max(config.n_step - (window - self.replay_capacity // num_envs), 1)}
            yield {"frame_stride": 1}
            yield {"frame_stack": 1}
        if config.batch_size > capacity:
            yield {"replay_capacity": -(-config.batch_size // step) * step}
            yield {"batch_size": max(capacity, 1)}
        if self.replay_min_rows > capacity:
            # Raised if the user wants to begin later; a smaller replay is learnt from once it is full.
            yield {"replay_min_rows": max(capacity, 1)}
            yield {"replay_capacity": -(-self.replay_min_rows // step) * step}


def _ring_step(config: Any) -> int:
    """What the replay's rows are a multiple of."""
    return config.num_envs * getattr(config, "sequence_period", 1)


EXPLORATIONS = ("epsilon_greedy", "boltzmann")


@room("exploration", "exploration")
class Exploration:
    exploration: str = setting(
        "epsilon_greedy",
        "what is played but for the random actions: the best action, or one drawn from softmax(Q / temperature)",
        choices=EXPLORATIONS,
    )
    epsilon_start: float = setting(1.0, "random actions at first", low=0, high=1, varies=True)
    epsilon_end: float = setting(0.05, "random actions at last", low=0, high=1, common=True, varies=True)
    epsilon_decay_env_frames: int = setting(
        100_000, "frames from first to last, linearly", low=1, high=2**62, common=True, varies=True
    )
    epsilon_ladder: float = setting(
        0.0,
        "environments explore apart: the i-th of N has epsilon to the power of 1 + this * i / (N - 1)",
        low=0,
        high=1e3,
    )
    temperature_start: float = setting(1.0, "temperature of boltzmann at first", above=0, high=1e6, varies=True)
    temperature_end: float = setting(
        0.05, "the same at last, after as many frames as epsilon", above=0, high=1e6, varies=True
    )

    def check(self, config: Any) -> None:
        if self.epsilon_end > self.epsilon_start:
            raise UserError(
                f"--epsilon-end {self.epsilon_end}: above --epsilon-start; use at most {self.epsilon_start}"
            )
        if self._is_heated():
            raise UserError(
                f"--temperature-end {self.temperature_end}: above --temperature-start; use at most "
                f"{self.temperature_start}"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.epsilon_end > self.epsilon_start:
            yield {"epsilon_end": self.epsilon_start}
            yield {"epsilon_start": self.epsilon_end}
        if self._is_heated():
            yield {"temperature_end": self.temperature_start}
            yield {"temperature_start": self.temperature_end}

    def _is_heated(self) -> bool:
        """Whether the temperature rises, of an exploration that has one."""
        return self.exploration == "boltzmann" and self.temperature_end > self.temperature_start


# What settings that may vary among agents side by side change nothing without: a flag, and whether it is there.
NEEDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "learning_rate_end": ("--learning-rate-decay-updates", lambda config: config.learning_rate_decay_updates > 0),
    "target_update_period_updates": ("--target hard", lambda config: getattr(config, "target", "hard") == "hard"),
    "target_tau": ("--target soft", lambda config: config.target == "soft"),
    **dict.fromkeys(
        ("temperature_start", "temperature_end"),
        ("--exploration boltzmann", lambda config: config.exploration == "boltzmann"),
    ),
    **dict.fromkeys(
        ("priority_alpha", "priority_beta", "priority_beta_updates", "priority_eta"),
        ("--prioritized", lambda config: config.prioritized),
    ),
}


@room("population", "many agents in one program")
class Population:
    population: int = setting(
        1,
        "agents trained side by side, with the seeds from --seed on",
        low=1,
        high=population.MAX_MEMBERS,
        common=True,
    )
    vary: str = setting(
        "",
        "settings that differ among them, NAME=VALUE,VALUE or NAME=FIRST:END for whole numbers; given several times, "
        "every combination is trained",
        common=True,
        joined=";",
    )
    pbt: bool = setting(
        False,
        "population based training: at each evaluation the worst fifth take over agents of the best fifth, with the "
        "settings of --vary, which are then changed at random",
        common=True,
    )

    def check(self, config: Any) -> None:
        population.check_used(config, NEEDS)
        population.check_pbt(config)
