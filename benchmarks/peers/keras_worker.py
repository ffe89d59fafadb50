"""A Keras loop in the article's way as a contender: `python -m benchmarks.peers.keras_worker`.

As in yukiB's code, each action is one `predict` of one frame, and each sample of a batch needs two more: its values
now, of which one is replaced by the target, and those of the next frame. Then `fit` on the batch. Left out, to its
favour: the `predict` and `evaluate` by which the article's code logs. Adam, Huber, discount and a target network of
its own as in all other contenders.
"""

from __future__ import annotations

import os
import random
from collections import deque
from collections.abc import Mapping
from typing import Any

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # Keras 2, nearest to the article's
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
import tf_keras as keras

from benchmarks.peers import contender, numpy_catch
from benchmarks.timing import WrongResult


def network():
    layers = keras.layers
    sizes = [layers.Dense(64, "relu"), layers.Dense(32, "relu"), layers.Dense(3)]
    return keras.Sequential([layers.InputLayer((8, 8)), layers.Flatten(), *sizes])


class KerasLoop(contender.Contender):
    """One game, a deque of transitions, and two models."""

    def __init__(self, settings: Mapping[str, Any]):
        if settings["num_envs"] != 1:
            raise ValueError("the article's loop plays one game")
        self._settings = settings
        self._model, self._target = network(), network()
        self._target.set_weights(self._model.get_weights())
        optimizer = keras.optimizers.Adam(settings["learning_rate"], epsilon=settings["optimizer_epsilon"])
        # Keras takes the mean over the three actions, two of which have no error.
        self._model.compile(optimizer, loss=lambda y, q: 3 * keras.losses.huber(y, q))
        self._game, self._random = numpy_catch.Catch8(0), random.Random(0)
        self._memory = deque(maxlen=settings["replay_capacity"])
        self._frames = self._updates = 0
        for _ in range(settings["replay_min_rows"]):
            self._play(self._random.randrange(3))
        self._frames = 0  # epsilon falls from where learning begins

    def _values(self, model, frame):
        return model.predict(frame[np.newaxis], verbose=0)[0]

    def _play(self, action: int) -> None:
        before = self._game.frame.copy()
        reward, terminated, truncated = self._game.step(action)
        self._memory.append((before, action, reward, self._game.frame.copy(), terminated))
        if terminated or truncated:
            self._game.reset()
        self._frames += 1

    def _act(self) -> int:
        settings = self._settings
        share = min(self._frames / settings["epsilon_decay_env_frames"], 1.0)
        epsilon = settings["epsilon_start"] + share * (settings["epsilon_end"] - settings["epsilon_start"])
        if self._random.random() < epsilon:
            return self._random.randrange(3)
        return int(np.argmax(self._values(self._model, self._game.frame)))

    def _learn(self) -> None:
        frames, goals = [], []
        for _ in range(self._settings["batch_size"]):
            frame, action, reward, after, terminated = self._memory[self._random.randrange(len(self._memory))]
            goal = self._values(self._model, frame)
            goal[action] = reward
            if not terminated:
                goal[action] += self._settings["discount"] * np.max(self._values(self._target, after))
            frames.append(frame)
            goals.append(goal)
        self._model.fit(np.array(frames), np.array(goals), batch_size=len(frames), verbose=0)
        self._updates += 1
        if self._updates % self._settings["target_update_period_updates"] == 0:
            self._target.set_weights(self._model.get_weights())

    def run(self, count: int) -> dict[str, float]:
        for _ in range(count):
            for _ in range(self._settings["iterations_per_update"]):
                self._play(self._act())
            self._learn()
        return {"env_frames": float(count * self._settings["iterations_per_update"]), "updates": float(count)}

    def evaluate(self) -> float:
        games = [numpy_catch.Catch8(1000 + i) for i in range(contender.EVAL_EPISODES)]
        return numpy_catch.play_greedy(games, lambda frames: np.argmax(self._model(frames).numpy(), axis=-1))

    def check(self) -> None:
        numpy_catch.play_recorded()
        before = self._model.get_weights()
        self.run(1)
        if any(np.array_equal(a, b) for a, b in zip(before, self._model.get_weights(), strict=True)):
            raise WrongResult("an update left weights as they were")


if __name__ == "__main__":
    contender.serve(KerasLoop)
