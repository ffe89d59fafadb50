"""Bad input through the real command line: one line, exit code 2, nothing written, TensorFlow not imported."""

import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tfdqn import train
from tfdqn.errors import UserError

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
    (
        ["--exploration", "boltzmann", "--temperature-start", "0.5", "--temperature-end", "2"],
        "--temperature-end 2.0: above --temperature-start; use at most 0.5",
    ),
    (["--learning-rate-decay-updates", "9", "--learning-rate-end", "1", "--learning-rate", "0.1"], "use at most 0.1"),
    (["--optimizer", "adm"], "did you mean 'adam'"),
    (["--loss", "hubre"], "did you mean 'huber'"),
    (["--target", "polyak"], "choose one of hard, soft, none"),
    (["--network", "cnn"], "choose one of mlp"),
    (["--n-step", "0"], "use 1"),
    (["--frame-stack", "0"], "use 1"),
    (["--frame-stride", "100"], "use 32"),
    (["--action-repeat", "0"], "use 1"),
    (["--downsample", "2"], "catch8 has no such setting, only cave"),
    (["--super-resolution"], "catch8 has no such setting, only cave"),
    (["--env", "cave", "--downsample", "2", "--super-resolution"], "use one or the other"),
    (["--env", "cave", "--downsample", "3"], "choose one of 1, 2"),
    (["--start-curriculum", "0.5"], "equally difficult from start to end; use 0"),
    (["--env", "cave", "--start-curriculum", "1.5"], "use 1"),
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
    (["--logdir", "gs://bucket/runs"], "--logdir gs://bucket/runs: only local files and folders work"),
    (["--logdir=s3://bucket/runs"], "only local files and folders work"),
    (["--resume", "gs://bucket/runs/a"], "only local files and folders work"),
    (["--init-from", "hdfs://host/runs/a"], "--init-from hdfs://host/runs/a: only local files and folders work"),
    (["--config", "https://host/c.toml"], "only local files and folders work"),
    (["--config", "remote.toml"], "--init-from gs://bucket/a: only local files and folders work"),
    (["--resume", "~nobody-of-that-name/runs"], "no such user"),
    (["--config=~nobody-of-that-name/c.toml"], "no such user"),
    (["--logdir", b"caf\xe9"], r"argument 'caf\udce9': is not UTF-8"),
    (["--run-name", b"caf\xe9"], "is not UTF-8"),
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
    (tmp_path / "work" / "remote.toml").write_text("init_from = 'gs://bucket/a'")
    return tmp_path / "work"


def command(folder, *arguments, encoding=None, **environment):
    path = os.pathsep.join([str(folder.parent / "path"), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "tfdqn.train", *arguments],
        capture_output=True,
        text=True,
        encoding=encoding,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "IMPORTED": str(folder.parent / "imported"), **environment},
        timeout=300,  # a hang, not a speed
    )


def is_tensorflow_imported(folder):
    return (folder.parent / "imported").exists()


