"""The lock files, requirements/py3.X/*.txt: how they are written, read and checked against setup.cfg.

Per Python, one consistent choice of versions, split by purpose so that any combination installs together:

    build.txt   what builds packages, tfdqn among them; to be installed first
    base.txt    what tfdqn needs
    test.txt    what its tests need besides
    gpu.txt     what an NVIDIA GPU needs besides
    docs.txt    what builds the site of docs/, and
    tools.txt   the tools of the maintainers: each chosen by itself, for an environment of its own

Run by scripts/lock, whose arguments go to `uv pip compile`.
"""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
# Each is installed after those before it that it is used with.
PURPOSES = ("build", "base", "test", "gpu")
# Each in an environment of its own.
APART = ("docs", "tools")
# (sys_platform, platform_machine) of every machine that TensorFlow has wheels for and scripts/ run on.
PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))
# Building runs code of the package, so wheels only. gym 0.23.0 has none. Both lines stand in every file: pip reads
# several files as one, and a later "wheels only" would take the exception back.
BUILD_OPTIONS = ("--only-binary :all:", "--no-binary gym")

HEADER = """\
# Written by scripts/lock from setup.cfg; do not edit. For Python {python} on Linux (x86_64, aarch64) and macOS (arm64):
# pip install --no-deps --require-hashes {flags}-r requirements/py{python}/{purpose}.txt
"""


class Entry(NamedTuple):
    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str | None:
        """The one version that may be installed; None if it is not pinned to one."""
        pins = list(self.requirement.specifier)
        if len(pins) == 1 and pins[0].operator == "==" and "*" not in pins[0].version:
            return pins[0].version
        return None


def parse(text: str) -> list[Entry]:
    """The entries of a requirements file; comments and options left out."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(^|\s)#.*", "", text)).splitlines()
    entries = []
    for line in lines:
        words = line.split()
        if not words or words[0].startswith("-"):
            continue
        hashes = tuple(word.removeprefix("--hash=") for word in words if word.startswith("--hash="))
        entries.append(Entry(Requirement(line.split(" --hash=")[0].strip()), hashes))
    return entries


def wanted(root: Path = ROOT) -> dict[str, list[Requirement]]:
    """What setup.cfg and pyproject.toml ask for, by purpose."""
    config = configparser.ConfigParser()
    config.read(root / "setup.cfg", encoding="utf-8")
    texts = {"base": config["options"]["install_requires"], **config["options.extras_require"]}
    lines = {purpose: text.splitlines() for purpose, text in texts.items()}
    lines["build"] = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    return {
        purpose: [Requirement(line) for line in of_purpose if line.strip() and not line.lstrip().startswith("#")]
        for purpose, of_purpose in lines.items()
    }


def marker_environment(python: str, platform: tuple[str, str]) -> dict[str, str]:
    return {
        "python_version": python,
        "python_full_version": python + ".0",
        "sys_platform": platform[0],
        "platform_system": platform[0].capitalize(),
        "platform_machine": platform[1],
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }


def is_for(requirement: Requirement, python: str, platform: tuple[str, str]) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(marker_environment(python, platform))


def platforms_of(purpose: str) -> tuple[tuple[str, str], ...]:
    return tuple(p for p in PLATFORMS if purpose != "gpu" or p[0] == "linux")


def problems(python: str, locks: dict[str, str], wanted: dict[str, list[Requirement]]) -> list[str]:
    """What is wrong with the texts of the lock files of one Python; nothing if they may be installed.

    Args:
        locks: text by purpose; either of one of `APART` alone or of all of `PURPOSES`.
    """
    found, entries = [], {}
    for purpose, text in locks.items():
        for entry in parse(text):
            where = f"py{python}/{purpose}.txt: {entry.name}"
            if entry.version is None:
                found.append(f"{where} is not pinned to one version")
            if not entry.hashes or not all(re.fullmatch("sha256:[0-9a-f]{64}", hash) for hash in entry.hashes):
                found.append(f"{where} has no SHA-256, or something else for one")
            if entry.name in entries:
                found.append(f"{where} is in {entries[entry.name][0]}.txt too")
            entries[entry.name] = (purpose, entry)
    for purpose in locks:
        installed_along = {"build", "base", purpose}
        for requirement in wanted[purpose]:
            if not any(is_for(requirement, python, platform) for platform in platforms_of(purpose)):
                continue
            where, entry = entries.get(canonicalize_name(requirement.name), (None, None))
            if where not in installed_along:
                found.append(f"py{python}/{purpose}.txt: {requirement} of setup.cfg is missing")
            elif entry.version and not requirement.specifier.contains(entry.version, prereleases=True):
                found.append(f"py{python}/{where}.txt: {entry.name} {entry.version} is not {requirement}")
    return found


# --- writing ---


def compile_pins(python, requirements, platforms, *options, known="", constraints=""):
    """The output of uv: pins for `requirements` and all that they need, the ones in `known` if they still fit."""
    markers = [
        f"python_version == '{python}' and sys_platform == '{system}' and platform_machine == '{machine}'"
        for system, machine in platforms
    ]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        # The one place where uv takes the platforms from.
        (folder / "pyproject.toml").write_text(f"[tool.uv]\nenvironments = {markers!r}\n", encoding="utf-8")
        (folder / "requirements.in").write_text("\n".join(map(str, requirements)) + "\n", encoding="utf-8")
        (folder / "constraints.txt").write_text(constraints, encoding="utf-8")
        (folder / "pins.txt").write_text(known, encoding="utf-8")
        command = "-m uv pip compile requirements.in --constraints constraints.txt --output-file pins.txt --quiet"
        command += f" --universal --python-version {python} --generate-hashes --no-header --annotation-style line"
        subprocess.run(
            [sys.executable, *command.split(), *" ".join(BUILD_OPTIONS).split(), *options],
            cwd=folder,
            check=True,
        )
        return (folder / "pins.txt").read_text(encoding="utf-8")


def blocks(pins: str) -> dict[str, str]:
    """The text of each entry by the package's name, hashes and comment included."""
    parts = re.split(r"^(?=[A-Za-z0-9])", pins, flags=re.MULTILINE)
    result = {}
    for part in parts[1:]:
        [entry] = parse(part)
        if entry.name in result:
            raise SystemExit(f"{entry.name} would differ between the platforms: give setup.cfg a bound that they share")
        result[entry.name] = part
    return result


