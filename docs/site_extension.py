"""What the site has beyond its Markdown: sidebar, pages of code and notebooks, carried folders, and the check of all.

Sphinx loads it (docs/conf.py).
"""

from __future__ import annotations

import ast
import json
import posixpath
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import site_check
from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

ROOT = Path(__file__).resolve().parents[1]


class NotebookParser(MystParser):
    """A notebook as the Markdown of its cells; what its code printed is left out."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        cells = json.loads(inputstring)["cells"]
        parts = [("".join(cell["source"]), cell["cell_type"] == "code") for cell in cells]
        texts = [f"~~~python\n{text}\n~~~" if is_code else text for text, is_code in parts]
        name = Path(document["source"]).name
        super().parse("\n\n".join([*texts, f"{{download}}`The notebook itself <{name}>`"]), document)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_source_parser(NotebookParser)
    app.add_config_value("NAVIGATION", {}, "env")
    app.add_config_value("CARRIED", {}, "html")
    app.add_config_value("LANGUAGES", {}, "html")
    app.connect("source-read", add_navigation)
    app.connect("doctree-read", lead_to_code, priority=400)  # before what it would download is noted
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("html-collect-pages", code_pages)
    app.connect("html-page-context", tell_page)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True, "env_version": 1}


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """The sidebar's tree, below the first page: there it can be seen by Sphinx alone, not on a git host."""
    if page != app.config.root_doc:
        return
    for caption, pages in app.config.NAVIGATION.items():
        lines = "\n".join(f"/{each}" for each in pages)
        source[0] += f"\n\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def lead_to_code(app: Sphinx, doctree: nodes.document) -> None:
    """Links to Python files lead to pages of code, at what the link's words name; to carried folders, to them."""
    page = app.env.docname
    here = posixpath.dirname(page)
    for node in list(doctree.findall(addnodes.download_reference)):
        path = posixpath.normpath(posixpath.join(here, node["reftarget"]))
        if path.endswith(".py"):
            _code_of(app).setdefault(page, set()).add(path)
            line = line_of(path, node.astext())
            target = f"{path.removesuffix('.py')}.py.html" + (f"#line-{line}" if line else "")
        elif any(path.startswith(folder + "/") for folder in app.config.CARRIED):
            target = path
        else:
            continue
        link = nodes.reference("", "", *node.children, refuri=posixpath.relpath(target, here or "."), internal=True)
        node.replace_self(link)


def line_of(path: str, name: str) -> int | None:
    """Where a file defines what has this name, such as `learn` or `DQN.learn`."""
    scope = ast.parse((ROOT / path).read_text(encoding="utf-8")).body
    line = None
    for word in name.split("."):
        found = [
            node
            for node in scope
            if (isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == word)
            or (isinstance(node, ast.Assign) and any(ast.unparse(target) == word for target in node.targets))
            or (isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == word)
        ]
        if not found:
            return None
        line, scope = found[0].lineno, getattr(found[0], "body", [])
    return line


def _code_of(app: Sphinx) -> dict[str, set[str]]:
    """The Python files that each page leads to."""
    if not hasattr(app.env, "tfdqn_code"):
        app.env.tfdqn_code = {}
    return app.env.tfdqn_code


def forget(app: Sphinx, env: Any, page: str) -> None:
    _code_of(app).pop(page, None)


def merge(app: Sphinx, env: Any, pages: list[str], other: Any) -> None:
    _code_of(app).update(getattr(other, "tfdqn_code", {}))


def code_pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    formatter = HtmlFormatter(linenos="inline", linespans="line")
    for path in sorted(set().union(*_code_of(app).values())):
        body = highlight((ROOT / path).read_text(encoding="utf-8"), PythonLexer(), formatter)
        yield path, {"title": path, "body": f'<h1>{path}</h1><div class="code-page">{body}</div>'}, "page.html"


def tell_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """A page's language, and what the sidebar has of carried folders."""
    for ending, language in app.config.LANGUAGES.items():
        if page.endswith(ending):
            context["language"] = language
    pages = [(title, f"{folder}/index.html") for folder, title in app.config.CARRIED.items()]
    context["carried"] = [(title, path) for title, path in pages if (ROOT / path).is_file()]


def finish(app: Sphinx, error: Exception | None) -> None:
    """The carried folders, the first page by the name that servers look for, and the check of everything.

    Raises:
      SphinxError: a link leads nowhere, or a page needs another server.
    """
    if error is not None or app.builder.name != "html":
        return
    out = Path(app.outdir)
    shutil.copyfile(out / f"{app.config.root_doc}.html", out / "index.html")
    for folder in app.config.CARRIED:
        shutil.rmtree(out / folder, ignore_errors=True)
        if (ROOT / folder / "index.html").is_file():
            shutil.copytree(ROOT / folder, out / folder, ignore=shutil.ignore_patterns("__pycache__"))
    found = site_check.problems(out)
    if found:
        raise SphinxError("the site is not whole:\n" + "\n".join(found))
