"""The panel of a run in a terminal, and the line where there can be none."""

import math
import os
import re
import subprocess
import sys

import pytest

from tests.terminal import ROOT, Terminal, rows_of
from tfdqn.runs import live

# A run that is told of, without one: messages, prints and complaints of libraries come between.
TOLD = """
import os, sys, math
from pathlib import Path
from tfdqn import config, console
from tfdqn.runs.live import LiveLine
line = LiveLine(config.resolve({"env": "catch8", "total_env_frames": 100_000}), Path("runs/catch8__default__s0__now"))
def tell(n):
    line.update({"rollout/score": 2.0 * n, "rollout/epsilon": 0.5, "train/loss": 0.0125, "eval/score_mean": 3.0 * n})
    line.show(1000 * n, 54321.0, 2123.0, n)
console.say("compiling ...")
for n in range(1, 20): tell(n)
console.say("a message")
for n in range(20, 40): tell(n)
print("a result", flush=True)
tell(40)
"""
END = 'console.end_live()\nconsole.say("the end")\n'


def told(code, columns=80, rows=24, **environment):
    with Terminal(["-c", code], columns, rows, **environment) as terminal:
        assert terminal.end() == 0, terminal.text
        assert "tensorflow" not in terminal.text
        return terminal.text


def panels_in(rows):
    """The panels among rows, each a list of its rows; and the other rows."""
    panels, others = [], []
    for row in rows:
        if row.startswith("╭"):
            panels.append([row])
        elif row.startswith(("│", "╰")) and not panels[-1][-1].startswith("╰"):
            panels[-1].append(row)
        elif row:
            others.append(row)
    return panels, others


@pytest.mark.parametrize("columns", [25, 40, 80, 120])
def test_a_panel_is_drawn_over_itself_and_messages_stand_above_the_next(columns):
    rows = rows_of(told(TOLD + END, columns), columns)
    panels, others = panels_in(rows)
    assert others == ["compiling ...", "a message", "a result", "the end"]
    assert len(panels) == 3  # as each stood when something came between, and the last
    for panel in panels:
        assert panel[0].endswith("╮") and panel[-1].endswith("╯")
        assert {len(row) for row in panel} == {min(columns - 1, live.WIDEST)}
    text = "\n".join(panels[-1])
    assert "40%" in text and "left" in text and "120.0" in text and "score" in text
    if columns >= 40:
        for word in ("frames", "54,321", "2,123", "epsilon", "0.500", "loss", "0.0125", "memory", "GB", "__now"):
            assert word in text, word
    if columns >= 80:
        assert (
            "catch8 · dqn · seed 0" in text and "best 120.0 of 99" in text and "runs/catch8__default__s0__now" in text
        )
    assert rows.index("a message") > rows.index(panels[0][-1])


@pytest.mark.parametrize("rows", [5, 8, 12])
def test_a_panel_is_no_higher_than_the_terminal(rows):
    panels, _ = panels_in(rows_of(told(TOLD + END, 40, rows), 40))
    assert all(len(panel) < rows for panel in panels)


def test_a_panel_follows_the_terminals_size():
    code = TOLD + 'console.say("narrow"); input(); tell(50)\nconsole.say("wide"); input(); tell(51)\n' + END
    with Terminal(["-c", code], 80) as terminal:
        for word, columns in (("narrow", 40), ("wide", 120)):
            terminal.read_until(lambda text, word=word: f"{word}\r\n" in text)
            terminal.resize(columns)
            terminal.press("\n")
        assert terminal.end() == 0
    before, narrow, wide = re.split(r"(?:narrow|wide)\r\n", terminal.text)
    assert [max(map(len, panels_in(rows_of(part, 200))[0][-1])) for part in (before, narrow, wide)] == [79, 39, 100]


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"PYTHONIOENCODING": "latin-1"}])
def test_without_colours_or_letters_there_is_one_line(environment):
    rows = rows_of(told(TOLD + END, 80, **environment), 80)
    line = "40,000 frames  54,321 frames/s  score 80.0  greedy 120.0  left 0:01"
    assert [row for row in rows if row][-2:] == [line, "the end"]
    assert "╭" not in "".join(rows) and "\x1b[3" not in "".join(rows)


def test_a_terminal_that_can_do_nothing_gets_lines():
    text = told(TOLD + END, TERM="dumb")
    assert "\x1b" not in text and "╭" not in text


def test_a_pipe_gets_lines():
    done = subprocess.run(
        [sys.executable, "-c", TOLD + END],
        env={**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = done.stderr.splitlines()  # the next would come 10 seconds later
    line = (
        "1,000 frames  54,321 frames/s  2,123 updates/s  score 2.0  greedy 3.0  epsilon 0.500  loss 0.01250  left 0:01"
    )
    assert lines == ["compiling ...", line, "a message", "the end"]
    assert done.stdout == "a result\n"


def test_the_end_of_a_process_by_a_signal_stands_below_the_panel():
    rows = rows_of(told(TOLD + "console.last_words('stopped by SIGTERM; nothing was saved')"), 80)
    panels, _ = panels_in(rows)
    at = rows.index("stopped by SIGTERM; nothing was saved")
    assert rows[at - 1] == panels[-1][-1] or (rows[at - 1] == "" and rows[at - 2] == panels[-1][-1])


def test_nothing_of_a_panel_is_made_where_none_is_shown():
    code = TOLD + "assert 'rich' not in sys.modules, 'rich'"
    subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )


def test_a_sparkline_has_the_shape_of_its_numbers():
    assert live.sparkline([0, 1, 2, 3, 4, 5, 6, 7], 40) == live.BARS
    assert live.sparkline([7, 0], 40) == "█▁"
    assert live.sparkline([5], 40) == live.sparkline([5, 5, 5], 1) == "▅"
    many = live.sparkline([math.sin(i / 1000) for i in range(6283)], 40)
    assert len(many) == 40 and many[10] == "█" and many[30] == "▁" and many[20] in "▄▅"
    assert live.sparkline([0] * 39 + [1] * 41, 40).count("█") == 20


TRAIN = (
    *("-m", "tfdqn.train", "--env", "catch8", "--no-jit", "--device", "cpu", "--num-envs", "8"),
    *("--eval-every-frames", "2000", "--eval-episodes", "4", "--goal-score", "1000", "--replay-capacity", "1000"),
    *("--replay-min-rows", "200", "--log-every-frames", "500", "--run-name", "here"),
)


def test_ctrl_c_saves_leaves_the_panel_and_tells_how_to_go_on(tmp_path):
    with Terminal(TRAIN, 80, cwd=tmp_path) as terminal:
        # Between two panels: with Ctrl-C a terminal drops what it has not shown yet.
        terminal.read_until(lambda text: text.count("╭") >= 3 and re.search(r"\x1b\[\d+A$", text))
        terminal.press("\x03")
        assert terminal.end() == 130
    rows = [row for row in rows_of(terminal.text, 80) if row]
    assert rows[-1] == "stopped by SIGINT; to go on, python -m tfdqn.train --resume runs/here"
    panels, others = panels_in(rows)
    assert rows[-2] == panels[-1][-1] and "runs/here" in "\n".join(panels[-1])
    text = "\n".join(others)
    assert len(panels) == 1 and text.index("frames planned") < text.index("compiled in") < text.index("stopped by")
    assert "^C" not in text
    assert (tmp_path / "runs" / "here" / "checkpoints").is_dir()
