"""Population based training: which members take over whose agent, and how their settings change then.

Exploit is truncation selection: each of the worst fifth takes over one of the best fifth, drawn at random, with its
settings. Explore is perturbation: each of these settings is then multiplied by 0.8 or 1.2, at random (Jaderberg et al.
2017, "Population based training of neural networks", arXiv:1711.09846, section 4.1). Here is what is decided, on the
host; `tfdqn.programs.selection` does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tfdqn import config as configuration
from tfdqn import population
from tfdqn.config import Config
from tfdqn.errors import UserError
from tfdqn.metric import Metric

ONE_OF = 5  # each fifth: the paper's 20%
FACTORS = (0.8, 1.2)
# Settings of which the distance from 1 is multiplied: 0.8 times 0.99 would be no neighbour of it.
_FROM_ONE = ("discount",)
PARENT = Metric("pbt/parent", "latest", "number of the member whose agent this one has taken over")


class Heir(NamedTuple):
    """A member that takes over another's agent."""

    number: int
    parent: int
    config: Config  # with which it goes on


def metrics(config: Config) -> tuple[Metric, ...]:
    """What a run that selects reports of each member."""
    names = population.tuned(config)
    told = [Metric(tag_of(name), "latest", f"{name} of this member now; {_help_of(name)}") for name in names]
    return (*told, PARENT) if told else ()


def tag_of(name: str) -> str:
    """A setting's tag in reports."""
    return f"pbt/{name}"


def _help_of(name: str) -> str:
    return configuration.FIELDS[name].metadata["help"]


def heirs(
    configs: Sequence[Config], names: Sequence[str], scores: Mapping[int, float], draws: np.ndarray
) -> list[Heir]:
    """Who takes over whose agent.

    A member that is as good as the one it has drawn keeps its own: where all are perfect, nothing is to be gained.

    Args:
      configs: of all P members, as they are now.
      names: of the T settings that change.
      scores: of those that have not diverged, by number; the others are the worst.
      draws: [P, 1 + T] whole numbers: whom each takes, if it is to, and how its settings change.
    """
    alive = sorted(scores, key=lambda number: (-scores[number], number))
    ended = [number for number in range(len(configs)) if number not in scores]
    part = max(len(configs) // ONE_OF, 1)
    best, worst = alive[:part], (alive + ended)[-max(part, len(ended)) :]
    found = []
    for number in sorted(worst):
        parent = best[int(draws[number, 0]) % len(best)]
        if scores.get(number, -math.inf) < scores[parent]:
            config = perturbed(configs[parent], names, [FACTORS[int(draw) % 2] for draw in draws[number, 1:]])
            found.append(Heir(number, parent, _with_own(config, configs[number])))
    return found


def _with_own(config: Config, own: Config) -> Config:
    return config.replace(**{name: getattr(own, name) for name in population.OWN})


def perturbed(config: Config, names: Sequence[str], factors: Sequence[float]) -> Config:
    """The same with settings multiplied by those factors, as far as they may go.

    A whole number moves by one at least; of the discount the distance from 1 is multiplied. Where two settings do not
    fit together any more one moves to the other, such as the last learning rate to the first.
    """
    values = {name: _moved(name, getattr(config, name), by) for name, by in zip(names, factors, strict=True)}
    others = [name for name in configuration.plain(config) if name not in names]
    moved = configuration.fitted(config.replace(**values), others)
    try:
        configuration.check(moved)
    except UserError:
        return config
    return moved


def _moved(name: str, value: Any, factor: float) -> Any:
    limits = configuration.FIELDS[name].metadata
    if name in _FROM_ONE:
        moved = 1 - (1 - value) * factor
    elif isinstance(value, int):
        moved = math.ceil(value * factor) if factor > 1 else math.floor(value * factor)
    else:
        moved = value * factor
    low, high = (limits[bound] for bound in ("low", "high"))
    moved = moved if high is None else min(moved, type(value)(high))
    return moved if low is None else max(moved, type(value)(low))
