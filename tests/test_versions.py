"""What earlier versions left behind still works, and what was computed before is computed now."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from tfdqn import config as configuration
from tfdqn import evaluate, train
from tfdqn.errors import UserError
from tfdqn.programs.training import Trainer
from tfdqn.runs import run_config

DATA = Path(__file__).parent / "data"
OLD_RUN = DATA / "run-of-version-0.1.0"  # 529 updates of catch8; its config.toml has no tables
# Random play, so that rounding, in which processors differ, decides no action: rows are equal in every bit.
PINNED = {"env": "catch8", "seed": 3, "device": "cpu", "epsilon_start": 1.0, "epsilon_end": 1.0}
ROWS_SHA256 = "a2c6b0b8c2f344c7e3836cd1b8b64d1c63a5d720863bd63b8370dbf1fdb8c9c1"


@pytest.fixture
def old_run(tmp_path):
    return shutil.copytree(OLD_RUN, tmp_path / "run")


def test_a_run_of_version_0_1_0_goes_on(old_run, capfd):
    assert train.main(["--resume", str(old_run), "--total-env-frames", "4500"]) == 0
    assert "529 updates" in capfd.readouterr().err
    held = configuration.read_toml(old_run / "config.toml")
    assert (held["total_env_frames"], held["num_envs"], held["seed"]) == (4500, 8, 5)
    assert "[replay]" in (old_run / "config.toml").read_text()  # written anew, a table a room


def test_an_agent_of_version_0_1_0_plays_as_it_did(capfd):
    assert evaluate.main([str(OLD_RUN), "--episodes", "20"]) == 0
    assert "mean score -0.55 over 20 episodes" in capfd.readouterr().err


def test_settings_that_an_old_file_lists_for_another_game_change_nothing_or_are_refused(old_run):
    path = old_run / "config.toml"
    assert (
        run_config.read_config(old_run).env == "catch8"
    )  # it lists the cave's settings, at the values that change nothing
    path.write_text(path.read_text().replace("downsample = 1 ", "downsample = 2 "))
    with pytest.raises(UserError, match="--downsample 2: catch8 has no such setting, only cave"):
        run_config.read_config(old_run)


def run_200_updates():
    trainer = Trainer(configuration.resolve(PINNED))
    carry = trainer.initial_carry()
    while int(trainer.agent.optimizer.iterations) < 200:
        carry = trainer.run_chunk(carry, 100, 2**62)
    rows = hashlib.sha256()
    for name, variable in sorted(trainer.replay.state.items()):
        rows.update(name.encode() + variable.numpy().tobytes())
    return rows.hexdigest(), trainer.agent.online.get_weights()


def test_200_updates_are_what_they_were():
    """A change of these is a change of what every run computes: it belongs into the notes of a version."""
    rows, weights = run_200_updates()
    assert rows == ROWS_SHA256
    with np.load(DATA / "catch8-200-updates.npz") as held:
        for i, weight in enumerate(weights):
            np.testing.assert_allclose(weight, held[f"w{i}"], rtol=1e-3, atol=1e-5)
