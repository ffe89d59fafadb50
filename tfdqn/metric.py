"""What a run reports, one value a metric: the code that reports it declares it, and all else follows from that.

The sums that a program keeps, `metrics.jsonl`, TensorBoard's descriptions and `docs/metrics.md` follow. Nothing here
imports TensorFlow.
"""

from __future__ import annotations

import dataclasses

# How the values of a time become the one that is reported.
REDUCTIONS = ("mean", "std", "median", "min", "max", "total", "latest", "histogram", "pictures")


@dataclasses.dataclass(frozen=True)
class Metric:
    """What one tag of a run's reports means.

    Args:
      tag: its name in TensorBoard and `metrics.jsonl`, such as "train/loss".
      reduction: one of `REDUCTIONS`.
      help: one line without a full stop, for TensorBoard and the page of metrics.
      over: what is reduced over, such as "updates"; "" where there is nothing to reduce.
      unit: "" where it has none.

    Raises:
      ValueError: no such reduction, or a tag without a group.
    """

    tag: str
    reduction: str
    help: str
    over: str = ""
    unit: str = ""

    def __post_init__(self):
        if self.reduction not in REDUCTIONS:
            raise ValueError(f"{self.tag}: reduction {self.reduction!r} must be one of {', '.join(REDUCTIONS)}")
        if self.tag.count("/") != 1:
            raise ValueError(f"{self.tag}: must be group/name")

    @property
    def name(self) -> str:
        """The tag without its group."""
        return self.tag.partition("/")[2]
