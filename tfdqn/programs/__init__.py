"""What is compiled: collecting and learning, evaluation, and what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfdqn import population, replicas

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.envs import Environment
    from tfdqn.programs.evaluation import Evaluator
    from tfdqn.programs.several import SeveralTrainers
    from tfdqn.programs.training import Trainer


def trainer_of(env: Environment, config: Config) -> type[Trainer | SeveralTrainers]:
    """What trains on a game: all of it in one program, or on each of several devices, or around a game on the host."""
    if replicas.is_one(config):
        if population.is_one(config):
            from tfdqn.programs.spread import SpreadTrainer

            return SpreadTrainer
        from tfdqn.programs.replicated import ReplicaTrainer

        return ReplicaTrainer
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
