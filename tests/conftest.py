"""Keras 2 must be chosen before any test imports TensorFlow."""

import os

import pytest

import tfdqn  # noqa: F401


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch):
    """Commands that are called in this process set variables for TensorFlow: no later test's process inherits them."""
    for name in ("TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES"):
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
