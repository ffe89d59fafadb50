"""purejaxql's PQN on MinAtar's games in JAX: `benchmarks.peers.purejaxql_worker CHECKOUT`, in its own environment.

CHECKOUT is a folder of purejaxql (github.com/mttga/purejaxql, commit in `COMMIT`), whose `purejaxql/pqn_minatar.py`
trains, untouched. Of what it imports, hydra, omegaconf and wandb are replaced: it is called, not started, and what it
would have sent to wandb is its curve. Games are gymnax's; seaquest, which gymnax has not, is pgx's.
"""

from __future__ import annotations

import importlib
import sys
import time
import types
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pgx
import yaml
from gymnax.environments import spaces

from benchmarks import line

COMMIT = "0436c80a95e685ccc30c06a4473f9071a42d12aa"
GYMNAX = {
    "breakout": "Breakout-MinAtar",
    "asterix": "Asterix-MinAtar",
    "freeway": "Freeway-MinAtar",
    "space_invaders": "SpaceInvaders-MinAtar",
}
MAX_STEPS = 1000  # gymnax's cut of an episode, for pgx's seaquest, too
WHOLE = 10_000  # frames after which an episode of these games ends in tfdqn
EPISODES = 128


class Params(NamedTuple):
    """What gymnax's environments are told besides the state."""

    max_steps_in_episode: int = MAX_STEPS


class FromPgx:
    """A game of pgx with the functions of a gymnax environment; episodes are cut as gymnax cuts them."""

    def __init__(self, name: str):
        self._env = pgx.make(name)

    def observation_space(self, params: Params) -> spaces.Box:
        return spaces.Box(0, 1, self._env.observation_shape)

    def action_space(self, params: Params) -> spaces.Discrete:
        return spaces.Discrete(self._env.num_actions)

    def reset(self, key, params):
        state = self._env.init(key)
        return state.observation.astype(jnp.float32), state

    def step(self, key, state, action, params):
        step_key, reset_key = jax.random.split(key)
        played = self._env.step(state, action, step_key)
        done = played.terminated | played.truncated | (played._step_count >= params.max_steps_in_episode)
        fresh = self._env.init(reset_key)
        state = jax.tree_util.tree_map(partial(jnp.where, done), fresh, played)
        return state.observation.astype(jnp.float32), state, played.rewards[0], done, {}


def make(game: str, library: str = "gymnax"):
    """A game and what it is told, gymnax's or pgx's; seaquest is always pgx's."""
    if library == "pgx" or game not in GYMNAX:
        return FromPgx(f"minatar-{game}"), Params()
    return gymnax.make(GYMNAX[game])


class Log:
    """Stands for wandb, and keeps the curve."""

    def __init__(self):
        self.rows: list[dict[str, float]] = []

    def log(self, metrics: dict[str, Any], step: Any) -> None:
        self.rows.append(
            {
                "update": int(step),
                "seconds": time.perf_counter(),
                "cpu_seconds": time.process_time(),
                "score": float(metrics.get("test_returned_episode_returns", np.nan)),
                "training_score": float(metrics["returned_episode_returns"]),
            }
        )


def script(checkout: str, log: Log) -> Any:
    """purejaxql's module."""
    hydra, omegaconf, wandb = (types.ModuleType(name) for name in ("hydra", "omegaconf", "wandb"))
    hydra.main = lambda **_: lambda function: function
    omegaconf.OmegaConf = object
    wandb.log = log.log
    sys.modules.update(hydra=hydra, omegaconf=omegaconf, wandb=wandb)
    sys.path.insert(0, str(Path(checkout) / "purejaxql"))
    module = importlib.import_module("pqn_minatar")
    # Its script takes the environment from `gymnax.make`.
    module.gymnax = types.SimpleNamespace(make=make)
    return module


