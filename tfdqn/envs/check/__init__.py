"""The contract of games, checked: `check_env(env)` plays a game and says what it does not keep, and what to change.

Two things are played at random: a few moves op by op, each of which is then made again in other ways (compiled, in
another order, with fewer environments) and must come out the same; and some thousand frames in one compiled loop, of
which totals are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tfdqn.envs import Environment
from tfdqn.envs.check import episodes, forms, purity
from tfdqn.envs.check.faults import Fault, Unseen, raised
from tfdqn.envs.check.playing import Game
from tfdqn.envs.check.purity import MIN_ENVS


class Result(NamedTuple):
    """What one check found."""

    name: str
    verdict: str  # "ok", "FAIL", "info" (nothing to pass), or "skip" (another must pass first)
    message: str  # one line; "" where there is nothing to add

    @property
    def is_fault(self) -> bool:
        return self.verdict == "FAIL"

    def __str__(self) -> str:
        return f"{self.verdict:4} {self.name}" + (f": {self.message}" if self.message else "")


def check_env(env: Environment, num_envs: int = 16, steps: int = 32, seed: int = 0) -> list[Result]:
    """Check that a game keeps its contract.

    Args:
      env: the game.
      num_envs: N, environments to play.
      steps: moves of each that are compared between the ways of making them.
      seed: of all draws.

    Returns:
      A result for each check, in a fixed order. The game keeps the contract if none of them `is_fault`.

    Raises:
      ValueError: fewer environments than `MIN_ENVS`, or no step.
    """
    return list(results_of(env, num_envs, steps, seed))


def results_of(env: Environment, num_envs: int = 16, steps: int = 32, seed: int = 0) -> Iterator[Result]:
    """The results of `check_env`, each as soon as it is there: those that compile nothing come first."""
    if num_envs < MIN_ENVS or steps < 1:
        raise ValueError(f"check_env needs at least {MIN_ENVS} environments and 1 step, got {num_envs} and {steps}")
    game = Game(env, num_envs, steps, seed)
    passed: set[str] = set()
    for check in CHECKS:
        if missing := [need for need in check.needs if need not in passed]:
            yield Result(check.name, "skip", f"{missing[0]} must pass first")
            continue
        try:
            told = check.function(game)
        except Fault as fault:
            yield Result(check.name, "FAIL", " ".join(str(fault).split()))
        except Exception as error:  # the game's
            yield Result(check.name, "FAIL", raised(error))
        else:
            passed.add(check.name)
            verdict = "info" if check.is_info or isinstance(told, Unseen) else "ok"
            yield Result(check.name, verdict, str(told or ""))


class _Check(NamedTuple):
    name: str
    function: Callable[[Game], Any]
    needs: tuple[str, ...] = ()
    is_info: bool = False


_PLAYS = ("step",)
_SHOWN = ("observation", "reward", "flags", "score", "legal actions", "compiles")
CHECKS = (
    _Check("description", forms.description),
    _Check("noise", forms.noise, ("description",)),
    _Check("reset", forms.reset, ("noise",)),
    _Check("step", forms.step, ("reset",)),
    _Check("observation", forms.observation, _PLAYS),
    _Check("reward", forms.reward, _PLAYS),
    _Check("flags", forms.flags, _PLAYS),
    _Check("score", forms.score, (*_PLAYS, "reward", "flags")),
    _Check("legal actions", forms.legal_actions, _PLAYS),
    _Check("actions", purity.actions, _PLAYS),
    _Check("observe", purity.observe, (*_PLAYS, "observation")),
    _Check("repeated calls", purity.repeatable, _PLAYS),
    _Check("order of calls", purity.order, (*_PLAYS, "repeated calls")),
    _Check("number of environments", purity.environments, (*_PLAYS, "repeated calls")),
    _Check("second trace", purity.traces, _PLAYS),
    _Check("compiles", purity.compiles, (*_PLAYS, "observation", "reward", "flags", "score", "legal actions")),
    _Check("eager and XLA", purity.xla, ("compiles", "repeated calls", "order of calls", "second trace")),
    _Check("observation range", episodes.in_range, _SHOWN),
    _Check("finite rewards", episodes.finite_rewards, _SHOWN),
    _Check("one end", episodes.one_end, _SHOWN),
    _Check("episodes end", episodes.episodes_end, _SHOWN),
    _Check("time limit", episodes.time_limit, (*_SHOWN, "one end", "episodes end")),
    _Check("best score", episodes.best_score, _SHOWN),
    _Check("difficulties", episodes.difficulties, ("step", "repeated calls")),
    _Check("render", forms.render, ("observation",)),
    _Check("random play", episodes.random_play, _SHOWN, is_info=True),
    _Check("speed", episodes.speed, _SHOWN, is_info=True),
)
