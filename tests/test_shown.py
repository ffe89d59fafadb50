"""Agents and people play in a terminal, which is left as it was found."""

import json
import os
import signal
import subprocess
import sys
import termios

import numpy as np
import pytest

from tests.terminal import ROOT, Terminal, rows_of
from tfdqn import play, watch
from tfdqn.errors import UserError
from tfdqn.shown import blocks, screen, stage

HOME, LEAVE = "\x1b[H", "\x1b[0m\x1b[?25h\x1b[?1049l"


# Only "left" is allowed, away from the goal.
RULED = """
import tensorflow as tf
from tests.own_games import Line

class Ruled(Line):
    def reset(self, noise):
        state = super().reset(noise)
        return state._replace(place=tf.zeros_like(state.place), goal=tf.fill(state.goal.shape, 6))

    def legal_actions(self, state):
        return tf.tile([[True, False]], [state.place.shape[0], 1])
"""


def shown(terminal, frame=-1):
    """The rows of one of the screens that were drawn."""
    return rows_of(terminal.text.split(LEAVE)[0].split(HOME)[frame], 200)


def test_an_agent_is_watched_and_its_action_values_beside(tmp_path):
    command = ("-m", "tfdqn.watch", "--pretrained", "catch8_single", "--speed", "8")
    with Terminal(command, 80, cwd=tmp_path) as terminal:
        before = terminal.settings()
        terminal.read_until(lambda text: "episode 2" in text and text.count(HOME) > 10)
        assert terminal.settings() != before and before[3] & termios.ECHO
        terminal.press(" ")
        terminal.read_until(lambda text: "paused" in text)
        rows = shown(terminal, -2)
        terminal.press("+n")
        terminal.read_until(lambda text: "speed 16" in text and "episode 3" in text)
        terminal.press("q")
        assert terminal.end() == 0
        assert terminal.settings() == before
    assert rows[0].startswith("catch8_single  episode ") and "score" in rows[0]
    text = "\n".join(rows)
    assert all(word in text for word in ("▸", "stay", "left", "right", "action values", "q quit", blocks.UPPER_HALF))
    assert max(map(len, rows)) <= 80
    assert LEAVE in terminal.text and "episodes watched: mean score" in terminal.text.split(LEAVE)[1]


@pytest.mark.parametrize("way", ["\x03", signal.SIGTERM])
def test_a_person_plays_and_scores_are_kept(tmp_path, way):
    command = ("-m", "tfdqn", "play", "catch8_single", "--seed", "3", "--fps", "60")
    with Terminal(command, 60, 20, cwd=tmp_path, XDG_DATA_HOME=str(tmp_path / "data")) as terminal:
        before = terminal.settings()
        terminal.read_until(lambda text: "any key begins" in text)
        terminal.press("\x1b[D")
        terminal.read_until(lambda text: "enter plays again" in text)
        terminal.press("\r")
        terminal.read_until(lambda text: "any key begins" in text.rsplit("enter plays again", 1)[-1])
        terminal.press("x")
        terminal.read_until(lambda text: text.count("enter plays again") > text.count("\x1b[?1049h"))
        if way == "\x03":
            terminal.press(way)
        else:
            os.kill(terminal.process.pid, way)
        assert terminal.end() == (130 if way == "\x03" else 143)
        assert terminal.settings() == before and LEAVE in terminal.text
    entries = [json.loads(line) for line in (tmp_path / "data/tfdqn/scores.jsonl").read_text().splitlines()]
    assert len(entries) == 2 and {entry["game"] for entry in entries} == {"catch8_single"}
    assert all(entry["score"] in (-1.0, 1.0) and entry["frames"] == 7 for entry in entries)
    assert "best" in terminal.text


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (play, ["catch9"], "did you mean 'catch8'"),
        (play, [], "required: GAME"),
        (play, ["catch8", "--fps", "0"], "--fps 0.0: must be between 0.1 and 240"),
        (play, ["catch8", "--seed", "-1"], "--seed -1: must be between"),
        (play, ["catch8"], "standard (input|output) is no terminal"),
        (watch, [], "name either the folder of a run"),
        (watch, ["nothing"], "nothing: no such run folder"),
        (watch, ["--pretrained", "catch9"], "did you mean 'catch8'"),
        (watch, ["--pretrained", "catch8", "--speed", "99"], "--speed 99.0: must be between"),
        (watch, ["--pretrained", "catch8"], "standard (input|output) is no terminal"),
    ],
)
def test_mistakes_are_one_line(command, words, message, capsys):
    with pytest.raises(UserError, match=message) as error:
        command.main(words)
    assert error.value.exit_code == 2


