"""What one update of DQN shows, and what of it a run reports."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdqn.metric import Metric

CAUSES = ("the TD target", "the loss", "the gradient")  # of weights that are no longer finite

METRICS = (
    Metric(
        "train/loss",
        "mean",
        "Huber loss (or half the square) of the TD error, the cross-entropy of a categorical head, or the quantile "
        "Huber loss; averaged over the batch with the importance weights of prioritized replay, and over the ensemble "
        "of `--members`",
        over="updates",
    ),
    Metric("train/td_error", "mean", "absolute TD error, of Q(s, a) minus its target", over="updates", unit="return"),
    Metric("train/mean_q", "mean", "max_a Q(s, a), averaged over the batch", over="updates", unit="return"),
    Metric("train/max_q", "max", "the largest Q(s, a) of the batch", over="updates", unit="return"),
    Metric("train/gradient_norm", "mean", "global norm of the gradient, before clipping", over="updates"),
)
GRADIENTS = Metric(
    "train/gradients",
    "histogram",
    "the loss's gradient by every weight, before clipping, on a batch drawn for this alone (`--gradients-every-evals`)",
    over="weights",
)


class LearnResult(NamedTuple):
    """What one update shows; scalars are means over the batch unless said otherwise, [P] of a population."""

    loss: tf.Tensor  # [] float32, weighted mean, also over the members of the network
    td_error: tf.Tensor  # [B] float32, Q(s, a) minus the target
    td_error_size: tf.Tensor  # [] float32, mean of its absolute value
    mean_q: tf.Tensor  # [] float32, mean over the batch of max_a Q(s, a)
    max_q: tf.Tensor  # [] float32, largest Q(s, a) of the batch, of legal actions only as above
    gradient_norm: tf.Tensor  # [] float32, global norm before clipping
    is_finite: tf.Tensor  # [..., len(CAUSES)] bool; targets and gradients whose squares overflow, beyond 1e19, are not

    def reported(self) -> dict[str, tf.Tensor]:
        """The values of this update of `METRICS`, by name, [] float32."""
        values = {metric.name: getattr(self, metric.name) for metric in METRICS}
        return {**values, "td_error": self.td_error_size}
