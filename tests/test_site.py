"""The site of docs/: what is in its navigation, what its pages tell, and that a site with a fault is refused."""

import importlib.util
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import learning, pages
from tfdqn import config as configuration
from tfdqn import evaluate, learners, train
from tfdqn.errors import UserError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
CONF = runpy.run_path(str(DOCS / "conf.py"))
LANGUAGES = {"en": DOCS / "tutorial.md", "ja": DOCS / "tutorial.ja.md"}
STEP = re.compile(r"^### (\d+)\. (.+)$", re.M)


@pytest.fixture
def site_check(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)
    import site_check

    return site_check


# --- navigation ---


def test_every_page_is_in_the_navigation_once():
    listed = [page for pages_below in CONF["NAVIGATION"].values() for page in pages_below]
    sources = {path for pattern in CONF["include_patterns"] for path in ROOT.glob(pattern)}
    there = {str(path.relative_to(ROOT).with_suffix("")) for path in sources}
    assert sorted([*listed, CONF["root_doc"]]) == sorted(there)
    kept = {
        path for path in DOCS.rglob("*.md") if not any(path.is_relative_to(ROOT / each) for each in CONF["CARRIED"])
    }
    assert kept <= sources, "a page that no pattern takes in"


def test_every_learner_has_a_page_and_curves():
    assert list(pages.LEARNERS) == list(learners.LEARNERS)
    for name in learners.LEARNERS:
        text = (DOCS / "learners" / f"{name}.md").read_text(encoding="utf-8")
        assert re.search(rf"!\[[^]]*\]\(\.\./curves/{name}-\w+\.svg\)", text), name
        assert "**Choose it**" in text and "**What it costs.**" in text and "Code: [" in text
    assert {name for names in pages.LEARNERS.values() for name in names} == set(learning.LEARNERS)


# --- what pages tell ---


def test_pages_tell_what_was_measured():
    """`python -m benchmarks.pages` writes them."""
    assert len(pages.pages()) >= 2 + len(learners.LEARNERS)
    for path in pages.pages():
        text = path.read_text(encoding="utf-8")
        assert pages.with_blocks(text) == text, path


def test_every_figure_is_drawn_shown_and_light():
    figures = pages.all_figures()
    drawn = {path.stem for path in pages.CURVES.iterdir()}
    assert drawn == set(figures)
    text = "".join(path.read_text(encoding="utf-8") for path in DOCS.rglob("*.md"))
    for name in drawn:
        assert (pages.CURVES / f"{name}.svg").stat().st_size < 60_000, name
        assert f"curves/{name}.svg)" in text, f"no page shows {name}"


def test_pictures_of_screens_are_light_and_shown():
    pictures = list((DOCS / "screens").iterdir())
    text = (DOCS / "screens.md").read_text(encoding="utf-8")
    assert pictures and all(f"(screens/{path.name})" in text for path in pictures)
    sizes = [path.stat().st_size for path in pictures]
    assert max(sizes) <= 120_000 and sum(sizes) <= 800_000


def rows(*keys):
    return [
        {
            "name": name,
            "seed": seed,
            "env": "catch16",
            "flags": f"{experiment.flags} --seed {seed} --device cpu",
            "score_mean": 90.0 + seed,
            "train_seconds": 2.0 + 8 * seed,
            "compile_seconds": 3.0,
            "env_frames": 1000,
            "curve": [{"env_frames": 500, "wall_seconds": 1.0, "eval/score_mean": 50.0 + seed}],
        }
        for name, seed in keys
        for experiment in learning.SUITES["learners"]
        if experiment.name == name
    ]


def test_rows_are_taken_as_far_as_there_are_any(tmp_path, monkeypatch):
    known = rows(("catch16-pqn", 1), ("catch16-dqn", 0), ("catch16-dqn", 2))
    (tmp_path / "runs").mkdir()
    for row in known:
        (tmp_path / "runs" / f"{row['name']}-s{row['seed']}.json").write_text(json.dumps(row))
    other = {**known[0], "seed": 0, "flags": "--env catch16 --learner pqn --epochs 9"}
    (tmp_path / "runs" / "other.json").write_text(json.dumps(other))
    taken = pages.taken(tmp_path / "runs")
    assert [(row["name"], row["seed"]) for row in taken] == [("catch16-dqn", 0), ("catch16-dqn", 2), ("catch16-pqn", 1)]
    (tmp_path / "learners.json").write_text(json.dumps(taken))
    assert pages.taken(tmp_path / "learners.json") == taken

    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    text = pages.learners_block()
    assert "| `dqn` | 0, 2 | 90 / 92 | 0.00 / 0.00 | 2 / 18 | 3 / 3 |" in text and "| `r2d2` | none yet |" in text
    labels = [curve["label"] for curve in pages.learners_figures()["learners-catch16-frames"]["curves"]]
    assert labels == ["dqn (seeds 0, 2)", "pqn (seed 1)"]
    by_seconds = pages.learners_figures()["learners-catch16-seconds"]["curves"][0]
    assert by_seconds["seeds"] == [[[1.0, 50.0]], [[9.0, 52.0]]] and by_seconds["mean"] == [[5.0, 51.0]]
    assert pages.learner_block("r2d2") == "" and "learners-cave-frames" not in pages.learners_figures()


