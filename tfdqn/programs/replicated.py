"""One run on several devices: each plays a part of its environments and learns from them, and they exchange.

Every replica is a whole `Trainer` on a device of its own, with its part of the environments, of the replay and of each
batch, and with its own copy of the agent and its optimizer (as in Hessel et al. 2021, "Podracer architectures",
section 2). They go on in step, `exchange_every_rounds` rounds at a time, between which the host looks at what is due,
and exchange: the gradients in each update (`collective`), or weights and slots at the end of those rounds (`average`;
local SGD, as McMahan et al. 2017, algorithm 1). As they only ever stop there, no result depends on time.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import replicas, seeds
from tfdqn.config import Config
from tfdqn.envs import Environment, make_for
from tfdqn.errors import UserError
from tfdqn.learners.base import Agent, Learner
from tfdqn.learners.metrics import MAX_REPORTS, Metrics
from tfdqn.programs.training import NEVER, Carry, Share, Trainer
from tfdqn.runtime import compiled, exchange, hosts, loops


@functools.cache
def carry_type(numbers: range) -> type:
    """The type of the carries of these replicas: see `Together`, of which it is a kind."""
    names = [f"replica_{number}" for number in numbers]
    fields = NamedTuple("Carries", [("env_frames", tf.Tensor), *((name, Carry) for name in names)])
    return type("Replicas", (Together, fields), {"__slots__": ()})


class Together:
    """A carry for each replica of this process, and of the whole run what its host asks of one.

    Attributes:
      env_frames: [] int64, of all replicas of all processes.
    """

    __slots__ = ()

    @property
    def each(self) -> Sequence[Carry]:
        return self[1:]

    @property
    def iteration(self) -> tf.Tensor:
        return self.each[0].iteration

    @property
    def metrics(self) -> Metrics:
        """Of this process's replicas."""
        return tf.nest.map_structure(tf.constant, merged(self.each))


def merged(carries: Sequence[Carry]) -> Metrics:
    """What several replicas have counted, NumPy's."""
    return type(carries[0].metrics).merged([carry.metrics for carry in carries])


class Closed(NamedTuple):
    """The reports of some rounds, as `tfdqn.learners.metrics.Reports` gives those of a chunk."""

    next_env_frames: int
    closed: Sequence[tuple[np.int64, int, Metrics]]

    def rows(self) -> Iterator[tuple[np.int64, int, Metrics]]:
        return iter(self.closed)


