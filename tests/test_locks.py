"""The lock files against setup.cfg and against what is installed. Nothing here uses a network."""

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import _lock as locks
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
THIS = "{}.{}".format(*sys.version_info)


@pytest.mark.parametrize("python", locks.PYTHONS)
@pytest.mark.parametrize(
    "purposes", [locks.PURPOSES, *([purpose] for purpose in locks.APART)], ids=lambda purposes: purposes[0]
)
def test_locks_hold_what_setup_cfg_asks_for_pinned_and_hashed(python, purposes):
    texts = locks.read(python, *purposes)
    assert list(texts) == list(purposes)
    assert all(locks.parse(text) for text in texts.values())
    assert locks.problems(python, texts, locks.wanted()) == []


def change(text, pattern, replacement):
    changed, count = re.subn(pattern, replacement, text)
    assert count
    return changed


HASH = r"--hash=sha256:[0-9a-f]+"


@pytest.mark.parametrize(
    ("pattern", "replacement", "expected"),
    [
        (rf"(\nsix==\S+)( \\\n +{HASH})+", r"\1", "six has no SHA-256"),
        (r"(\nsix==\S+ \\\n +--hash=)sha256:\S+", r"\1md5:" + "0" * 32, "six has no SHA-256"),
        (r"\nsix==", "\nsix>=", "six is not pinned"),
        (r"\ntensorflow==2.21.0", "\ntensorflow==2.21.*", "tensorflow is not pinned"),
        (r"\npillow==\S+", "\npillow==10.4.0", "pillow 10.4.0 is not pillow>=11"),
        (r"\nsix==\S+", "\nsixth==1.0", "six>=1.16 of setup.cfg is missing"),
        (r"\nsix==", "\npytest==9.0.0 \\\n    --hash=sha256:" + "0" * 64 + "\nsix==", "pytest is in base.txt too"),
    ],
)
def test_bad_lock_is_noticed(pattern, replacement, expected):
    texts = locks.read("3.12", *locks.PURPOSES)
    texts["base"] = change(texts["base"], pattern, replacement)
    assert any(expected in problem for problem in locks.problems("3.12", texts, locks.wanted()))


def test_new_requirement_is_noticed_where_its_marker_holds():
    texts, wanted = locks.read("3.12", *locks.PURPOSES), locks.wanted()
    wanted["base"].append(Requirement("scipy>=1; python_version < '3.12'"))
    assert locks.problems("3.12", texts, wanted) == []
    wanted["test"].append(Requirement("scipy>=1; sys_platform == 'darwin'"))
    [problem] = locks.problems("3.12", texts, wanted)
    assert "test.txt: scipy>=1" in problem


def test_base_does_not_lean_on_what_only_tests_install():
    texts, wanted = locks.read("3.12", *locks.PURPOSES), locks.wanted()
    wanted["base"].append(Requirement("hypothesis"))
    assert len(locks.problems("3.12", texts, wanted)) == 1


def test_tf_agents_is_pinned_hashed_and_nowhere_else():
    [entry] = locks.parse((ROOT / "requirements/tf-agents.txt").read_text())
    assert entry.version and entry.hashes
    for path in ROOT.glob("requirements/py3.*/*.txt"):
        assert "tf-agents" not in {entry.name for entry in locks.parse(path.read_text())}


def test_lock_files_name_no_place_and_build_only_what_has_no_wheel():
    for path in [*ROOT.glob("requirements/**/*.txt")]:
        text = path.read_text()
        options = [line for line in text.splitlines() if line.startswith("-")]
        # In this order and in every file: pip reads several as one, and "wheels only" takes back what came before it.
        is_lock = path.parent.name.startswith("py3.")
        assert options == ["--only-binary :all:", "--no-binary gym"] * is_lock, path
        assert not re.search(r"://|@|file:|/home|/tmp", text), path


def is_made_from_the_locks():
    """Whether scripts/test made this environment from the lock files as they are now."""
    check = """
root=$1; . "$root/scripts/_setup.sh"; prefix=$2; python=$3
for gpu in no yes; do stamp check "$prefix/.tfdqn-test" && exit 0; done; exit 1
"""
    arguments = ["bash", "-c", check, "bash", str(ROOT), sys.prefix, sys.executable]
    return subprocess.run(arguments, capture_output=True, timeout=60).returncode == 0


@pytest.mark.skipif(not is_made_from_the_locks(), reason="this environment was not made by scripts/test")
def test_installed_is_what_is_locked_and_nothing_needed_is_missing():
    entries = {e.name: e for text in locks.read(THIS, "build", "base", "test").values() for e in locks.parse(text)}
    for name, entry in entries.items():
        assert importlib.metadata.version(name) == entry.version, name
    # pip installs the list as it is, so it has to be complete.
    for name in entries:
        for text in importlib.metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                assert canonicalize_name(needed.name) in entries, f"{name} needs {needed}"
                assert needed.specifier.contains(entries[canonicalize_name(needed.name)].version), f"{name}: {needed}"