def test_in_a_pipe_nothing_is_loaded():
    code = (
        "import sys; from tfdqn import cli, watch\n"
        "try: watch.main(['--pretrained', 'catch8'])\n"
        "finally: assert 'tensorflow' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "UserError" in done.stderr and "AssertionError" not in done.stderr


def test_keys_are_told_by_what_a_terminal_sends():
    assert screen.keys_in("a\x1b[DX \x1bOA\x1b[1;2C\r\x1b[3~\x1b") == [
        *("a", "left", "x", "space", "up", "right", "enter", "other", "escape"),
    ]


@pytest.mark.parametrize(
    ("names", "presses", "expected"),
    [
        # A key is for one frame; the last one counts.
        (("stay", "left", "right"), [["left"], [], ["left", "right"], ["space"]], [1, 0, 2, 0]),
        (("none", "left", "up", "right", "down", "fire"), [["space"], ["up"], ["4"], ["9"]], [5, 2, 3, 0]),
        # Of two, one is kept to.
        (("release", "hold"), [[], ["space"], [], ["space"], ["2"]], [0, 1, 1, 0, 1]),
        (("left", "right"), [["right"], [], ["left"], ["space"]], [1, 1, 0, 0]),
        (("cue 0", "cue 1", "cue 2"), [["2"], [], ["3"]], [1, 0, 2]),
    ],
)
def test_keys_are_actions(names, presses, expected):
    keys, taken = play.Keys(names), []
    for pressed in presses:
        keys.press(pressed)
        taken.append(keys.taken())
    assert taken == expected
    assert len(keys.help) in (1, len(names))


def test_what_the_rules_forbid_is_not_played():
    assert [play.allowed([False, True, True], action) for action in range(3)] == [1, 1, 2]


def test_a_game_with_rules_and_without_pictures_is_played(tmp_path):
    (tmp_path / "ruled.py").write_text(RULED)
    command = ("-m", "tfdqn.play", "ruled.py:Ruled", "--fps", "100")
    with Terminal(command, 80, cwd=tmp_path, XDG_DATA_HOME=str(tmp_path / "data"), NO_COLOR="1") as terminal:
        terminal.read_until(lambda text: "any key begins" in text)
        terminal.press("\x1b[C")
        terminal.read_until(lambda text: "enter plays again" in text)
        terminal.press("q")
        assert terminal.end() == 0
    text = "\n".join(shown(terminal))
    assert "what it shows:" in text and "over: 0" in text and "\x1b[38" not in terminal.text


def test_scores_that_cannot_be_kept_end_no_game(tmp_path):
    scores = play.Scores("a", tmp_path)
    scores.add(3.0, 10)
    scores.add(2.0, 10)
    assert (play.Scores("a", tmp_path).best, play.Scores("b", tmp_path).best) == (3.0, None)
    (tmp_path / "file").write_text("")
    lost = play.Scores("a", tmp_path / "file")
    lost.add(9.0, 1)
    assert lost.best == 9.0 and lost.problem == "File exists"
    (tmp_path / play.SCORES_FILE).write_text("[1]\nnonsense")
    assert play.Scores("a", tmp_path).best is None


@pytest.mark.parametrize(("height", "width"), [(8, 8), (48, 48), (210, 160), (10, 200), (3, 5)])
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (40, 10), (9, 3)])
def test_a_picture_fits(height, width, columns, rows):
    picture = np.random.default_rng(0).integers(0, 256, [height, width, 3]).astype(np.uint8)
    fitted = blocks.fitted(picture, columns, rows)
    assert fitted.shape[0] % 2 == 0 and fitted.shape[0] <= 2 * rows and fitted.shape[1] <= columns
    for colours in ((True, True), (True, False), (False, False)):
        lines = blocks.lines_of(fitted, *colours)
        plain = [row for line in lines for row in rows_of(line, 1000)]
        assert len(lines) == fitted.shape[0] // 2 and all(len(row) <= columns for row in plain)
        assert ("\x1b" in "".join(lines)) == colours[0]


def test_two_pixels_are_one_character():
    picture = np.array([[[255, 0, 0], [255, 0, 0]], [[0, 0, 255], [0, 0, 255]]], np.uint8)
    assert blocks.lines_of(picture, True, True) == ["\x1b[38;2;255;0;0;48;2;0;0;255m▀▀\x1b[0m"]
    assert blocks.lines_of(picture, True, False) == ["\x1b[38;5;196;48;5;21m▀▀\x1b[0m"]
    assert blocks.lines_of(np.zeros_like(picture), False, False) == ["  "]
    assert blocks.lines_of(np.full_like(picture, 255), False, False) == ["██"]
    assert blocks.lines_of(np.full_like(picture, 1), False, False) == ["░░"]


class Kept:
    """A screen that keeps what it is to draw."""

    colours = colours_are_true = False

    def __init__(self, columns, rows):
        self.size = columns, rows

    def draw(self, lines):
        self.lines = lines


@pytest.mark.parametrize("size", [(120, 40), (80, 24), (40, 12), (20, 6), (3, 3)])
def test_nothing_is_wider_or_higher_than_the_terminal(size):
    values = stage.value_lines(["left", "a very long name of an action"], np.array([0.1, 0.7]), 1, 0.0, 1.0)
    assert values[1].startswith("▸") and values[1].count("█") == 7 and values[0].count("█") == 1
    for picture in (np.full([48, 48, 3], 255, np.uint8), None):
        kept = Kept(*size)
        stage.show(kept, "a title " * 30, picture, [*values, *["word " * 20] * 20], "q quit " * 20)
        assert len(kept.lines) <= size[1] and max(map(len, kept.lines)) <= size[0]
        assert kept.lines[-1].startswith("q q")
