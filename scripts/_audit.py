"""Whether a published advisory touches a locked package. Run by scripts/audit, which installs pip-audit."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

from _lock import APART
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


class Finding(NamedTuple):
    package: str
    version: str
    names: frozenset[str]  # of one advisory: its id and its aliases

    def __str__(self) -> str:
        return f"{self.package} {self.version}: {', '.join(sorted(self.names))}"


def read_report(report: dict) -> tuple[set[Finding], set[str]]:
    """The findings of pip-audit's JSON, and a line for each package that it could not look up."""
    findings, unknown = set(), set()
    for package in report["dependencies"]:
        # Without this, a service that answers nothing would pass for one that knows of nothing.
        if "skip_reason" in package:
            unknown.add(package["skip_reason"])
        for advisory in package.get("vulns", []):
            names = frozenset([advisory["id"], *advisory["aliases"]])
            findings.add(Finding(canonicalize_name(package["name"]), package["version"], names))
    return findings, unknown


def problems(findings: set[Finding], unknown: set[str], allowed: list[dict], today: datetime.date) -> list[str]:
    """Why the audit fails; nothing if it passes.

    Args:
        allowed: the entries of requirements/audit-allow.toml: `id`, `package`, `reason` and `review`, a date.
    """
    found = [f"not looked up: {reason}" for reason in sorted(unknown)]
    used = set()
    for finding in sorted(findings, key=str):
        entries = [
            i for i, entry in enumerate(allowed) if entry["id"] in finding.names and entry["package"] == finding.package
        ]
        used.update(entries)
        if not entries:
            found.append(f"advisory without an entry: {finding}")
    for i, entry in enumerate(allowed):
        name = f"{entry['id']} ({entry['package']})"
        if not entry["reason"].strip():
            found.append(f"no reason is given for {name}")
        if entry["review"] < today:
            found.append(f"due for review since {entry['review']}: {name}")
        if i not in used and not unknown:
            found.append(f"no longer found, so its entry can go: {name}")
    return found


def read_allowed() -> list[dict]:
    return tomllib.loads((ROOT / "requirements/audit-allow.toml").read_text(encoding="utf-8")).get("allow", [])


def main() -> int:
    findings, unknown = set(), set()
    files = sorted(ROOT.glob("requirements/py3.*/*.txt"))
    groups = [[file for file in files if file.parent == folder] for folder in sorted({f.parent for f in files})]
    # One call per Python, what has an environment of its own apart: within a call a package has one version.
    calls = [[f for f in group if f.stem not in APART] for group in groups]
    calls += [[f] for f in files if f.stem in APART]
    calls[0].append(ROOT / "requirements/tf-agents.txt")
    for call in calls:
        arguments = [word for file in call for word in ("--requirement", str(file))]
        arguments += ["--disable-pip", "--require-hashes", "--format", "json", "--progress-spinner", "off"]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "pip_audit", *arguments, *sys.argv[1:]],
            capture_output=True,
            text=True,
            encoding="utf-8",
        )
        try:
            report = json.loads(done.stdout)
        except ValueError:
            print(f"pip-audit failed: {(done.stderr.strip().splitlines() or ['no output'])[-1]}", file=sys.stderr)
            return 2
        more, skipped = read_report(report)
        findings |= more
        unknown |= skipped
    found = problems(findings, unknown, read_allowed(), datetime.date.today())
    print("\n".join(found) or f"nothing new; {len(findings)} known, in requirements/audit-allow.toml")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
