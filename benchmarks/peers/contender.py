"""One contender: a bench that can also learn, served over a line. No tfdqn and no TensorFlow in here."""

from __future__ import annotations

import abc
import time
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import line, timing

EVAL_EPISODES = 64
EVAL_EVERY_FRAMES = 25_000
PERFECT = 99.0  # the score of perfect play in catch8


class Contender(timing.Bench):
    """A training loop with a row's settings, whose replay holds rows enough to learn from the first round on.

    A round is `iterations_per_update` steps of all environments and one update.
    """

    units = {"env_frames": "env frames/s", "updates": "updates/s"}  # noqa: RUF012

    @abc.abstractmethod
    def evaluate(self) -> float:
        """Mean score of greedy play: the first episode of each of EVAL_EPISODES environments."""


def learn(contender: Contender, frames_per_round: int, max_seconds: float) -> dict[str, Any]:
    """Train until an evaluation is perfect or the time is over.

    Seconds of training are counted, not those of compiling and of evaluating.
    """
    contender.run(1)  # compiles
    contender.evaluate()
    found = {"seconds": 0.0, "env_frames": 0.0, "updates": 0.0, "best": float("-inf"), "is_perfect": False}
    rounds = 1
    while found["seconds"] < max_seconds and not found["is_perfect"]:
        sample = timing.timed(contender, rounds)
        found["seconds"] += sample.seconds
        for metric in ("env_frames", "updates"):
            found[metric] += sample.work[metric]
        # Ten evaluations at least in the time there is, however slow the contender.
        affordable = rounds * max_seconds / 10 / max(sample.seconds, 1e-9)
        rounds = max(1, round(min(EVAL_EVERY_FRAMES / frames_per_round, affordable)))
        found["best"] = max(found["best"], contender.evaluate())
        found["is_perfect"] = found["best"] >= PERFECT
    return found


class Server:
    """What a worker does when asked."""

    def __init__(self, make: Callable[..., Contender], make_learner: Callable[..., Contender]):
        self._make, self._make_learner, self._contender = make, make_learner, None

    def build(self, settings: Mapping[str, Any]) -> None:
        """Build and check; a wrong result is an error, and nothing of it is timed."""
        self._contender = None  # frees the memory of the last one first
        self._contender = self._make(settings)
        self._contender.check()

    def count(self, seconds: float) -> int:
        """Warm up, and find how many rounds fill a repeat."""
        return timing.burn_in(self._contender, timing.Effort(repeat_seconds=seconds, burn_in_seconds=2 * seconds))

    def time(self, count: int) -> dict[str, float]:
        """One repeat. Processor seconds too: those do not count the time for which others had the processor."""
        start = time.process_time()
        sample = timing.timed(self._contender, count)
        return {"seconds": sample.seconds, "cpu_seconds": time.process_time() - start, **sample.work}

    def learn(self, settings: Mapping[str, Any], max_seconds: float) -> dict[str, Any]:
        """Train from nothing."""
        self._contender = None
        contender = self._make_learner(settings)
        return learn(contender, settings["num_envs"] * settings["iterations_per_update"], max_seconds)


def serve(make: Callable[..., Contender], make_learner: Callable[..., Contender] | None = None) -> None:
    """Answer requests until the line is closed. `make_learner` where what is timed could not learn from its replay."""
    server = Server(make, make_learner or make)
    line.answer({"build": server.build, "count": server.count, "time": server.time, "learn": server.learn})
