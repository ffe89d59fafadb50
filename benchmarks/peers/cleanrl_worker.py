"""DQN as CleanRL's single file has it, as a contender: `python -m benchmarks.peers.cleanrl_worker`, where SB3 is.

Written anew after what cleanrl/dqn.py does at each step (github.com/vwxyzjn/cleanrl, version 1.0.0): a `SyncVectorEnv`
with episode statistics, epsilon-greedy actions by the network or for all environments at random, Stable-Baselines3's
`ReplayBuffer`, and PyTorch's update.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from torch import nn

from benchmarks.peers import contender
from benchmarks.timing import WrongResult


class CleanRl(contender.Contender):
    """One decision of all environments after another, and every `iterations_per_update` of them the updates."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings, self._num_envs = settings, settings["num_envs"]
        if settings["one_thread"]:
            torch.set_num_threads(1)
        torch.manual_seed(0)
        name = settings["env"].partition(":")[2]

        def make():
            return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(name))

        mode = gymnasium.vector.AutoresetMode.SAME_STEP  # what CleanRL's Gymnasium did
        self._envs = gymnasium.vector.SyncVectorEnv([make] * self._num_envs, autoreset_mode=mode)
        observations, actions = self._envs.single_observation_space, self._envs.single_action_space
        size = int(np.prod(observations.shape))
        self._online, self._target = (
            nn.Sequential(nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, int(actions.n)))
            for _ in range(2)
        )
        self._target.load_state_dict(self._online.state_dict())
        self._optimizer = torch.optim.Adam(
            self._online.parameters(), lr=settings["learning_rate"], eps=settings["optimizer_epsilon"]
        )
        self._replay = ReplayBuffer(
            settings["replay_capacity"],
            observations,
            actions,
            "cpu",
            n_envs=self._num_envs,
            handle_timeout_termination=False,
        )
        self._seen, _ = self._envs.reset(seed=0)
        self._steps = self._updates = 0
        while self._steps * self._num_envs <= settings["replay_min_rows"]:
            self._step()

    def _step(self) -> None:
        settings = self._settings
        if random.random() < settings["epsilon_start"]:
            actions = np.array([self._envs.single_action_space.sample() for _ in range(self._num_envs)])
        else:
            actions = torch.argmax(self._online(torch.Tensor(self._seen)), dim=1).numpy()
        after, reward, terminated, truncated, info = self._envs.step(actions)
        last = after.copy()
        for i in np.flatnonzero(terminated | truncated):
            last[i] = info["final_obs"][i]
        self._replay.add(self._seen, last, actions, reward, terminated, [{}] * self._num_envs)
        self._seen = after
        self._steps += 1

    def _learn(self) -> None:
        settings = self._settings
        batch = self._replay.sample(settings["batch_size"])
        with torch.no_grad():
            best, _ = self._target(batch.next_observations).max(dim=1)
            wanted = batch.rewards.flatten() + settings["discount"] * best * (1 - batch.dones.flatten())
        value = self._online(batch.observations).gather(1, batch.actions).squeeze()
        loss = nn.functional.smooth_l1_loss(value, wanted)
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        self._updates += 1
        if self._updates % settings["target_update_period_updates"] == 0:
            self._target.load_state_dict(self._online.state_dict())

    def run(self, count: int) -> dict[str, float]:
        every, updates = (self._settings[name] for name in ("iterations_per_update", "updates_per_iteration"))
        for _ in range(count):
            for _ in range(every):
                self._step()
            for _ in range(updates):
                self._learn()
        return {"env_frames": float(count * every * self._num_envs), "updates": float(count * updates)}

    def evaluate(self) -> float:
        raise NotImplementedError("it is only timed")

    def check(self) -> None:
        before = self._online[0].weight.detach().clone()
        self.run(3)
        if torch.equal(before, self._online[0].weight):
            raise WrongResult("3 updates changed no weight")


if __name__ == "__main__":
    contender.serve(CleanRl)
