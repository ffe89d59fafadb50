"""Named settings for each game: what `--preset` chooses, by field of `tfdqn.config.Config`."""

from __future__ import annotations

from typing import Any

# The article's settings (yukiB 2017), as far as they are not faults; see the README's table of differences.
_ARTICLE = {
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
_CATCH = {
    # Its operations take microseconds, less than it takes to hand a part of one to another thread.
    "threads": 1,
    "eval_episodes": 256,
    "stop_at_goal": True,
}

_CATCH8 = {**_CATCH, "log_every_frames": 100_000}  # a twentieth of a second
_CATCH16 = {
    **_CATCH,
    "goal_score": 98.0,
    "value_max": 4.5,  # of --head categorical: a ball every 5 frames, discounted, is worth 4.42 just before a catch
    "network": "columns",  # a ball keeps to its column; learns in a tenth of the time that "conv" takes
    "n_step": 4,  # a ball falls for 15 frames: its reward travels back in steps of four
    "discount": 0.95,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-6,
    "learning_rate": 5e-4,
    # Perfection needs a falling rate; at a constant one, perfect evaluations were followed by misses.
    "learning_rate_decay_updates": 14_000,
    "learning_rate_end": 1e-5,
    "epsilon_end": 0.02,
    "epsilon_decay_env_frames": 60_000,
    "target_update_period_updates": 200,
    "eval_every_frames": 50_000,
}
_CAVE = {
    "network": "columns_deep",  # it plans 33 columns ahead; "columns" dies 1.5 times as often
    "frame_stack": 2,
    "start_curriculum": 0.8,  # a standard start seldom reaches the narrowest tunnel, where it is decided
    "restart_share": 0.5,  # deaths are rare soon, and all that there is to learn from
    "total_env_frames": 15_400_000,
    # Many frames an update: at an equal number of updates it is they, and the deaths among them, that count.
    "num_envs": 256,
    "batch_size": 256,
    "replay_capacity": 600_000,
    "replay_min_rows": 60_000,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-6,
    "learning_rate": 5e-4,
    # The values' noise falls with the rate, and one frame's action changes a value by no more than that.
    "learning_rate_decay_updates": 60_000,
    "learning_rate_end": 5e-6,
    # The return of a crash k frames ahead is -discount**k. Probabilities of 21 returns tell when it will come, which
    # teaches more than the mean alone, all that 2 atoms hold.
    "head": "categorical",
    "atoms": 21,
    "value_min": -1.0,
    "value_max": 0.0,
    "dueling": True,
    "double": False,  # as good, and a sixth less arithmetic
    "prioritized": True,  # a crash is one row in a thousand, and all that pays
    "priority_beta_updates": 60_000,
    "target_update_period_updates": 150,
    "n_step": 5,
    "discount": 0.98,  # half of it is gone after the 33 columns that lie ahead on the screen
    # At 0.01 a flight of 500 frames is hit by five random presses, and many are fatal.
    "epsilon_end": 0.005,
    "target_epsilon": 0.005,
    "epsilon_decay_env_frames": 600_000,
    "eval_every_frames": 2_000_000,
    "eval_max_frames": 1_000,
    "eval_episodes": 128,  # scores differ by two thirds of their mean: of 64, the best of eight means was luck
    "log_every_frames": 200_000,
}

PRESETS: dict[tuple[str, str], dict[str, Any]] = {
    # For --head categorical: a ball every 5 frames, discounted, is worth 20.4 just before a catch.
    ("catch8", "default"): {**_CATCH8, "goal_score": 99.0, "value_max": 20.5},
    ("catch8_single", "default"): {**_CATCH8, "goal_score": 1.0},
    ("catch16", "default"): _CATCH16,
    ("cave", "default"): _CAVE,
    ("catch8", "article"): _ARTICLE,
    ("catch8_single", "article"): _ARTICLE,
    ("catch16", "article"): {**_ARTICLE, "network": "conv", "threads": 0},
    ("cave", "article"): {
        **_ARTICLE,
        "threads": 0,
        "network": "conv",
        "frame_stack": 5,
        "frame_stride": 2,
        "action_repeat": 3,
        "downsample": 2,
        "learning_rate": 1.5e-4,
        "replay_capacity": 10_000,
        "replay_min_rows": 10_000,
        "target_update_period_updates": 555,
    },
}

# What feeds a GPU, used when no size is given: thousands of environments and a sampled transition for each frame, so
# that an update comes every 512 frames, and more frames, as they are cheap there. Not yet measured on a GPU.
GPU_SIZES: dict[str, dict[str, Any]] = {
    game: {
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
    for game, preset in PRESETS
    if preset == "default"
}