def test_a_run_without_an_evaluation_has_a_row_and_no_curve(tmp_path, monkeypatch):
    [row] = rows(("cave-dqn", 0))
    (tmp_path / "learners.json").write_text(json.dumps([{**row, "env": "cave", "curve": []}]))
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    assert "| `dqn` | 0 | 90 |" in pages.learners_block()
    assert "learners-cave-frames" not in pages.learners_figures()
    assert "learners-cave-frames" not in pages.learners_block()


def test_a_step_tells_which_seeds_played_well_and_for_how_long(tmp_path, monkeypatch):
    def run(seed, *scores):
        curve = [{"env_frames": 1000 * n, "eval/score_mean": score} for n, score in enumerate(scores, 1)]
        return {"name": "tutorial-huber", "seed": seed, "train_seconds": 1.25, "curve": curve}

    def told(*runs):
        (tmp_path / "tutorial.json").write_text(json.dumps(runs))
        monkeypatch.setattr(pages, "RESULTS", tmp_path)
        return pages.step_block("huber", "en").splitlines()[-1]

    assert told(run(0, 0, 95, 99, 40), run(1, 0, 1, 2, 3)) == (
        "Seeds 0, 1: the first evaluation at 95% of perfect play or better came after 2,000 frames. "
        "On seed 1 none did. "
        "Of the 2 evaluations after that, 1 fell below it again. Training took 1.2, 1.2 seconds."
    )
    assert told(run(1, 0, 1, 2, 3)) == (
        "Seed 1: no evaluation came to 95% of perfect play. The last one, after 4,000 frames, had a mean score of 3. "
        "Training took 1.2 seconds."
    )


@pytest.mark.parametrize(("content", "words"), [(None, "no such file"), ("[]", "no finished run"), ("{}", "no result")])
def test_rows_that_are_none_are_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "rows.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=words):
        pages.taken(path)


# --- the tutorial ---


def steps(language):
    """By number: a step's commands, the targets of its links, and the names of what was measured for it."""
    text = LANGUAGES[language].read_text(encoding="utf-8")
    parts = STEP.split(text)[1:]
    return {
        int(number): (
            re.findall(r"^```bash\n(.*?)^```", body, re.S | re.M),
            sorted(re.findall(r"(?<!!)\[([^]]*)\]\(([^()\s]+)\)", body), key=str),
            re.findall(r"<!-- measured (\w\w)-([\w-]+)", body),
        )
        for number, body in zip(parts[0::3], parts[2::3], strict=True)
    }


def words_of(command):
    [words] = [shlex.split(command.replace("\\\n", " "))]
    return words


def test_both_languages_have_the_same_steps():
    english, japanese = steps("en"), steps("ja")
    assert list(english) == list(japanese) == list(range(1, len(english) + 1))
    for number, (commands, links, measured) in english.items():
        theirs = japanese[number]
        assert len(commands) == 1 and commands == theirs[0], number
        assert sorted(target for _, target in links) == sorted(target for _, target in theirs[1]), number
        code = [text for text, target in links if target.endswith(".py")]
        assert code and sorted(code) == sorted(text for text, target in theirs[1] if target.endswith(".py")), number
        assert [("ja", name) for _, name in measured] == theirs[2], number
        assert len(measured) == 1 or "curves/" in LANGUAGES["en"].read_text(encoding="utf-8"), number


def test_its_commands_are_those_that_were_measured():
    shown = set()
    for number, ([command], _, measured) in steps("en").items():
        program, *words = words_of(command)
        if program == "scripts/train":
            config = resolved(words)
            [(_, name)] = measured
            step = pages.STEPS[name]
            suite = [each for experiments in learning.SUITES.values() for each in experiments]
            [own] = [each for each in suite if each.name == list(step.runs.values())[-1]]
            assert config == resolved(own.flags.split()), number
            shown.add(name)
        elif words[1] == "benchmarks.learning":
            assert learning.parser().parse(words[2:]).suite in learning.SUITES
        else:
            assert words[:2] == ["-m", "tfdqn.evaluate"]
            evaluate.parser().parse(words[2:])
    assert shown == set(pages.STEPS)


def resolved(flags):
    arguments = vars(train.parser().parse(flags))
    return configuration.resolve({name: value for name, value in arguments.items() if name in configuration.FIELDS})


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda path: str(path.relative_to(DOCS)))
def test_links_to_code_name_what_is_there(page):
    for text, target in re.findall(r"\[`([\w.]+)`\]\(([^()\s#]+\.py)\)", page.read_text(encoding="utf-8")):
        path = (page.parent / target).resolve()
        assert path.is_file(), f"{page}: {target}"
        if text != path.name:
            assert defined(path, text), f"{page}: {target} has no {text}"


