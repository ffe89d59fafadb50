"""What a run with PQN reports of its updates."""

from __future__ import annotations

from tfdqn.metric import Metric

CAUSES = ("the lambda return", "the loss", "the gradient")  # of weights that are no longer finite

METRICS = (
    Metric("train/loss", "mean", "half the squared TD error", over="updates"),
    Metric("train/td_error", "mean", "absolute TD error, of Q(s, a) minus its target", over="updates", unit="return"),
    Metric("train/mean_q", "mean", "max_a Q(s, a), averaged over the decisions learnt", over="updates", unit="return"),
    Metric("train/max_q", "max", "the largest Q(s, a) of the decisions learnt", over="updates", unit="return"),
    Metric("train/gradient_norm", "mean", "global norm of the gradient, before clipping", over="updates"),
)
