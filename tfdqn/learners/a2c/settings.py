"""What A2C lets a user choose, room by room. Nothing here imports TensorFlow."""

from __future__ import annotations

from tfdqn.learners.rooms import Network, Optimizer, Population, Returns, Sizes
from tfdqn.settings import room, setting


@room("a2c", "A2C's rounds")
class Rule:
    rollout_steps: int = setting(8, "decisions of each environment before an update", low=1, high=4096, common=True)
    gae_lambda: float = setting(
        0.95, "how far advantages reach before bootstrapping: 0 one decision, 1 all", low=0, high=1, varies=True
    )
    entropy_weight: float = setting(
        0.01, "how much the policy's entropy counts in the loss", low=0, high=100, varies=True
    )
    value_weight: float = setting(0.5, "how much the value's error counts in the loss", low=0, high=100, varies=True)
    normalize_advantages: bool = setting(False, "advantages of a round with mean 0 and standard deviation 1")


ROOMS = (Sizes, Network, Optimizer, Returns, Rule, Population)

PRESET = {
    "num_envs": 64,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-5,
    "learning_rate": 1e-3,
    "max_gradient_norm": 0.5,
}
# What feeds a GPU, used when no size is given. Not yet measured on one.
GPU_SIZES = {
    "num_envs": 2048,
    "total_env_frames": 50_000_000,
    "eval_every_frames": 1_000_000,
    "log_every_frames": 200_000,
}
