"""What a run's program counts: sums for the log, the reports they are closed into, and numbers that are not finite."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn.metric import Metric

MAX_REPORTS = 64  # of one chunk; it ends when it has as many
SHARED_BIT = 61  # of an int64, without its sign

ROLLOUT = (
    Metric("rollout/epsilon", "latest", "the share of random actions, the mean over the environments"),
    Metric("rollout/episodes", "total", "training episodes that ended and began at the game's own start"),
    Metric(
        "rollout/score",
        "mean",
        "score of these episodes (not of those of `--start-curriculum` or of practice); they explore",
        over="episodes",
        unit="score",
    ),
    Metric("rollout/episode_frames", "mean", "their length", over="episodes", unit="frames"),
)

_COUNTS = ("episodes", "episode_frames", "updates")  # int64, as what is in `_FOUND`; all else is float32
# By the guard, since the run began: updates that met a number that is not finite; the first of them (the first is 1), 0
# for none; and as bits which tensors of `Trainer.guarded` were not finite in that update.
_FOUND = ("non_finite_updates", "first_non_finite_update", "non_finite_tensors")


@functools.cache
def sums_of(learner: tuple[Metric, ...]) -> type:
    """The type of the sums of a learner that reports such metrics: see `Metrics`, of which it is a kind."""
    names = ("episodes", "score", "episode_frames", "updates", *(metric.name for metric in learner), *_FOUND)
    return type("Metrics", (Metrics, NamedTuple("Sums", [(name, tf.Tensor) for name in names])), {"learner": learner})


class Metrics:
    """Sums since the last report, or the largest value of what is reported so, and what the guard found.

    A field is named as what is reported of it, and `updates` counts those. All are scalars in the carry, [R] in
    `Reports`; of a population of P, [P] and [R, P].

    Attributes:
      learner: what the learner reports of an update.
    """

    __slots__ = ()
    learner: tuple[Metric, ...] = ()

    @classmethod
    def reported(cls) -> tuple[Metric, ...]:
        """All that is reported of training."""
        return (*ROLLOUT, *cls.learner)

    @classmethod
    def largest(cls) -> tuple[str, ...]:
        return tuple(metric.name for metric in cls.learner if metric.reduction == "max")

    @classmethod
    def zeros(cls, shape: Sequence[int] = ()) -> Metrics:
        zeros = {name: tf.zeros(shape, tf.int64 if name in (*_COUNTS, *_FOUND) else tf.float32) for name in cls._fields}
        return cls(**zeros | {name: tf.constant(-math.inf, shape=shape) for name in cls.largest()})

    def restarted(self) -> Metrics:
        """Sums that begin anew after a report; what the guard has found stays."""
        return self.zeros(self.updates.shape)._replace(**{name: getattr(self, name) for name in _FOUND})

    def with_update(self, values: Mapping[str, tf.Tensor]) -> Metrics:
        """With one update more, of which the learner reports `values`, [] float32 by name."""
        largest = self.largest()
        taken = {
            name: tf.maximum(getattr(self, name), value) if name in largest else getattr(self, name) + value
            for name, value in values.items()
        }
        return self._replace(updates=self.updates + 1, **taken)

    @classmethod
    def merged(cls, parts: Sequence[Metrics]) -> Metrics:
        """On the host: what several trainers of one run have come to, as if it were one's."""
        held = [type(part)(*(np.asarray(value) for value in part)) for part in parts]
        broken = [part for part in held if part.non_finite_tensors]
        first = min(broken, key=lambda part: part.first_non_finite_update, default=held[0])
        largest = cls.largest()
        merged = {
            name: np.max(values) if name in largest else np.sum(values, dtype=values[0].dtype)
            for name in cls._fields
            for values in [[getattr(part, name) for part in held]]
        }
        return cls(**merged | {name: getattr(first, name) for name in _FOUND[1:]})

    def values(self, epsilon: float) -> dict[str, float]:
        """What one report says, by tag, on the host; a mean over nothing is left out."""
        sums = {name: np.asarray(value).item() for name, value in self._asdict().items()} | {"epsilon": epsilon}
        values = {}
        for metric in self.reported():
            value, count = sums[metric.name], sums.get(metric.over)
            if count != 0:
                values[metric.tag] = value / count if metric.reduction == "mean" else value
        return values


