"""What a program can check of the documentation: links, names of files, tests and flags, settings, and its Python."""

import dataclasses
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from tfdqn.config import RETIRED

ROOT = Path(__file__).parent.parent
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks" / "README.md")
}
EVERY_PAGE = pytest.mark.parametrize("page", PAGES)
COMMANDS = (
    *("tfdqn.train", "tfdqn.evaluate", "tfdqn.record", "benchmarks.run", "benchmarks.compare", "benchmarks.learning"),
    *("benchmarks.deaths", "benchmarks.tunnel", "benchmarks.article_figure", "benchmarks.package_agent"),
    *("benchmarks.gpu", "benchmarks.pages", "benchmarks.peers", "tfdqn.list_runs", "tfdqn.check_env", "tfdqn.new_game"),
    *("tfdqn.plot", "tfdqn.export", "tfdqn.watch", "tfdqn.play"),
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])")
# Of pip.
FOREIGN_FLAGS = {"--no-deps", "--require-hashes", "--no-build-isolation", "--use-pep517"}
# Files that the reader makes, beside those that a run makes, which packaged agents have.
MADE_BY_READERS = {"my_game.py", "my_network.py", "path/to/my_game.py"}


def prose(page):
    """A page without its blocks of code."""
    return FENCE.sub("", PAGES[page])


def links(page):
    """The targets of a page's links and pictures."""
    return re.findall(r"\]\(([^()\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


def leads(page):
    """The pages that a page has links to."""
    paths = [((ROOT / page).parent / target.partition("#")[0]).resolve() for target in links(page)]
    return {name for name in PAGES if (ROOT / name).resolve() in paths}


def anchors(page):
    """What `#` may be followed by in a link to this page, as GitHub names headings."""
    names = []
    for heading in re.findall(r"^#+ (.+?)\s*$", prose(page), flags=re.M):
        text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        repeats = sum(re.sub(r"-\d+$", "", other) == name for other in names)
        names.append(f"{name}-{repeats}" if repeats else name)
    return names


def flags_of(command):
    """The flags of one of `COMMANDS`."""
    module = importlib.import_module(command + (".__main__" if command == "benchmarks.peers" else ""))
    return set(module.parser()._option_string_actions)


def flags_in_scripts():
    return {flag for path in (ROOT / "scripts").iterdir() if path.is_file() for flag in FLAG.findall(path.read_text())}


def table_under(page, heading):
    """The cells of the first table under a heading, row by row, without its head."""
    text = ("\n" + PAGES[page]).split(f"\n{heading}\n")[1]
    table = re.search(r"(?:^\|.*\n)+", text, flags=re.M).group()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table.splitlines()[2:]]


def test_the_readme_is_a_front_door():
    assert len(PAGES["README.md"].splitlines()) <= 140


def test_the_readme_leads_to_every_page_or_to_one_that_does():
    reached, new = set(), {"README.md"}
    while new:
        reached |= new
        new = {lead for page in new for lead in leads(page)} - reached
    assert set(PAGES) == reached
    assert {page for page in PAGES if page.count("/") == 1} <= leads("README.md") | {"README.md"}


@EVERY_PAGE
def test_nothing_is_left_to_fill_in(page):
    assert "@@" not in PAGES[page] and "TODO" not in PAGES[page]


@EVERY_PAGE
def test_every_link_leads_somewhere(page):
    for target in links(page):
        if re.match(r"[a-z]+:", target):
            continue  # another site
        path, _, anchor = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in anchors(str(file.resolve().relative_to(ROOT.resolve()))), f"{page}: {target}"


def test_anchors_are_githubs():
    PAGES["made up"] = (
        "# The `--json` object, *now*\n```bash\n# no heading\n```\n## A_b [c](d.md)\n## Twice\n## Twice\n"
    )
    try:
        assert anchors("made up") == ["the---json-object-now", "a_b-c", "twice", "twice-1"]
    finally:
        del PAGES["made up"]


