"""The learners by name: the only list of them. Importing it imports no TensorFlow."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from tfdqn.config import Config
    from tfdqn.envs.base import Environment
    from tfdqn.learners.base import Agent, Learner

# name: the folder with its `settings` (`ROOMS`, in the order of `config.toml`, its `PRESET` and its sizes for a GPU)
# and its `learner` (`LEARNER`, a `tfdqn.learners.base.Learner`).
LEARNERS = {name: f"tfdqn.learners.{name}" for name in ("dqn", "pqn", "a2c", "r2d2")}


def settings_of(name: str) -> ModuleType:
    """The module of a learner's settings."""
    return importlib.import_module(f"{LEARNERS[name]}.settings")


def presets_of(name: str) -> Mapping[str, Mapping[str, Any]]:
    """A learner's named settings, which come on top of a game's default ones."""
    return getattr(settings_of(name), "PRESETS", {})


def learner_of(name: str) -> type[Learner]:
    """The learner of that name."""
    return importlib.import_module(f"{LEARNERS[name]}.learner").LEARNER


def build_agent(config: Config, env: Environment) -> Agent:
    """The agent that a configuration describes, to play."""
    return learner_of(config.learner).build_agent(config, env)
