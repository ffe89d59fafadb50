"""How convolutions are computed on a device: as patches times a matrix, or by TensorFlow's own operation.

On a CPU patches are 10 to 30 times quicker under XLA. On a GPU cuDNN's convolutions may win or lose, by the network,
the batch and the chip, so there both are tried before a run begins.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import tensorflow as tf

from tfdqn import cli, population
from tfdqn.config import Config
from tfdqn.learners.dqn.agent import DQN
from tfdqn.networks import catalogue
from tfdqn.networks.names import CONVOLUTIONS
from tfdqn.replay.transitions import Transition
from tfdqn.runtime import compiled

UPDATES = 20  # of one timing: they run in one program, and starting it shall not count
TIMINGS = 5


def choose(config: Config, device: str, build_learner: Callable[[Config], DQN]) -> Config:
    """A configuration with "auto" replaced by "patches" or "native": what a run began with, it goes on with.

    Args:
      config: a run's.
      device: TensorFlow device that it runs on, such as "/GPU:0".
      build_learner: makes an agent with its optimizer; called only where both are to be tried.
    """
    if config.convolution != "auto":
        return config
    # What depends on the time it takes may differ between two runs, and stacked networks know patches alone.
    is_fixed = "GPU" not in device or config.deterministic or population.is_one(config)
    if is_fixed or not catalogue.body_of(config.network).has_convolutions:
        return config.replace(convolution="patches")
    choices = [config.replace(convolution=convolution) for convolution in CONVOLUTIONS]
    seconds = {choice: seconds_an_update(choice, build_learner(choice)) for choice in choices}
    chosen = min(seconds, key=seconds.get)
    times = ", ".join(f"{choice.convolution} {1e3 * value:.3f} ms an update" for choice, value in seconds.items())
    cli.say(f"convolutions: {times}; chosen: {chosen.convolution}")
    return chosen


def seconds_an_update(config: Config, agent: DQN) -> float:
    """The least seconds that an update of a batch takes, compiled; infinity where the device's memory is too small."""
    height, width, channels = agent.online.input_shape[1:]
    kind = agent.online.input.dtype
    stacks = tf.zeros([config.batch_size, channels, height, width], tf.uint8)
    action, ones = tf.zeros([config.batch_size], tf.int32), tf.ones([config.batch_size])

    def update(i, _):
        # Other frames at each update, or what is made of them could be computed once, before the loop; and frames
        # before they become channels, as a replay has them.
        observation = tf.cast(tf.transpose(stacks + tf.cast(i & 1, tf.uint8), [0, 2, 3, 1]), kind)
        transitions = Transition(observation, action, ones, ones, observation)
        return i + 1, agent.learn(transitions, ones).loss

    def updates():
        return tf.while_loop(lambda i, _: i < UPDATES, update, (tf.constant(0), tf.zeros([])))[1]

    program = compiled.program(updates, jit=config.jit, eager=config.eager)
    try:
        float(program())  # compiles
        return min(_seconds(program) for _ in range(TIMINGS)) / UPDATES
    except tf.errors.ResourceExhaustedError:
        return math.inf


def _seconds(program: Callable) -> float:
    start = time.perf_counter()
    float(program())
    return time.perf_counter() - start
