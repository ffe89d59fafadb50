"""A population on several devices: each trains an equal part of the members, and nothing is exchanged.

Shapes: P members, R devices, each with P / R of them, the first ones on the first.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdqn import population
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.learners.base import Agent, Learner
from tfdqn.learners.metrics import Metrics
from tfdqn.programs.several import SeveralTrainers, Shards, Together, carry_type
from tfdqn.programs.training import Carry, Trainer


class Parts(Together):
    """Of parts of a population; `env_frames` is [P] int64."""

    __slots__ = ()

    @property
    def metrics(self) -> Metrics:
        """Of all members, [P] each."""
        return tf.nest.map_structure(tf.constant, joined(self.each))


def joined(carries: Sequence[Carry]) -> Metrics:
    """What all members have counted, NumPy's."""
    return tf.nest.map_structure(lambda *parts: np.concatenate([*parts]), *(carry.metrics for carry in carries))


class SpreadTrainer(SeveralTrainers):
    """Trains a population on several devices, as `Trainer` does on one; see `SeveralTrainers`."""

    def __init__(self, config: Config, device: str, env: Environment | None = None):
        super().__init__(config, device, config.replicas, env)
        self.learner = Learners([trainer.learner for trainer in self.trainers])
        self._most_frames = config.num_envs * self.learner.iterations_per_round * config.action_repeat

    def make_trainer(self, config, place):
        part = population.parts(config.replace(replicas=0), config.replicas)[place]
        return Trainer(part, self.devices[place], self.env)

    def initial_carry(self) -> Together:
        carries = [trainer.initial_carry() for trainer in self.trainers]
        names = tuple(f"part_{number}" for number in range(len(carries)))
        return carry_type(Parts, names)(tf.zeros([population.count(self.config)], tf.int64), *carries)

    def counted(self, carry: Together) -> Metrics:
        return joined(carry.each)

    def cleared(self, carry: Together, ended: np.ndarray) -> Together:
        pairs = zip(self.trainers, carry.each, np.split(ended, len(carry.each)), strict=True)
        return type(carry)(carry.env_frames, *(trainer.cleared(part, these) for trainer, part, these in pairs))

    def revived(self, carry: Together, members: np.ndarray) -> Together:
        pairs = zip(self.trainers, carry.each, np.split(members, len(carry.each)), strict=True)
        return type(carry)(carry.env_frames, *(trainer.revived(part, these) for trainer, part, these in pairs))

    def rounds_to_look(self, env_frames, most):
        # As no member plays more in a round, nothing is due before the last of these. They are fewer each time, as
        # resets play no frame, and at last one: so it is found due after the round after which it is.
        return max(min(-(-env_frames // self._most_frames), most), 1)

    def look(self, carries):
        return np.concatenate([carry.env_frames for carry in carries])

    def seen(self, carries):
        return joined(carries)


class Learners:
    """The learners of all parts as one: the first's, but for what each has of its own."""

    def __init__(self, learners: Sequence[Learner]):
        self._learners = learners
        self.agent = Agents([learner.agent for learner in learners])
        self.exploration = Explorations([learner.exploration for learner in learners])
        self.replay = None if learners[0].replay is None else Shards([learner.replay for learner in learners])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learners[0], name)

    @property
    def parts(self) -> Sequence[Learner]:
        return self._learners

    @property
    def variables(self) -> Mapping[str, tf.Variable]:
        return {
            f"{kind}/{number}/{rest}": variable
            for number, learner in enumerate(self._learners)
            for name, variable in learner.variables.items()
            for kind, _, rest in [name.partition("/")]
        }

    @contextlib.contextmanager
    def player(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for learner in self._learners:
                stack.enter_context(learner.player())
            yield

    def take_over(self, agent: Agent) -> None:
        for learner in self._learners:
            learner.take_over(agent)


class Agents:
    """The agents of all parts as one, likewise."""

    def __init__(self, agents: Sequence[Agent]):
        self._agents = agents

    def __getattr__(self, name: str) -> Any:
        return getattr(self._agents[0], name)

    def weights_of(self, number: int) -> list[np.ndarray]:
        """The weights of one member's network that plays, as those of an agent alone."""
        part, place = divmod(number, self._agents[0].count)
        return self._agents[part].weights_of(place)


class Explorations:
    """How all parts explore."""

    def __init__(self, parts: Sequence[Any]):
        self._parts = parts

    def epsilon_at(self, env_frames: tf.Tensor) -> tf.Tensor:
        """The mean share of random actions of each member [P] float32, after so many frames [P] int64."""
        each = zip(self._parts, tf.split(env_frames, len(self._parts)), strict=True)
        return tf.concat([part.epsilon_at(frames) for part, frames in each], axis=0)
