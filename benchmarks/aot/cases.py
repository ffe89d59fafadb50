"""Which programs are compiled: each game's presets and learners, with a GPU's sizes. No TensorFlow here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tfdqn import learners
from tfdqn.envs import registry
from tfdqn.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Case:
    """A game, a preset of it, what learns, and how many agents of it."""

    env: str
    preset: str
    learner: str
    population: int = 1

    @property
    def who(self) -> str:
        """What learns, such as "pqn" or "dqn, population 16"."""
        return self.learner if self.population == 1 else f"{self.learner}, population {self.population}"

    @property
    def name(self) -> str:
        """Such as "cave/default/pqn", or "catch8/population/dqn"; what `--case` selects by, in whole parts."""
        return f"{self.env}/{self.preset if self.population == 1 else 'population'}/{self.learner}"


POPULATIONS = [Case("catch8", "default", learner, population=16) for learner in learners.LEARNERS]


def all_cases() -> list[Case]:
    """Every learner with its default preset of a game, the game's other presets with the learner they choose, and a
    population of every learner."""
    found = []
    for game in registry.games():
        found += [Case(game.name, "default", learner) for learner in learners.LEARNERS]
        for preset, values in game.presets.items():
            # One that has a learner's name is what that learner's default preset is.
            if preset != "default" and preset not in learners.LEARNERS:
                found.append(Case(game.name, preset, values.get("learner", "dqn")))
    return [*found, *POPULATIONS]


def select(patterns: Sequence[str]) -> list[Case]:
    """The cases that patterns name by as many leading parts as wanted; all without patterns.

    Raises:
      UserError: a pattern that names nothing.
    """
    known = all_cases()
    chosen: dict[str, Case] = {}
    for pattern in patterns:
        parts = pattern.split("/")
        named = [case for case in known if case.name.split("/")[: len(parts)] == parts]
        if not named:
            words = [*dict.fromkeys(case.env for case in known), *(case.name for case in known)]
            hint = nearest(pattern, words)
            raise UserError(
                f"--case {pattern}: unknown; {hint if len(hint) < 100 else 'such as catch8 or cave/default/pqn'}"
            )
        chosen.update({case.name: case for case in named})
    return list(chosen.values()) if patterns else known