@EVERY_PAGE
def test_every_test_it_names_exists(page):
    for file, function in re.findall(r"`(?:tests/)?((?:\w+/)?test_\w+\.py)::(test_\w+)`", PAGES[page]):
        assert f"def {function}(" in (ROOT / "tests" / file).read_text(), f"{page}: {file}::{function}"
    functions = set(re.findall(r"`(test_\w+)`", PAGES[page]))
    defined = {
        name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert functions <= defined


def test_every_difference_names_the_test_that_pins_it():
    rows = table_under("docs/differences.md", "# Differences from the article, the originals and the papers")
    assert len(rows) > 20
    for *_, pinned in rows:
        assert "test" in pinned or pinned == "none: there is nothing to run", pinned


@EVERY_PAGE
def test_every_file_it_names_exists(page):
    folders = (ROOT, ROOT / "tfdqn", ROOT / "tests", ROOT / "benchmarks", ROOT / "tfdqn" / "pretrained" / "cave")
    named = re.findall(r"`([\w./*-]+\.(?:py|toml|json|txt|cfg|md|png|gif))(?:::\w+)?`", PAGES[page])
    named += re.findall(r"`((?:tests|tfdqn|scripts|benchmarks|requirements|docs|\.ci)/[\w./*-]*)`", PAGES[page])
    named += re.findall(r"(?<![\w/])(?:scripts/|\.ci/|requirements/py)[\w./*-]*[\w*]", PAGES[page])
    for path in set(named) - MADE_BY_READERS:
        pattern = path.rstrip("/").replace("py3.X", "py3.*")
        assert any(any(folder.glob(pattern)) for folder in folders), f"{page}: {path}"


@EVERY_PAGE
def test_every_module_it_runs_exists(page):
    for module in re.findall(r"python -m ((?:tfdqn|benchmarks)[\w.]*\w)", PAGES[page]):
        assert importlib.util.find_spec(module), f"{page}: {module}"


@EVERY_PAGE
def test_every_flag_it_names_exists(page):
    known = FOREIGN_FLAGS | flags_in_scripts() | {"--" + name.replace("_", "-") for name in RETIRED}
    known = known.union(*map(flags_of, COMMANDS))
    assert set(FLAG.findall(PAGES[page])) <= known


@EVERY_PAGE
def test_commands_take_the_flags_they_are_given(page):
    blocks = "\n".join(block for kind, block in FENCE.findall(PAGES[page]) if kind == "bash")
    inline = "\n".join(re.findall(r"`([^`\n]+)`", prose(page)))
    lines = (blocks.replace("\\\n", " ") + "\n" + inline).splitlines()
    for line in (line.split("#")[0] for line in lines):
        line = line.replace("scripts/train", "python -m tfdqn.train")
        if command := re.match(r"(?:\.venv/bin/)?python -m ([\w.]+)(.*)", line):
            name, rest = command.groups()
            if name in COMMANDS:
                rest = re.sub(r"--flags='[^']*'", "--flags", rest)
                assert set(FLAG.findall(rest)) <= flags_of(name), f"{page}: {line}"


@EVERY_PAGE
def test_its_python_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it may write runs
    names = {}
    for kind, block in FENCE.findall(PAGES[page]):
        if kind == "python":
            exec(block, names)  # our own text
    if page == "docs/environments.md":
        assert names["timestep"].observation.shape == (64, 48, 48)


@pytest.mark.parametrize("name", ["settings", "metrics"])
def test_a_written_page_is_current(name, monkeypatch):
    """`python docs/write_settings.py` and `docs/write_metrics.py` write them."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    assert PAGES[f"docs/{name}.md"] == importlib.import_module(f"write_{name}").page()


def test_the_page_of_metrics_has_every_learners_metrics_once():
    from tfdqn import learners
    from tfdqn.runs.monitor import reported

    told = re.findall(r"^\| `(\w+/\w+)` \|", PAGES["docs/metrics.md"], flags=re.M)
    expected = {tag for tag in reported("dqn") if not tag.startswith("train/")}
    expected = [*expected, *(tag for name in learners.LEARNERS for tag in reported(name) if tag.startswith("train/"))]
    assert sorted(told) == sorted(expected)


def test_no_help_text_speaks_of_a_setting_that_a_run_with_it_does_not_have():
    from tfdqn import config, learners
    from tfdqn.envs import registry

    for env in (entry.name for entry in registry.games()):
        for learner in learners.LEARNERS:
            helps = {
                field.name: field.metadata["help"]
                for room in config.rooms(env, learner)
                for field in dataclasses.fields(room)
            }
            for name, text in helps.items():
                others = set(re.findall(r"\w+_\w+", text.replace("-", "_"))) & config.FIELDS.keys()
                assert others <= helps.keys(), (env, learner, name)


def test_what_every_learner_reports_has_no_unit_that_one_has_not():
    """Action values: one learner's are returns and another's are rescaled."""
    from tfdqn import learners
    from tfdqn.runs.monitor import reported

    told = [reported(name) for name in learners.LEARNERS]
    units = {each["train/mean_q"].unit for each in told if "train/mean_q" in each}
    assert units == {"return", ""} and told[0]["eval/q_values"].unit == ""
