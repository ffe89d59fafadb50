"""What the memory game lets a user choose, and its presets. Nothing here imports TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tfdqn.envs.registry import Game
from tfdqn.envs.spec import ObservationSpec
from tfdqn.errors import UserError
from tfdqn.settings import room, setting


@room("memory", "the memory game")
class Memory:
    delay_min: int = setting(10, "decisions from the cue to the question, at least", low=1, high=100_000)
    delay_max: int = setting(40, "decisions from the cue to the question, at most", low=1, high=100_000)

    def check(self, config: Any) -> None:
        if self.delay_min > self.delay_max:
            raise UserError(f"--delay-min {self.delay_min}: above --delay-max; use at most {self.delay_max}")

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.delay_min > self.delay_max:
            yield {"delay_max": self.delay_min}
            yield {"delay_min": self.delay_max}


_GAME = {
    "threads": 1,  # its operations take microseconds
    "eval_episodes": 256,
    "stop_at_goal": True,
    "goal_score": 0.99,
    "eval_every_frames": 100_000,
    "optimizer": "adam",
    "optimizer_epsilon": 1e-6,
    "learning_rate": 1e-3,
}

GAMES = (
    Game(
        name="memory",
        factory="tfdqn.envs.memory.rules:Memory",
        settings=Memory,
        presets={"default": _GAME, "r2d2": {**_GAME, "learner": "r2d2"}},
        has_difficulties=False,
        observation_spec=lambda _: ObservationSpec((2, 4)),
    ),
)
