"""Cart-pole by name, and its presets. Nothing here imports TensorFlow."""

from tfdqn.envs.registry import Game
from tfdqn.envs.spec import ObservationSpec

_CARTPOLE = {
    "threads": 1,  # its operations take microseconds
    "eval_episodes": 100,
    "eval_every_frames": 20_000,
    "stop_at_goal": True,
    "goal_score": 495.0,  # 475 is called solved; other episodes than those that decided may score a little less
    "num_envs": 16,
    "batch_size": 128,
    "updates_per_iteration": 2,
    # All actions are worth almost the same from one frame to the next: eight frames of reward tell them apart, and at
    # 0.98 the values, up to 50, are learnt in half of the time that 0.99 takes.
    "n_step": 8,
    "discount": 0.98,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-6,
    "learning_rate": 1e-3,
    "learning_rate_decay_updates": 30_000,
    "target": "soft",
    "target_tau": 0.01,
    "replay_min_rows": 2_000,
    "epsilon_decay_env_frames": 50_000,
    "value_min": 0.0,  # of --head categorical
    "value_max": 50.0,
}

# As many updates, of 8 times as many transitions and after 8 times as many frames. Not yet measured on a GPU.
_ON_GPU = {
    **_CARTPOLE,
    "num_envs": 512,
    "batch_size": 1024,
    "updates_per_iteration": 8,
    "replay_capacity": 786_432,
    "replay_min_rows": 16_384,
    "epsilon_decay_env_frames": 400_000,
    "total_env_frames": 40_000_000,
    "eval_every_frames": 160_000,
    "log_every_frames": 160_000,
}

GAMES = (
    Game(
        name="cartpole",
        factory="tfdqn.envs.cartpole.rules:CartPole",
        presets={"default": _CARTPOLE},
        gpu_presets={"default": _ON_GPU},
        has_difficulties=False,
        observation_spec=lambda _: ObservationSpec((4,), "float32"),
    ),
)
