"""How a number is taken: burn-in, then repeats of everything in turn, each between two waits for the device."""

from __future__ import annotations

import abc
import dataclasses
import random
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

MAX_COUNT = 2**30  # iterations of one call; loop counters are int32


class Bench(abc.ABC):
    """A compiled piece of work that can be done any number of times.

    Attributes:
      units: metric to its unit, such as {"env_frames": "env frames/s"}; every one is a rate, higher is better.
      operations: arithmetic operations of one iteration, counted analytically.
      bytes: bytes that one iteration has to move.
    """

    units: Mapping[str, str]
    operations: float = 0.0
    bytes: float = 0.0

    @abc.abstractmethod
    def run(self, count: int) -> dict[str, float]:
        """Do `count` iterations; return the work done in each metric once the device has finished (a scalar of the
        result has been fetched). No work may be left over from an earlier call."""

    def check(self) -> None:  # noqa: B027 (nothing to check is allowed)
        """Raise `WrongResult` where the compiled work is not what it should be. Called once, before timing."""


class WrongResult(Exception):
    """A benchmark computed something else than it should: its speed means nothing."""


@dataclasses.dataclass(frozen=True)
class Effort:
    """How long to measure."""

    repeats: int = 7
    repeat_seconds: float = 0.3
    burn_in_seconds: float = 0.5


FULL, QUICK = Effort(), Effort(repeats=3, repeat_seconds=0.05, burn_in_seconds=0.05)


@dataclasses.dataclass
class Sample:
    """One timed repeat."""

    seconds: float
    count: int
    work: dict[str, float]


def timed(bench: Bench, count: int) -> Sample:
    """Run once under the clock; `run` starts on an idle device and ends with the fetch of a scalar."""
    start = time.perf_counter()
    work = bench.run(count)
    return Sample(time.perf_counter() - start, count, work)


def burn_in(bench: Bench, effort: Effort) -> int:
    """Compile, warm caches and clocks, and find how many iterations take `repeat_seconds`."""
    bench.run(1)  # compiles
    deadline, count = time.perf_counter() + effort.burn_in_seconds, 1
    while True:
        seconds = timed(bench, count).seconds
        wanted = count * effort.repeat_seconds / max(seconds, 1e-9)
        if seconds > effort.repeat_seconds / 2 and time.perf_counter() > deadline:
            return max(1, min(round(wanted), MAX_COUNT))
        count = max(1, min(round(wanted), count * 10, MAX_COUNT))


def interleave(
    benches: Mapping[str, Bench], effort: Effort, say: Callable[[str], None] = lambda _: None
) -> dict[str, list[Sample]]:
    """Time every bench once, then every one again, and so on: what disturbs the machine disturbs all alike."""
    counts = {}
    for name, bench in benches.items():
        say(f"  compiling and warming {name}")
        counts[name] = burn_in(bench, effort)
    samples: dict[str, list[Sample]] = {name: [] for name in benches}
    order = random.Random(0)
    for _ in range(effort.repeats):
        names = list(benches)
        order.shuffle(names)  # so that no bench always runs behind the same other one
        for name in names:
            samples[name].append(timed(benches[name], counts[name]))
    return samples


def median_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """The median, and the distance of the quartiles as a share of it."""
    low, median, high = np.quantile(np.asarray(values, np.float64), (0.25, 0.5, 0.75))
    return float(median), float((high - low) / median) if median else 0.0
