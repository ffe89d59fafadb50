"""The command line through the real commands: help, bad input, a whole short run, evaluation and film."""

import collections
import dataclasses
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import tfdqn
from tfdqn import cli, train
from tfdqn import config as configuration
from tfdqn.envs import registry
from tfdqn.errors import UserError
from tfdqn.runs.loop import Run

ROOT = Path(__file__).parent.parent
TINY = [
    *("--env", "catch8", "--device", "cpu", "--seed", "5", "--total-env-frames", "6000", "--num-envs", "16"),
    *("--replay-capacity", "2000", "--replay-min-rows", "500", "--eval-every-frames", "3000"),
    *("--eval-episodes", "8", "--final-eval-episodes", "20", "--log-every-frames", "1000"),
]


def command(module, *arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", f"tfdqn.{module}", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
        timeout=300,
    )


def test_bad_settings_in_a_file_are_named(tmp_path):
    path = tmp_path / "c.toml"
    for text, message in (
        ("learning_rte = 1.0", "did you mean 'learning_rate'"),
        ('num_envs = "4"', "whole number"),
        ("num_envs = true", "whole number"),
        ("double = 1", "true or false"),
        ("[dqm]\nloss = 'mse'", "unknown table .dqm.; did you mean 'dqn'"),
        ("[dqn]\nlearning_rate = 1.0", "it belongs into .optimizer."),
        ("loss = 'mse'\n[dqn]\nloss = 'mse'", "loss is there twice"),
    ):
        path.write_text(text)
        with pytest.raises(UserError, match=message):
            train.main(["--config", str(path), "--print-config"])


def test_help_and_version_need_no_tensorflow():
    code = (
        "import sys; from tfdqn import train\n"
        "try: train.main(['{}'])\n"
        "except SystemExit: assert 'tensorflow' not in sys.modules"
    )
    for flag in ("-h", "--version"):
        result = subprocess.run([sys.executable, "-c", code.format(flag)], capture_output=True, text=True, cwd=ROOT)
        assert result.returncode == 0, result.stderr
        assert "tfdqn" in result.stdout


def test_every_setting_has_a_flag_and_help():
    text = train.parser().format_help()
    for name, field in configuration.FIELDS.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.metadata["help"]


def test_plain_help_shows_what_is_common_and_a_choice_shows_all_it_has(capsys):
    assert train.main(["-h"]) == 0
    plain = capsys.readouterr().out
    assert "--env" in plain and "--minutes" in plain and "--priority-alpha" not in plain and "None" not in plain
    assert train.main(["-h", "--env", "cave"]) == 0
    whole = " ".join(capsys.readouterr().out.split())
    assert "--priority-alpha" in whole and "--downsample" in whole
    assert "environments played side by side (256)" in whole  # the preset's value
    assert train.main(["--env", "catch8", "-h"]) == 0
    assert "--downsample" not in capsys.readouterr().out


