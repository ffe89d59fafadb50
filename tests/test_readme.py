"""The README's promises that a program can check: named tests, files and flags exist, and its Python runs."""

import re
from pathlib import Path

from tfdqn import train

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_nothing_is_left_to_fill_in():
    assert "@@" not in README and "TODO" not in README


def test_every_test_it_names_exists():
    named = re.findall(r"`(?:tests/)?((?:\w+/)?test_\w+\.py)::(test_\w+)`", README)
    assert len(named) > 5
    for file, function in named:
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), f"{file}::{function}"
    for file in re.findall(r"`((?:tests/\w+/)?test_\w+\.py)`", README):
        assert (ROOT / file).exists() or (ROOT / "tests" / file).exists(), file


def test_every_picture_and_script_it_names_exists():
    for path in re.findall(r"\]\(([\w/.-]+)\)", README) + re.findall(r"`?(scripts/\w+)", README):
        assert (ROOT / path).exists(), path


def test_every_flag_it_names_exists():
    known = train.parser()._option_string_actions
    other = {
        "--all",
        "--out",
        "--logdir",
        "--episodes",
        "--epsilon",
        "--model",
        "--quick",
        "--case",
        "--gate",
        "--base",
        "--upgrade",
        "--pretrained",
        "--player",
        "--learning",
        "--average",
    }
    for flag in set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", README)) - other:
        assert flag in known, flag


def test_its_python_runs():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names = {}
    exec(example, names)  # our own text
    assert names["timestep"].observation.shape == (64, 48, 48)
