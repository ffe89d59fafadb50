"""The games, and the contract that they share (`tfdqn.envs.base`). Importing this imports no TensorFlow."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.envs.base import Environment, TimeStep
    from tfdqn.envs.spec import ObservationSpec

__all__ = ["Environment", "ObservationSpec", "TimeStep", "make", "make_for"]

_HOMES = {"Environment": "base", "TimeStep": "base", "ObservationSpec": "spec"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"tfdqn.envs.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def make_for(config: Config) -> Environment:
    """Make the game that a configuration names, as it is seen there."""
    from tfdqn.envs import registry

    return registry.entry(config.env).make(config.game_settings, config.env_args)


def make(name: str, **arguments: Any) -> Environment:
    """Make a game by its name, or by where it is: "package.module:Class" or "path/to/file.py:Class".

    Args:
      name: as `--env`.
      **arguments: settings of its own, such as `downsample` of the cave, or arguments of its class.

    Raises:
      ValueError: no such game (the message names the nearest), or one that takes no such arguments.
    """
    from tfdqn.envs import registry
    from tfdqn.errors import UserError

    try:
        return registry.entry(name).make(arguments=arguments)
    except UserError as error:
        raise ValueError(str(error).removeprefix("--env ")) from None
