"""Who is measured on what: tables, without TensorFlow."""

from __future__ import annotations

import dataclasses
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from benchmarks import line, specs
from benchmarks.peers import environments
from tfdqn.errors import UserError, nearest

OURS = "tfdqn"


@dataclasses.dataclass(frozen=True)
class Peer:
    """Whom tfdqn is compared with. `environment` is None for the one that this process runs in."""

    title: str
    module: str
    environment: str | None
    rows: tuple[str, ...]
    one_thread: tuple[str, ...] = ()  # rows on which it gets a single thread; elsewhere all of them


# Rows, all with `specs.PINNED`: the variants of `specs.LOOPS` that peers are compared on, and those of `DOORS`.
LOOP_ROWS = ("update-every-3", "update-every-step", "batch-512", "article-conv")
# Gymnasium's CartPole, which steps in Python, through tfdqn's door: one environment, and the network of catch8's rows.
_DOOR = {"env": "gym:CartPole-v1", "network": "mlp", "num_envs": 1, "replay_min_rows": 1_000}
DOORS: dict[str, dict[str, Any]] = {
    "door-every-step": {**_DOOR, "batch_size": 64},
    "door-every-4": {**_DOOR, "batch_size": 32, "iterations_per_update": 4},
    # As rl-baselines3-zoo has it for LunarLander: after 4 frames as many updates.
    "door-4-updates": {**_DOOR, "batch_size": 128, "iterations_per_update": 4, "updates_per_iteration": 4},
    "door-16-envs": {**_DOOR, "batch_size": 128, "num_envs": 16},
}
# Sixteen agents at once: one program of ours, and JAX's way, the whole loop mapped over sixteen keys.
POPULATION_ROWS = ("update-every-3-population-16", "update-every-step-population-16")
ROWS = (*LOOP_ROWS, *POPULATION_ROWS, *DOORS)
PEERS = {
    # One thread wherever that was quicker: with more, XLA hands operations of a microsecond from thread to thread.
    "jax": Peer(
        "fused JAX loop", "jax_worker", "jax", (*LOOP_ROWS, *POPULATION_ROWS), (*LOOP_ROWS[:3], *POPULATION_ROWS)
    ),
    "one-thread": Peer("tfdqn on one thread", "tfdqn_worker", None, ROWS, ROWS),
    "tf-agents": Peer("TF-Agents", "tf_agents_worker", "tensorflow", LOOP_ROWS[:2]),
    "sb3": Peer("Stable-Baselines3", "sb3_worker", "sb3", (*LOOP_ROWS[:2], *DOORS), ROWS),
    "cleanrl": Peer("CleanRL's loop", "cleanrl_worker", "sb3", tuple(DOORS), ROWS),
    "keras": Peer("a predict per sample", "keras_worker", "tensorflow", LOOP_ROWS[:1]),
}
# How many times faster tfdqn is to be, on a CPU: (peer, row): (bar, aim).
BARS = {
    ("jax", "update-every-3"): (1.5, 3),
    ("jax", "update-every-step"): (1.3, 3),
    ("jax", "batch-512"): (2, 3),
    ("jax", "article-conv"): (10, 15),
    ("jax", "update-every-step-population-16"): (1.5, 2),
    ("tf-agents", "update-every-step"): (30, 60),
    ("sb3", "update-every-step"): (60, 120),
    ("keras", "update-every-3"): (50_000, 100_000),
    ("sb3", "door-every-step"): (3, 8),
    ("sb3", "door-4-updates"): (3, 8),
}
# The fused JAX loop counts as a peer only if it is this quick, in env frames/s, where a matmul reaches this rate.
WORTHY = {"update-every-3": 20_000, "update-every-step": 400_000, "batch-512": 500_000}
WORTHY_OPERATIONS = 180e9


def spec(row: str) -> specs.Spec:
    """The benchmark of `benchmarks.run` that a row is, or one like it."""
    if row in DOORS:
        given = specs.PINNED | DOORS[row]
        return specs.Spec("loop", given["env"], row, given["num_envs"], given["batch_size"], given)
    return next(spec for spec in specs.all_specs() if spec.case == "loop" and spec.variant == row)


def settings(row: str, name: str = OURS) -> dict[str, Any]:
    """Every setting of a row, for contenders that know no defaults of tfdqn's; no infinities, which JSON has not.

    `one_thread` is no setting of tfdqn's: it says what a contender is to do before it starts its device.
    """
    given = {**spec(row).settings, "device": "cpu", "one_thread": has_one_thread(row, name)}
    return {field: value for field, value in given.items() if not isinstance(value, float) or math.isfinite(value)}


def has_one_thread(row: str, name: str) -> bool:
    """Whether a contender gets a single thread on a row."""
    return name != OURS and row in PEERS[name].one_thread


def start(name: str) -> line.Process:
    """A contender's process. tfdqn's runs in this environment, the others' each in their own."""
    path = os.pathsep.join([str(environments.ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    if name == OURS or PEERS[name].environment is None:
        command = [sys.executable, "-P", "-m", "benchmarks.peers.tfdqn_worker"]
        return line.Process(command, {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"})
    peer = PEERS[name]
    command = [str(environments.python(peer.environment)), "-P", "-m", f"benchmarks.peers.{peer.module}"]
    # Nothing that lies on this process's path may stand before what the environment was made of.
    variables = {"PYTHONPATH": str(environments.ROOT), "CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
    variables["XLA_FLAGS"] = ""  # what tfdqn has set for itself is not theirs
    return line.Process(command, variables)


def choose(names: Sequence[str], allowed: Sequence[str], flag: str) -> list[str]:
    """The names given, or all allowed ones, in the order of these.

    Raises:
      UserError: a name that is none of them.
    """
    for name in names:
        if name not in allowed:
            raise UserError(f"{flag} {name}: unknown; {nearest(name, allowed)}")
    return [name for name in allowed if name in names or not names]