def write(python: str, purpose: str, text: dict[str, str]) -> None:
    path = ROOT / "requirements" / f"py{python}" / f"{purpose}.txt"
    path.parent.mkdir(exist_ok=True)
    flags = "--no-build-isolation --use-pep517 " if purpose == "base" else ""
    lines = [HEADER.format(python=python, purpose=purpose, flags=flags)]
    lines += [option + "\n" for option in BUILD_OPTIONS]
    for name in sorted(text):
        [entry] = parse(text[name])
        part = text[name].replace("-r requirements.in", "tfdqn")
        if all(is_for(entry.requirement, python, platform) for platform in platforms_of(purpose)):
            part = re.sub(r"\A(\S+) ;.* \\\n", r"\1 \\\n", part)
        lines.append(part)
    path.write_text("".join(lines), encoding="utf-8")


def read(python: str, *purposes: str) -> dict[str, str]:
    folder = ROOT / "requirements" / f"py{python}"
    return {p: (folder / f"{p}.txt").read_text(encoding="utf-8") for p in purposes if (folder / f"{p}.txt").exists()}


def lock(python: str, options: list[str]) -> None:
    requirements = wanted()
    everything = [r for purpose in PURPOSES for r in requirements[purpose]]
    known = "\n".join(read(python, *PURPOSES).values())
    pins = compile_pins(python, everything, PLATFORMS, *options, known=known)
    rest = blocks(pins)
    for purpose in PURPOSES:
        needed = requirements["build"] + requirements["base"] * (purpose != "build") + requirements[purpose]
        names = blocks(compile_pins(python, needed, platforms_of(purpose), constraints=pins))
        write(python, purpose, {name: rest.pop(name) for name in names if name in rest})
    assert not rest, rest.keys()
    for purpose in APART:
        known = read(python, purpose).get(purpose, "")
        write(python, purpose, blocks(compile_pins(python, requirements[purpose], PLATFORMS, *options, known=known)))


def main() -> int:
    found = []
    for python in PYTHONS:
        lock(python, sys.argv[1:])
        found += problems(python, read(python, *PURPOSES), wanted())
        for purpose in APART:
            found += problems(python, read(python, purpose), wanted())
    print("\n".join(found) or "requirements/py3.* are written; read the change with git diff")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