class Reports(NamedTuple):
    """The reports that fell due within a chunk: the first `count` of R = MAX_REPORTS rows of each [R] field."""

    next_env_frames: tf.Tensor  # [] int64, of the run, from which the next one is due
    count: tf.Tensor  # [] int32
    env_frames: tf.Tensor  # [R] int64, of the run; of a population [R, P], as the metrics are
    updates: tf.Tensor  # [R] int64, of the run
    metrics: Metrics  # of [R] each

    @classmethod
    def none(cls, next_env_frames: tf.Tensor, sums: type[Metrics], shape: Sequence[int] = ()) -> Reports:
        """Before the first one, of metrics of the type `sums` and, each, of that shape."""
        metrics = tf.nest.map_structure(
            lambda value: tf.tile(value[tf.newaxis], [MAX_REPORTS] + [1] * len(shape)), sums.zeros(shape)
        )
        frames, updates = tf.zeros([MAX_REPORTS, *shape], tf.int64), tf.zeros([MAX_REPORTS], tf.int64)
        return cls(next_env_frames, tf.zeros([], tf.int32), frames, updates, metrics)

    def close_if_due(
        self, env_frames: tf.Tensor, updates: tf.Tensor, metrics: Metrics, period: int, least: tf.Tensor | None = None
    ) -> tuple[Reports, Metrics]:
        """Once the next report is due, add it and begin the sums anew; the one after is due at a multiple of `period`.

        Args:
          env_frames, updates: [] int64, of the run so far; of a population, frames [P].
          metrics: sums since the last report.
          period: env frames.
          least: [] int64, the frames of the member that has played least, if there are several.
        """
        least = env_frames if least is None else least
        is_due = least >= self.next_env_frames
        is_place = (tf.range(MAX_REPORTS) == self.count) & is_due
        held = (self.env_frames, self.updates, self.metrics)
        rows = tf.nest.map_structure(
            lambda value, row: tf.where(tf.reshape(is_place, [-1] + [1] * (row.shape.rank - 1)), value, row),
            (env_frames, updates, metrics),
            held,
        )
        after = (least // period + 1) * period
        reports = Reports(tf.where(is_due, after, self.next_env_frames), self.count + tf.cast(is_due, tf.int32), *rows)
        sums = tf.nest.map_structure(lambda new, old: tf.where(is_due, new, old), metrics.restarted(), metrics)
        return reports, sums

    def rows(self) -> Iterator[tuple[int, int, Metrics]]:
        """Env frames, updates and the sums (NumPy's) of each, on the host."""
        held = tf.nest.map_structure(lambda value: value.numpy(), self)
        for i in range(int(held.count)):
            metrics = type(held.metrics)(*(value[i] for value in held.metrics))
            yield held.env_frames[i], int(held.updates[i]), metrics


def note_non_finite(metrics: Metrics, flags: tf.Tensor, update: tf.Tensor, count: int) -> Metrics:
    """Count an update if any of the flags [..., K] bool is set, and keep the first one's number and flags."""
    found = bits(flags)
    is_first = (found != 0) & (metrics.non_finite_tensors == 0)
    return metrics._replace(
        non_finite_updates=metrics.non_finite_updates + tf.where(found != 0, tf.constant(count, tf.int64), 0),
        first_non_finite_update=tf.where(is_first, update, metrics.first_non_finite_update),
        non_finite_tensors=tf.where(is_first, found, metrics.non_finite_tensors),
    )


def has_ended(metrics: Metrics) -> tf.Tensor:
    """Of a population, which members have met a number that is not finite, [P] bool.

    What such a one computes counts no more from then on in its games and its replay. The host clears it later, and how
    much later hangs on time; when something is due hangs on all members' frames.
    """
    return metrics.non_finite_tensors != 0


def bits(flags: tf.Tensor) -> tf.Tensor:
    """Flags [..., K] bool as one integer, [...] int64; all from the 62nd on share a bit."""
    places = tf.constant([2 ** min(i, SHARED_BIT) for i in range(flags.shape[-1])], tf.int64)
    return tf.reduce_sum(tf.where(flags, places, tf.zeros_like(places)), axis=-1)
