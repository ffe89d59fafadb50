"""`act` and `learner`: the networks alone, on observations that are at hand."""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf

from benchmarks import operations, trees
from benchmarks.specs import PINNED
from benchmarks.timing import Bench, WrongResult
from tfdqn import config as configuration
from tfdqn.envs import make
from tfdqn.learners.dqn.agent import DQN
from tfdqn.runtime import compiled

SEED = 20_260_803
SLOTS = {"adam": 2, "rmsprop": 2, "rmsprop_graves": 3}  # variables an optimizer keeps for each weight


def agent_config(env: str, settings: dict, optimizer: str) -> configuration.Config:
    """What the agent is made from: nothing of it comes from the game's preset."""
    return configuration.resolve({**PINNED, **settings, "env": env, "optimizer": optimizer, "double": True})


def make_agent(env: str, settings: dict, optimizer: str) -> tuple[DQN, configuration.Config]:
    """The agent that the training loop would make."""
    config = agent_config(env, settings, optimizer)
    building = trees.building()
    agent = building.build_agent(config, make(env))
    if agent.optimizer is None:  # `build_agent` of older revisions compiled it
        agent.compile(trees.build_optimizer(config))
    agent.optimizer.build(agent.online.trainable_variables)
    return agent, config


def random_frames(count: int, config: configuration.Config, seed: int) -> tf.Tensor:
    """[count, stack, H, W] uint8: as the replay gathers them, before it turns stacks into channels."""
    shape = (count, config.frame_stack, *trees.frame_shape(config))
    return tf.constant(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def as_observation(frames: tf.Tensor, flip: tf.Tensor, *, column_major: bool = False) -> tf.Tensor:
    """[B, H, W, stack], of frames that lie row by row or column by column. `flip` is [] uint8 and differs between
    iterations: what a network makes of frames that never change could be computed once, before the loop."""
    return tf.transpose(tf.bitwise.bitwise_xor(frames, flip), [0, 3, 2, 1] if column_major else [0, 2, 3, 1])


class ActBench(Bench):
    """Decisions, counted over all environments; one in twenty is random."""

    units = {"decisions": "decisions/s"}  # noqa: RUF012

    def __init__(self, env: str, num_envs: int, settings: dict, device: str):
        self._num_envs, self._device = num_envs, device
        with tf.device(device):
            self._agent, config = make_agent(env, settings, "rmsprop_graves")
            self._frames = random_frames(num_envs, config, SEED)
        self.operations = float(operations.act_operations(self._agent.online, num_envs))
        self.bytes = float(math.prod(self._frames.shape) + 4 * self._agent.online.count_params())
        self._program = compiled.xla(self._act)

    def _act(self, frames: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        def body(i, total):
            observation = as_observation(frames, tf.cast(i & 1, tf.uint8))
            seed = tf.stack([tf.constant(SEED, tf.int64), tf.cast(i, tf.int64)])
            action, _ = self._agent.act(observation, (), tf.constant(0.05), seed)
            return i + 1, total + action

        start = (tf.constant(0), tf.zeros([self._num_envs], tf.int32))
        return tf.while_loop(lambda i, _: i < count, body, start)[1]

    def run(self, count: int) -> dict[str, float]:
        with tf.device(self._device):
            self._program(self._frames, tf.constant(count))[0].numpy()
        return {"decisions": float(count * self._num_envs)}

    def check(self) -> None:
        """The first decisions must be the eager run's; a value that is all but equal to another may tip one over."""
        with tf.device(self._device):
            agree = np.mean(self._program(self._frames, tf.constant(2)) == self._act(self._frames, tf.constant(2)))
        if agree < 0.95:
            raise WrongResult(f"act: only {agree:.0%} of the compiled decisions are the eager run's")


class LearnBench(Bench):
    """Updates: targets, gradients, optimizer, target network; Double DQN, RMSPropGraves."""

    units = {"updates": "updates/s", "samples": "samples/s"}  # noqa: RUF012

    def __init__(self, env: str, batch: int, settings: dict, device: str):
        self._batch, self._device = batch, device
        optimizer = "rmsprop_graves"
        with tf.device(device):
            self._agent, config = make_agent(env, settings, optimizer)
            draw = np.random.default_rng(SEED)
            self._batch_at_hand = (
                random_frames(batch, config, SEED),
                random_frames(batch, config, SEED + 1),
                tf.constant(draw.integers(0, self._agent.num_actions, batch), tf.int32),
                tf.constant(draw.integers(-1, 2, batch), tf.float32),
            )
        # As the replay holds frames for the network; revisions that lack the function have no such network.
        self._column_major = trees.reads_columns(config.network)
        online = self._agent.online
        self.operations = float(operations.learn_operations(online, batch, double=config.double, target=config.target))
        self.bytes = float(operations.learn_bytes(online, SLOTS[optimizer]))
        self._program = compiled.xla(self._learn)

    def _learn(self, at_hand, count: tf.Tensor) -> tf.Tensor:
        frames, next_frames, action, reward = at_hand

        def body(i, _):
            flip = tf.cast(i & 1, tf.uint8)
            transitions = trees.transition()(
                observation=as_observation(frames, flip, column_major=self._column_major),
                action=action,
                reward=reward,
                discount=tf.fill([self._batch], 0.99),
                next_observation=as_observation(next_frames, flip, column_major=self._column_major),
            )
            return i + 1, self._agent.learn(transitions, tf.ones([self._batch])).loss

        return tf.while_loop(lambda i, _: i < count, body, (tf.constant(0), tf.zeros([])))[1]

    def run(self, count: int) -> dict[str, float]:
        with tf.device(self._device):
            loss = float(self._program(self._batch_at_hand, tf.constant(count)))
        if not math.isfinite(loss):
            raise WrongResult(f"learner: the loss is {loss}")
        return {"updates": float(count), "samples": float(count * self._batch)}

    def check(self) -> None:
        """Every update must change the weights, and be counted."""
        before = [weight.numpy() for weight in self._agent.online.weights]
        counted = int(self._agent.optimizer.iterations)
        self.run(2)
        if int(self._agent.optimizer.iterations) != counted + 2:
            raise WrongResult("learner: two updates were not counted as two")
        if any(np.array_equal(a, b.numpy()) for a, b in zip(before, self._agent.online.weights, strict=True)):
            raise WrongResult("learner: two updates left a weight as it was")
