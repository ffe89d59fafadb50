"""What PQN lets a user choose, room by room. Nothing here imports TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tfdqn.errors import UserError
from tfdqn.learners.rooms import Exploration, Network, Optimizer, Population, Recurrence, Returns, Sizes
from tfdqn.settings import room, setting


@room("pqn", "PQN's rounds")
class Rule:
    num_steps: int = setting(32, "decisions of each environment in a round", low=1, high=4096, common=True)
    epochs: int = setting(2, "times that a round's decisions are learnt from", low=1, high=100)
    minibatches: int = setting(32, "parts that they are cut into, an update each", low=1, high=100_000)
    q_lambda: float = setting(
        0.65, "how far returns reach before bootstrapping: 0 one decision, 1 all", low=0, high=1, varies=True
    )

    def check(self, config: Any) -> None:
        whole, what = self._whole(config)
        if whole % self.minibatches:
            raise UserError(
                f"--minibatches {self.minibatches}: does not divide the {whole} {what}; use {self._fitting(whole)}"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        whole, _ = self._whole(config)
        if whole % self.minibatches:
            steps = whole // config.num_envs  # what an environment adds to it
            yield {"minibatches": self._fitting(whole)}
            if steps > 1:
                yield {"num_steps": self.minibatches}
            yield {"num_envs": self.minibatches // math.gcd(self.minibatches, steps)}

    def _whole(self, config: Any) -> tuple[int, str]:
        """How many things are cut into minibatches, and in words what they are."""
        if config.cell != "none":
            return config.num_envs, f"environments (--num-envs), whose decisions a --cell {config.cell} learns in turn"
        steps = f"decisions of a round (--num-steps {self.num_steps} of --num-envs {config.num_envs})"
        return self.num_steps * config.num_envs, steps

    def _fitting(self, size: int) -> int:
        return max(count for count in range(1, self.minibatches + 1) if size % count == 0)


ROOMS = (Sizes, Network, Recurrence, Optimizer, Returns, Rule, Exploration, Population)

# Gallici et al. 2024 on MinAtar, but for Adam in the place of RAdam, and for the rate, which falls to 0 there: over how
# many updates, a game's preset or the user has to say.
PRESET = {
    "num_envs": 128,
    "network": "mlp_norm",  # layer normalisation is what it has in the place of a target network
    "optimizer": "adam",
    "optimizer_epsilon": 1e-8,
    "learning_rate": 5e-4,
    "max_gradient_norm": 10.0,
}
# What feeds a GPU, used when no size is given. Not yet measured on one.
GPU_SIZES = {
    "num_envs": 2048,
    "total_env_frames": 50_000_000,
    "epsilon_decay_env_frames": 1_000_000,
    "eval_every_frames": 1_000_000,
    "log_every_frames": 200_000,
}
