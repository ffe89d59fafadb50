"""When is slower a regression? Arithmetic on paired ratios; nothing here measures.

A pair is one time of the new tree over one of the base, taken side by side. A case fails when

    the median of at least 7 ratios is 1.2 or more, and
    the interval of that median excludes 1 (no slowdown).

The interval is the sign test's: the k-th smallest to the k-th largest ratio, k as large as 95% confidence allows. It
asks nothing of the noise but that pairs are independent and both trees are hit alike, so a neighbour that takes the
machine for a while widens it and does not shift it.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence

MIN_PAIRS = 7
LIMIT = 1.2  # times slower
CONFIDENCE = 0.95


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A case's comparison: how many times as long the new tree takes."""

    median: float
    low: float
    high: float
    pairs: int

    @property
    def is_regression(self) -> bool:
        return self.median >= LIMIT and self.low > 1.0

    def __str__(self) -> str:
        word = "SLOWER" if self.is_regression else "ok"
        return (
            f"{self.median:.3f} times the base's time ({self.low:.3f} to {self.high:.3f}, {self.pairs} pairs): {word}"
        )


def interval_rank(pairs: int, confidence: float = CONFIDENCE) -> int:
    """The largest k for which the k-th smallest to the k-th largest of `pairs` values holds the median so surely."""
    rank, outside = 0, 0.0
    while True:
        outside += 2 * math.comb(pairs, rank) / 2**pairs  # fewer than rank + 1 values on one side of the median
        if outside > 1 - confidence:
            return rank
        rank += 1


def decide(ratios: Sequence[float]) -> Verdict:
    """Judge ratios of new time over base time.

    Raises:
      ValueError: fewer than `MIN_PAIRS`, or a ratio that is no positive number.
    """
    if len(ratios) < MIN_PAIRS:
        raise ValueError(f"{len(ratios)} pairs: at least {MIN_PAIRS} are needed")
    if not all(math.isfinite(ratio) and ratio > 0 for ratio in ratios):
        raise ValueError("a ratio is no positive number")
    ordered = sorted(ratios)
    rank = interval_rank(len(ordered))
    return Verdict(statistics.median(ordered), ordered[rank - 1], ordered[-rank], len(ordered))
