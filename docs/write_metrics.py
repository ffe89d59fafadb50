"""Writes docs/metrics.md from the code: `python docs/write_metrics.py`. A test holds the page current."""

from __future__ import annotations

from pathlib import Path

from write_settings import table

from tfdqn import learners
from tfdqn.metric import Metric
from tfdqn.runs.monitor import reported

DEFAULT = next(iter(learners.LEARNERS))
PAGE = Path(__file__).with_name("metrics.md")
HEAD = """\
# Metrics

All are written to TensorBoard with the run's env frames as the x axis, and to `metrics.jsonl`, pictures and histograms
excepted. Each line there begins with `env_frames`, `updates` and `wall_seconds`, the time since the command began plus
that of the processes before it if the run was resumed. What is reduced is what happened since the last report, or the
episodes of an evaluation; a mean over nothing is left out. Reports that fall due in one chunk of the program share its
seconds in proportion to their frames. [Runs with `--pbt`](populations.md#population-based-training) have a
few more. This page is written by `docs/write_metrics.py`.
"""
TITLES = {  # of a tag's group
    "rollout": "Training episodes",
    "train": "Updates",
    "eval": "Evaluations",
    "speed": "Speed",
}
NOTES = {
    "eval": """
An evaluation plays the first episode of each of `eval_episodes` environments. Their random numbers are always the same
and never used in training: an episode's follow from the seed and its number alone. Episodes are cut after
`eval_max_frames` (1,000 in the cave's preset); whenever the mean length exceeds a third of that, or what was cut off
could change which agent is the best, it doubles, and both the agent and the best one so far play again. The last
evaluation of a command plays to the game's time limit.
"""
}
REST = """\
## The JSON object of `--json`

It is the last line of standard output. `wall_seconds` counts from the start of the process, over all processes of a
resumed run. `env_frames_per_second` and `updates_per_second` are over `train_seconds`, which has no compiling
and no evaluation in it. The score fields are of the best agent, on random numbers used for nothing else.

## Profiles

`--profile 100` writes a trace of 100 iterations, each operation by its name, to `plugins/profile/` in the run's folder.
TensorBoard shows it where its profile plugin (`xprof`) is installed.

## Terms

| term | meaning |
|---|---|
| env frame | one frame of one environment |
| decision | one choice of an action, held for `--action-repeat` frames; `--discount` and `--n-step` count decisions |
| iteration | one decision of all N environments |
| update | one step of the optimizer on one batch |
| observation | the newest frame and, with `--frame-stack`, frames before it: `[H, W, stack]` uint8 |
| transition | observation, action, rewards of n decisions, discount, and the observation that is bootstrapped from |
| terminated | ended by the rules: nothing follows, the discount is 0 |
| truncated | ended by a time limit: the learner bootstraps from the last observation |
| chunk | what one call of the compiled program computes; results do not depend on its length |
"""


def row(metric: Metric) -> tuple[str, ...]:
    """A metric's line of its table."""
    reduction = f"{metric.reduction} over {metric.over}" if metric.over else metric.reduction
    return f"`{metric.tag}`", metric.unit, reduction, metric.help


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for group, title in TITLES.items():
        # Updates are a learner's own; all else is the same with each.
        for learner in learners.LEARNERS if group == "train" else [DEFAULT]:
            found = [metric for metric in reported(learner).values() if metric.tag.startswith(f"{group}/")]
            heading = f"{title} (`--learner {learner}`)" if group == "train" else title
            lines = table(("tag", "unit", "reduction", "meaning"), [row(metric) for metric in found])
            parts.append(f"## {heading}\n\n" + lines + NOTES.get(group, ""))
    return "\n".join([*parts, REST])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
