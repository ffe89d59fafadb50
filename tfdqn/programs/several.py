"""One run on several devices, each of which has a `Trainer` of its own: what is common to all ways of sharing a run.

They go on in step, and after so many rounds the host looks at what is due. As these are the same however long a chunk
is, no result depends on time.
"""

from __future__ import annotations

import abc
import functools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn.config import Config
from tfdqn.envs import Environment, make_for
from tfdqn.learners.metrics import MAX_REPORTS, Metrics
from tfdqn.programs.training import NEVER, Carry, Trainer
from tfdqn.runtime import hosts


class Together:
    """A carry for each trainer of this process, and of the whole run what its host asks of one.

    Attributes:
      env_frames: int64, as of the carry of a trainer of all.
    """

    __slots__ = ()

    @property
    def each(self) -> Sequence[Carry]:
        return self[1:]

    @property
    def iteration(self) -> tf.Tensor:
        return self.each[0].iteration


@functools.cache
def carry_type(kind: type[Together], names: tuple[str, ...]) -> type:
    """The type of carries so named, which is of a kind."""
    fields = NamedTuple("Carries", [("env_frames", tf.Tensor), *((name, Carry) for name in names)])
    return type(kind.__name__, (kind, fields), {"__slots__": ()})


class Closed(NamedTuple):
    """The reports of some rounds, as `tfdqn.learners.metrics.Reports` gives those of a chunk."""

    next_env_frames: int
    closed: Sequence[tuple[Any, int, Metrics]]

    def rows(self) -> Iterator[tuple[Any, int, Metrics]]:
        return iter(self.closed)


class SeveralTrainers(abc.ABC):
    """Trains by a run's configuration on as many devices as there are replicas; the calls mean what `Trainer`'s do.

    Args:
      config: the run's.
      device: the first, such as "/GPU:0"; the others have the next numbers.
      count: of devices.
      env: a game of one's own, in place of the one that the configuration names.

    Attributes:
      trainers: one for each device.
    """

    def __init__(self, config: Config, device: str, count: int, env: Environment | None):
        self.env = make_for(config) if env is None else env
        kind, _, number = device.rpartition(":")
        self.devices = [f"{kind}:{int(number) + place}" for place in range(count)]
        # What a device decides by how long it takes, one decides for all: a resumed run has one setting for all, too.
        us = hosts.here()
        made = [self.make_trainer(config, 0)] if us.is_chief else []
        chosen = us.from_chief("".join(each.config.convolution for each in made))
        self.config = config.replace(convolution=chosen)
        self.trainers = made + [self.make_trainer(self.config, place) for place in range(len(made), count)]
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="replica")

    @abc.abstractmethod
    def make_trainer(self, config: Config, place: int) -> Trainer:
        """The one for `devices[place]`."""

    @abc.abstractmethod
    def rounds_to_look(self, env_frames: int, most: int) -> int:
        """Rounds to play before the next look.

        Args:
          env_frames: after which something is due.
          most: rounds that are left of the chunk.
        """

    @abc.abstractmethod
    def look(self, carries: Sequence[Carry]) -> np.ndarray:
        """Do what is due between rounds; the run's env frames, int64."""

    @abc.abstractmethod
    def seen(self, carries: Sequence[Carry]) -> Metrics:
        """What the run had counted at the last look, NumPy's."""

    def begin(self) -> None:  # noqa: B027 (most have nothing to do)
        """Do what is due before a chunk."""

    def compile(self, carries: Sequence[Carry]) -> list[Carry]:
        """Compile all programs; nothing is played."""
        return [trainer.run_chunk(each, 0, 0) for trainer, each in zip(self.trainers, carries, strict=True)]

    @property
    def agent(self) -> Any:
        return self.learner.agent

    @property
    def replay(self) -> Shards | None:
        return self.learner.replay

    @property
    def guarded(self) -> list[str]:
        return self.trainers[0].guarded

    def run_chunk(self, carry: Together, max_rounds: int, stop_env_frames: int) -> Together:
        return self.run_reporting_chunk(carry, max_rounds, stop_env_frames, NEVER)[0]

    def run_reporting_chunk(
        self, carry: Together, max_rounds: int, stop_env_frames: int, next_report: int
    ) -> tuple[Together, Closed]:
        """As of `Trainer`, but that it closes reports, and stops, where the host looks."""
        if not max_rounds:
            return type(carry)(carry.env_frames, *self.compile(carry.each)), Closed(next_report, ())
        self.begin()
        done, closed, least = 0, [], int(np.min(carry.env_frames))
        while done < max_rounds and least < stop_env_frames and len(closed) < MAX_REPORTS:
            rounds = self.rounds_to_look(min(stop_env_frames, next_report) - least, max_rounds - done)
            carries = list(self._threads.map(functools.partial(self._go_on, rounds), self.trainers, carry.each))
            done, frames = done + rounds, self.look(carries)
            least = int(frames.min())
            if least >= next_report:
                closed.append((frames, int(self.agent.optimizer.iterations), self.seen(carries)))
                next_report = (least // self.config.log_every_frames + 1) * self.config.log_every_frames
                carries = [each._replace(metrics=each.metrics.restarted()) for each in carries]
            carry = type(carry)(tf.constant(frames), *carries)
        return carry, Closed(next_report, closed)

    def _go_on(self, rounds: int, trainer: Trainer, carry: Carry) -> Carry:
        """One device's part, in its own thread; once it is done."""
        carry = trainer.run_chunk(carry, rounds, NEVER)
        carry.env_frames.numpy()
        return carry


class Shards:
    """The replays of this process's trainers as one; `capacity` is that of all `num_hosts` processes together."""

    def __init__(self, replays: Sequence[Any], num_hosts: int = 1):
        self._replays, self._num_hosts = replays, num_hosts

    @property
    def capacity(self) -> int:
        return self._num_hosts * sum(each.capacity for each in self._replays)

    @property
    def num_envs(self) -> int:
        return sum(each.num_envs for each in self._replays)

    @property
    def num_rows(self) -> int:
        return sum(int(each.num_rows) for each in self._replays)

    def continue_from(self, updates: int) -> None:
        for each in self._replays:
            each.continue_from(updates)
