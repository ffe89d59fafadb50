"""How scores of several runs are summed up: the interquartile mean and its bootstrap interval.

As in Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice", and their library
rliable: what is resampled are runs, within each task by itself. No TensorFlow in here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

REPEATS = 50_000  # resamplings
CONFIDENCE = 0.95


def iqm(scores: np.ndarray) -> np.ndarray:
    """The mean of the middle half of the scores [..., K], [...]: a quarter, rounded down, is cut off at either end."""
    scores = np.sort(np.asarray(scores, np.float64), axis=-1)
    cut = scores.shape[-1] // 4
    return scores[..., cut : scores.shape[-1] - cut].mean(axis=-1)


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """The 95% interval of the interquartile mean of the scores [K] of one task, by percentiles of resampled ones.

    Of one score it is that score: one run tells nothing of others.
    """
    values = np.asarray(scores, np.float64)
    draws = _numbers(REPEATS * len(values)).reshape(REPEATS, -1) % np.uint64(len(values))
    tails = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(iqm(values[draws]), [tails, 100 - tails])
    return float(low), float(high)


def _numbers(count: int) -> np.ndarray:
    """The first numbers of SplitMix64 from state 0, [count] uint64: the generator of `tfdqn.seeds`, always the same."""
    word = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        word = (word ^ word >> np.uint64(shift)) * np.uint64(factor)
    return word ^ word >> np.uint64(31)
