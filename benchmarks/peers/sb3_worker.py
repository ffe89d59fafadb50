"""Stable-Baselines3's DQN as a contender: `python -m benchmarks.peers.sb3_worker`, in its own environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3 import DQN
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.peers import contender, numpy_catch
from benchmarks.timing import WrongResult


class Catch8Env(gymnasium.Env):
    """catch8 for Gymnasium."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (8, 8), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, seed: int | None = None):
        self._game = numpy_catch.Catch8(seed)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._game.reset()
        return self._game.frame.copy(), {}

    def step(self, action):
        reward, terminated, truncated = self._game.step(int(action))
        return self._game.frame.copy(), reward, terminated, truncated, {}


def door_of(settings: Mapping[str, Any]) -> str | None:
    """The name of the environment in Gymnasium's registry; None for catch8."""
    door, _, name = settings["env"].partition(":")
    return name if door == "gym" else None


class Sb3(contender.Contender):
    """`DQN.learn`, called for as many steps as a repeat has."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings, self._num_envs = settings, settings["num_envs"]
        if settings["one_thread"]:
            torch.set_num_threads(1)  # quicker than two for layers this small
        # In this process: the game takes some microseconds, less than a message to another process.
        self._door = door_of(settings)
        make = (lambda _: gymnasium.make(self._door)) if self._door else Catch8Env
        envs = DummyVecEnv([lambda i=i: make(i) for i in range(self._num_envs)])
        self._model = DQN(
            "MlpPolicy",
            envs,
            learning_rate=settings["learning_rate"],
            buffer_size=settings["replay_capacity"],
            learning_starts=settings["replay_min_rows"],
            batch_size=settings["batch_size"],
            gamma=settings["discount"],
            train_freq=(settings["iterations_per_update"], "step"),
            gradient_steps=settings["updates_per_iteration"],
            # It counts in env frames; where there are several updates at a time, its copies come that much later.
            target_update_interval=settings["target_update_period_updates"]
            * settings["iterations_per_update"]
            * self._num_envs,
            policy_kwargs={"net_arch": [64, 32], "optimizer_kwargs": {"eps": settings["optimizer_epsilon"]}},
            seed=0,
            device="cpu",
        )
        self._model.exploration_schedule = lambda _: self._epsilon()
        self._learn(-(-settings["replay_min_rows"] // self._num_envs) + 1)
        self._updates = self._model._n_updates

    def _epsilon(self) -> float:
        settings = self._settings
        share = min(self._model.num_timesteps / settings["epsilon_decay_env_frames"], 1.0)
        return settings["epsilon_start"] + share * (settings["epsilon_end"] - settings["epsilon_start"])

    def _learn(self, steps: int) -> int:
        before = self._model.num_timesteps
        self._model.learn(steps * self._num_envs, log_interval=None, reset_num_timesteps=False)
        return self._model.num_timesteps - before

    def run(self, count: int) -> dict[str, float]:
        frames = self._learn(count * self._settings["iterations_per_update"])
        learnt, self._updates = self._model._n_updates - self._updates, self._model._n_updates
        return {"env_frames": float(frames), "updates": float(learnt)}

    def evaluate(self) -> float:
        games = [numpy_catch.Catch8(1000 + i) for i in range(contender.EVAL_EPISODES)]
        return numpy_catch.play_greedy(games, lambda frames: self._model.predict(frames, deterministic=True)[0])

    def check(self) -> None:
        if not self._door:
            numpy_catch.play_recorded()
        work = self.run(3)
        if work["updates"] != 3 * self._settings["updates_per_iteration"]:
            raise WrongResult(f"3 rounds made {work['updates']} updates")


if __name__ == "__main__":
    contender.serve(Sb3)
