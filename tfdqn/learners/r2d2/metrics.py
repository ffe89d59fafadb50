"""What a run with R2D2 reports of its updates."""

from __future__ import annotations

from tfdqn.metric import Metric

CAUSES = ("the TD target", "the loss", "the gradient")  # of weights that are no longer finite

METRICS = (
    Metric(
        "train/loss",
        "mean",
        "half the squared TD error of the decisions learnt, with the importance weights of their windows",
        over="updates",
    ),
    Metric("train/td_error", "mean", "absolute TD error, of Q(s, a) minus its rescaled target", over="updates"),
    Metric("train/mean_q", "mean", "max_a Q(s, a), rescaled, averaged over the decisions learnt", over="updates"),
    Metric("train/max_q", "max", "the largest Q(s, a), rescaled, of the decisions learnt", over="updates"),
    Metric("train/gradient_norm", "mean", "global norm of the gradient, before clipping", over="updates"),
)
