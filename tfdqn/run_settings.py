"""The settings of every run, whatever is played and whatever learns. Nothing here imports TensorFlow."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tfdqn import learners
from tfdqn.envs import loading, registry
from tfdqn.errors import UserError, nearest
from tfdqn.replicas import Replicas
from tfdqn.settings import room, setting


@room("game", "what is played")
class Game:
    env: str = setting(
        registry.DEFAULT, "the game: a name, package.module:Class or path/to/file.py:Class", common=True, code=True
    )
    env_args: str = setting("", "arguments of a game of your own, a JSON object", common=True)
    preset: str = setting(
        "default", "named settings for the game, or the learner's own on top of its default ones", common=True
    )
    learner: str = setting("dqn", "what learns", choices=tuple(learners.LEARNERS), common=True)
    seed: int = setting(0, "one seed for everything that is drawn", low=0, high=2**31 - 1, common=True, varies=True)
    frame_stack: int = setting(1, "frames that make one observation", low=1, high=32, common=True)
    frame_stride: int = setting(1, "decisions between stacked frames", low=1, high=32)
    action_repeat: int = setting(1, "frames that each chosen action is held for", low=1, high=32, common=True)
    start_curriculum: float = setting(
        0.0,
        "share of training episodes that start at a drawn difficulty (cave: a narrower tunnel); their scores are not "
        "reported",
        low=0,
        high=1,
        varies=True,
    )
    restart_share: float = setting(
        0.0,
        "share of environments that only practise: they start shortly before another's last crash",
        low=0,
        high=0.9,
        varies=True,
    )

    def check(self, config: Any) -> None:
        entry = registry.entry(self.env)
        entry.require()
        presets = [*entry.presets, *learners.presets_of(self.learner)]
        if self.preset not in presets:
            raise UserError(
                f"--preset {self.preset}: {self.env} with --learner {self.learner} has none of that name; "
                f"{nearest(self.preset, presets)}"
            )
        if loading.parse_arguments(self.env_args) and not entry.takes_arguments:
            raise UserError(f"--env-args {self.env_args}: {self.env} takes none; leave it out")
        if self.start_curriculum and entry.has_difficulties is False:
            raise UserError(
                f"--start-curriculum {self.start_curriculum}: {self.env} is equally difficult from start to end; use 0"
            )
        if self.restart_share and not config.num_practisers:
            raise UserError(
                f"--restart-share {self.restart_share}: not one of {config.num_envs} environments; use 0, or more "
                "--num-envs"
            )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if self.restart_share and not config.num_practisers:
            yield {"restart_share": 0.0}
            yield {"num_envs": math.ceil(1 / self.restart_share)}


@room("length", "how long")
class Length:
    total_env_frames: int = setting(
        5_000_000, "frames to play in training, over all environments", low=1, high=2**62, resumable=True, common=True
    )
    minutes: float = setting(
        math.inf,
        "stop training this long after the run began (pauses between resumed processes do not count)",
        above=0,
        resumable=True,
        common=True,
    )
    stop_at_goal: bool = setting(True, "stop once an evaluation reaches goal_score", resumable=True)
    goal_score: float = setting(math.inf, "mean score that counts as done", resumable=True, common=True)


@room("evaluation", "evaluation and reports")
class Evaluation:
    eval_every_frames: int = setting(100_000, "env frames between evaluations", low=1, high=2**62, common=True)
    eval_episodes: int = setting(64, "episodes of an evaluation in training", low=1, high=100_000)
    eval_max_frames: int = setting(
        10_001,
        "frames after which evaluations in training cut episodes at first; doubled where that could decide which agent "
        "is the best, or for a mean over a third of it",
        low=1,
        high=2**30,
    )
    final_eval_episodes: int = setting(256, "episodes of the last evaluation", low=1, high=1_000_000)
    log_every_frames: int = setting(20_000, "env frames between reports", low=1, high=2**62)
    profile: int = setting(
        0,
        "iterations to trace for TensorBoard's profiler when learning has begun, at most to the next evaluation or the "
        "64th report",
        low=0,
        high=1_000_000,
        resumable=True,
    )


@room("checkpoints", "checkpoints")
class Checkpoints:
    checkpoint_every_seconds: float = setting(
        0.0,
        "seconds between checkpoints; 0 means 60, or longer where that would take over 2% of the time",
        low=0,
        resumable=True,
    )
    checkpoint_replay: bool = setting(
        True, "keep the replay in checkpoints; without it a resumed run fills a new one", resumable=True
    )


@room("machine", "the machine")
class Machine:
    device: str = setting(
        "auto",
        "where everything lives; gpu is every GPU (see --replicas), gpu:0 the first one alone",
        choices=("auto", "cpu", "gpu"),
        numbered="gpu",
        common=True,
    )
    jit: bool = setting(True, "compile with XLA; --no-jit runs the same code as a plain graph")
    eager: bool = setting(False, "run op by op, for debugging")
    threads: int = setting(
        0, "CPU threads that share one operation, of each part of a CPU; 0 takes all cores", low=0, high=4096
    )
    deterministic: bool = setting(
        False, "only kernels that give the same bits in every run; slower on a GPU, no change on a CPU"
    )

    def check(self, config: Any) -> None:
        if not self.jit and self.eager:
            raise UserError("--eager already runs without XLA: leave out --no-jit")

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if not self.jit and self.eager:
            yield {"jit": True}


ROOMS = (Game, Length, Evaluation, Checkpoints, Machine, Replicas)