@pytest.mark.parametrize(
    "arguments, message", BAD_INPUT, ids=[ascii(" ".join(map(str, row[0])))[1:60] for row in BAD_INPUT]
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, folder):
    # On a machine with a GPU, sizes and memory are known only once TensorFlow has been asked about it.
    device = [] if "--device" in arguments else ["--device", "cpu"]
    result = command(folder, *arguments, *device)
    assert result.returncode == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("tfdqn: error: ") and result.stderr.count("\n") == 1, result.stderr
    assert re.search(message, result.stderr) or message in result.stderr, result.stderr
    assert not is_tensorflow_imported(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["a-file", "remote.toml"]


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


@pytest.mark.parametrize(
    "module, arguments",
    [
        ("tfdqn.evaluate", ["gs://bucket/runs/a"]),
        ("tfdqn.record", ["gs://bucket/runs/a"]),
        ("tfdqn.record", ["--pretrained", "catch8", "--out", "gs://bucket/a.gif"]),
        ("benchmarks.run", ["--json", "gs://bucket/a.json"]),
        ("benchmarks.peers", ["--json", "gs://bucket/a.json"]),
        ("benchmarks.learning", ["gate", "--json", "gs://bucket/a.json"]),
        ("benchmarks.learning", ["gate", "--folder", "gs://bucket/a"]),
        ("benchmarks.article_figure", ["--folder", "gs://bucket/a"]),
        ("benchmarks.article_figure", ["--out", "gs://bucket/a.png"]),
        ("benchmarks.package_agent", ["gs://bucket/runs/a"]),
        ("benchmarks.package_agent", ["a", "--out", "gs://bucket/a"]),
        ("benchmarks.deaths", ["gs://bucket/runs/a"]),
        ("benchmarks.deaths", ["--pretrained", "cave", "--out", "gs://bucket/a.png"]),
        ("benchmarks.tunnel", ["gs://bucket/runs/a"]),
    ],
)
def test_every_command_takes_local_paths_only(module, arguments):
    main = importlib.import_module("benchmarks.peers.__main__" if module == "benchmarks.peers" else module).main
    with pytest.raises(UserError, match=r"gs://bucket/[a-z./]+: only local files and folders work"):
        main(arguments)


def test_a_home_folder_is_found_by_every_path_even_after_an_equals_sign(folder):
    (folder.parent / "home").mkdir()
    (folder.parent / "home" / "c.toml").write_text("seed = 7\ninit_from = '~/other'")
    for arguments in (["--config", "~/c.toml"], ["--config=~/c.toml"]):
        result = command(folder, *arguments, "--print-config", HOME=str(folder.parent / "home"))
        assert "seed = 7 " in result.stdout, result.stderr
        assert f'init_from = "{folder.parent}/home/other"' in result.stdout
    for flag, message in (("--resume", "no such run folder"), ("--init-from", "no such run folder")):
        result = command(folder, f"{flag}=~/a", HOME=str(folder.parent / "home"))
        assert f"{folder.parent}/home/a: {message}" in result.stderr
    (folder.parent / "home" / "f").touch()
    result = command(folder, "--logdir=~/f", "--device", "cpu", HOME=str(folder.parent / "home"))
    assert f"{folder.parent}/home/f is a file, not a folder" in result.stderr


@pytest.fixture(scope="session")
def iso_8859_1(tmp_path_factory):
    """The surroundings of a process in such a locale."""
    folder = tmp_path_factory.mktemp("locales")
    if not shutil.which("localedef"):
        pytest.skip("no localedef to make a locale with")
    words = ["localedef", "-i", "en_US", "-f", "ISO-8859-1", folder / "en_US.ISO-8859-1"]
    if subprocess.run(words, capture_output=True).returncode > 1:
        pytest.skip("localedef has no sources to make a locale from")
    return {"LOCPATH": str(folder), "LC_ALL": "en_US.ISO-8859-1"}


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("which", ["ascii", "iso-8859-1"])
def test_files_and_names_are_utf_8_in_any_locale(folder, request, which):
    environment = {**(ASCII if which == "ascii" else request.getfixturevalue("iso_8859_1")), "PYTHONIOENCODING": ""}
    code = "import sys, locale; print(sys.getfilesystemencoding(), locale.getpreferredencoding())"
    words = [sys.executable, "-c", code]
    seen = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True).stdout.lower()
    assert "utf" not in seen, "this is not the locale that is to be tried"
    # Written in that locale, and read in it.
    result = command(folder, "--init-from", "café", "--print-config", encoding="utf-8", **environment)
    assert result.returncode == 0 and 'init_from = "café"' in result.stdout, result.stderr
    (folder / "é.toml").write_text(result.stdout, encoding="utf-8")
    again = command(folder, "--config", "é.toml", "--print-config", encoding="utf-8", **environment)
    assert again.stdout == result.stdout, again.stderr
    # What Python calls a name, and TensorFlow.
    refused = command(folder, "--resume", "café", encoding="utf-8", **environment)
    assert "café: no such run folder" in refused.stderr


def test_a_process_that_has_begun_without_utf_8_is_told_how_to_begin(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    with pytest.raises(UserError, match=r"--logdir .*é: not ASCII.* -X utf8"):
        train.main(["--logdir", "é"])
    assert train.main(["--logdir", str(tmp_path), "--print-config"]) == 0
