"""The learners by name: the only list of them. Importing it imports no TensorFlow."""

from __future__ import annotations

import importlib

# name: the module that holds its settings (`ROOMS`, in the order of `config.toml`) and its sizes for a GPU.
LEARNERS = {"dqn": "tfdqn.learners.dqn.settings"}


def settings_of(name: str):
    """The module of a learner's settings."""
    return importlib.import_module(LEARNERS[name])
