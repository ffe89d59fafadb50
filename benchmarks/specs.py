"""What is measured: one table of specifications. No TensorFlow here, so bad arguments are found at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import trees
from tfdqn import config as configuration
from tfdqn.errors import UserError, nearest

CASES = {
    "env": "frames of each game under random actions, drawn and not",
    "replay": "rows added; transitions sampled with stack and n-step",
    "act": "epsilon-greedy decisions of each network",
    "learner": "updates of each network on a batch that is at hand",
    "loop": "the whole training program",
    "compile": "seconds from nothing to the first chunk, in a process of its own",
    "memory": "peak bytes of a training process",
    "reports": "what a preset's reports cost a run, in a process of its own",
}
PROCESS_CASES = ("compile", "memory", "reports")  # a process for each number: nothing that two trees can do in turn

# Network, the game whose screen it sees, and the frames in its observation.
NETWORKS = (
    ("mlp", "catch8", 1),
    ("conv", "catch16", 1),
    ("columns", "catch16", 1),
    ("conv", "cave", 4),
    ("conv_stride4", "cave", 4),
    ("columns_deep", "cave", 2),
    ("columns_wide", "cave", 2),
)
_QUICK_NETWORKS = ("mlp", "conv_stride4")
_GATE_NETWORKS = (("mlp", "catch8"), ("conv", "cave"), ("columns_deep", "cave"))

# Where the pinned loops and networks differ from the configuration's defaults. Adam and no Double: what every peer can
# do, too.
PLAIN = {
    "preset": "default",
    "frame_stack": 1,
    "frame_stride": 1,
    "action_repeat": 1,
    "downsample": 1,
    "iterations_per_update": 1,
    "updates_per_iteration": 1,
    "replay_capacity": 100_000,
    "replay_min_rows": 5_000,
    "optimizer": "adam",
    "learning_rate": 2.5e-4,
    "loss": "huber",
    "double": False,
    "n_step": 1,
    "target": "hard",
    "target_update_period_updates": 500,
}
# Everything that decides speed or what is computed, so that no change of a preset changes what is compared. From the
# fields of the tree that is measured: an older one may lack some.
PINNED = {
    name: field.default
    for name, field in configuration.FIELDS.items()
    if field.metadata["group"] not in ("length", "evaluation", "checkpoints") and name not in ("env", "seed", "device")
} | PLAIN
_CATCH = {"env": "catch8", "network": "mlp"}
_CAVE = {"env": "cave", "network": "conv", "frame_stack": 4, "num_envs": 64, "batch_size": 32}
_STRIDE4 = {**_CAVE, "network": "conv_stride4", "batch_size": 256, "n_step": 3}
# variant: settings on top of PINNED. The first four are the rows that peers are compared on.
LOOPS: dict[str, dict[str, Any]] = {
    "update-every-3": {**_CATCH, "num_envs": 1, "batch_size": 32, "iterations_per_update": 3},
    "update-every-step": {**_CATCH, "num_envs": 64, "batch_size": 32},
    "batch-512": {**_CATCH, "num_envs": 1024, "batch_size": 512},
    "article-conv": _CAVE,
}
# Sixteen agents in one program; env frames and updates are those of all, to be held against one agent's above.
for _variant in ("update-every-3", "update-every-step"):
    LOOPS[f"{_variant}-population-16"] = {**LOOPS[_variant], "population": 16}
# Rows in the replay and its capacity: does an iteration's time depend on either?
GROWTH = {"small-full": (10_000, 10_000), "large-1-percent": (10_000, 1_000_000), "large-full": (1_000_000, 1_000_000)}
for _variant, (_rows, _capacity) in GROWTH.items():
    for _base in ({**_CATCH, "num_envs": 64, "batch_size": 32}, _STRIDE4):
        LOOPS[f"{_variant}-{_base['env']}"] = {**_base, "replay_capacity": _capacity}


@dataclasses.dataclass(frozen=True)
class Spec:
    """One thing to measure. `quick` ones are small; `gate` ones are compared by `benchmarks.compare`."""

    case: str
    env: str
    variant: str
    num_envs: int | None = None
    batch: int | None = None
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)
    quick: bool = False
    gate: bool = False

    @property
    def name(self) -> str:
        """Such as "env/cave/frames/n1024"; what `--case` selects by, in whole parts."""
        sizes = [f"{letter}{size}" for letter, size in (("n", self.num_envs), ("b", self.batch)) if size is not None]
        return "/".join([self.case, self.env, self.variant, *sizes])


def all_specs(*, on_gpu: bool = False) -> list[Spec]:
    """Every specification, in the order of `CASES`; presets have the sizes that they have on the device."""
    return [*_env_specs(), *_replay_specs(), *_network_specs(), *_loop_specs(on_gpu), *_process_specs(on_gpu)]


def _env_specs():
    for env in trees.game_names():
        for variant in ("frames", "states"):
            for size in (1, 64, 1024, 16384):
                gate = variant == "frames" and size == 1024 and env in ("catch8", "cave")
                yield Spec("env", env, variant, size, quick=size == 64, gate=gate)


def _replay_specs():
    for env, stack, rows in (("catch8", 1, 1_000_000), ("cave", 4, 1_000_000)):
        small = {"stack": stack, "n_step": 3, "rows": 20_000}
        large = {**small, "rows": rows}
        for size in (1, 64, 1024):
            yield Spec("replay", env, "add", size, settings=small, quick=size == 64, gate=size == 64)
        yield Spec("replay", env, "sample-small", 64, 256, settings=small, quick=True)
        for batch in (32, 256):
            yield Spec("replay", env, "sample", 64, batch, settings=large, gate=env == "catch8" and batch == 256)


def _network_specs():
    for network, env, stack in NETWORKS:
        settings = {"network": network, "frame_stack": stack}
        for size in (1, 64, 1024):
            quick = size == 64 and network in _QUICK_NETWORKS
            yield Spec("act", env, network, size, settings=settings, quick=quick)
    for network, env, stack in NETWORKS:
        settings = {"network": network, "frame_stack": stack}
        for batch in (32, 256, 2048):
            gate = batch == 256 and (network, env) in _GATE_NETWORKS
            quick = batch == 32 and network in _QUICK_NETWORKS
            yield Spec("learner", env, network, None, batch, settings=settings, quick=quick, gate=gate)
    native = {"network": "conv", "frame_stack": 4, "convolution": "native"}
    for batch in (32, 256):
        yield Spec("learner", "cave", "conv_native", None, batch, settings=native)
    for network in ("columns_deep", "columns_wide"):
        rounded = {"network": network, "frame_stack": 2, "precision": "bfloat16"}
        for batch in (256, 2048):
            yield Spec("learner", "cave", f"{network}_bfloat16", None, batch, settings=rounded)


def _loop_specs(on_gpu: bool):
    for variant, chosen in LOOPS.items():
        settings = {**PINNED, **chosen}
        gated = variant in ("update-every-3", "update-every-step", "batch-512", "article-conv")
        quick = variant in ("update-every-3", "update-every-step")
        yield Spec(
            "loop", chosen["env"], variant, chosen["num_envs"], chosen["batch_size"], settings, quick=quick, gate=gated
        )
    for env, preset in trees.presets():
        settings = {"env": env, "preset": preset}
        config = configuration.resolve(settings, on_gpu=on_gpu)
        yield Spec("loop", env, f"preset-{preset}", config.num_envs, config.batch_size, settings)


def _process_specs(on_gpu: bool):
    for case in ("compile", "memory"):
        for env, preset in trees.presets():
            settings = {"env": env, "preset": preset}
            config = configuration.resolve(settings, on_gpu=on_gpu)
            quick = (env, preset) == ("catch8", "default")
            yield Spec(case, env, preset, config.num_envs, config.batch_size, settings, quick=quick)
    for env in trees.game_names():
        settings = {"env": env}
        config = configuration.resolve(settings, on_gpu=on_gpu)
        yield Spec("reports", env, "default", config.num_envs, config.batch_size, settings, quick=env == "catch8")


def select(patterns: Sequence[str], *, quick: bool = False, gate: bool = False, on_gpu: bool = False) -> list[Spec]:
    """The specifications that patterns name: a case, or as many leading parts of a name as wanted.

    `quick` and `gate` narrow whole cases to their members; a pattern of more than one part is taken at its word. A
    preset may be named by its sizes on either device: which one it will be shows only once TensorFlow has started.

    Raises:
      UserError: a pattern that names nothing.
    """
    specs = all_specs(on_gpu=on_gpu)
    names = [{spec.name, twin.name} for spec, twin in zip(specs, all_specs(on_gpu=not on_gpu), strict=True)]
    chosen: dict[str, Spec] = {}
    for pattern in patterns or CASES:
        parts = pattern.split("/")
        named = [
            spec
            for spec, either in zip(specs, names, strict=True)
            if any(name.split("/")[: len(parts)] == parts for name in either)
        ]
        if not named:
            known = list(CASES) + [spec.name for spec in specs]
            hint = nearest(pattern, known)
            raise UserError(f"--case {pattern}: unknown; {hint if len(hint) < 100 else 'cases: ' + ', '.join(CASES)}")
        if len(parts) == 1:
            named = [spec for spec in named if (spec.quick or not quick) and (spec.gate or not gate)]
        chosen.update({spec.name: spec for spec in named})
    return list(chosen.values())
