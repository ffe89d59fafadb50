"""One agent on several devices: each plays a part of its environments and learns from them, and they exchange.

Every replica is a whole `Trainer` on a device of its own, with its part of the environments, of the replay and of each
batch, and with its own copy of the agent and its optimizer (as in Hessel et al. 2021, "Podracer architectures",
section 2). They exchange the gradients in each update (`collective`), or weights and slots whenever the host looks
(`average`; local SGD, as McMahan et al. 2017, algorithm 1).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import replicas, seeds
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.errors import UserError
from tfdqn.learners.base import Learner
from tfdqn.learners.metrics import Metrics
from tfdqn.programs.several import SeveralTrainers, Shards, Together, carry_type
from tfdqn.programs.training import Carry, Share, Trainer
from tfdqn.runtime import compiled, exchange, hosts, loops


class Replicas(Together):
    """Of replicas; `env_frames` is [] int64, of those of all processes."""

    __slots__ = ()

    @property
    def metrics(self) -> Metrics:
        """Of this process's replicas."""
        return tf.nest.map_structure(tf.constant, merged(self.each))


def merged(carries: Sequence[Carry]) -> Metrics:
    """What several replicas have counted, NumPy's."""
    return type(carries[0].metrics).merged([carry.metrics for carry in carries])


class ReplicaTrainer(SeveralTrainers):
    """Trains one agent on as many devices as it has replicas.

    Each of the processes that make a run has as many. What it says of the agent is of its first replica's, which the
    others are made equal to when a chunk begins; the rest is as of `SeveralTrainers`.

    Attributes:
      is_broken: whether a replica of any process has met a number that is not finite.
    """

    def __init__(self, config: Config, device: str, env: Environment | None = None):
        self._hosts = hosts.here()
        if config.exchange == "collective" and config.jit and not config.eager:
            _refuse_under_xla(device, self._hosts)
        self.is_broken = False
        count = config.replicas // self._hosts.count
        self.numbers = range(self._hosts.rank * count, (self._hosts.rank + 1) * count)
        self._ends = exchange.ends(config.replicas, count) if config.exchange == "collective" else [None] * count
        super().__init__(config, device, count, env)
        self.learner = Learners(self.numbers, [trainer.learner for trainer in self.trainers])
        self._programs = Exchanging(config, self.devices, self.learner)
        self._is_chiefs = False  # whether what is learnt is known to be the same in all processes

    def make_trainer(self, config, place):
        part, number = replicas.config_of(config), self.numbers[place]
        share = Share(config.seed, number * part.num_envs, config.replicas, self._ends[place])
        if number:  # so that each draws for itself what it learns from
            part = part.replace(seed=seeds.stream(config.seed, "replica", number) % 2**31)
        return Trainer(part, self.devices[place], self.env, share)

    def initial_carry(self) -> Together:
        carries = (trainer.initial_carry() for trainer in self.trainers)
        names = tuple(f"replica_{number}" for number in self.numbers)
        return carry_type(Replicas, names)(tf.zeros([], tf.int64), *carries)

    def counted(self, carry: Together) -> Metrics:
        counted = Counted(0, merged(carry.each))
        told = self._hosts.gather(counted.numbers())
        return type(counted.metrics).merged([counted.of_the_same_kind(row).metrics for row in told])

    def rounds_to_look(self, env_frames, most):
        return self.config.exchange_every_rounds

    def look(self, carries):
        counted = Counted(sum(int(each.env_frames) for each in carries), merged(carries))
        exchange = self._programs.average if self.config.exchange == "average" else self._programs.tell
        each = [counted.of_the_same_kind(row) for row in exchange(tf.constant(counted.numbers())).numpy()]
        self._seen = type(counted.metrics).merged([every.metrics for every in each])
        self.is_broken |= bool(self._seen.non_finite_tensors)
        return np.int64(sum(every.env_frames for every in each))

    def seen(self, carries):
        return self._seen

    def compile(self, carries):
        """What is exchanged by, too; nothing is changed but that all have the first one's agent."""
        if self.config.exchange == "collective" and self.config.jit:
            # Programs of GPUs that have collectives meet as they begin, however little there is to do.
            compile_one = functools.partial(Trainer.run_chunk, max_rounds=0, stop_env_frames=0)
            carries = list(self._threads.map(compile_one, self.trainers, carries))
        else:
            carries = super().compile(carries)
        self.begin()
        before = self._programs.first()
        self.look(carries)
        self._programs.give(before)  # to the bit, where the mean of equal numbers is rounded
        return carries

    def begin(self):
        """Have all replicas learn on from the first one's agent, whatever was done to it since the last chunk."""
        first = self._programs.first()
        if not self._is_chiefs:  # once: the others' first replicas are made equal to the chief's, and stay so
            first = self._hosts.tensor_from_chief(first)
            self._is_chiefs = True
        self._programs.give(first)


