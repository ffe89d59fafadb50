"""The notebook runs from top to bottom, and shows what it says that it shows."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook" / "journey.ipynb"
# As a notebook does: cell by cell in one namespace; what a cell ends with is its result. IPython need not be there.
RUN = """
import ast, json, sys, types

shown, results = [], []
try:
    import IPython.display as module
except ImportError:
    module = types.ModuleType("IPython.display")
    sys.modules |= {"IPython": types.ModuleType("IPython"), "IPython.display": module}
module.Image = lambda filename: filename
module.display = shown.append

names = {"__name__": "__main__"}
sys.modules["__main__"].__dict__.update(names)
for number, source in enumerate(json.load(sys.stdin)):
    tree = ast.parse(source, f"cell {number}")
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, f"cell {number}", "exec"), names)
    results.append(None if last is None else eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names))
scores = [result["score_mean"] for result in results if isinstance(result, dict)]
sizes = [(names["folder"] / name).stat().st_size for name in shown]
print("RESULT" + json.dumps({"scores": scores, "shown": shown, "sizes": sizes, "folder": str(names["folder"])}))
"""


def cells(kind):
    return [
        "".join(cell["source"])
        for cell in json.loads(NOTEBOOK.read_text("utf-8"))["cells"]
        if cell["cell_type"] == kind
    ]


def test_it_is_committed_without_results():
    content = json.loads(NOTEBOOK.read_text("utf-8"))
    assert {len(cell["outputs"]) for cell in content["cells"] if cell["cell_type"] == "code"} == {0}
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in content["cells"]]
    assert len(set(ids)) == len(ids)


def test_its_links_lead_somewhere():
    targets = [target for text in cells("markdown") for target in re.findall(r"\]\(([^()\s]+)\)", text)]
    assert len(targets) >= 4
    for target in targets:
        assert (NOTEBOOK.parent / target).exists(), target


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    environment = {**os.environ, "MPLBACKEND": "Agg", "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = str(NOTEBOOK.parents[2])
    result = subprocess.run(
        [sys.executable, "-c", RUN],
        input=json.dumps(cells("code")),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3_000:]
    found = json.loads(result.stdout.split("RESULT")[1])
    naive, agent, walker, cave = found["scores"]
    assert min(naive, agent) >= 98 and walker > 0.9 and cave > 1_000
    films = [name for name in found["shown"] if name.endswith(".gif")]
    assert films == ["catch8.gif", "road.gif", "cave.gif"] and min(found["sizes"]) > 1_000
    assert "it takes: " in result.stdout
    assert Path(found["folder"]).parent == tmp_path
