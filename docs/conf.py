"""The site: how Sphinx builds it from the repository's Markdown. `scripts/site` runs it.

The sources begin at the repository's top, where README.md is, so that every relative link that works on a git host
works on the site, too.
"""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))

# Those that are there, each a page.
NOTEBOOKS = sorted(f"docs/notebook/{path.stem}" for path in DOCS.glob("notebook/*.ipynb"))
# What stands in the sidebar, in its order: captions, and the pages below each. A test holds it complete.
NAVIGATION = {
    "Learn": ["docs/tutorial", "docs/tutorial.ja", *NOTEBOOKS, "docs/learning", "docs/cave", "docs/differences"],
    "Learners": ["docs/learners", "docs/learners/dqn", "docs/learners/pqn", "docs/learners/a2c", "docs/learners/r2d2"],
    "Use": [
        "docs/screens",
        "docs/commands",
        "docs/settings",
        "docs/metrics",
        "docs/python",
        "docs/populations",
        "docs/sweeps",
        "docs/gpu",
        "docs/devices",
    ],
    "Build on it": ["docs/rules", "docs/environments", "docs/networks", "docs/adapters"],
    "Rely on it": ["docs/trust", "docs/security", "docs/performance", "docs/development", "benchmarks/README"],
}
# Folders of docs/ that go along as they are, each with its entry in the sidebar; one that is not there has none.
CARRIED = {"docs/play": "The cave in the browser"}
# By the end of a page's name; all others are English.
LANGUAGES = {".ja": "ja"}

project = "tfdqn"
author = "tfdqn"
copyright = "tfdqn; Apache-2.0"
root_doc = "README"
include_patterns = ["README.md", "docs/*.md", "docs/learners/*.md", "docs/notebook/*.ipynb", "benchmarks/README.md"]
# Not to be searched for pages.
exclude_patterns = [".*", "build", "runs", "tfdqn", "tests", *CARRIED]

extensions = ["myst_parser", "site_extension"]
source_suffix = {".md": "markdown", ".ipynb": "notebook"}
myst_heading_anchors = 4
myst_enable_extensions: list[str] = []
highlight_language = "none"
pygments_style = "tango"
pygments_dark_style = "monokai"

html_theme = "furo"
html_title = "tfdqn"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
templates_path = ["templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/carried.html",
        "sidebar/scroll-end.html",
    ]
}