class ReplicaTrainer:
    """Trains by a run's configuration on as many devices as it has replicas.

    Each of the processes that make a run has as many. What it says of the agent is of its first replica's, which the
    others are made equal to when a chunk begins; the rest is as of `Trainer`.

    Args:
      config: the run's.
      device: the first replica's, such as "/GPU:0"; the others have those with the next numbers.
      env: a game of one's own, in place of the one that the configuration names.

    Attributes:
      is_broken: whether a replica of any process has met a number that is not finite.
    """

    def __init__(self, config: Config, device: str, env: Environment | None = None):
        self._hosts = hosts.here()
        if config.exchange == "collective" and config.jit and not config.eager:
            _refuse_under_xla(device, self._hosts)
        self.env = make_for(config) if env is None else env
        self.is_broken = False
        count = config.replicas // self._hosts.count
        self.numbers = range(self._hosts.rank * count, (self._hosts.rank + 1) * count)
        kind, _, first = device.rpartition(":")
        devices = [f"{kind}:{int(first) + place}" for place in range(count)]
        ends = exchange.ends(config.replicas, count) if config.exchange == "collective" else [None] * count
        places = zip(self.numbers, devices, ends, strict=True)
        self._trainers = [self._trainer(config, *place) for place in places]
        found = self._trainers[0].config
        self.config = config.replace(convolution=found.convolution)  # what the device decides
        self.learner = Learners(self.numbers, [trainer.learner for trainer in self._trainers])
        self._rounds = config.exchange_every_rounds
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="replica")
        self._programs = Weights(self.learner, config.eager)
        self._is_chiefs = False  # whether what is learnt is known to be the same in all processes

    def _trainer(self, config: Config, number: int, device: str, end: exchange.Exchange | None) -> Trainer:
        part = replicas.config_of(config)
        share = Share(config.seed, number * part.num_envs, config.replicas, end)
        if number:  # so that each draws for itself what it learns from
            part = part.replace(seed=seeds.stream(config.seed, "replica", number) % 2**31)
        return Trainer(part, device, self.env, share)

    @property
    def agent(self) -> Agent:
        return self.learner.agent

    @property
    def replay(self) -> Shards | None:
        return self.learner.replay

    @property
    def guarded(self) -> list[str]:
        return self._trainers[0].guarded

    def initial_carry(self) -> Together:
        carries = (trainer.initial_carry() for trainer in self._trainers)
        return carry_type(self.numbers)(tf.zeros([], tf.int64), *carries)

    def counted(self, carry: Together) -> Metrics:
        return self._of_all(merged(carry.each))

    def run_chunk(self, carry: Together, max_rounds: int, stop_env_frames: int) -> Together:
        return self.run_reporting_chunk(carry, max_rounds, stop_env_frames, NEVER)[0]

    def run_reporting_chunk(
        self, carry: Together, max_rounds: int, stop_env_frames: int, next_report: int
    ) -> tuple[Together, Closed]:
        """As of `Trainer`, but that what is played between two exchanges is played whole."""
        if not max_rounds:  # to compile
            # Programs of GPUs that have collectives meet as they begin, however little there is to do.
            over = self._threads.map if self.config.exchange == "collective" and self.config.jit else map
            carries = over(lambda trainer, each: trainer.run_chunk(each, 0, 0), self._trainers, carry.each)
            return type(carry)(carry.env_frames, *carries), Closed(next_report, ())
        self._begin_alike()
        done, closed, frames = 0, [], int(carry.env_frames)
        while done < max_rounds and frames < stop_env_frames and len(closed) < MAX_REPORTS:
            carries, done = list(self._threads.map(self._go_on, self._trainers, carry.each)), done + self._rounds
            if self.config.exchange == "average":
                self._average()
            frames, broken = self._all_told(carries)
            self.is_broken |= broken > 0
            if frames >= next_report:
                closed.append((np.int64(frames), int(self.agent.optimizer.iterations), self._of_all(merged(carries))))
                next_report = (frames // self.config.log_every_frames + 1) * self.config.log_every_frames
                carries = [each._replace(metrics=each.metrics.restarted()) for each in carries]
            carry = type(carry)(tf.constant(frames, tf.int64), *carries)
        return carry, Closed(next_report, closed)

    def _all_told(self, carries: Sequence[Carry]) -> list[int]:
        """Of all processes: env frames, and replicas that have met a number that is not finite."""
        told = [[int(each.env_frames), int(each.metrics.non_finite_tensors != 0)] for each in carries]
        return self._hosts.gather(np.sum(told, axis=0, dtype=np.int64)).sum(axis=0).tolist()

    def _of_all(self, metrics: Metrics) -> Metrics:
        """What all processes have counted."""
        if self._hosts.count == 1:
            return metrics
        told = self._hosts.gather(np.array([*metrics], np.float64))
        kinds = [np.asarray(value).dtype for value in metrics]
        each = [type(metrics)(*(kind.type(n) for kind, n in zip(kinds, row, strict=True))) for row in told]
        return type(metrics).merged(each)

    def _begin_alike(self) -> None:
        """Have all replicas learn on from the first one's agent, whatever was done to it since the last chunk."""
        first = self._programs.first()
        if not self._is_chiefs:  # once: the others' first replicas are made equal to the chief's, and stay so
            first = self._hosts.tensor_from_chief(first)
            self._is_chiefs = True
        self._programs.give(first)

    def _average(self) -> None:
        self._programs.give(self._hosts.sum(self._programs.mean()) / float(self._hosts.count))

    def _go_on(self, trainer: Trainer, carry: Carry) -> Carry:
        """One replica's part, in its own thread; once its device has done it."""
        carry = trainer.run_chunk(carry, self._rounds, NEVER)
        carry.env_frames.numpy()
        return carry


class Weights:
    """All numbers of agents and optimizers that replicas are to have in common, as one vector [W] float32."""

    def __init__(self, learners: Learners, is_eager: bool):
        self._copies = list(learners.copies())
        self._floats = [copies for copies in self._copies if copies[0].dtype.is_floating]
        self._sizes = [copies[0].shape.num_elements() for copies in self._floats]
        programs = {"jit": False, "eager": is_eager}
        self.first = compiled.program(self._first, **programs)
        self.mean = compiled.program(self._mean, **programs)
        self.give = compiled.program(self._give, **programs)

    def _first(self) -> tf.Tensor:
        """The first replica's."""
        return self._of(0)

    def _mean(self) -> tf.Tensor:
        """The mean of this process's replicas."""
        count = len(self._copies[0])
        return tf.add_n([self._of(number) for number in range(count)]) / float(count)

    def _of(self, number: int) -> tf.Tensor:
        return tf.concat([tf.reshape(copies[number], [-1]) for copies in self._floats], axis=0)

    def _give(self, flat: tf.Tensor) -> None:
        """Give every replica of this process these, and the whole numbers of the first."""
        parts = iter(tf.split(flat, self._sizes))
        for copies in self._copies:
            value = next(parts) if copies[0].dtype.is_floating else copies[0].read_value()
            for each in copies:
                with tf.device(each.device):
                    each.assign(tf.reshape(value, each.shape))


def _refuse_under_xla(device: str, others: hosts.Hosts) -> None:
    """TensorFlow has collectives under XLA for the GPUs of one host alone."""
    if loops.is_cpu(device):
        raise UserError(replicas.NO_COLLECTIVES)
    if others.count > 1:
        raise UserError(
            "--exchange collective: XLA knows no collectives between processes; use --exchange average, or --no-jit"
        )


class Learners:
    """A learner for each replica: the first's, but for what all of them hold.

    Args:
      numbers: of the replicas in the run.
      learners: theirs.
    """

    def __init__(self, numbers: range, learners: Sequence[Learner]):
        self._numbers, self._learners = numbers, learners
        self.replay = (
            None if learners[0].replay is None else Shards([each.replay for each in learners], hosts.here().count)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learners[0], name)

    def copies(self) -> Iterator[list[tf.Variable]]:
        """Of each variable that replicas have the same of, all."""
        held = [each.variables for each in self._learners]
        for name in held[0]:
            if not name.startswith("replay/"):
                yield [variables[name] for variables in held]

    @property
    def variables(self) -> Mapping[str, tf.Variable]:
        """What a run keeps: of what is the same in all replicas the first's, and each one's replay."""
        found = {name: each for name, each in self._learners[0].variables.items() if not name.startswith("replay/")}
        for number, learner in zip(self._numbers, self._learners, strict=True):
            for name, variable in learner.variables.items():
                if name.startswith("replay/"):
                    found[f"replay/{number}/{name.removeprefix('replay/')}"] = variable
        return found


class Shards:
    """The replays of this process's replicas as one; `capacity` is that of all `num_hosts` processes together."""

    def __init__(self, replays: Sequence[Any], num_hosts: int):
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