class Counted(NamedTuple):
    """What a process's replicas have come to, as they tell it to the others."""

    env_frames: int
    metrics: Metrics  # NumPy's

    def numbers(self) -> np.ndarray:
        """All of it, to the bit: [K] int64."""
        values = [np.asarray(value) for value in self.metrics]
        bits = [np.float64(value).view(np.int64) if value.dtype.kind == "f" else value for value in values]
        return np.array([self.env_frames, *bits], np.int64)

    def of_the_same_kind(self, numbers: np.ndarray) -> Counted:
        """What another has told by such numbers."""
        kinds = [np.asarray(value).dtype for value in self.metrics]
        floats = numbers[1:].view(np.float64)
        values = [
            kind.type(whole if kind.kind != "f" else number)
            for kind, whole, number in zip(kinds, numbers[1:], floats, strict=True)
        ]
        return Counted(int(numbers[0]), type(self.metrics)(*values))


class Exchanging:
    """Programs of what replicas exchange between rounds.

    What of agents and optimizers they are to have in common is one vector [W] float32. One program writes a replica's,
    one reads it; one has both around what goes over the network, and all of that goes at once.

    Args:
      config: the run's.
      devices: of this process's replicas.
      learners: theirs.
    """

    def __init__(self, config: Config, devices: Sequence[str], learners: Learners):
        self._hosts, self._devices = hosts.here(), devices
        copies = list(learners.copies())
        self._floats = [each for each in copies if each[0].dtype.is_floating]
        self._whole = [each for each in copies if not each[0].dtype.is_floating]
        self._reads = [self._on(number, self._read, config) for number in range(len(devices))]
        self._writes = [self._on(number, self._write, config) for number in range(len(devices))]
        self.first, self.give, self.average, self.tell = (
            compiled.program(each, jit=False, eager=config.eager)
            for each in (self._first, self._give, self._average, self._hosts.gathered)
        )

    def _on(self, number: int, function: Callable, config: Config) -> Callable:
        program = compiled.program(functools.partial(function, number), jit=config.jit, eager=config.eager)

        def call(*arguments):
            with tf.device(self._devices[number]):
                return program(*arguments)

        return call

    def _read(self, number: int) -> tf.Tensor:
        return tf.concat([tf.reshape(each[number], [-1]) for each in self._floats], axis=0)

    def _write(self, number: int, flat: tf.Tensor) -> None:
        parts = tf.split(flat, [each[number].shape.num_elements() for each in self._floats])
        for each, part in zip(self._floats, parts, strict=True):
            each[number].assign(tf.reshape(part, each[number].shape))

    def _first(self) -> tf.Tensor:
        """The first replica's numbers."""
        return self._reads[0]()

    def _give(self, flat: tf.Tensor) -> None:
        """Give every replica of this process these, and the whole numbers of the first."""
        for write in self._writes:
            write(flat)
        for first, *others in self._whole:
            for each in others:
                with tf.device(each.device):
                    each.assign(first.read_value())

    def _average(self, numbers: tf.Tensor) -> tf.Tensor:
        """Give every replica of all processes the mean of them all; what all processes tell [count, K]."""
        with tf.device(self._devices[0]):
            mean = tf.add_n([read() for read in self._reads]) / float(len(self._reads))
            mean = self._hosts.sum(mean) / float(self._hosts.count)
        self._give(mean)
        return self._hosts.gathered(numbers)


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
