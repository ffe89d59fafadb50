"""What the cave lets a user choose, and its presets. Nothing here imports TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfdqn.envs.article import ARTICLE
from tfdqn.envs.registry import Game
from tfdqn.envs.spec import ObservationSpec
from tfdqn.errors import UserError
from tfdqn.settings import room, setting

SIZE = 48  # rows and columns of the screen


@room("cave", "the cave")
class Cave:
    downsample: int = setting(1, "keep every k-th row and column of the cave's screen", choices=(1, 2))
    super_resolution: bool = setting(
        False, "draw edges in the cave to fractions of a row, as far as earlier screens told them"
    )

    def check(self, config: Any) -> None:
        if self.super_resolution and self.downsample != 1:
            raise UserError(f"--super-resolution with --downsample {self.downsample}: use one or the other")

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.super_resolution and self.downsample != 1:
            yield {"downsample": 1}
            yield {"super_resolution": False}


_DEFAULT = {
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
# A quarter of the updates, of eight times as many transitions and after twice as many frames, at twice the rate: a GPU
# takes longer to start an update's kernels than to compute them. What is learnt so on a CPU, docs/performance.md has,
# beside two updates of 1,024 in the place of one. Not yet measured on a GPU.
_ON_GPU = {
    **_DEFAULT,
    "num_envs": 2048,
    "batch_size": 2048,
    "learning_rate": 1e-3,
    "learning_rate_decay_updates": 15_000,
    "priority_beta_updates": 15_000,
    "target_update_period_updates": 40,
    "replay_capacity": 1_228_800,
    "replay_min_rows": 122_880,
    "epsilon_decay_env_frames": 1_200_000,
    "total_env_frames": 30_800_000,
    "eval_every_frames": 4_000_000,
    "log_every_frames": 400_000,
}
_ARTICLE = {
    **ARTICLE,
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
}


def _observation_spec(settings: Cave) -> ObservationSpec:
    side = SIZE // settings.downsample
    return ObservationSpec((side, side))


GAMES = (
    Game(
        name="cave",
        factory="tfdqn.envs.cave.rules:Cave",
        settings=Cave,
        presets={"default": _DEFAULT, "article": _ARTICLE},
        gpu_presets={"default": _ON_GPU},
        has_difficulties=True,
        planner="tfdqn.envs.cave.planner",
        observation_spec=_observation_spec,
    ),
)
