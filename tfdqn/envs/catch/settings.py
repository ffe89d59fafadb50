"""The games of catch by name, and their presets. Nothing here imports TensorFlow."""

from tfdqn.envs.article import ARTICLE
from tfdqn.envs.registry import Game
from tfdqn.envs.spec import ObservationSpec

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
# A quarter of the updates, of 64 times as many transitions and after 8 times as many frames, at four times the rate: a
# GPU takes longer to start an update's kernels than to compute them. Learnt so on a CPU, catch8 is perfect after
# 1,500,000 and 1,000,000 frames (seeds 0 and 1), with four updates of 512 in the place of one after 1,250,000 (seed 0);
# a third of the kernels. Not yet measured on a GPU.
_CATCH8_ON_GPU = {
    **_CATCH8,
    "num_envs": 2048,
    "batch_size": 2048,
    "learning_rate": 1e-3,
    "target_update_period_updates": 60,
    "replay_capacity": 1_048_576,
    "replay_min_rows": 65_536,
    "epsilon_decay_env_frames": 800_000,
    "total_env_frames": 40_000_000,
    "eval_every_frames": 800_000,
    "log_every_frames": 200_000,
}
# As many updates, of 16 times as many transitions and after 8 times as many frames. Not yet measured on a GPU.
_CATCH16_ON_GPU = {
    **_CATCH16,
    "num_envs": 2048,
    "batch_size": 512,
    "updates_per_iteration": 4,
    "replay_capacity": 1_048_576,
    "replay_min_rows": 65_536,
    "epsilon_decay_env_frames": 500_000,
    "total_env_frames": 40_000_000,
    "eval_every_frames": 400_000,
    "log_every_frames": 160_000,
}


def _game(name: str, size: int, preset: dict, article: dict, on_gpu: dict | None = None, **arguments) -> Game:
    return Game(
        name=name,
        factory="tfdqn.envs.catch.rules:Catch",
        arguments={"size": size, **arguments},
        presets={"default": preset, "article": article},
        gpu_presets={"default": on_gpu} if on_gpu else {},
        has_difficulties=False,
        observation_spec=lambda _: ObservationSpec((size, size)),
    )


# For --head categorical: a ball every 5 frames, discounted, is worth 20.4 just before a catch.
_CATCH8_BOUNDS = {"goal_score": 99.0, "value_max": 20.5}
GAMES = (
    _game("catch8", 8, {**_CATCH8, **_CATCH8_BOUNDS}, ARTICLE, {**_CATCH8_ON_GPU, **_CATCH8_BOUNDS}),
    _game(
        *("catch8_single", 8, {**_CATCH8, "goal_score": 1.0}, ARTICLE, {**_CATCH8_ON_GPU, "goal_score": 1.0}),
        single_ball=True,
    ),
    _game("catch16", 16, _CATCH16, {**ARTICLE, "network": "conv", "threads": 0}, _CATCH16_ON_GPU),
)