def test_no_setting_has_two_homes():
    """A setting is read by its name alone."""
    for game in registry.games():
        names = [field.name for room in configuration.rooms(game.name, "dqn") for field in dataclasses.fields(room)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("env, preset", [(game.name, name) for game in registry.games() for name in game.presets])
def test_presets_are_valid_and_print_config_reads_back(env, preset, tmp_path, capsys):
    assert train.main(["--env", env, "--preset", preset, "--seed", "3", "--print-config"]) == 0
    path = tmp_path / "c.toml"
    path.write_text(capsys.readouterr().out)
    expected = configuration.resolve({"env": env, "preset": preset, "seed": 3})
    assert configuration.resolve(configuration.read_toml(path)) == expected
    configuration.resolve({"env": env, "preset": preset}, on_gpu=True)


def test_a_file_may_begin_with_the_mark_of_its_encoding(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("env = 'catch16'", encoding="utf-8-sig")
    assert configuration.read_toml(path) == {"env": "catch16"}


def test_flags_win_over_the_file_and_the_file_over_the_preset(tmp_path, capsys):
    path = tmp_path / "c.toml"
    path.write_text("env = 'catch16'\nbatch_size = 48\nn_step = 2")
    train.main(["--config", str(path), "--n-step", "4", "--print-config"])
    printed = capsys.readouterr().out
    assert "batch_size = 48 " in printed and "n_step = 4 " in printed and 'network = "columns"' in printed


def test_the_games_are_named_once():
    from tfdqn import envs

    for name in registry.names():
        env = envs.make(name)
        assert env.name == name
        assert env.observation_spec == configuration.resolve({"env": name}).observation_spec
    with pytest.raises(ValueError, match="did you mean 'cave'"):
        envs.make("caves")


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory):
    """One short training through the real command."""
    logdir = tmp_path_factory.mktemp("runs")
    result = command("train", *TINY, "--gradients-every-evals", "1", "--json", "--logdir", logdir)
    assert result.returncode == 0, result.stderr
    return logdir, result


def test_a_run_reports_itself_on_the_last_line(finished_run):
    logdir, result = finished_run
    report = json.loads(result.stdout.splitlines()[-1])
    assert set(report) == {
        *("env", "preset", "seed", "device", "version", "env_frames", "updates", "wall_seconds", "compile_seconds"),
        *("train_seconds", "eval_seconds", "env_frames_per_second", "updates_per_second", "goal_reached"),
        *(
            "best_env_frames",
            "score_mean",
            "score_std",
            "score_median",
            "score_min",
            "score_max",
            "episodes",
            "run_dir",
        ),
    }
    assert report["env"] == "catch8" and report["seed"] == 5 and report["episodes"] == 20
    assert 6000 <= report["env_frames"] < 6016
    # An update an iteration; iterations that only reset play no frame, so there are more than frames / 16 of them.
    assert 0 < report["updates"] < 2 * 6000 / 16
    assert -1 <= report["score_min"] <= report["score_mean"] <= report["score_max"] <= 99
    assert Path(report["run_dir"]).parent == logdir
    assert Path(report["run_dir"]).name.startswith("catch8__default__s5__")
    assert "compiling" in result.stderr and "parameters" in result.stderr and "MB" in result.stderr


def test_a_runs_folder_holds_everything(finished_run):
    logdir, _ = finished_run
    (run_dir,) = logdir.iterdir()
    names = {re.sub(r"(events.out.tfevents).*", r"\1", path.name) for path in run_dir.iterdir()}
    assert names == {
        *("config.toml", "metrics.jsonl", "train", "eval", "model.keras", "final.keras", "checkpoints", "lock"),
        "events.out.tfevents",
    }
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    reports = [line["env_frames"] for line in lines if "rollout/epsilon" in line]
    assert [frames // 1000 for frames in reports] == [1, 2, 3, 4, 5, 6]
    assert [line["env_frames"] // 3000 for line in lines if "eval/score_mean" in line] == [1, 2]
    assert all({"env_frames", "updates", "wall_seconds"} <= set(line) for line in lines)
    assert "train/loss" in lines[-2] and "speed/env_frames_per_second" in lines[-2]


def test_tensorboard_holds_scalars_text_histograms_and_pictures(finished_run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from tfdqn.runs.monitor import reported

    (run_dir,) = finished_run[0].iterdir()
    train_events, eval_events = (EventAccumulator(str(run_dir / name)).Reload() for name in ("train", "eval"))
    told = {
        tag: events.SummaryMetadata(tag).summary_description
        for events in (train_events, eval_events)
        for tag in events.Tags()["tensors"]
    }
    assert told.pop("config") == ""
    assert told == {tag: metric.help for tag, metric in reported("dqn").items()}
    steps = [event.step for event in train_events.Tensors("rollout/epsilon")]
    assert [step // 1000 for step in steps] == [1, 2, 3, 4, 5, 6]


def test_a_run_reports_every_metric_that_is_declared_and_no_other(finished_run):
    from tfdqn.runs.monitor import reported

    (run_dir,) = finished_run[0].iterdir()
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    pictures = {tag for tag, metric in reported("dqn").items() if metric.reduction in ("histogram", "pictures")}
    assert set().union(*lines) == {"env_frames", "updates", "wall_seconds"} | reported("dqn").keys() - pictures
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert all(f"`{tag}`" in page for tag in set().union(*lines))


def test_evaluate_repeats_the_runs_last_evaluation(finished_run, capsys):
    from tfdqn import evaluate

    logdir, result = finished_run
    (run_dir,) = logdir.iterdir()
    report = json.loads(result.stdout.splitlines()[-1])
    assert evaluate.main([str(run_dir), "--episodes", "20", "--json", "--device", "cpu"]) == 0
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])
    for name in ("score_mean", "score_std", "score_median", "score_min", "score_max", "episodes"):
        assert scores[name] == report[name]


def test_record_films_an_episode(finished_run, tmp_path):
    from PIL import Image

    from tfdqn import record

    (run_dir,) = finished_run[0].iterdir()
    out = tmp_path / "player.gif"
    assert record.main([str(run_dir), "--out", str(out), "--frames", "20", "--scale", "3"]) == 0
    with Image.open(out) as image:
        assert image.size == (24, 24)
        assert 2 <= image.n_frames <= 20
        assert image.info["duration"] == 200  # five frames a second


def test_a_run_never_enters_an_existing_folder(finished_run):
    logdir, _ = finished_run
    (run_dir,) = logdir.iterdir()
    with pytest.raises(UserError, match="exists already"):
        train.main([*TINY, "--logdir", str(logdir), "--run-name", run_dir.name])


@pytest.mark.slow
def test_a_profile_names_the_compiled_programs_operations_and_changes_no_result(finished_run, tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    result = command("train", *TINY, "--json", "--logdir", tmp_path, "--run-name", "traced", "--profile", "20")
    assert result.returncode == 0, result.stderr
    (path,) = (tmp_path / "traced").glob("plugins/profile/*/*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    names = collections.Counter(
        plane.event_metadata[event.metadata_id].name
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    )
    # An operation of the loop's body runs once an iteration, so the commonest ones tell how many were traced.
    assert any(count == 20 for name, count in names.items() if "fusion" in name), names
    untraced = json.loads(finished_run[1].stdout.splitlines()[-1])
    assert json.loads(result.stdout.splitlines()[-1])["score_mean"] == untraced["score_mean"]


def test_a_profile_is_taken_where_it_is_not_cut_short_or_cannot_be_helped():
    """10 iterations of 8 environments are 80 frames."""
    settings = {"env": "catch8", "num_envs": 8, "profile": 10, "total_env_frames": 1_000}

    def takes(frames, updates=1, stop=500, *, next_eval=500, evaluated=-1):
        progress = SimpleNamespace(next_eval=next_eval, evaluated_env_frames=evaluated)
        run = SimpleNamespace(config=configuration.resolve(settings), progress=progress, _is_profiled=False)
        return Run._is_time_to_profile(run, frames, updates, stop)

    assert takes(420) and not takes(421) and not takes(420, updates=0)
    assert takes(500, stop=550, next_eval=550, evaluated=500)  # evaluations lie too close
    assert takes(950, stop=1_000, next_eval=1_000)  # none will come before the end
    assert not takes(470, stop=500)


def test_ctrl_c_ends_a_command_in_one_line(capfd):
    def interrupted(argv):
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        cli.run(interrupted, [])
    assert (ended.value.code, capfd.readouterr().err) == (130, "stopped by SIGINT\n")


# The first is the worst, for the next file that is opened gets its number; `test_console.py` has the others.
@pytest.mark.parametrize(
    "redirection",
    ["2>&-", *(pytest.param(each, marks=pytest.mark.slow) for each in ("2>/dev/full", "2>&1 | head -n 1"))],
)
def test_a_run_whose_progress_cannot_be_shown_trains_to_its_end(tmp_path, redirection):
    words = [*TINY, "--no-jit", "--total-env-frames", "3500", "--logdir", str(tmp_path), "--run-name", "run"]
    words = " ".join([sys.executable, "-m", "tfdqn.train", *words])
    line = f"{words} {redirection}; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {"model.keras", "final.keras", "checkpoints"}
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line) for line in lines)  # nothing of a library's in it


def test_training_in_a_thread_of_an_old_process_counts_from_its_own_start(tmp_path, monkeypatch, capsys):
    """As a notebook's executor or a job runner does it."""
    monkeypatch.setattr(tfdqn, "PROCESS_START_SECONDS", time.monotonic() - 10**6)
    ended = []
    words = [*TINY, "--no-jit", "--minutes", "1000", "--total-env-frames", "1500", "--logdir", str(tmp_path), "--json"]
    thread = threading.Thread(target=lambda: ended.append(train.main(words)))
    thread.start()
    thread.join()
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended == [0] and report["env_frames"] >= 1500
    assert report["wall_seconds"] < 10**5


def test_commands_refuse_what_is_no_run(tmp_path):
    from tfdqn import evaluate, record

    for main in (evaluate.main, record.main):
        with pytest.raises(UserError, match="no such run folder"):
            main([str(tmp_path / "nothing")])
        with pytest.raises(UserError, match=r"config\.toml is missing"):
            main([str(tmp_path)])
    for arguments, message in (
        (["--episodes", "0"], "between 1"),
        (["--epsilon", "2"], "between 0 and 1"),
        (["--seed", "-1"], "between 0"),
        (["--episods", "3"], "did you mean '--episodes'"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate.main([str(tmp_path), *arguments])


def test_weights_of_another_agent_are_refused_in_one_line(finished_run, tmp_path):
    from tfdqn import evaluate

    (run_dir,) = finished_run[0].iterdir()
    text = (run_dir / "config.toml").read_text()
    (tmp_path / "config.toml").write_text(text.replace("frame_stack = 1", "frame_stack = 2"))
    (tmp_path / "model.keras").write_bytes((run_dir / "model.keras").read_bytes())
    with pytest.raises(UserError, match="does not hold this agent's weights") as error:
        evaluate.main([str(tmp_path), "--device", "cpu"])
    assert "\n" not in str(error.value)
    for damaged in (b"", b"not a zip file", (run_dir / "model.keras").read_bytes()[:2000]):
        (tmp_path / "model.keras").write_bytes(damaged)
        with pytest.raises(UserError, match="does not hold this agent's weights"):
            evaluate.main([str(tmp_path), "--device", "cpu"])
