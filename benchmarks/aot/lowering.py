"""A tree's training program as XLA is handed it: `python -m benchmarks.aot.lowering TREE`, as a process of its own.

TensorFlow gives the program of a GPU only where there is one, so this is the CPU's. They differ in what is chosen by
device: convolutions are patches times a matrix here, while on a GPU both ways are timed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks import line


def lower(env: str, preset: str, learner: str, path: str, population: int = 1) -> dict[str, Any]:
    """Write a program, an HLO module as a protocol buffer, to `path`.

    Returns:
      Decisions of a round, the most updates of one, whether rows are kept in a replay, and TensorFlow's version.
    """
    from benchmarks import trees  # an earlier tree's modules by today's names

    del trees
    import tensorflow as tf

    from tfdqn import config as configuration
    from tfdqn.learners.metrics import Reports
    from tfdqn.programs.training import NEVER, Trainer

    asked = {"env": env, "preset": preset, "learner": learner}
    config = configuration.resolve(asked | ({"population": population} if population > 1 else {}), on_gpu=True)
    trainer = Trainer(config, device="")  # nothing is pinned to a CPU: it is compiled for something else
    rounds, never = (tf.constant(count, tf.int64) for count in (1000, NEVER))
    arguments = [trainer.initial_carry(), rounds, never, never]
    if hasattr(trainer, "_fill"):  # earlier trees' programs began their reports themselves
        none = getattr(trainer, "_no_reports", None) or Reports.none(never, trainer.learner.sums())
        arguments = [arguments[0], none, rounds, never]
    write = trainer._chunk.experimental_get_compiler_ir(*arguments)
    Path(path).write_bytes(write(stage="hlo_serialized"))
    return {
        "iterations": trainer.learner.iterations_per_round,
        "updates": getattr(config, "updates_per_iteration", 1),
        "has_replay": trainer.replay is not None,
        "tensorflow": tf.__version__,
    }


def serve(tree: Path) -> None:
    """Answer requests until the line is closed."""
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.path.insert(0, str(tree))  # `benchmarks` is loaded already, and stays this tree's
    import tfdqn

    found = Path(tfdqn.__file__).resolve().parent.parent
    if found != tree.resolve():
        raise RuntimeError(f"tfdqn was loaded from {found}, not from {tree}")
    line.answer({"lower": lower})


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
