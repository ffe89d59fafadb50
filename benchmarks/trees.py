"""What differs between this tree's tfdqn and an earlier one's: the benchmarks of this tree measure both (`compare`)."""

from __future__ import annotations

import dataclasses
import importlib
import sys
import types
from pathlib import Path
from typing import Any

import tfdqn
from tfdqn import config as configuration

# Where a module lies, by folder, that was once one of the package's own under the same name, or under the one here.
_MOVED = {
    "envs": {"rollout": "rollout"},
    "networks": {
        "bodies": "bodies",
        "catalogue": "networks",
        "layers": "layers",
        "names": "network_names",
        "products": "products",
    },
    "replay": {"table": "replay", "prioritized": "prioritized", "transitions": "transitions"},
    "learners": {"losses": "losses"},
    "learners.dqn": {name: name for name in ("agent", "building", "convolutions", "heads")},
    "programs": {name: name for name in ("blame", "evaluation", "restarts", "training")},
    "runs": {"run_folder": "runs"} | {name: name for name in ("checkpoints", "loop", "monitor", "progress", "saving")},
    "runtime": {name: name for name in ("compiled", "devices", "memory", "signals")},
}


def _name_as_today(folder: str, names: dict[str, str]) -> None:
    """Let an earlier tree's modules be imported by the names that they have in this one."""
    # First all of them: one may have had the name that is the folder's today.
    found = {name: importlib.import_module(f"tfdqn.{earlier}") for name, earlier in names.items() if _is_there(earlier)}
    package = sys.modules.setdefault(f"tfdqn.{folder}", types.ModuleType(f"tfdqn.{folder}"))
    for name, module in found.items():
        sys.modules[f"tfdqn.{folder}.{name}"] = module
        setattr(package, name, module)


def _is_there(earlier: str) -> bool:
    return (Path(tfdqn.__file__).parent / f"{earlier}.py").exists()


if not (Path(tfdqn.__file__).parent / "programs").is_dir():
    for _folder, _names in _MOVED.items():
        _name_as_today(_folder, _names)

IS_EARLIER = hasattr(configuration, "GAMES")  # settings were one flat dataclass, and games were named there


def game_names() -> list[str]:
    """The games that come along."""
    if IS_EARLIER:
        return list(configuration.GAMES)
    from tfdqn.envs import registry

    return registry.names()


def presets() -> list[tuple[str, str]]:
    """Every game and its presets' names."""
    if IS_EARLIER:
        from tfdqn.presets import PRESETS

        return list(PRESETS)
    from tfdqn.envs import registry

    # Presets of a name side by side, as they have always been listed.
    # The rows are of loops that fill a replay: other learners' have none, or one of another kind.
    found = [
        (game.name, preset)
        for game in registry.games()
        for preset, values in game.presets.items()
        if values.get("learner", "dqn") == "dqn"
    ]
    return sorted(found, key=lambda pair: [preset for _, preset in found].index(pair[1]))


def replace(config: Any, **changes: Any) -> Any:
    """A configuration with other values of some settings."""
    return dataclasses.replace(config, **changes) if IS_EARLIER else config.replace(**changes)


def frame_shape(config: Any) -> tuple[int, ...]:
    """The shape of what a game that comes along shows."""
    return config.screen if IS_EARLIER else config.observation_spec.shape


def frame_dtype(env: Any) -> str:
    """The type of what a game shows."""
    return env.observation_spec.dtype if hasattr(type(env), "observation_spec") else "uint8"


def replay_bytes(config: Any) -> int:
    """The memory of the replay."""
    return config.replay_bytes if IS_EARLIER else config.replay_bytes(config.observation_spec)


def reads_columns(network: str) -> bool:
    """Whether a replay should hold frames column by column."""
    from tfdqn.networks import catalogue

    if hasattr(catalogue, "body_of"):
        return catalogue.body_of(network).prefers_columns
    return getattr(catalogue, "reads_columns", lambda _: False)(network)


def available_bytes() -> int:
    """Memory that this process may still take."""
    if hasattr(configuration, "available_memory_bytes"):
        return configuration.available_memory_bytes()
    from tfdqn.runtime import memory

    return memory.available_bytes()


def check_memory(config: Any) -> None:
    """Refuse a replay that does not fit."""
    spec = () if IS_EARLIER else (config.observation_spec,)
    configuration.check_memory(config, *spec, available_bytes())


def building() -> Any:
    """The module that makes agents and optimizers: once the trainer's."""
    try:
        from tfdqn.learners.dqn import building
    except ImportError:
        from tfdqn.programs import training as building
    return building


def transition() -> Any:
    """The type of a batch that a learner takes: once the replay's."""
    try:
        from tfdqn.replay.transitions import Transition
    except ImportError:
        from tfdqn.replay.table import Transition
    return Transition


def build_optimizer(config: Any) -> Any:
    """The optimizer that a configuration names."""
    try:
        from tfdqn.learners.optimizing import build_optimizer
    except ImportError:
        build_optimizer = building().build_optimizer
    return build_optimizer(config)
