"""MinAtar's games by name, their presets, and what they let a user choose. Nothing here imports TensorFlow."""

from __future__ import annotations

from tfdqn.envs.registry import Game
from tfdqn.envs.spec import ObservationSpec
from tfdqn.settings import room, setting

SIZE = 10  # rows and columns of a screen


@room("minatar", "MinAtar's games")
class MinAtar:
    sticky_actions: float = setting(
        0.1, "probability of repeating the action before in place of the one chosen", low=0, high=1
    )
    difficulty_ramping: bool = setting(True, "make the game harder with time, where MinAtar does")


_DEFAULT = {
    "network": "conv",
    "num_envs": 64,
    "batch_size": 128,
    "replay_capacity": 100_000,
    "replay_min_rows": 5_000,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-6,
    "learning_rate": 5e-4,
    "discount": 0.99,
    "value_min": 0.0,  # of --head categorical; no reward is below 0
    "n_step": 3,
    "target_update_period_updates": 500,
    "epsilon_end": 0.02,
    "epsilon_decay_env_frames": 500_000,
    "total_env_frames": 5_000_000,
    "eval_every_frames": 500_000,
    "eval_episodes": 64,
    "eval_max_frames": 2_000,
    "log_every_frames": 100_000,
}


# As Gallici et al. 2024 publish it, but for 3 million frames, over which the rate and exploration fall, a third epoch
# and a fifth of the random actions at the end; with what else the learner's own preset has.
_PQN = {
    "learner": "pqn",
    "network": "conv3_norm",
    "epochs": 3,
    "learning_rate_decay_updates": 70_272,
    "learning_rate_end": 1e-9,
    "epsilon_end": 0.01,
    "epsilon_decay_env_frames": 300_000,
    "total_env_frames": 3_000_000,
    "eval_every_frames": 300_000,
    "eval_episodes": 64,
    "eval_max_frames": 2_000,
    "log_every_frames": 100_000,
}


# As many updates, of 4 times as many transitions and after 4 times as many frames. Neither is measured on a GPU yet.
_DEFAULT_ON_GPU = {
    **_DEFAULT,
    "num_envs": 1024,
    "batch_size": 512,
    "updates_per_iteration": 4,
    "replay_capacity": 409_600,
    "replay_min_rows": 20_480,
    "epsilon_decay_env_frames": 2_000_000,
    "total_env_frames": 20_000_000,
    "eval_every_frames": 2_000_000,
    "log_every_frames": 400_000,
}
_PQN_ON_GPU = {
    **_PQN,
    "num_envs": 512,
    "epsilon_decay_env_frames": 1_200_000,
    "total_env_frames": 12_000_000,
    "eval_every_frames": 1_200_000,
    "log_every_frames": 400_000,
}


def _game(name: str, rules: str, planes: int, value_max: float, **preset) -> Game:
    """One of the games; `value_max`, of --head categorical, leaves room above the discounted rewards of good play."""
    return Game(
        name=name,
        factory=f"tfdqn.envs.minatar.{rules}",
        settings=MinAtar,
        presets={"default": {**_DEFAULT, "value_max": value_max, **preset}, "pqn": {**_PQN, **preset}},
        gpu_presets={
            "default": {**_DEFAULT_ON_GPU, "value_max": value_max, **preset},
            "pqn": {**_PQN_ON_GPU, **preset},
        },
        has_difficulties=False,
        observation_spec=lambda _: ObservationSpec((SIZE, SIZE, planes), "bool"),
    )


GAMES = (
    _game("minatar_breakout", "breakout:Breakout", planes=4, value_max=20.0),
    _game("minatar_asterix", "asterix:Asterix", planes=4, value_max=30.0),
    _game("minatar_freeway", "freeway:Freeway", planes=7, value_max=5.0, eval_max_frames=2_500),
    _game("minatar_space_invaders", "space_invaders:SpaceInvaders", planes=6, value_max=40.0),
    _game("minatar_seaquest", "seaquest:Seaquest", planes=10, value_max=50.0),
)
