"""Stock TF-Agents as a contender: `python -m benchmarks.peers.tf_agents_worker`.

`DqnAgent`, `TFUniformReplayBuffer` and `DynamicStepDriver` as in its tutorials, each in a `tf.function`; no XLA, as the
buffer does not compile. The game is tfdqn's own, as a `TFEnvironment`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # TF-Agents needs Keras 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


import numpy as np
import tensorflow as tf
from tf_agents.agents.dqn import dqn_agent
from tf_agents.drivers import dynamic_step_driver
from tf_agents.environments import tf_environment
from tf_agents.networks import q_network
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

import tfdqn.envs
from benchmarks.peers import contender, numpy_catch
from benchmarks.timing import WrongResult

tf.config.set_visible_devices([], "GPU")


class GameEnvironment(tf_environment.TFEnvironment):
    """A game of tfdqn, whose state is kept in variables."""

    def __init__(self, name: str, num_envs: int, seed: int):
        self._env, self._num_envs = tfdqn.envs.make(name), num_envs
        observation = tensor_spec.BoundedTensorSpec([8, 8], tf.float32, 0, 1, "observation")
        action = tensor_spec.BoundedTensorSpec([], tf.int32, 0, self._env.num_actions - 1, "action")
        super().__init__(ts.time_step_spec(observation), action, num_envs)
        self._random = tf.random.Generator.from_seed(seed)
        self._state = tf.nest.map_structure(tf.Variable, self._env.reset(self._noise()))
        self._time_step = tf.nest.map_structure(tf.Variable, self._first())

    def _noise(self):
        return self._env.sample_noise(self._random.make_seeds()[:, 0], self._num_envs)

    def _screen(self, frames):
        return tf.cast(frames, tf.float32) / 255.0

    def _first(self):
        return ts.restart(self._screen(self._env.observe(self._state)), batch_size=self._num_envs)

    def _keep(self, state, time_step):
        tf.nest.map_structure(
            lambda variable, value: variable.assign(value), (self._state, self._time_step), (state, time_step)
        )
        return self._current_time_step()

    def _current_time_step(self):
        return tf.nest.map_structure(tf.identity, self._time_step)

    def _reset(self):
        tf.nest.map_structure(
            lambda variable, value: variable.assign(value), self._state, self._env.reset(self._noise())
        )
        return self._keep(tf.nest.map_structure(tf.identity, self._state), self._first())

    def _step(self, action):
        """Where the last step ended an episode, a reset in its place, as TF-Agents' environments do."""
        before = self._time_step
        is_over = tf.equal(before.step_type, ts.StepType.LAST)
        noise = self._noise()
        stepped, shown = self._env.step(tf.nest.map_structure(tf.identity, self._state), action, noise)

        def choose(fresh, new):
            return tf.where(tf.reshape(is_over, [-1] + [1] * (new.shape.rank - 1)), fresh, new)

        state = tf.nest.map_structure(choose, self._env.reset(noise), stepped)
        ended = shown.termination | shown.truncation
        step_type = tf.where(is_over, ts.StepType.FIRST, tf.where(ended, ts.StepType.LAST, ts.StepType.MID))
        reward = tf.where(is_over, 0.0, shown.reward)
        discount = tf.where(shown.termination & ~is_over, 0.0, 1.0)
        return self._keep(state, ts.TimeStep(step_type, reward, discount, self._screen(self._env.observe(state))))


class TfAgents(contender.Contender):
    """Driver, buffer and agent in turn."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings, self._num_envs = settings, settings["num_envs"]
        self._env = GameEnvironment(settings["env"], self._num_envs, seed=0)
        self._frames = tf.Variable(0, dtype=tf.int64)  # that epsilon falls with
        network = q_network.QNetwork(self._env.observation_spec(), self._env.action_spec(), fc_layer_params=(64, 32))
        self._agent = dqn_agent.DqnAgent(
            self._env.time_step_spec(),
            self._env.action_spec(),
            q_network=network,
            optimizer=tf.keras.optimizers.Adam(settings["learning_rate"], epsilon=settings["optimizer_epsilon"]),
            epsilon_greedy=self._epsilon,
            gamma=settings["discount"],
            td_errors_loss_fn=common.element_wise_huber_loss,
            target_update_period=settings["target_update_period_updates"],
            train_step_counter=tf.Variable(0, dtype=tf.int64),
        )
        self._agent.initialize()
        self._buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(
            self._agent.collect_data_spec, self._num_envs, max_length=settings["replay_capacity"] // self._num_envs
        )
        self._driver = dynamic_step_driver.DynamicStepDriver(
            self._env,
            self._agent.collect_policy,
            observers=[self._buffer.add_batch, self._count_frames],
            # It counts frames over all games, and goes on until it has so many: with many games, one step of all.
            num_steps=settings["iterations_per_update"] if self._num_envs == 1 else 1,
        )
        self._drive = common.function(self._driver.run)
        self._train = common.function(self._agent.train)
        dataset = self._buffer.as_dataset(sample_batch_size=settings["batch_size"], num_steps=2, num_parallel_calls=2)
        self._time_step = None
        rounds = settings["replay_min_rows"] // self._num_envs // settings["iterations_per_update"] + 1
        for _ in range(rounds):
            self._time_step, _ = self._drive(self._time_step)
        self._batches = iter(dataset.prefetch(2))

    def _epsilon(self):
        settings = self._settings
        share = tf.minimum(tf.cast(self._frames, tf.float32) / settings["epsilon_decay_env_frames"], 1.0)
        return settings["epsilon_start"] + share * (settings["epsilon_end"] - settings["epsilon_start"])

    def _count_frames(self, trajectory):
        """Steps that only reset a game are none."""
        self._frames.assign_add(tf.reduce_sum(tf.cast(~trajectory.is_boundary(), tf.int64)))

    def run(self, count: int) -> dict[str, float]:
        """One `run` of the driver and one `train` a round."""
        before, frames = int(self._agent.train_step_counter), int(self._frames)
        for _ in range(count):
            self._time_step, _ = self._drive(self._time_step)
            experience, _ = next(self._batches)
            self._train(experience)
        learnt = int(self._agent.train_step_counter) - before
        return {"env_frames": float(int(self._frames) - frames), "updates": float(learnt)}

    def evaluate(self) -> float:
        games = [numpy_catch.Catch8(1000 + i) for i in range(contender.EVAL_EPISODES)]
        act = common.function(lambda frames: tf.argmax(self._agent._q_network(frames)[0], axis=-1))
        return numpy_catch.play_greedy(games, lambda frames: act(tf.constant(frames)).numpy())

    def check(self) -> None:
        """Rules are tfdqn's own, and tested there; the one that evaluates plays the recorded games."""
        numpy_catch.play_recorded()
        before = [variable.numpy() for variable in self._agent._q_network.variables]
        work = self.run(3)
        after = [variable.numpy() for variable in self._agent._q_network.variables]
        if work["updates"] != 3 or any(np.array_equal(a, b) for a, b in zip(before, after, strict=True)):
            raise WrongResult(f"3 rounds made {work['updates']} updates, or left weights as they were")


if __name__ == "__main__":
    contender.serve(TfAgents)
