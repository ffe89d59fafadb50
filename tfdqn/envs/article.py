"""The settings of the article that tfdqn answers (yukiB 2017), as far as they are not faults (docs: differences)."""

ARTICLE = {
    "num_envs": 1,
    "batch_size": 32,
    "iterations_per_update": 3,
    "replay_capacity": 5_000,
    "replay_min_rows": 5_000,
    "discount": 0.9,
    "value_max": 2.5,  # of --head categorical: a ball every 5 frames, discounted, is worth 2.44 just before a catch
    "learning_rate": 2.5e-4,
    "target_update_period_updates": 167,  # the article copies every 500 frames, with an update every 3
    "epsilon_end": 0.1,
    "epsilon_decay_env_frames": 200_000,
    "threads": 1,
    "total_env_frames": 500_000,
    "eval_every_frames": 50_000,
    "log_every_frames": 10_000,
}
