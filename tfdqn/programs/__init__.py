"""What is compiled: collecting and learning, evaluation, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfdqn.envs import Environment
    from tfdqn.programs.evaluation import Evaluator
    from tfdqn.programs.training import Trainer


def trainer_of(env: Environment) -> type[Trainer]:
    """What trains on a game: all of it in one program, or around a game that steps on the host."""
    if env.steps_on_host:
        from tfdqn.programs.host import HostTrainer

        return HostTrainer
    from tfdqn.programs.training import Trainer

    return Trainer


def evaluator_of(env: Environment) -> type[Evaluator]:
    """What plays its episodes, likewise."""
    if env.steps_on_host:
        from tfdqn.programs.host import HostEvaluator

        return HostEvaluator
    from tfdqn.programs.evaluation import Evaluator

    return Evaluator
