"""A new game: what is written passes its own test and the check, and nothing is overwritten."""

import ast
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tfdqn import check_env, new_game
from tfdqn.errors import EXIT_IO, UserError

ROOT = Path(__file__).parent.parent


def python(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_new_game_passes_its_test_and_the_check_that_is_named(tmp_path, monkeypatch, capsys):
    done = python(tmp_path, "-m", "tfdqn.new_game", "maze_runner")
    assert done.returncode == 0 and done.stderr == "wrote maze_runner.py and test_maze_runner.py; next:\n", done.stderr
    check, train = (shlex.split(line) for line in done.stdout.splitlines())
    assert check == ["python", "-m", "tfdqn.check_env", "maze_runner.py:MazeRunner"]
    assert train == ["python", "-m", "tfdqn.train", "--env", "maze_runner.py:MazeRunner", "--minutes", "1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["maze_runner.py", "test_maze_runner.py"]
    for path in tmp_path.iterdir():
        assert "my_game" not in path.read_text().lower().replace(" ", "_")
        assert "MyGame" not in path.read_text()

    monkeypatch.chdir(tmp_path)
    assert check_env.main(check[3:]) == 0
    assert "MazeRunner, [5, 5] uint8 0..255, 4 actions" in capsys.readouterr().out
    tested = python(tmp_path, "-m", "pytest", "-q", "test_maze_runner.py")
    assert tested.returncode == 0 and "2 passed" in tested.stdout, tested.stdout

    # The test that is written along can fail.
    game = tmp_path / "maze_runner.py"
    game.write_text(game.read_text().replace("termination=is_there", "termination=tf.zeros_like(is_there)"))
    tested = python(tmp_path, "-m", "pytest", "-q", "test_maze_runner.py", "-k", "pays")
    assert tested.returncode == 1 and "1 failed" in tested.stdout, tested.stdout


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_what_a_check_finds_is_not_lost_in_silence(flags, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)  # closed, as by >&-
    with pytest.raises(UserError, match="standard output is closed") as error:
        check_env.main(["catch8", "--steps", "2", "--num-envs", "4", *flags])
    assert error.value.exit_code == EXIT_IO
    with pytest.raises(UserError, match=r"^catch9: unknown"):
        check_env.main(["catch9"])


@pytest.mark.parametrize("name", ["maze", "noise", "state", "environment", "time_step", "a1", "cave"])
def test_any_valid_name_gives_files_that_parse(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert new_game.main([name]) == 0
    tree = ast.parse((tmp_path / f"{name}.py").read_text())
    classes = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    assert classes == ["Noise", "State", new_game.class_name(name)] and len(set(classes)) == 3
    assert f"{name}.py:{classes[-1]}" in capsys.readouterr().out
    ast.parse((tmp_path / f"test_{name}.py").read_text())


@pytest.mark.parametrize(
    "name, valid",
    [
        ("my-game", "my_game"),
        ("My Game", "my_game"),
        ("MyGame", "my_game"),
        ("my_game.py", "my_game"),
        ("../my_game", "my_game"),
        ("2048", "game_2048"),
        ("", "game"),
        ("--", None),
        ("_", "game"),
        ("naïve", "na_ve"),
        ("two\nlines", "two_lines"),
        ("x" * 300, "x" * 60),
        ("random", "random_game"),
        ("tensorflow", "tensorflow_game"),
        ("class", "class_game"),
        ("match", "match_game"),
    ],
)
def test_a_bad_name_is_one_line_with_the_nearest_valid(name, valid, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        new_game.main([name])
    assert "\n" not in str(error.value)
    if valid is not None:
        assert str(error.value).endswith(f": use {valid}")
        assert new_game.valid_name(valid) == valid
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("existing", ["maze.py", "test_maze.py"])
def test_nothing_is_overwritten(existing, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / existing).write_text("mine")
    with pytest.raises(UserError, match=f"^{existing} is there already"):
        new_game.main(["maze"])
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "mine"


def test_it_needs_no_tensorflow(tmp_path):
    code = "import sys; from tfdqn import new_game; new_game.main(['maze']); assert 'tensorflow' not in sys.modules"
    assert python(tmp_path, "-c", code).returncode == 0
