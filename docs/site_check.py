"""Whether a built site is whole: every link leads somewhere in it, and no page needs another server to be shown."""

from __future__ import annotations

import re
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """What a page has (`ids`), leads to (`links`) and is made of (`parts`)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.parts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        of = dict(attributes)
        self.ids.update(filter(None, (of.get("id"), of.get("name"))))
        if tag in ("a", "area") and of.get("href"):
            self.links.append(of["href"])
        if tag == "link" and of.get("href"):
            # Of these, a browser fetches nothing by itself.
            is_named = {"prev", "next", "search", "index", "canonical", "license"} & set((of.get("rel") or "").split())
            (self.links if is_named else self.parts).append(of["href"])
        self.parts += [of[name] for name in ("src", "poster", "data") if of.get(name) and tag != "a"]
        self.parts += [each.split()[0] for each in (of.get("srcset") or "").split(",") if each.strip()]


def problems(folder: Path) -> list[str]:
    """A line for each link that leads nowhere, and for each part of a page that another server would have to send."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(folder)
        for target in sorted({*page.links, *page.parts}):
            url = urllib.parse.urlsplit(target)
            if url.scheme in ("http", "https") or url.netloc:
                if target in page.parts:
                    found.append(f"{name}: needs another server: {target}")
                continue
            if url.scheme:
                continue  # data:, mailto:
            file = (path.parent / urllib.parse.unquote(url.path)) if url.path else path
            file = (file / "index.html" if file.is_dir() else file).resolve()
            if not file.is_file():
                found.append(f"{name}: leads nowhere: {target}")
            elif url.fragment and file in pages and urllib.parse.unquote(url.fragment) not in pages[file].ids:
                found.append(f"{name}: leads to no such place: {target}")
    for path in sorted(folder.rglob("*.css")):
        for target in re.findall(
            r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s]+)", path.read_text(encoding="utf-8")
        ):
            found.append(f"{path.relative_to(folder)}: needs another server: {target}")
    return found
