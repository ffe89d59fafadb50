"""Curves of runs, from their files alone; no run is trained here."""

import json
import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest

from tfdqn import chart, plot
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.runs import curves

ROOT = Path(__file__).parent.parent
FRAMES = [100, 200, 300, 400]


def write_run(folder, scores, frames=FRAMES, **settings):
    config = configuration.resolve({"env": "catch8", "goal_score": 99.0, **settings})
    folder.mkdir()
    (folder / "config.toml").write_text(configuration.to_toml(config))
    with open(folder / curves.METRICS_FILE, "w") as file:
        for number, (x, y) in enumerate(zip(frames, scores, strict=False)):
            report = {"env_frames": x, "updates": x // 10, "wall_seconds": x / 50, "train/loss": 0.5}
            file.write(json.dumps(report) + "\n")
            file.write(json.dumps({**report, "wall_seconds": x / 50 + 1, curves.SCORE: y, "eval/n": number}) + "\n")
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two settings, the first with three seeds, one of which was told to be longer."""
    folder = tmp_path / "runs"
    folder.mkdir()
    for seed, scores in enumerate([[1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 9]]):
        more = {"total_env_frames": 77_777} if seed == 1 else {}
        write_run(folder / f"a{seed}", scores, seed=seed, **more)
    write_run(folder / "b", [9, 8, 7, 6], learning_rate=0.5)
    return folder


def found(folder, metric=curves.SCORE, axis="frames"):
    return curves.curves([curves.read(path) for path in curves.find([str(folder)])], metric, axis)


def test_runs_that_differ_by_their_seed_are_one_curve(runs):
    first, second = found(runs)
    assert (first.runs, second.runs) == (["a0", "a1", "a2"], ["b"])
    assert first.label.startswith("learning_rate=") and second.label == "learning_rate=0.5"
    np.testing.assert_array_equal(first.band.x, FRAMES)
    np.testing.assert_allclose(first.band.mean, [2, 3, 4, 6])
    # Of three seeds: t is 4.303 with two degrees of freedom.
    half = 4.303 * np.array([1, 1, 1, math.sqrt(7)]) / math.sqrt(3)
    np.testing.assert_allclose(first.band.high - first.band.mean, half, rtol=1e-3)
    np.testing.assert_allclose(first.band.mean - first.band.low, half, rtol=1e-3)
    assert second.band is None and list(second.y) == [9, 8, 7, 6]


def test_confidence_is_students():
    """Of draws from one normal distribution, the mean of 2, 5 or 40 lies in its band in 95 of 100 cases."""
    draws = np.random.default_rng(0).normal(size=[20_000, 40])
    assert [round(curves.student(runs), 2) for runs in (12, 31, 121)] == [2.20, 2.04, 1.98]
    for runs in (2, 5, 40):
        few = draws[:, :runs]
        half = curves.student(runs) * few.std(axis=1, ddof=1) / math.sqrt(runs)
        assert abs(np.mean(np.abs(few.mean(axis=1)) <= half) - 0.95) < 0.005


@pytest.mark.parametrize(("axis", "expected"), [("updates", [10, 20, 30, 40]), ("seconds", [3, 5, 7, 9])])
def test_by_updates_and_by_seconds(runs, axis, expected):
    np.testing.assert_allclose(found(runs, axis=axis)[0].x, expected)


def test_the_mean_is_taken_where_all_seeds_have_values(tmp_path):
    write_run(tmp_path / "a", [0, 10, 20], [0, 100, 200], seed=1)
    write_run(tmp_path / "b", [5, 5, 5], [50, 150, 400], seed=2)
    band = found(tmp_path)[0].band
    np.testing.assert_array_equal(band.x, [50, 100, 150, 200])
    np.testing.assert_allclose(band.mean, [5, 7.5, 10, 12.5])


def test_a_run_that_reached_its_goal_keeps_its_value(tmp_path):
    write_run(tmp_path / "a", [50, 99], [100, 200], seed=1)
    write_run(tmp_path / "b", [50, 60, 70, 80], seed=2)
    np.testing.assert_allclose(found(tmp_path)[0].band.mean, [50, 79.5, 84.5, 89.5])
    (tmp_path / "c").mkdir()
    write_run(tmp_path / "c" / "a", [50, 98], [100, 200], seed=1)  # ended for another reason
    write_run(tmp_path / "c" / "b", [50, 60, 70, 80], seed=2)
    np.testing.assert_allclose(found(tmp_path / "c")[0].band.mean, [50, 79])


def test_seeds_that_never_have_values_together_have_no_mean(tmp_path, capsys):
    write_run(tmp_path / "a", [1, 2], [100, 200], seed=1)
    write_run(tmp_path / "b", [3, 4], [300, 400], seed=2)
    [curve] = found(tmp_path)
    assert curve.band is None and list(curve.y) == [1, 2]
    assert plot.main([str(tmp_path)]) == 0


def test_names_tell_curves_apart_with_as_few_words_as_they_can(tmp_path):
    write_run(tmp_path / "a", [1])
    write_run(tmp_path / "b", [1], learner="pqn")
    write_run(tmp_path / "c", [1], learner="pqn", num_envs=32)
    assert [curve.label.split()[0] for curve in found(tmp_path)] == ["dqn", "pqn", "pqn"]
    assert len({curve.label for curve in found(tmp_path)}) == 3
    assert found(tmp_path)[2].label.split() == ["pqn", "num_envs=32"]
    write_run(tmp_path / "d", [1], env="cave")
    assert [curve.label.split()[0] for curve in found(tmp_path)] == ["catch8"] * 3 + ["cave"]
    assert len({curve.label for curve in found(tmp_path)}) == 4


def test_a_run_that_is_being_written_and_numbers_that_are_none(tmp_path):
    folder = write_run(tmp_path / "a", [1, 2, 3])
    with open(folder / curves.METRICS_FILE, "a") as file:
        file.write(json.dumps({"env_frames": 500, "updates": 1, "wall_seconds": 1, curves.SCORE: "nan"}) + "\n")
        file.write('{"env_frames": 600, "up')
    assert list(found(tmp_path)[0].y) == [1, 2, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing"], "nothing: no such run folder; tfdqn runs lists"),
        (["empty"], "empty: neither a run folder"),
        (["runs", "--metric", "eval/score"], r"--metric eval/score: not reported by these runs; did you mean 'eval/"),
        (["runs", "--x", "frame"], "choose from"),
        (["runs", "--out", "a.jpg"], r"--out a.jpg: must end in .png or .svg"),
        (["runs", "--out", "no/a.png"], "there is no folder no"),
        (["silent"], "silent: has reported nothing yet"),
        (["damaged"], "metrics.jsonl: line 2 is no report"),
        (["strange"], "metrics.jsonl: is no list of reports"),
    ],
)
def test_mistakes_are_one_line(runs, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write_run(tmp_path / "silent", [])
    write_run(tmp_path / "damaged", [])
    (tmp_path / "damaged" / curves.METRICS_FILE).write_text('{"env_frames": 1}\n{"env_fr\n')
    write_run(tmp_path / "strange", [])
    (tmp_path / "strange" / curves.METRICS_FILE).write_text("[1, 2]\n")
    with pytest.raises(UserError, match=message) as error:
        plot.main(words)
    assert error.value.exit_code == 2


def test_a_run_without_the_metric_is_named_and_left_out(runs, capsys):
    (runs / "b" / curves.METRICS_FILE).write_text('{"env_frames": 1, "updates": 1, "wall_seconds": 1, "a/b": 1}\n')
    assert plot.main([str(runs)]) == 0
    assert "b: has not reported eval/score_mean; left out" in capsys.readouterr().err


def test_a_broken_run_that_nobody_has_named_is_left_out(runs, capsys):
    (runs / "b" / "config.toml").write_text("[game\n")
    assert plot.main([str(runs)]) == 0
    told = capsys.readouterr()
    assert "b/config.toml" in told.err and "left out" in told.err and "learning_rate" not in told.out
    for words in ([str(runs / "b")], [str(runs), str(runs / "b")]):
        with pytest.raises(UserError, match=r"b/config\.toml"):
            plot.main(words)


# --- In the terminal. ---


def command(runs, *words, **environment):
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    code = (
        "import sys; from tfdqn import cli, plot; code = plot.main(sys.argv[1:])\n"
        "assert 'tensorflow' not in sys.modules and 'matplotlib' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(runs), *words],
        env={**kept, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("columns", [None, 40, 80, 120])
def test_in_a_pipe_the_chart_has_no_colours_and_fits(runs, columns):
    text = command(runs, **({} if columns is None else {"COLUMNS": str(columns)}))
    lines = text.splitlines()
    assert "\x1b" not in text and max(map(len, lines)) < (columns or 80)
    assert max(map(len, lines)) > (columns or 80) - 5  # and uses the room
    assert lines[0].startswith("eval/score_mean: catch8, dqn")
    legend = lines[-2:]
    assert legend[0].startswith("a") and "6 ± 6.57" in legend[0] and legend[1].startswith("b")
    picture = "\n".join(lines[1:19])
    assert "a" in picture and "b" in picture


def test_colours_tell_curves_apart_on_a_terminal_that_has_them(runs):
    [first, second] = found(runs)
    lines = plot.in_characters([first, second], "title", "frames", 79, True)
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 79 and lines != plain
    assert all(line.count("\x1b[0m") >= 1 for line in lines if "\x1b[38" in line)  # no colour runs on
    assert any("\u2801" <= letter <= "\u28ff" for line in plain for letter in line)


def test_a_rising_line_rises_from_corner_to_corner():
    rows = [line[-30:] for line in chart.draw([chart.Points([0, 1], [0, 1])], 40, 10, False)[:10]]
    columns = [min(i for i, letter in enumerate(row) if letter >= "\u2800") for row in rows if row.strip()]
    assert len(columns) == 10 and columns == sorted(columns, reverse=True)


@pytest.mark.parametrize("points", [([1], [2]), ([1, 2], [3, 3]), ([0, 1e12], [-1e-9, 1e-9]), ([5, 5.0001], [1, 2])])
def test_every_shape_of_curve_is_drawn(points):
    lines = chart.draw([chart.Points(*points)], 60, 12, False)
    assert len(lines) == 14 and max(map(len, lines)) <= 60
    assert any(letter >= "\u2801" for line in lines for letter in line if letter <= "\u28ff")


def test_ticks_are_round_few_and_told_apart():
    for low, high in [(0, 3.9e6), (9168.5, 9171), (-0.003, 0.004), (1e-7, 0.0015), (-5, 1e9)]:
        for most in range(2, 9):
            found = chart.ticks(low, high, most)
            assert 1 <= len(found) <= most and low <= min(found) + 1e-9 and max(found) - 1e-9 <= high
            assert len(set(chart.labels(found))) == len(found)
    assert chart.labels(chart.ticks(0, 3.9e6, 6)) == ["0", "1M", "2M", "3M"]
    assert chart.labels([9168.5, 9169, 9169.5]) == ["9.1685k", "9.1690k", "9.1695k"]


# --- As an image. ---


def test_without_matplotlib_one_line_says_how_to_have_it(runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r'run python -m pip install "tfdqn\[plot\]"'):
        plot.main([str(runs), "--out", str(tmp_path / "a.png")])
    assert not (tmp_path / "a.png").exists()


def test_an_image_has_curves_names_and_axes(runs, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert plot.main([str(runs), "--out", str(tmp_path / "a.svg")]) == 0
    xml.etree.ElementTree.parse(tmp_path / "a.svg")
    assert plot.main([str(runs), "--out", str(tmp_path / "a.png"), "--x", "updates"]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().err.splitlines()[-1] == f"{tmp_path}/a.png: 2 curves of 4 runs"
