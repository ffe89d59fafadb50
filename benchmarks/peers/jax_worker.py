"""The fused JAX loop as a contender: `python -m benchmarks.peers.jax_worker`, in its own environment."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import contender, traces
from benchmarks.peers.contender import EVAL_EPISODES
from benchmarks.peers.jax_games import Catch8, Cave
from benchmarks.peers.jax_loop import Loop
from benchmarks.timing import WrongResult


class JaxLoop(contender.Contender):
    """A `Loop` that has played until it may learn."""

    def __init__(self, settings: Mapping[str, Any]):
        self._settings = settings
        if settings["one_thread"]:
            os.environ["NPROC"] = "1"  # read by XLA when the first computation starts its device
        self._loop, self._agents = Loop(dict(settings)), settings.get("population", 1)
        initial, fill, self._chunk = self._loop.initial, self._loop.fill, self._loop.chunk
        keys = jax.random.key(0)
        if self._agents > 1:  # the whole loop, mapped, as PureJaxRL trains many seeds
            keys = jax.random.split(keys, self._agents)
            initial, self._chunk = jax.vmap(initial), jax.jit(jax.vmap(self._loop._chunk, (0, None)), donate_argnums=0)
            fill = jax.vmap(self._loop._fill, (0, None))
        self._carry = fill(initial(keys), -(-settings["replay_min_rows"] // settings["num_envs"]))
        self._updates = 0

    def run(self, count: int) -> dict[str, float]:
        self._carry = self._chunk(self._carry, count)
        updates = int(self._carry.learner.updates.sum())  # waits for the device; of all agents
        learnt, self._updates = updates - self._updates, updates
        frames = self._agents * count * self._settings["iterations_per_update"] * self._settings["num_envs"]
        return {"env_frames": float(frames), "updates": float(learnt)}

    def evaluate(self) -> float:
        scores = self._loop.evaluate(self._carry.learner.params, EVAL_EPISODES, jax.random.key(1))
        return float(np.mean(scores))

    def check(self) -> None:
        """The game plays the recorded games, every round learns, and weights change."""
        play_recorded(self._settings["env"])
        before = jax.tree.map(np.array, self._carry.learner.params)
        work = self.run(3)
        if work["updates"] != 3 * self._agents:
            raise WrongResult(f"3 rounds made {work['updates']} updates")
        after = jax.tree.map(np.array, self._carry.learner.params)
        if any(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)):
            raise WrongResult("an update left weights as they were")


@functools.cache
def play_recorded(name: str) -> int:
    """Every recorded frame of a game, or `WrongResult`."""
    game = {"catch8": Catch8, "cave": Cave}[name]()
    observe = jax.jit(game.observe)

    @jax.jit
    def advance(state, action, draws):
        state, step = game.step(state, action, draws)
        return state, game.observe(state), step.reward, step.is_over

    if name == "catch8":

        def start(paddle, column):
            state = game.start(jnp.int32(paddle), jnp.int32(column))
            return state, observe(state)

        def step(state, action, _, posted):
            rank = 0 if posted is None else traces.catch_rank(posted, int(state.columns[0]))
            return advance(state, action, np.array([0, rank], np.uint32))

    else:
        first_row = jax.jit(lambda state, action, draws: game.step(state, action, draws)[0].tops[0])

        def start():
            state = game.reset(np.zeros(2, np.uint32))
            return state, observe(state)

        def step(state, action, draw, posted):
            rank = 0
            if posted is not None:  # rank 0 is the first allowed row
                rank = posted - int(first_row(state, action, np.array([draw, 0], np.uint32)))
                if rank < 0:
                    raise WrongResult(f"cave: a block was posted in row {posted}, above the first allowed one")
            return advance(state, action, np.array([draw, rank], np.uint32))

    return traces.replay(name, start, step)


if __name__ == "__main__":
    contender.serve(JaxLoop)
