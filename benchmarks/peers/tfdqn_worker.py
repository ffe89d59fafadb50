"""tfdqn itself as a contender: `python -m benchmarks.peers.tfdqn_worker`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from benchmarks.loop_case import FOREVER, LoopBench
from benchmarks.peers import contender
from benchmarks.specs import PINNED
from benchmarks.timing import WrongResult
from tfdqn import config as configuration
from tfdqn import programs, train
from tfdqn.envs import make_for
from tfdqn.programs.evaluation import Evaluator
from tfdqn.runtime import devices

DEVICE = "/CPU:0"


class Door(contender.Contender):
    """The loop around an environment of Gymnasium's, which plays its own first rows."""

    def __init__(self, settings: Mapping[str, Any]):
        config = configuration.resolve({**PINNED, **settings, "device": "cpu"})
        env = make_for(config)
        self._trainer = programs.trainer_of(env, config)(config, DEVICE, env)
        self._carry, self._updates = self._trainer.initial_carry(), 0
        self.run(config.replay_min_rows // config.num_envs // config.iterations_per_update + 1)

    def run(self, count: int) -> dict[str, float]:
        frames = int(self._carry.env_frames)
        self._carry = self._trainer.run_chunk(self._carry, count, FOREVER)
        updates = int(self._trainer.agent.optimizer.iterations)
        learnt, self._updates = updates - self._updates, updates
        return {"env_frames": float(int(self._carry.env_frames) - frames), "updates": float(learnt)}

    def evaluate(self) -> float:
        raise NotImplementedError("what it learns is measured by benchmarks.learning")

    def check(self) -> None:
        work = self.run(3)
        if work["updates"] != 3 * self._trainer.config.updates_per_iteration:
            raise WrongResult(f"3 rounds made {work['updates']} updates")


def make(settings: Mapping[str, Any], **given: Any) -> contender.Contender:
    """The contender of a row."""
    settings = dict(settings)
    if settings.pop("one_thread"):
        tf.config.threading.set_intra_op_parallelism_threads(1)
    elif settings.get("population", 1) > 1:  # as `tfdqn train` has it: parts of the population on all cores
        config = configuration.resolve({**PINNED, **settings, "device": "cpu"})
        train.device_of(config)
        settings["replicas"] = devices.count_cpus()
    return Door(settings) if settings["env"].startswith("gym:") else Tfdqn(settings, **given)


class Tfdqn(contender.Contender):
    """The loop that `benchmarks.run --case loop` times; to learn, it plays its own first rows."""

    def __init__(self, settings: Mapping[str, Any], *, made_up_rows: bool = True):
        # The infinities among the pinned settings do not come over the line.
        chosen = {**PINNED, **settings, "eval_episodes": contender.EVAL_EPISODES}
        self._loop = LoopBench("peers", chosen, DEVICE, made_up_rows=made_up_rows)
        trainer = self._loop.trainer
        self._evaluator = Evaluator(trainer.config, trainer.env, trainer.agent, DEVICE)
        self._evaluations = 0

    def run(self, count: int) -> dict[str, float]:
        return self._loop.run(count)

    def evaluate(self) -> float:
        self._evaluations += 1
        return float(self._evaluator.evaluate(contender.EVAL_EPISODES, self._evaluations).scores.mean())

    def check(self) -> None:
        self._loop.check()


if __name__ == "__main__":
    contender.serve(make, functools.partial(make, made_up_rows=False))
