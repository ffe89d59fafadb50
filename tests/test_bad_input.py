"""Bad input through the real command line: one line, exit code 2, nothing written, TensorFlow not imported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BAD_INPUT = [
    (["--env", "cavee"], "did you mean 'cave'"),
    (["--env", ""], "choose one of"),
    (["--env", "two\nlines"], "choose one of"),
    (["--evn", "cave"], "did you mean '--env'"),
    (["cave"], "flags begin with --"),
    (["--num-envs", "0"], "use 1"),
    (["--num-envs", "-1"], "use 1"),
    (["--num-envs", "1.5"], "whole number"),
    (["--num-envs", "many"], "whole number"),
    (["--num-envs"], "expected one argument"),
    (["--batch-size", "0"], "use 1"),
    (["--batch-size", "200000", "--replay-capacity", "100000"], "use at most 99968"),
    (["--replay-capacity", "1000000000000"], r"needs [0-9.]+ GB, but [0-9.]+ GB are free; use at most [0-9]+"),
    (["--replay-capacity", "9" * 400], "at most"),
    (["--replay-capacity", "0"], "use 1"),
    (["--replay-capacity", "100", "--num-envs", "64"], "use at least 128"),
    (["--replay-min-rows", "1000000", "--replay-capacity", "100000"], "use at most 99968"),
    (["--replay-min-rows", "0"], "use 1"),
    (["--learning-rate", "-1"], "greater than 0"),
    (["--learning-rate", "0"], "greater than 0"),
    (["--learning-rate", "inf"], "at most 100"),
    (["--learning-rate", "nan"], "must be a number"),
    (["--learning-rate", "fast"], "must be a number"),
    (["--discount", "1.5"], "use 1"),
    (["--discount", "-0.1"], "use 0"),
    (["--discount", "nan"], "must be a number"),
    (["--epsilon-start", "1.1"], "use 1"),
    (["--epsilon-start", "0.01", "--epsilon-end", "0.05"], "use at most 0.01"),
    (["--epsilon-end", "-1"], "use 0"),
    (["--learning-rate-decay-updates", "9", "--learning-rate-end", "1", "--learning-rate", "0.1"], "use at most 0.1"),
    (["--optimizer", "adm"], "did you mean 'adam'"),
    (["--loss", "hubre"], "did you mean 'huber'"),
    (["--target", "polyak"], "choose one of hard, soft, none"),
    (["--network", "cnn"], "choose one of mlp"),
    (["--n-step", "0"], "use 1"),
    (["--frame-stack", "0"], "use 1"),
    (["--frame-stride", "100"], "use 32"),
    (["--action-repeat", "0"], "use 1"),
    (["--downsample", "2"], "only the cave"),
    (["--super-resolution"], "the screens of catch8 show all there is"),
    (["--env", "cave", "--downsample", "2", "--super-resolution"], "use one or the other"),
    (["--env", "cave", "--downsample", "3"], "choose one of 1, 2"),
    (["--start-curriculum", "0.5"], "equally difficult from start to end; use 0"),
    (["--env", "cave", "--start-curriculum", "1.5"], "use 1"),
    (["--restart-share", "0.5"], "catch8 has no crashes to practise; use 0"),
    (["--env", "cave", "--restart-share", "1"], "must be at most 0.9; use 0.9"),
    (
        ["--env", "cave", "--restart-share", "0.1", "--num-envs", "9"],
        "not one of 9 environments; use 0, or more --num-envs",
    ),
    (["--play-target", "--target", "hard"], "a hard target is no average of weights; add --target soft"),
    (["--prioritized", "--priority-alpha", "2"], "use 1"),
    (["--head", "categorical", "--value-max", "-2", "--value-min=-1"], "must be well above --value-min -1.0"),
    (["--head", "categorical", "--value-min=-inf"], "use -1000000.0"),
    (["--head", "categorical", "--value-min", "1000000", "--value-max", "1000000"], "must be well above"),
    (["--init-from", "no-such-run"], "--init-from no-such-run: no such run folder"),
    (["--head", "categorical", "--loss", "mse"], "leave out --loss"),
    (["--eval-max-frames", "3000000000"], "at most"),
    (["--target-update-period-updates", str(2**70)], "at most"),
    (["--minutes", "0"], "greater than 0"),
    (["--minutes", "-5"], "greater than 0"),
    (["--checkpoint-every-seconds", "-1"], "use 0"),
    (["--checkpoint-every-seconds", "nan"], "must be a number"),
    (["--total-env-frames", "0"], "use 1"),
    (["--seed", "-1"], "use 0"),
    (["--seed", "9999999999"], "at most"),
    (["--device", "tpu"], "did you mean 'gpu'"),
    (["--preset", "articel"], "did you mean 'article'"),
    (["--eager", "--no-jit"], "leave out --no-jit"),
    (["--logdir", ""], "must name a folder"),
    (["--logdir", "a-file"], "a-file is a file, not a folder"),
    (["--logdir", "a-file/below"], "a-file is a file, not a folder"),
    (["--logdir", "/proc/runs"], "cannot write in /proc"),
    (["--logdir", "x" * 300], "File name too long"),
    (["--logdir", "~nobody-of-that-name/runs"], "no such user"),
    (["--run-name", "../up"], "plain folder name"),
    (["--run-name", ""], "plain folder name"),
    (["--run-name", "x" * 300], "plain folder name"),
    (["--config", "no-such-file.toml"], "No such file"),
    (["--config", "a-file"], "not TOML"),
    (["--config", "."], "Is a directory"),
]

# Stands before the real one on the path, and tells that it was asked for.
NO_TENSORFLOW = "import os, pathlib\npathlib.Path(os.environ['IMPORTED']).touch()\nraise SystemExit(99)\n"


@pytest.fixture
def folder(tmp_path):
    """An empty working folder but for one file, and beside it a TensorFlow that must not be imported."""
    (tmp_path / "path" / "tensorflow").mkdir(parents=True)
    (tmp_path / "path" / "tensorflow" / "__init__.py").write_text(NO_TENSORFLOW)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "a-file").write_text("this is = not toml = at all")
    return tmp_path / "work"


def command(folder, *arguments, **environment):
    path = os.pathsep.join([str(folder.parent / "path"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "tfdqn.train", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "IMPORTED": str(folder.parent / "imported"), **environment},
        timeout=300,  # a hang, not a speed
    )


def is_tensorflow_imported(folder):
    return (folder.parent / "imported").exists()


@pytest.mark.parametrize("arguments, message", BAD_INPUT, ids=[repr(" ".join(row[0]))[1:60] for row in BAD_INPUT])
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, folder):
    # On a machine with a GPU, sizes and memory are known only once TensorFlow has been asked about it.
    device = [] if "--device" in arguments else ["--device", "cpu"]
    result = command(folder, *arguments, *device)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("tfdqn: error: ") and result.stderr.count("\n") == 1, result.stderr
    assert re.search(message, result.stderr) or message in result.stderr, result.stderr
    assert not is_tensorflow_imported(folder)
    assert [path.name for path in folder.iterdir()] == ["a-file"]


def test_the_table_is_long_enough():
    assert len({tuple(arguments) for arguments, _ in BAD_INPUT}) == len(BAD_INPUT) >= 40


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(folder):
    (folder / "locked").mkdir(mode=0o500)
    for logdir in ("locked", "locked/below"):
        result = command(folder, "--device", "cpu", "--logdir", logdir)
        assert result.returncode == 2 and "Permission denied" in result.stderr
    assert not is_tensorflow_imported(folder)


def test_an_import_of_tensorflow_would_be_seen(folder):
    result = command(folder, "--device", "cpu", "--total-env-frames", "100")
    assert result.returncode == 99
    assert is_tensorflow_imported(folder)


def test_a_gpu_that_is_not_there_is_refused(tmp_path):
    """Only TensorFlow can tell, so this one takes its time."""
    result = subprocess.run(
        [sys.executable, "-m", "tfdqn.train", "--device", "gpu", "--logdir", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "-1"},
        timeout=300,
    )
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1 and "TensorFlow sees no GPU" in result.stderr
    assert not list(tmp_path.iterdir())
