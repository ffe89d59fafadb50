"""What a run with A2C reports of its updates."""

from __future__ import annotations

from tfdqn.metric import Metric

CAUSES = ("the advantage", "the loss", "the gradient")  # of weights that are no longer finite

METRICS = (
    Metric("train/loss", "mean", "what is minimised: the three parts, weighted", over="updates"),
    Metric("train/policy_loss", "mean", "minus the log-probability of actions times their advantage", over="updates"),
    Metric("train/value_loss", "mean", "half the squared error of the value", over="updates"),
    Metric("train/entropy", "mean", "of the policy, in nats; 0 where it is certain", over="updates", unit="nats"),
    Metric("train/mean_value", "mean", "V(s), averaged over the round", over="updates", unit="return"),
    Metric("train/gradient_norm", "mean", "global norm of the gradient, before clipping", over="updates"),
)
