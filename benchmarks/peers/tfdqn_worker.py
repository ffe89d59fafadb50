"""tfdqn itself as a contender: `python -m benchmarks.peers.tfdqn_worker`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from benchmarks.loop_case import LoopBench
from benchmarks.peers import contender
from benchmarks.specs import PINNED
from tfdqn.programs.evaluation import Evaluator

DEVICE = "/CPU:0"


class Tfdqn(contender.Contender):
    """The loop that `benchmarks.run --case loop` times; to learn, it plays its own first rows."""

    def __init__(self, settings: Mapping[str, Any], *, made_up_rows: bool = True):
        # The infinities among the pinned settings do not come over the line.
        chosen = {**PINNED, **settings, "eval_episodes": contender.EVAL_EPISODES}
        if chosen.pop("one_thread"):
            tf.config.threading.set_intra_op_parallelism_threads(1)
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
    contender.serve(Tfdqn, functools.partial(Tfdqn, made_up_rows=False))