class Worker:
    """What is done when asked."""

    def __init__(self, checkout: str):
        self._log = Log()
        self._script = script(checkout, self._log)
        published = Path(checkout) / "purejaxql" / "config" / "alg" / "pqn_minatar.yaml"
        self._settings = yaml.safe_load(published.read_text(encoding="utf-8"))

    def train(self, game: str, frames: int, seed: int, evaluations: int) -> dict[str, Any]:
        """Train as published, for so many frames, over which rates and exploration fall as they do there.

        Of its seconds, those of compiling and of evaluating are left out: a round that was evaluated after counts as
        long as the median round, so let there be far fewer of them.
        """
        self._log.rows.clear()
        config = {
            **self._settings,
            "ENV_NAME": game,
            "TOTAL_TIMESTEPS": frames,
            "TOTAL_TIMESTEPS_DECAY": frames,
            "TEST_DURING_TRAINING": bool(evaluations),
            "TEST_INTERVAL": 1 / max(evaluations, 1),
            "WANDB_MODE": "curve",
        }
        start = time.perf_counter()
        program = jax.jit(self._script.make_train(config)).lower(jax.random.PRNGKey(seed)).compile()
        compiled, cpu = time.perf_counter(), time.process_time()
        state = jax.block_until_ready(program(jax.random.PRNGKey(seed)))["runner_state"][0]
        jax.effects_barrier()
        rows = sorted(self._log.rows, key=lambda row: row["update"])
        every = int(config["NUM_UPDATES"] * config["TEST_INTERVAL"]) if evaluations else len(rows) + 1
        per_round = config["NUM_STEPS"] * config["NUM_ENVS"]

        def clock(name: str, begin: float) -> np.ndarray:
            spent = np.diff([begin, *(row[name] for row in rows)])
            spent[0] = min(spent[0], np.median(spent))  # before its first round it evaluates, too
            evaluated = np.array([row["update"] % every == 0 for row in rows])
            spent[evaluated] = np.minimum(spent[evaluated], np.median(spent))
            return np.cumsum(spent)

        seconds, cpu_seconds = clock("seconds", compiled), clock("cpu_seconds", cpu)
        curve = [
            {
                "env_frames": row["update"] * per_round,
                "seconds": round(float(wall), 2),
                "cpu_seconds": round(float(used), 2),
                "score": round(row["score"], 3),
                "training_score": round(row["training_score"], 3),
            }
            for row, wall, used in zip(rows, seconds, cpu_seconds, strict=True)
            if row["update"] % every == 0
        ]
        return {
            "env_frames": rows[-1]["update"] * per_round,
            "seconds": float(seconds[-1]),
            "cpu_seconds": float(cpu_seconds[-1]),
            "compile_seconds": compiled - start,
            "score": self._first_episodes(game, state, config, None),
            "score_whole": self._first_episodes(game, state, config, WHOLE),
            "curve": curve,
        }

    def _first_episodes(self, game: str, state: Any, config: dict[str, Any], max_steps: int | None) -> float:
        """Mean score of greedy play: the first episode of each of `EPISODES` environments, cut after `max_steps`.

        None: where it was cut in training.

        Its own test counts every episode that ends in so many steps, of which short ones are more.
        """
        env, params = make(game)
        if max_steps is not None:
            replace = params._replace if isinstance(params, Params) else params.replace
            params = replace(max_steps_in_episode=max_steps)
        network = self._script.QNetwork(env.action_space(params).n, norm_type=config["NORM_TYPE"])

        @jax.jit
        def play(weights, key):
            reset_key, key = jax.random.split(key)
            seen, games = jax.vmap(env.reset, (0, None))(jax.random.split(reset_key, EPISODES), params)

            def step(carry, key):
                seen, games, score, over = carry
                action = jnp.argmax(network.apply(weights, seen, train=False), axis=-1)
                keys = jax.random.split(key, EPISODES)
                seen, games, reward, done, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, games, action, params)
                return (seen, games, score + jnp.where(over, 0, reward), over | done), None

            start = (seen, games, jnp.zeros(EPISODES), jnp.zeros(EPISODES, bool))
            (_, _, score, over), _ = jax.lax.scan(step, start, jax.random.split(key, params.max_steps_in_episode))
            return score.mean(), over.all()

        score, over = play({"params": state.params, "batch_stats": state.batch_stats}, jax.random.PRNGKey(2**20))
        if not over:
            raise RuntimeError(f"{game}: an episode did not end")
        return float(score)

    def build(self, game: str, library: str, num_envs: int) -> None:
        """Random play of a game, compiled."""
        env, params = make(game, library)
        actions = env.action_space(params).n

        def body(_, carry):
            key, seen, games, digest = carry
            key, action_key, step_key = jax.random.split(key, 3)
            action = jax.random.randint(action_key, [num_envs], 0, actions)
            digest = digest + seen[digest.astype(jnp.int32) % num_envs].sum()  # of the frames that the step before drew
            keys = jax.random.split(step_key, num_envs)
            seen, games, reward, _, _ = jax.vmap(env.step, (0, 0, 0, None))(keys, games, action, params)
            return key, seen, games, digest + reward.sum()

        self._play = jax.jit(lambda carry, count: jax.lax.fori_loop(0, count, body, carry))
        seen, games = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.PRNGKey(0), num_envs), params)
        self._carry, self._num_envs = (jax.random.PRNGKey(1), seen, games, jnp.float32(0)), num_envs
        self.time(1)

    def time(self, count: int) -> dict[str, float]:
        """Seconds of so many steps of all environments."""
        start, cpu = time.perf_counter(), time.process_time()
        self._carry = self._play(self._carry, jnp.int32(count))
        self._carry[-1].block_until_ready()
        return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}


if __name__ == "__main__":
    worker = Worker(sys.argv[1])
    line.answer({"train": worker.train, "build": worker.build, "time": worker.time})
