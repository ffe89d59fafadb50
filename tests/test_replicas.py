"""Replicas (`tests/on_two_devices.py`), in a process of its own, which is told before TensorFlow starts what it has."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("tier", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_a_cpu_as_two_devices(tier):
    options = ["-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-m", tier]
    command = [sys.executable, "-m", "pytest", *options, "tests/on_two_devices.py"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", timeout=1200)
    assert done.returncode == 0, done.stdout[-8000:]  # 5 where none is found