def defined(path, name):
    """Whether a file has a function, class or constant of this name, as the site looks for it."""
    scope = path.read_text(encoding="utf-8")
    for depth, word in enumerate(name.split(".")):
        indent = "    " * depth
        found = re.search(rf"^{indent}(?:(?:def|class) {word}\b|{word}(?:: [^=]+)? = )", scope, re.M)
        if not found:
            return False
        scope = scope[found.end() :]
    return True


# --- the built site ---


@pytest.fixture
def whole(tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "style.css").write_text("body { background: url(page/paper.png) }")
    (tmp_path / "page" / "index.html").write_text('<h1 id="top">a</h1><a href="../index.html#one">back</a>')
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="style.css"><h1 id="one">a</h1><a href="page/#top">on</a><a href="#one">up</a>'
        '<a href="https://example.org/">elsewhere</a><img src="data:image/png;base64,AA"><link rel="next" href="page/">'
    )
    return tmp_path


def test_a_whole_site_has_no_problems(whole, site_check):
    assert site_check.problems(whole) == []


@pytest.mark.parametrize(
    ("added", "problem"),
    [
        ('<a href="missing.html">x</a>', "index.html: leads nowhere: missing.html"),
        ('<a href="page/index.html#nothing">x</a>', "index.html: leads to no such place: page/index.html#nothing"),
        ('<img src="missing.png">', "index.html: leads nowhere: missing.png"),
        ('<script src="https://cdn.example/x.js"></script>', "needs another server: https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//fonts.example/a.css">', "needs another server: //fonts.example/a.css"),
        ('<img srcset="https://cdn.example/2.png 2x">', "needs another server: https://cdn.example/2.png"),
    ],
)
def test_a_link_that_leads_nowhere_and_a_part_from_elsewhere_are_found(whole, site_check, added, problem):
    with open(whole / "index.html", "a") as page:
        page.write(added)
    [found] = site_check.problems(whole)
    assert found.endswith(problem)


def test_a_font_from_elsewhere_is_found(whole, site_check):
    (whole / "style.css").write_text("@font-face { src: url('https://fonts.example/a.woff2') }")
    assert site_check.problems(whole) == ["style.css: needs another server: https://fonts.example/a.woff2"]


@pytest.mark.slow
@pytest.mark.skipif(
    not (ROOT / ".venv-docs/bin/python").exists() and importlib.util.find_spec("sphinx") is None,
    reason="Sphinx is not installed; scripts/site does that",
)
def test_the_site_is_built_and_a_broken_link_fails_it(tmp_path):
    python = ROOT / ".venv-docs/bin/python"
    python = str(python) if python.exists() else sys.executable
    checkout = tmp_path / "checkout"
    for folder in ("docs", "benchmarks", "tfdqn"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=shutil.ignore_patterns("__pycache__", "*.keras"))
    shutil.copy(ROOT / "README.md", checkout)
    (checkout / "docs/play").mkdir(exist_ok=True)
    (checkout / "docs/play/index.html").write_text("<h1>the game</h1>")
    cells = [{"cell_type": "markdown", "source": ["# A way\n", "[the cave](../cave.md)"]}]
    cells.append({"cell_type": "code", "source": ["import tfdqn"], "outputs": []})
    (checkout / "docs/notebook").mkdir(exist_ok=True)
    (checkout / "docs/notebook/way.ipynb").write_text(json.dumps({"cells": cells}))
    with open(checkout / "docs/gpu.md", "a") as page:
        page.write("\n[Play](play/index.html), [a notebook](notebook/way.ipynb)\n")

    def build():
        command = [python, "-P", "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", "trees", ".", "site"]
        return subprocess.run(
            command, cwd=checkout, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300
        )

    done = build()
    assert done.returncode == 0, done.stderr
    site = checkout / "site"
    home = (site / "index.html").read_text(encoding="utf-8")
    for page in [page for pages_below in CONF["NAVIGATION"].values() for page in pages_below]:
        assert f'href="{page}.html"' in home, page
    assert 'href="docs/play/index.html"' in home and (site / "docs/play/index.html").is_file()
    gpu = (site / "docs/gpu.html").read_text(encoding="utf-8")
    assert 'href="play/index.html"' in gpu and 'href="notebook/way.html"' in gpu
    notebook = (site / "docs/notebook/way.html").read_text(encoding="utf-8")
    assert 'href="../cave.html"' in notebook and "way.ipynb" in notebook and "import" in notebook
    assert 'href="docs/notebook/way.html"' in home
    tutorial = (site / "docs/tutorial.html").read_text(encoding="utf-8")
    assert re.search(r'href="\.\./tfdqn/learners/losses\.py\.html#line-\d+"', tutorial)
    assert 'lang="ja"' in (site / "docs/tutorial.ja.html").read_text(encoding="utf-8")
    for broken in ("[x](nowhere.md)", "[x](learning.md#nothing)", "![x](nothing.png)", "[x](../nothing.py)"):
        with open(checkout / "docs/gpu.md", "a") as page:
            page.write(f"\n{broken}\n")
        assert build().returncode != 0, broken
        shutil.copy(ROOT / "docs/gpu.md", checkout / "docs/gpu.md")
