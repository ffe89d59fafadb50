"""The list of runs, from their files alone; and the command `tfdqn`, which has them all."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import tfdqn
from tests.faults import harness
from tests.whole_runs import SETTINGS, make_run, train_until
from tfdqn import __main__ as command
from tfdqn import cli, evaluate, list_runs, train
from tfdqn import config as configuration
from tfdqn.errors import EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, locks, member, models, run_config

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    """Runs in every state, of which one program was compiled; and what is no run."""
    folder = tmp_path_factory.mktemp("runs")
    run = make_run(folder / "b-stopped", jit=False, eval_every_frames=300, total_env_frames=2000)
    train_until(run, 400, chunk=2)
    run.close()
    stopped = (folder / "b-stopped" / run_config.CONFIG_FILE).read_text()

    def copy(name, **changes):
        path = folder / name
        subprocess.run(["cp", "-r", folder / "b-stopped", path], check=True)
        text = stopped
        for setting, value in changes.items():
            lines = [f"{setting} = {value}" if line.startswith(f"{setting} = ") else line for line in text.splitlines()]
            text = "\n".join(lines)
        (path / run_config.CONFIG_FILE).write_text(text)
        return path

    copy("a-finished", total_env_frames=100)
    copy("c-in-time", minutes=1e-9)
    copy("d-at-goal", goal_score=-2.0)
    copy("e-at-no-stop", goal_score=-2.0, stop_at_goal="false")
    (copy("f-own") / run_config.CONFIG_FILE).write_text(stopped.replace('env = "catch8"', 'env = "mine.py:Game"'))
    (copy("g-broken") / run_config.CONFIG_FILE).write_text("[game\n")
    for path in (copy("h-no-checkpoint") / checkpoints.FOLDER).iterdir():
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    manifest = next((copy("i-strange") / checkpoints.FOLDER).glob("*")) / checkpoints.MANIFEST
    manifest.write_text('{"env_frames": "many", "progress": [1]}')
    (folder / "j-nothing").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "a file").write_text("")
    return folder


def listed(folder, capsys):
    assert list_runs.main([str(folder), "--json"]) == 0
    return {row["name"]: row for row in map(json.loads, capsys.readouterr().out.splitlines())}


def test_each_run_is_listed_with_its_state(logdir, capsys):
    rows = listed(logdir, capsys)
    assert {name: row["state"].split(":")[0] for name, row in rows.items()} == {
        "a-finished": "finished",
        "b-stopped": "stopped",
        "c-in-time": "finished",
        "d-at-goal": "finished",
        "e-at-no-stop": "stopped",
        "f-own": "stopped",
        "g-broken": "broken",
        "h-no-checkpoint": "broken",
        "i-strange": "broken",
        "j-nothing": "broken",
    }
    newest = harness.newest(logdir / "b-stopped")
    row = rows["b-stopped"]
    assert (row["game"], row["env_frames"]) == ("catch8", newest["env_frames"]) and newest["env_frames"] >= 400
    assert row["best_score"] == newest["progress"]["best_score"] is not None
    assert rows["f-own"]["game"] == "mine.py:Game"
    assert "not TOML" in rows["g-broken"]["state"] and "no checkpoint" in rows["h-no-checkpoint"]["state"]
    assert "config.toml is missing" in rows["j-nothing"]["state"]
    assert str(logdir) not in json.dumps(rows)  # each is told by its name already


def test_people_get_a_table(logdir, capsys):
    assert list_runs.main([str(logdir)]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["run", "game", "env", "frames", "best", "score", "state"]
    assert len(lines) == 10 and [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)
    assert {line.rfind("stopped") for line in lines if line.endswith("stopped")} == {head.find("state")}


def test_a_run_that_trains_now_is_told_and_not_touched(logdir, capsys):
    before = {path: path.stat().st_mtime_ns for path in (logdir / "b-stopped").rglob("*")}
    with locks.lock(logdir / "b-stopped"):
        assert listed(logdir, capsys)["b-stopped"]["state"] == "training"
    assert listed(logdir, capsys)["b-stopped"]["state"] == "stopped"
    after = {path: path.stat().st_mtime_ns for path in (logdir / "b-stopped").rglob("*")}
    assert {path for path in after if before.get(path) != after[path]} <= {logdir / "b-stopped" / locks.LOCK_FILE}


def test_a_run_that_may_not_be_read_does_not_end_the_list(logdir, capsys, monkeypatch):
    peek = checkpoints.peek

    def refused(run_dir):
        if run_dir.name == "b-stopped":
            raise PermissionError(13, "Permission denied", str(run_dir / checkpoints.FOLDER))
        return peek(run_dir)

    monkeypatch.setattr(checkpoints, "peek", refused)
    rows = listed(logdir, capsys)
    assert rows["b-stopped"]["state"] == "broken: Permission denied" and rows["c-in-time"]["state"] == "finished"


@pytest.mark.parametrize("command, words, code", [(train, ["--resume"], 5), (evaluate, ["--member", "best"], 2)])
def test_what_may_not_be_read_is_one_line(command, words, code, logdir, tmp_path, capsys, monkeypatch):
    shutil.copytree(logdir / "b-stopped", tmp_path / "run")
    (tmp_path / "run" / "members" / "00").mkdir(parents=True)

    def refused(run_dir):
        raise PermissionError(13, "Permission denied", str(run_dir / checkpoints.FOLDER))

    monkeypatch.setattr(checkpoints, "_committed", refused)
    with pytest.raises(SystemExit) as end:
        cli.run(command.main, [*words, str(tmp_path / "run")])
    told = capsys.readouterr().err
    assert end.value.code == code and told.count("\n") == 1 and told.endswith("Permission denied\n")


def test_a_folder_that_holds_no_runs(tmp_path, logdir, capsys, monkeypatch):
    assert list_runs.main([str(tmp_path), "--json"]) == 0
    assert list_runs.main([str(tmp_path)]) == 0
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("holds no runs") == 1
    for folder, message in [
        (tmp_path / "nothing", "no such folder"),
        (logdir / "a file", "no such folder"),
        (logdir / "b-stopped", f"is a run itself; name the folder that holds it, {logdir}"),
    ]:
        with pytest.raises(UserError, match=message):
            list_runs.main([str(folder)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="runs: no such folder"):
        list_runs.main([])


def test_a_run_that_was_stopped_while_it_compiled_is_not_broken(tmp_path, capsys):
    make_run(tmp_path / "run").close()
    assert listed(tmp_path, capsys)["run"]["state"] == "stopped before its first checkpoint"


def test_an_agent_alone_is_no_broken_run_and_cannot_go_on(tmp_path, capsys):
    config = configuration.resolve(SETTINGS)
    for place in ("run/members/00", "run", "saved", "run-without"):
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        run_config.write_config(config, tmp_path / place)
        (tmp_path / place / models.BEST_MODEL).write_text("weights")
    for place in ("run", "run-without"):
        (tmp_path / place / checkpoints.FOLDER).mkdir()
    states = {name: row["state"] for name, row in listed(tmp_path, capsys).items()}
    assert states == {"run": "broken: no checkpoint", "run-without": "broken: no checkpoint", "saved": "agent"}
    with pytest.raises(UserError, match=f"holds the members of a run; name the folder that holds it, {tmp_path}"):
        list_runs.main([str(tmp_path / "run" / "members")])
    for place, message in {
        "run/members/00": f"go on together; use --resume {tmp_path / 'run'}",
        "saved": f"begins with that agent by --init-from {tmp_path / 'saved'}",
    }.items():
        with pytest.raises(UserError, match=message) as error:
            train.main(["--resume", str(tmp_path / place)])
        assert error.value.exit_code == EXIT_REFUSED
        assert not (tmp_path / place / locks.LOCK_FILE).exists()
    with pytest.raises(UserError, match="holds a population; name one of its members, such as "):
        train.main(["--init-from", str(tmp_path / "run"), "--logdir", str(tmp_path)])


def test_what_is_wrong_with_a_runs_settings_is_said_of_its_file(tmp_path):
    """Not of a flag that nobody has given."""
    for text, message in {"[game\n": "not TOML", "learning_rate = nan\n": "--learning-rate nan: must be a num"}.items():
        (tmp_path / run_config.CONFIG_FILE).write_text(text)
        with pytest.raises(UserError, match=message) as error:
            run_config.read_settings(tmp_path)
        assert str(error.value).startswith(f"{tmp_path / run_config.CONFIG_FILE}: {message[:8]}")
        assert str(tmp_path) not in list_runs.listed(tmp_path).state


def test_a_run_without_its_best_agent_names_the_one_that_it_ended_with(tmp_path):
    with pytest.raises(UserError, match=r"before its first evaluation\)$"):
        models.load_weights(None, tmp_path / models.BEST_MODEL)
    with pytest.raises(UserError, match=r"final.keras: no such file \(it is written when training ends\)"):
        models.load_weights(None, tmp_path / models.FINAL_MODEL)
    (tmp_path / models.FINAL_MODEL).write_text("weights")
    with pytest.raises(UserError, match="; --model final takes"):
        models.load_weights(None, tmp_path / models.BEST_MODEL)


def test_a_member_is_named_by_digits(tmp_path):
    for number in ("00", "01", "²"):
        (tmp_path / "members" / number).mkdir(parents=True)
    assert member.numbers_of(tmp_path) == [0, 1] and member.chosen(tmp_path, "1") == [1]
    with pytest.raises(UserError, match="has no checkpoint, which tells how good its members are; name one"):
        member.chosen(tmp_path, "best")
    with pytest.raises(UserError, match="--member ²: must be best, all, or a number from 0 to 1"):
        member.chosen(tmp_path, "²")


# --- The command `tfdqn`. ---


def tfdqn_command(*words, cwd=ROOT):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "tfdqn", *map(str, words)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("words", [[], ["-h"], ["--help"]])
def test_without_a_command_it_lists_them(words, capsys):
    assert command.main(words) == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: tfdqn COMMAND") and all(f"\n  {word} " in text for word in command.COMMANDS)
    assert len(command.COMMANDS) == 10


def test_its_words_are_the_commands(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tfdqn {tfdqn.__version__}\n"
    assert command.main(["new-game", "maze"]) == 0
    assert (tmp_path / "maze.py").is_file()
    assert command.main(["train", "--env", "maze.py:Maze", "--print-config"]) == 0
    assert 'env = "maze.py:Maze"' in capsys.readouterr().out
    needed = {
        "check-env": ["mine"],
        "new-game": ["mine"],
        "plot": ["mine"],
        "play": ["mine"],
        "export": ["--to", "keras"],
    }
    for word in command.COMMANDS:
        with pytest.raises(UserError, match="--no-such-flag"):
            command.main([word, *needed.get(word, []), "--no-such-flag"])


def test_wrong_words_are_one_line(logdir):
    for words, message in [
        (["trian"], "trian: no such command; did you mean 'train'?"),
        (
            ["--json"],
            "--json: no such command; choose one of " + ", ".join(command.COMMANDS),
        ),
        (["runs", logdir / "nothing"], f"{logdir}/nothing: no such folder; name the one that --logdir named"),
    ]:
        done = tfdqn_command(*words)
        assert (done.returncode, done.stdout, done.stderr) == (2, "", f"tfdqn: error: {message}\n")


def test_the_list_imports_no_tensorflow(logdir):
    code = (
        "import sys; from tfdqn import list_runs; list_runs.main([sys.argv[1]]); assert 'tensorflow' not in sys.modules"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code, str(logdir)], env=environment, check=True, stdout=subprocess.DEVNULL)


def test_what_to_type_to_go_on_names_a_game_and_a_network_of_ones_own(tmp_path):
    run_dir = tmp_path / "a run"
    command = f"python -m tfdqn.train --resume '{run_dir}'"
    assert run_config.resume_command(run_dir) == command  # nothing is there to tell more
    run_dir.mkdir()
    (run_dir / "config.toml").write_text("env = 'cave'\nnetwork = 'columns'\n")
    assert run_config.resume_command(run_dir) == command
    (run_dir / "config.toml").write_text("[game]\nenv = 'my game.py:MyGame'\n[network]\nnetwork = 'nets:body'\n")
    assert run_config.resume_command(run_dir) == f"{command} --env 'my game.py:MyGame' --network nets:body"


def test_the_module_is_a_command(tmp_path):
    words = [sys.executable, "-m", "tfdqn.list_runs", str(tmp_path)]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, f"{tmp_path}: holds no runs\n")
