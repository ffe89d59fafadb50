"""A member of a population, as a run knows it: its folder is as that of a run of one agent, without checkpoints.

RUN_DIR/members/03/
  config.toml      its configuration, as if it were trained alone
  metrics.jsonl    its reports, and as TensorBoard's events in train/ and eval/
  model.keras      its best agent by evaluation
  final.keras      its agent where training ended
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfdqn import population
from tfdqn.config import Config
from tfdqn.errors import UserError
from tfdqn.runs import checkpoints, run_config, statistics
from tfdqn.runs.progress import Player

if TYPE_CHECKING:
    import numpy as np

    from tfdqn.learners.base import Agent
    from tfdqn.runs.progress import RunState

FOLDER = "members"


BANDS = ("low", "high")  # of the mean, in TensorBoard


def folder_of(number: int) -> str:
    """A member's folder in its run's."""
    return f"{FOLDER}/{number:02d}"


def band_folder(name: str) -> str:
    """The folder of one of `BANDS`, likewise."""
    return f"band/{name}"


def report_folders(count: int) -> list[str]:
    """Where the reports of so many members lie, beside the run's folder itself."""
    return [*map(folder_of, range(count)), *map(band_folder, BANDS)]


class Member(Player):
    """One of a run's agents.

    Args:
      run: the run as it stands.
      number: from 0.
      config: what it would be trained by alone.

    Attributes:
      config: likewise, as it is now: some settings may change in training.
      begun: as it was at first.
    """

    def __init__(self, run: RunState, number: int, config: Config):
        super().__init__(config)
        self._run, self.number, self.place, self.begun = run, number, f"best/{number:02d}/", config

    @property
    def run_dir(self) -> Path:
        return self._run.run_dir / folder_of(self.number)

    @functools.cached_property
    def agent(self) -> Agent:
        """One of its own, to be saved, with an optimizer that has learnt nothing."""
        from tfdqn import learners
        from tfdqn.learners import optimizing

        # As it was at first: a file of its weights then follows from them alone.
        return optimizing.compiled(learners.build_agent(self.begun, self._run.trainer.env), self.begun)

    @property
    def env_frames(self) -> int:
        return int(self._run.carry.env_frames[self.number])

    def player_weights(self) -> list[np.ndarray]:
        with self._run.trainer.learner.player():
            return self._run.agent.weights_of(self.number)

    def describe(self, names: Sequence[str]) -> str:
        """What it is called, by the settings in which it differs from others."""
        told = ", ".join(f"{name} {shown(getattr(self.config, name))}" for name in names)
        return f"member {self.number} ({told})" if told else f"member {self.number}"


def shown(value: Any) -> str:
    """A setting's value for people, who need no more than six digits of one that was drawn."""
    return f"{value:g}" if isinstance(value, float) else str(value)


class Scored(NamedTuple):
    """What a member's best agent has reached, on draws by which nothing was chosen."""

    number: int
    config: Config
    score_mean: float


def table(scored: Sequence[Scored]) -> list[str]:
    """Lines for people: each setting with its interquartile mean over seeds, the best first."""
    names = [name for name in population.differences([each.config for each in scored]) if name != "seed"]
    groups: dict[tuple[Any, ...], list[Scored]] = {}
    for each in scored:
        groups.setdefault(tuple(getattr(each.config, name) for name in names), []).append(each)
    rows = [(*names, "seeds", "IQM", "95% of it", "least", "most")]
    order = sorted(groups.items(), key=lambda item: -statistics.iqm([each.score_mean for each in item[1]]))
    for values, group in order:
        means = [each.score_mean for each in group]
        low, high = statistics.interval(means)
        numbers = (f"{statistics.iqm(means):.2f}", f"{low:.2f} to {high:.2f}", f"{min(means):.2f}", f"{max(means):.2f}")
        rows.append((*map(shown, values), str(len(group)), *numbers))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]


def numbers_of(run_dir: Path) -> list[int]:
    """The members of a run by number; none of a run of one agent."""
    return sorted(int(path.name) for path in (run_dir / FOLDER).glob("*") if path.name.isdecimal() and path.is_dir())


def chosen(run_dir: Path, which: str) -> list[int]:
    """The members that `--member` names: a number, "best" by the evaluations in training, or "all".

    Raises:
      UserError: there are no members, or none of that name, or none was evaluated.
    """
    found = numbers_of(run_dir)
    if not found:
        raise UserError(f"--member {which}: {run_dir} holds no population; leave it out")
    if which == "all":
        return found
    if which == "best":
        return [_best_of(run_dir, found)]
    if not which.isdecimal() or int(which) not in found:
        raise UserError(f"--member {which}: must be best, all, or a number from 0 to {found[-1]}")
    return [int(which)]


def _best_of(run_dir: Path, found: Sequence[int]) -> int:
    held = checkpoints.peek(run_dir).get("members", [])
    if not held:
        raise UserError(f"{run_dir}: has no checkpoint, which tells how good its members are; name one, as --member 0")
    try:
        scores = {number: float(held[number]["best_score"]) for number in found if _is_scored(held[number])}
    except (TypeError, ValueError, KeyError, IndexError):
        raise UserError(f"{run_dir}: its checkpoint does not tell how good its members are") from None
    if not scores:
        raise UserError(f"{run_dir}: no member was evaluated yet; name one, as --member 0, with --model final")
    return max(scores, key=lambda number: scores[number])


def _is_scored(progress: dict[str, Any]) -> bool:
    return progress["best_score"] is not None and not progress.get("diverged_update")


def best_folder(run_dir: Path) -> Path:
    """The folder of a run's best agent: its own, or its best member's."""
    found = numbers_of(run_dir)
    return run_dir / folder_of(_best_of(run_dir, found)) if found else run_dir


def whole_of(folder: Path) -> Path | None:
    """The run's folder of which this one is a member's; None if it is none."""
    members = folder.resolve().parent
    return members.parent if members.name == FOLDER and numbers_of(members.parent) else None


def settings_of(run_dir: Path, number: int) -> Path:
    """A member's folder, which holds its settings."""
    folder = run_dir / folder_of(number)
    if not (folder / run_config.CONFIG_FILE).is_file():
        raise UserError(f"{folder}: not a member's folder ({run_config.CONFIG_FILE} is missing)")
    return folder
