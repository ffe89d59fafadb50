"""Figures say what the runs wrote; drawing itself needs an environment of its own and is not tried here."""

import ast
import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import article_figure, figures, learning
from benchmarks.peers import environments
from tfdqn.errors import UserError


def test_the_articles_losses_are_those_of_the_reports(tmp_path):
    lines = [
        {"env_frames": 2000, "rollout/score": 1.0},
        {"env_frames": 4000, "train/loss": 0.5},
        {"env_frames": 4000, "eval/score_mean": 9.0},
        {"env_frames": 6002, "train/loss": 0.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert article_figure.losses(tmp_path) == [[4000, 0.5], [6000, 0.25]]


def test_a_mean_is_over_what_all_seeds_have():
    assert figures.mean([[[1, 2.0], [2, 4.0], [3, 5.0]], [[2, 6.0], [3, 5.0], [4, 1.0]]]) == [[2, 5.0], [3, 5.0]]


def test_what_cannot_be_drawn_is_said_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(environments, "python", lambda _: sys.executable)
    with pytest.raises(UserError, match="figures: not drawn: ") as caught:
        figures.draw({tmp_path / "figure.svg": {"curves": []}})  # a figure without a title
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_both_optimizers_of_the_article_have_a_colour_and_a_name():
    assert all(
        f"--log-every-frames {article_figure.REPORT_FRAMES}" in each.flags for each in learning.SUITES["article"]
    )
    names = {experiment.name.removeprefix("article-") for experiment in learning.SUITES["article"]}
    assert names == set(article_figure.COLOURS) == set(article_figure.LABELS)
    assert all(experiment.seeds == 5 for experiment in learning.SUITES["article"])


def test_what_draws_needs_nothing_but_what_its_environment_has():
    tree = ast.parse(Path(article_figure.__file__).with_name("draw.py").read_text())
    modules = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"json", "pathlib", "re", "sys", "matplotlib", "PIL", "typing", "__future__"}
    (path, _) = environments.REQUIREMENTS["figures"][0]
    assert re.search("^matplotlib==", path.read_text(), re.MULTILINE)


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_trained(tmp_path):
    for out in (tmp_path / "figure.jpg", tmp_path / "nowhere" / "figure.png"):
        with pytest.raises(UserError, match="--out"):
            article_figure.main(["--out", str(out)])
