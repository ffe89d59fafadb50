"""What differs between this tree's tfdqn and an earlier one's: the benchmarks of this tree measure both (`compare`)."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfdqn import config as configuration

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
    found = [(game.name, preset) for game in registry.games() for preset in game.presets]
    return sorted(found, key=lambda pair: [preset for _, preset in found].index(pair[1]))


def replace(config: Any, **changes: Any) -> Any:
    """A configuration with other values of some settings."""
    return dataclasses.replace(config, **changes) if IS_EARLIER else config.replace(**changes)


def frame_shape(config: Any) -> tuple[int, ...]:
    """The shape of what a game that comes along shows."""
    return config.screen if IS_EARLIER else config.observation_spec.shape


def replay_bytes(config: Any) -> int:
    """The memory of the replay."""
    return config.replay_bytes if IS_EARLIER else config.replay_bytes(config.observation_spec)


def reads_columns(network: str) -> bool:
    """Whether a replay should hold frames column by column."""
    from tfdqn import networks

    if hasattr(networks, "body_of"):
        return networks.body_of(network).prefers_columns
    return getattr(networks, "reads_columns", lambda _: False)(network)


def available_bytes() -> int:
    """Memory that this process may still take."""
    if hasattr(configuration, "available_memory_bytes"):
        return configuration.available_memory_bytes()
    from tfdqn import memory

    return memory.available_bytes()


def check_memory(config: Any) -> None:
    """Refuse a replay that does not fit."""
    spec = () if IS_EARLIER else (config.observation_spec,)
    configuration.check_memory(config, *spec, available_bytes())


def building() -> Any:
    """The module that makes agents and optimizers: once the trainer's."""
    try:
        from tfdqn import building
    except ImportError:
        from tfdqn import training as building
    return building


def transition() -> Any:
    """The type of a batch that a learner takes: once the replay's."""
    try:
        from tfdqn.transitions import Transition
    except ImportError:
        from tfdqn.replay import Transition
    return Transition
