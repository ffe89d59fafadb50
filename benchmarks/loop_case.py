"""`loop`: the training program as it is, replay filled and learning, without evaluation and reports."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import tensorflow as tf

from benchmarks import operations, trees
from benchmarks.network_cases import SLOTS
from benchmarks.replay_case import fill
from benchmarks.specs import GROWTH
from benchmarks.timing import MAX_COUNT, Bench, WrongResult
from tfdqn import config as configuration
from tfdqn.envs import make_for
from tfdqn.errors import UserError
from tfdqn.learners import build_agent
from tfdqn.programs import trainer_of
from tfdqn.runs.loop import Run
from tfdqn.runtime.signals import StopRequest

FOREVER = 2**62
GROWTH_CHUNK_ROWS = 5_000  # half a percent of the large replay


class LoopBench(Bench):
    """Rounds of a run that has begun to learn: env frames and updates.

    The variants of `GROWTH` go in short chunks, before each of which the replay's counter is put back, so that one that
    is 1% full stays so. The full ones do the same, or the starts of chunks would count as growth.

    Args:
      variant: a name of `specs.LOOPS`, or any other.
      settings: configuration fields.
      device: TensorFlow device.
      made_up_rows: fill the replay with made-up rows instead of play, so that one of a million rows is full in
        seconds. A loop that is to learn something must play its own.
    """

    units = {"env_frames": "env frames/s", "updates": "updates/s"}  # noqa: RUF012

    def __init__(self, variant: str, settings: dict, device: str, *, made_up_rows: bool = True):
        on_gpu = "GPU" in device
        config = configuration.resolve({**settings, "device": "gpu" if on_gpu else "cpu"}, on_gpu=on_gpu)
        if not on_gpu:
            trees.check_memory(config)
        env = make_for(config)
        self.trainer = trainer_of(env, config)(config, device, env)
        self._carry = self.trainer.initial_carry()
        self._updates = 0
        rows = next((GROWTH[name][0] for name in GROWTH if variant.startswith(name)), config.replay_min_rows)
        rows = max(rows, config.replay_min_rows, config.window_rows * config.num_envs)  # at least one window
        steps = -(-rows // config.num_envs)
        if made_up_rows:
            for each in getattr(self.trainer, "trainers", [self.trainer]):
                fill(each.replay, steps * each.replay.num_envs, each.device)
        else:
            self._carry = self.trainer.run_chunk(self._carry, -(-steps // config.iterations_per_update), FOREVER)
        self._keeps_fill = variant.startswith(tuple(GROWTH))
        self._last_id = int(self.trainer.replay.state["last_id"]) if self._keeps_fill else 0
        rows_a_round = config.iterations_per_update * config.num_envs
        self._chunk_rounds = max(1, GROWTH_CHUNK_ROWS // rows_a_round) if self._keeps_fill else MAX_COUNT
        self._count_floor(config)

    def _count_floor(self, config: configuration.Config) -> None:
        """A round's arithmetic; and its frames, each written to the history and to the replay and read there."""
        height_width, agents = math.prod(trees.frame_shape(config)), self.trainer.replay.num_envs // config.num_envs
        online = self.trainer.agent.online if agents == 1 else _one_of(config, self.trainer.env)
        decisions, updates = agents * config.iterations_per_update, agents * config.updates_per_iteration
        learn = operations.learn_operations(online, config.batch_size, double=config.double, target=config.target)
        self.operations = float(decisions * operations.act_operations(online, config.num_envs) + updates * learn)
        frames = 3 * decisions * config.num_envs + updates * 2 * 2 * config.batch_size * config.frame_stack
        weights = operations.learn_bytes(online, SLOTS[config.optimizer])
        self.bytes = float(frames * height_width + updates * weights)

    def run(self, count: int) -> dict[str, float]:
        frames = _total(self._carry)
        for done in range(0, count, self._chunk_rounds):
            if self._keeps_fill:
                self.trainer.replay.state["last_id"].assign(self._last_id)
            self._carry = self.trainer.run_chunk(self._carry, min(self._chunk_rounds, count - done), FOREVER)
        played = _total(self._carry) - frames  # waits for the device
        agents = self.trainer.replay.num_envs // self.trainer.config.num_envs
        updates = agents * int(self.trainer.agent.optimizer.iterations)
        learnt, self._updates = updates - self._updates, updates
        return {"env_frames": float(played), "updates": float(learnt)}

    def check(self) -> None:
        """Every round must learn: a loop that only plays is quick, and no training."""
        config = self.trainer.config
        work = self.run(3)
        agents = self.trainer.replay.num_envs // config.num_envs
        wanted = 3 * agents * config.updates_per_iteration
        if work["updates"] != wanted or work["env_frames"] <= 0:
            raise WrongResult(f"loop: 3 rounds made {work}, not {wanted} updates")


def _total(carry: Any) -> int:
    """Frames played, by all agents of a population."""
    return int(tf.reduce_sum(carry.env_frames))


def _one_of(config: configuration.Config, env: Any) -> Any:
    """The network of one agent of a population."""
    return build_agent(config.replace(population=1), env).online


class RunBench(Bench):
    """A training run with all that its preset writes down, less evaluations and checkpoints.

    An iteration is as many frames as lie between two reports, also where none is made. A chunk does not end with them,
    so a repeat may play some more, which counts.

    Args:
      config: the run's configuration; evaluations and checkpoints are put off for good.
      reports: whether it reports; if not, its reports are put off, too.
      run_dir: a folder that does not exist yet.
      device: TensorFlow device.
    """

    units = {"env_frames": "env frames/s"}  # noqa: RUF012

    def __init__(self, config: configuration.Config, reports: bool, run_dir: Path, device: str):
        self._frames = config.log_every_frames
        config = trees.replace(
            config,
            total_env_frames=FOREVER,
            eval_every_frames=FOREVER,
            log_every_frames=config.log_every_frames if reports else FOREVER,
            checkpoint_every_seconds=1e9,
            device="gpu" if "GPU" in device else "cpu",
        )
        self._run = Run(config, run_dir, device, StopRequest())
        self._run.compile()

    def run(self, count: int) -> dict[str, float]:
        start = self._run.env_frames
        while self._run.env_frames < start + count * self._frames:
            self._run.train_chunk()
        return {"env_frames": float(self._run.env_frames - start)}

    def check(self) -> None:
        """Play until it learns, so that only learning is timed."""
        while not self._run.updates:
            self._run.train_chunk()


def make(variant: str, settings: dict, device: str) -> LoopBench:
    """A loop, or one line that says why it cannot be."""
    try:
        return LoopBench(variant, settings, device)
    except tf.errors.ResourceExhaustedError:
        raise UserError("does not fit into the device's memory") from None
