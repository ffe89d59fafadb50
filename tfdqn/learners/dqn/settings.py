"""What DQN lets a user choose, room by room. Nothing here imports TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from tfdqn import population
from tfdqn.envs import loading
from tfdqn.errors import UserError
from tfdqn.learners.rooms import (
    Bootstrap,
    Dueling,
    Exploration,
    Network,
    Optimizer,
    Population,
    Replay,
    Returns,
    Sizes,
    Updates,
)
from tfdqn.settings import flag_of, room, setting

HEADS = ("scalar", "categorical", "quantile", "iqn")
LEARNS_BY = {
    "categorical": "cross-entropy",
    "quantile": "quantile regression",
    "iqn": "quantile regression",
}  # in place of `loss`
TARGETS = ("hard", "soft", "none")
MIXED_STEPS = 3  # of a mix of returns, where nobody has said how many


@room("head", "the network's head")
class Head:
    members: int = setting(1, "networks side by side, whose values are averaged", low=1, high=100, once_in="network")
    head: str = setting(
        "scalar",
        "expected returns; probabilities of returns, learnt by cross-entropy; fixed quantiles of returns; or any of "
        "them (implicit quantile network)",
        choices=HEADS,
        once_in="network",
    )
    atoms: int = setting(51, "returns that the categorical head tells apart", low=2, high=201, once_in="network")
    value_min: float = setting(-1.0, "least return of the categorical head", low=-1e6, high=1e6, once_in="network")
    value_max: float = setting(1.0, "largest return of the categorical head", low=-1e6, high=1e6, once_in="network")
    quantiles: int = setting(51, "quantiles that the quantile head learns", low=1, high=256)
    iqn_samples: int = setting(
        16, "quantiles that the iqn head draws for each observation in an update", low=1, high=256
    )
    iqn_act_samples: int = setting(32, "evenly spaced quantiles by which the iqn head plays", low=1, high=256)
    huber_kappa: float = setting(1.0, "error beyond which the loss of quantiles grows linearly", above=0, high=1e6)
    spectral_norm: bool = setting(False, "the body's layers divided by their largest singular value")
    noisy: bool = setting(False, "the head's layers have noise in their weights, which explores; evaluation has none")
    noisy_sigma: float = setting(0.5, "that noise at first, times the root of a layer's inputs", above=0, high=100)

    def check(self, config: Any) -> None:
        if self.spectral_norm and loading.is_spec(config.network):
            raise UserError(
                f"--spectral-norm: is of tfdqn's own networks, not of {config.network}; leave it out, or use --network "
                "resnet"
            )
        if self.head == "scalar":
            return
        if config.loss != "huber":
            raise UserError(
                f"--loss {config.loss}: --head {self.head} learns by {LEARNS_BY[self.head]}; leave out --loss, or use "
                "--head scalar"
            )
        if self.head != "categorical":
            return
        # In float32 the atoms must lie apart.
        if not self.value_max - self.value_min >= 1e-3 * max(1.0, abs(self.value_min)):
            raise UserError(
                f"--value-max {self.value_max}: must be well above --value-min {self.value_min} for --head categorical"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.spectral_norm and loading.is_spec(config.network):
            yield {"spectral_norm": False}
        is_greedy = config.exploration == "epsilon_greedy" and not config.epsilon_start
        if not self.noisy and is_greedy and PRESETS.get(config.preset, {}).get("noisy"):
            # The preset leaves exploring to the noise: without it nobody would.
            yield {"epsilon_start": Exploration.epsilon_start, "epsilon_end": Exploration.epsilon_end}
        if self.head != "scalar" and config.loss != "huber":
            yield {"head": "scalar"}
            yield {"loss": "huber"}
        if self.head != "categorical":
            return
        least = 1e-3 * max(1.0, abs(self.value_min))
        if not self.value_max - self.value_min >= least:
            width = max(2.0, 1e-2 * abs(self.value_max))  # 2: that of the defaults
            yield {"value_min": self.value_max - width}
            yield {"value_max": self.value_min + max(width, 2 * least)}
            yield {"head": "scalar"}


@room("dqn", "the learning rule")
class Rule:
    loss: str = setting("huber", "loss of the TD error", choices=("huber", "mse"))
    double: bool = setting(True, "Double DQN: the online network chooses the next action")
    target: str = setting("hard", "target network: copied, tracked or none", choices=TARGETS)
    target_tau: float = setting(0.005, "share of the online weights in a soft update", above=0, high=1, varies=True)
    play_target: bool = setting(
        False, "the soft target network, an average of weights, is evaluated and kept as the agent"
    )
    target_epsilon: float = setting(
        0.0, "random actions of the player whose returns are learnt (Expected Sarsa)", low=0, high=1
    )
    advantage_alpha: float = setting(
        0.0, "how much of an action's lag behind the best is taken off its reward", low=0, high=0.99
    )
    munchausen_alpha: float = setting(
        0.0, "share of the taken action's log-probability that is added to its reward (Munchausen)", low=0, high=1
    )
    munchausen_temperature: float = setting(
        0.03, "of the policy whose returns are then learnt, softmax of Q over it", above=0, high=1e6
    )
    munchausen_clip: float = setting(-1.0, "least of temperature * log-probability that counts", low=-1e6, high=0)
    return_lambda: float = setting(
        1.0,
        "lambda: below 1 the returns over 1 to n_step decisions are mixed, each with so much of the share of the one "
        "before",
        low=0,
        high=1,
    )

    def window_rows(self, config: Any) -> int:
        """Consecutive replay rows that one sampled transition spans."""
        return (config.frame_stack - 1) * config.frame_stride + 1 + config.n_step

    def check(self, config: Any) -> None:
        if self.play_target and self.target != "soft":
            raise UserError(f"--play-target: a {self.target} target is no average of weights; add --target soft")
        if self.return_lambda < 1 and config.n_step == 1:
            raise UserError(
                f"--return-lambda {self.return_lambda}: mixes the returns over 1 to --n-step decisions, of which "
                f"--n-step 1 leaves one; use --n-step {MIXED_STEPS}, or leave out --return-lambda"
            )
        if self.return_lambda < 1 and config.head != "scalar":
            raise UserError(
                f"--return-lambda {self.return_lambda}: is for --head scalar, not {config.head}; leave out one of them"
            )
        for name, value, _ in self._other_policies(config):
            raise UserError(
                f"--munchausen-alpha {self.munchausen_alpha}: its soft policy does not go with {flag_of(name)} "
                f"{value}; use one or the other"
            )

    def _other_policies(self, config: Any) -> Iterator[tuple[str, Any, Any]]:
        """What contradicts the soft policy of `munchausen_alpha`: a setting, its value, and one that does not."""
        fits = {"head": (config.head != "categorical", "scalar"), "target_epsilon": (not self.target_epsilon, 0.0)}
        fits["advantage_alpha"] = (not self.advantage_alpha, 0.0)
        for name, (is_fine, other) in fits.items():
            if self.munchausen_alpha and not is_fine:
                yield name, getattr(config, name), other

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.play_target and self.target != "soft":
            yield {"target": "soft"}
            yield {"play_target": False}
        if self.return_lambda < 1 and config.n_step == 1:
            yield {"n_step": MIXED_STEPS}
            yield {"return_lambda": 1.0}
        if self.return_lambda < 1 and config.head != "scalar":
            yield {"head": "scalar"}
            yield {"return_lambda": 1.0}
        for name, _, fitting in self._other_policies(config):
            yield {name: fitting}
            yield {"munchausen_alpha": 0.0}


@room("gradients", "what is shown of gradients")
class Gradients:
    gradients_every_evals: int = setting(
        0,
        "evaluations from one histogram of the loss's gradient in TensorBoard to the next, each of a batch of its own; "
        "0: none",
        low=0,
        high=1_000_000,
        resumable=True,
    )

    def check(self, config: Any) -> None:
        if self.gradients_every_evals and population.is_one(config):
            raise UserError(
                f"--gradients-every-evals {self.gradients_every_evals}: shows one agent's; leave it out here"
            )


ROOMS = (
    Sizes,
    Updates,
    Network,
    Head,
    Dueling,
    Optimizer,
    Returns,
    Bootstrap,
    Rule,
    Replay,
    Exploration,
    Population,
    Gradients,
)
PRESET: dict[str, Any] = {}

# On top of a game's default ones.
PRESETS = {
    # Hessel et al. 2018, "Rainbow", table 1: what is learnt and how it explores. Sizes, network, optimizer, discount
    # and the range of values stay the game's.
    "rainbow": {
        "double": True,
        "dueling": True,
        "prioritized": True,
        "priority_alpha": 0.5,
        "priority_beta": 0.4,
        "n_step": 3,
        "head": "categorical",
        "atoms": 51,
        "noisy": True,
        "noisy_sigma": 0.5,
        "epsilon_start": 0.0,
        "epsilon_end": 0.0,
        "target_epsilon": 0.0,
    },
}
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
