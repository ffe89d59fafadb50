"""Keras 2 must be chosen before any test imports TensorFlow."""

import os
import signal

import pytest

import tfdqn  # noqa: F401

# Tests start processes of their own, which share a GPU with this one.
os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

# Started in the background of a script, or under nohup, a process and its children ignore these: tests send them.
for _number, _handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(_number, _handler)

VARIABLES = ("TF_NUM_INTRAOP_THREADS", "CUDA_VISIBLE_DEVICES")


@pytest.fixture(autouse=True, scope="module")
def restored_environment_of_modules():
    """The same for fixtures of a whole module, which begin before those of a test."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        _restore(monkeypatch)
        yield


@pytest.fixture(autouse=True)
def restored_environment(monkeypatch):
    """Commands that are called in this process set variables for TensorFlow: no later test's process inherits them."""
    _restore(monkeypatch)


def _restore(monkeypatch):
    for name in VARIABLES:
        if name in os.environ:
            monkeypatch.setenv(name, os.environ[name])
        else:
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
