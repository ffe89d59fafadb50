"""How tfdqn gets onto a machine: pins, scripts, what `import tfdqn` does to a process. Nothing here uses a network.

The lock files have their own tests, in test_locks.py.
"""

import ast
import configparser
import importlib.metadata
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tfdqn import dependencies
from tfdqn.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ["3.11", "3.12", "3.13"]
PYTHON = "py{}.{}".format(*sys.version_info)  # the folder of this Python's lock files


def read_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def requirements_of(text):
    return [Requirement(line) for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def tf_agents_requirement():
    [line] = re.findall(r"(?m)^(\S+==\S+) \\$", (ROOT / "requirements/tf-agents.txt").read_text())
    return Requirement(line)


def run_python(code, **environment):
    """Run `code` in a fresh interpreter whose environment has none of the variables that tfdqn sets."""
    clean = {k: v for k, v in os.environ.items() if k not in ("TF_USE_LEGACY_KERAS", "TF_CPP_MIN_LOG_LEVEL")}
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**clean, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


# --- pins ---


def test_pins_agree_with_what_is_installed():
    config = read_setup_cfg()
    text = config["options"]["install_requires"] + config["options.extras_require"]["test"]
    requirements = [*requirements_of(text), tf_agents_requirement()]
    assert len(requirements) > 15
    for requirement in requirements:
        if requirement.marker and not requirement.marker.evaluate():
            continue
        installed = importlib.metadata.version(requirement.name)
        assert requirement.specifier.contains(installed), f"{requirement} but {installed} is installed"


def test_every_requirement_has_a_bound_and_a_reason_above_it():
    lines = [
        *(ROOT / "setup.cfg").read_text().splitlines(),
        *(ROOT / "requirements/tf-agents.txt").read_text().splitlines(),
    ]
    pins = [i for i, line in enumerate(lines) if re.match(r"\s*[a-z][a-z0-9-]*(\[[a-z-]+\])?(==|>=)", line)]
    assert len(pins) > 15
    for i in pins:
        assert re.match(r"\s*# .{20,}", lines[i - 1]), f"no reason above {lines[i]!r}"
    assert all(r.specifier for r in requirements_of(read_setup_cfg()["options"]["install_requires"]))


def test_tf_agents_is_named_alike_and_brings_no_pins_along():
    assert str(tf_agents_requirement()) == dependencies.TF_AGENTS
    config = read_setup_cfg()
    everything = config["options"]["install_requires"] + "".join(config["options.extras_require"].values())
    names = {requirement.name for requirement in requirements_of(everything)}
    assert not names & {"tf-agents", "pygame", "typing-extensions"}
    for script in [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"]:
        assert "tf-agents==" not in script.read_text(), "the version belongs in requirements/tf-agents.txt only"


def test_all_files_agree_on_the_versions_of_python():
    config = read_setup_cfg()
    supported = SpecifierSet(config["options"]["python_requires"])
    assert [v for v in (f"3.{minor}" for minor in range(8, 20)) if supported.contains(v)] == SUPPORTED
    classifiers = config["metadata"]["classifiers"]
    assert re.findall(r"Python :: (3\.\d+)", classifiers) == SUPPORTED
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert pyproject["tool"]["ruff"]["target-version"] == "py" + SUPPORTED[0].replace(".", "")
    assert " | ".join(SUPPORTED) in (ROOT / "scripts/_setup.sh").read_text()
    assert sorted(path.name for path in ROOT.glob("requirements/py*")) == [f"py{version}" for version in SUPPORTED]
    assert supported.contains("{}.{}".format(*sys.version_info))


def test_licence_is_apache_2():
    assert read_setup_cfg()["metadata"]["license_expression"] == "Apache-2.0"
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


# --- import tfdqn ---


def test_import_is_quick_and_leaves_tensorflow_alone():
    done = run_python("import sys, tfdqn; print('tensorflow' in sys.modules, 'numpy' in sys.modules)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "False False\n", "")


def test_first_use_of_everything_prints_nothing():
    code = """
import sys, tfdqn
from tfdqn.dependencies import require_tf_agents
require_tf_agents()
import tensorflow as tf
from tf_agents.replay_buffers import tf_uniform_replay_buffer
tf.function(lambda x: 2 * x, jit_compile=True)(tf.constant(1.0))
print(tf.keras.Model.__module__, "pygame" in sys.modules)
"""
    done = run_python(code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "tf_keras.src.engine.training False\n", "")


@pytest.mark.parametrize(("level", "is_shown"), [("3", False), ("0", True)])
def test_only_known_noise_is_dropped_and_the_user_can_have_all_of_it(tmp_path, level, is_shown):
    (tmp_path / "tensorflow.py").write_text(
        "import os, sys\n"
        "os.write(2, b'I0000 00:00:1795350372.471410 4575 cudart_stub.cc:31] Could not find cuda drivers\\n')\n"
        "os.write(2, b'F0000 00:00:1795350372.471410 4575 cpu.cc:1] no AVX here\\n')\n"
        "os.abort() if 'die' in sys.argv else None\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tfdqn, tensorflow; sys.stderr.write('after')"
    done = run_python(code, TF_CPP_MIN_LOG_LEVEL=level)
    assert ("cudart_stub" in done.stderr) == is_shown
    assert done.stderr.endswith("no AVX here\nafter")
    done = run_python(code.replace("import tfdqn", "sys.argv.append('die'); import tfdqn"), TF_CPP_MIN_LOG_LEVEL=level)
    assert done.returncode < 0 and "no AVX here" in done.stderr, "last words of a library that aborts are lost"


@pytest.mark.parametrize("late_variable", ["", "import os; os.environ['TF_USE_LEGACY_KERAS'] = '1'; "])
def test_keras_3_already_bound_is_one_line_that_says_what_to_do(late_variable):
    done = run_python(f"import tensorflow as tf; tf.keras.Model; {late_variable}import tfdqn")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: tfdqn needs Keras 2") and "import tfdqn before" in last
    assert "TF_USE_LEGACY_KERAS=1" in last


def test_tensorflow_imported_first_but_unused_is_fine():
    done = run_python("import tensorflow as tf; import tfdqn; print(tf.keras.Model.__module__)")
    assert (done.returncode, done.stdout) == (0, "tf_keras.src.engine.training\n"), done.stderr


# --- TF-Agents ---


@pytest.mark.parametrize("found", [None, "0.18.0"])
def test_missing_tf_agents_is_one_line_with_the_command(monkeypatch, found):
    def version(name):
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(importlib.metadata, "version", version)
    with pytest.raises(UserError) as caught:
        dependencies.require_tf_agents()
    message = str(caught.value)
    assert "python -m pip install --no-deps tf-agents==0.19.0" in message
    assert (found or "none") in message and "\n" not in message


# --- scripts ---

TOOLS = ["bash", "env", "dirname", "readlink", "grep", "tail", "rm", "mktemp", "uname", "cat", "flock", "ln", "mkdir"]


@pytest.fixture
def machine(tmp_path):
    """A machine with a checkout at `checkout` (with a space in its path) and, on PATH, plain tools but no Python."""
    checkout = tmp_path / "my code" / "tfdqn"
    for folder in ("scripts", "requirements", ".ci"):
        shutil.copytree(ROOT / folder, checkout / folder)
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout / name)
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for tool in TOOLS:
        if path := shutil.which(tool):
            (bin_folder / tool).symlink_to(path)
    return Machine(checkout, bin_folder, tmp_path)


class Machine:
    def __init__(self, checkout, bin_folder, home):
        self.checkout, self.bin, self.home = checkout, bin_folder, home

    def write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{shutil.which('bash')}\n{text}\n")
        path.chmod(0o755)

    def add_python(self, name, version, has_venv=True):
        """An interpreter that only answers what version it is; `python -m venv` makes an environment of fakes."""
        log = shlex.quote(str(self.home / "pip.log"))
        environment_python = f"""
case "$*" in
  "-I -S - "*check*) exec {shlex.quote(sys.executable)} "$@" ;;
  "-I -S - "*write*) exec {shlex.quote(sys.executable)} "$@" ;;
  "-I -S -") exec {shlex.quote(sys.executable)} "$@" ;;
  "-P -m pip --version") exit 0 ;;
  "-P -m pip install"*) echo "$@" >> {log}; sleep "${{PIP_SECONDS:-0}}"
      [ -z "${{PIP_SAYS:-}}" ] || {{ echo "$PIP_SAYS"; exit 1; }} ;;
  "-c"*) exit "${{IMPORT_STATUS:-0}}" ;;
  "-P -m tfdqn.train"* | "-P -m benchmarks."* | "-P -m sphinx"* | "-m pytest"* | *"/scripts/_"*)
      printf '<%s>' "$@"; exit "${{COMMAND_STATUS:-0}}" ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac"""
        template = self.home / "environment-python"
        self.write(template, environment_python)
        self.write(
            self.bin / name,
            f"""
case "$*" in
  "-I -S -") echo {version}; {"echo venv" if has_venv else ""} ;;
  "-P -m venv --clear "*)
      echo venv {version} >> {log}
      mkdir -p "$5/bin"; ln -sf {shlex.quote(str(template))} "$5/bin/python" ;;
  *) echo "unexpected: $*" >&2; exit 99 ;;
esac""",
        )

    def environment(self, **extra):
        return {"PATH": str(self.bin), "HOME": str(self.home), "TMPDIR": str(self.home), "TFDQN_GPU": "0", **extra}

    def run(self, *command, **extra):
        program, *arguments = command
        path = program if os.path.isabs(program) else self.checkout / program
        return subprocess.run(
            [path, *arguments], env=self.environment(**extra), cwd="/", capture_output=True, text=True, timeout=60
        )

    @property
    def steps(self):
        log = self.home / "pip.log"
        return log.read_text().splitlines() if log.exists() else []


def test_train_makes_the_environment_once_and_passes_everything_on(machine):
    machine.add_python("python3.12", "3.12")
    first = machine.run("scripts/train", "--env", "catch8", "two words", COMMAND_STATUS="4")
    assert first.stdout == "<-P><-m><tfdqn.train><--env><catch8><two words>", first.stderr
    assert first.returncode == 4
    locks = f"{machine.checkout}/requirements"
    hashed = "--no-deps --require-hashes --no-build-isolation --use-pep517"
    assert [line.split(" --disable-pip-version-check ")[-1] for line in machine.steps] == [
        "venv 3.12",
        f"{hashed} -r {locks}/{PYTHON}/build.txt",
        f"{hashed} -r {locks}/{PYTHON}/base.txt -r {locks}/tf-agents.txt",
        f"--no-deps --no-build-isolation -e {machine.checkout}",
    ]
    assert "minutes" in first.stderr and "Ready" in first.stderr
    again = machine.run("scripts/train")
    assert (again.stdout, again.stderr, again.returncode) == ("<-P><-m><tfdqn.train>", "", 0)
    assert len(machine.steps) == 4


def test_gpu_and_test_locks_come_along_where_they_are_needed(machine):
    machine.add_python("python3", "3.12")
    done = machine.run("scripts/test", TFDQN_GPU="1")
    assert done.stdout == "<-m><pytest><-n><0><-m><not slow>", done.stderr  # one process has the GPU's memory
    files = [f"requirements/{name}.txt" for name in (f"{PYTHON}/base", f"{PYTHON}/gpu", f"{PYTHON}/test", "tf-agents")]
    assert machine.steps[2].endswith("".join(f" -r {machine.checkout}/{file}" for file in files))


def test_the_site_has_an_environment_of_its_own_and_fails_where_sphinx_does(machine):
    machine.add_python("python3", "3.12")
    done = machine.run("scripts/site", "-E", VIRTUAL_ENV=str(machine.home / "active"))
    called = "<-P><-m><sphinx><-q><-W><--keep-going><-c><docs><-d><build/doctrees><-E><.><build/site>"
    assert done.stdout == called, done.stderr
    assert len(machine.steps) == 2 and machine.steps[1].endswith(
        f" -r {machine.checkout}/requirements/{PYTHON}/docs.txt"
    )
    assert (machine.checkout / ".venv-docs/.tfdqn-docs").exists() and not (machine.checkout / ".venv").exists()
    assert done.returncode == 0 and done.stderr.splitlines()[-1] == f"{machine.checkout}/build/site/index.html"
    failed = machine.run("scripts/site", COMMAND_STATUS="2")
    assert (failed.returncode, failed.stderr) == (1, "")


@pytest.mark.parametrize("name", ["lock", "audit"])
def test_tools_have_an_environment_of_their_own(machine, name):
    machine.add_python("python3", "3.12")
    done = machine.run(f"scripts/{name}", "--upgrade", VIRTUAL_ENV=str(machine.home / "active"))
    assert done.stdout == f"<{machine.checkout}/scripts/_{name}.py><--upgrade>", done.stderr
    assert len(machine.steps) == 2 and machine.steps[1].endswith(
        f" -r {machine.checkout}/requirements/{PYTHON}/tools.txt"
    )
    assert (machine.checkout / ".venv-tools/.tfdqn-tools").exists() and not (machine.checkout / ".venv").exists()
    assert machine.run(f"scripts/{name}").stderr == ""


def test_bench_leads_to_each_of_its_modules(machine):
    machine.add_python("python3", "3.12")
    for first, called in (
        ("--quick", "<-P><-m><benchmarks.run><--quick>"),
        ("--gate", "<-P><-m><benchmarks.compare>"),
        ("--gpu", "<-P><-m><benchmarks.gpu>"),
        ("--learning", "<-P><-m><benchmarks.learning><gate>"),
    ):
        done = machine.run("scripts/bench", first, "--json", "a file")
        assert done.stdout == f"{called}<--json><a file>", done.stderr


def test_test_runs_the_quick_tier_or_all_and_counts_as_set_up_for_train(machine):
    machine.add_python("python3", "3.13")
    first = machine.run("scripts/test", "-k", "a or b")
    called = "<-m><pytest><-n><auto><--maxprocesses><4><--dist><worksteal>"
    assert first.stdout == f"{called}<-m><not slow><-k><a or b>", first.stderr
    assert f"/requirements/{PYTHON}/test.txt " in machine.steps[2]
    assert machine.run("scripts/test", "-x", "--all").stdout == f"{called}<-m><><-x>"
    assert machine.run("scripts/test", "--gpu", "-x").stdout == "<-m><pytest><-n><0><-m><gpu><-rs><-x>"
    assert machine.run("scripts/train").stderr == ""
    ci = machine.run(".ci/run", COMMAND_STATUS="1")
    assert (ci.stdout, ci.returncode) == (f"{called}<-m><not slow>", 1)
    assert len(machine.steps) == 4


def test_called_through_a_symbolic_link(machine):
    machine.add_python("python3", "3.11")
    (machine.home / "links").mkdir()
    (machine.home / "links" / "go").symlink_to(
        os.path.relpath(machine.checkout / "scripts/train", machine.home / "links")
    )
    assert machine.run(str(machine.home / "links" / "go")).stdout == "<-P><-m><tfdqn.train>"


def test_unusable_interpreters_are_passed_over(machine):
    machine.write(machine.bin / "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    machine.add_python("python3.12", "3.12", has_venv=False)
    machine.add_python("python3", "3.14")
    machine.add_python("python", "3.11")
    done = machine.run("scripts/train")
    assert done.returncode == 0 and "with Python 3.11" in done.stderr


def test_a_second_interpreter_of_the_same_name_is_found_behind_a_shim(machine):
    machine.add_python("python3.12", "3.12")
    shims = machine.home / "shims"
    machine.write(shims / "python3.12", "exit 127")
    assert machine.run("scripts/train", PATH=f"{shims}:{machine.bin}").returncode == 0


def test_named_interpreter_comes_first(machine):
    machine.add_python("python3.13", "3.13")
    machine.add_python("mine", "3.11")
    assert "with Python 3.11" in machine.run("scripts/train", PYTHON=str(machine.bin / "mine")).stderr


def test_without_a_usable_interpreter_says_what_is_needed_and_what_was_found(machine):
    machine.write(machine.bin / "python3.13", "exit 127")
    machine.add_python("python3", "3.9")
    done = machine.run("scripts/train", PYTHON="/nowhere/python")
    assert done.returncode == 2 and done.stdout == ""
    assert "needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert f"{machine.bin}/python3 (Python 3.9)" in done.stderr
    assert f"{machine.bin}/python3.13 (does not run)" in done.stderr
    assert "/nowhere/python (PYTHON: no such command)" in done.stderr
    assert not (machine.checkout / ".venv").exists()


def test_no_python_at_all(machine):
    done = machine.run("scripts/test")
    assert done.returncode == 2 and done.stderr.count("\n") == 2 and "no Python at all" in done.stderr


def test_missing_venv_module_is_one_line(machine):
    machine.add_python("python3", "3.11", has_venv=False)
    done = machine.run("scripts/train")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "sudo apt install python3.11-venv" in done.stderr


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_active_environment_is_used(machine, variable):
    machine.add_python("python3", "3.12")
    active = machine.home / "active env"
    subprocess.run(
        [machine.bin / "python3", "-P", "-m", "venv", "--clear", active], env=machine.environment(), check=True
    )
    done = machine.run("scripts/train", **{variable: str(active)})
    assert done.stdout == "<-P><-m><tfdqn.train>", done.stderr
    assert (active / ".tfdqn-base").exists() and not (machine.checkout / ".venv").exists()
    gone = machine.run("scripts/train", **{variable: str(machine.home / "gone")})
    assert gone.returncode == 2 and gone.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("pip_says", "line"),
    [
        ("WARNING: Retrying after NewConnectionError: [Errno -3] Temporary failure in name resolution", "No network"),
        (
            "  ERROR: Could not find a version that satisfies the requirement setuptools>=77 (from versions: none)",
            "No net",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: No matching distribution found for tensorflow==2.21.0", "no build for this Python"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", "not the one that requirements/"),
        ("ERROR: something else", "pip failed: ERROR: something else"),
    ],
)
def test_failed_installation_is_one_line_and_is_taken_up_again(machine, pip_says, line):
    machine.add_python("python3", "3.12")
    failed = machine.run("scripts/train", PIP_SAYS=pip_says)
    assert failed.returncode == 1 and failed.stdout == ""
    assert line in failed.stderr.splitlines()[-1]
    assert not list((machine.checkout / ".venv").glob(".tfdqn-*"))
    assert machine.run("scripts/train").returncode == 0


def test_installation_that_does_not_import_leaves_no_stamp(machine):
    machine.add_python("python3", "3.12")
    failed = machine.run("scripts/train", IMPORT_STATUS="1")
    assert failed.returncode == 1 and "does not work" in failed.stderr
    assert not list((machine.checkout / ".venv").glob(".tfdqn-*"))


@pytest.mark.parametrize(
    "name",
    ["setup.cfg", "pyproject.toml", "requirements/tf-agents.txt"]
    + [f"requirements/{PYTHON}/{purpose}.txt" for purpose in ("build", "base", "test", "gpu")],
)
def test_changed_requirements_are_installed(machine, name):
    machine.add_python("python3", "3.12")
    machine.run("scripts/train")
    with open(machine.checkout / name, "a") as file:
        file.write("# changed\n")
    assert "Installing" in machine.run("scripts/train").stderr
    assert machine.run("scripts/train").stderr == ""


def test_lock_of_another_python_changes_nothing(machine):
    machine.add_python("python3", "3.12")
    machine.run("scripts/train")
    other = next(version for version in SUPPORTED if f"py{version}" != PYTHON)
    with open(machine.checkout / f"requirements/py{other}/base.txt", "a") as file:
        file.write("# changed\n")
    assert machine.run("scripts/train").stderr == ""


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_two_at_once_install_once(machine):
    machine.add_python("python3", "3.12")
    environment = machine.environment(PIP_SECONDS="0.5")
    both = [
        subprocess.Popen([machine.checkout / "scripts/train"], env=environment, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    messages = sorted(process.communicate(timeout=60)[1] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert len(machine.steps) == 4
    assert messages[0] == "Another set-up is at work; waiting for it\n" and "Ready" in messages[1]


def test_environment_of_an_unsupported_python_is_refused_and_kept(machine):
    fake = machine.checkout / ".venv/bin/python"
    machine.write(fake, 'case "$*" in -V) echo Python 3.10.13 ;; *) exit 3 ;; esac')
    done = machine.run("scripts/train")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "Python 3.10.13" in done.stderr and "delete that folder" in done.stderr
    assert fake.exists()


# --- where it is called, and in which locale ---


def test_a_folder_of_the_packages_name_where_python_runs_is_not_taken_for_it(tmp_path):
    """Such as the checkout, seen from the folder above: an import hook would come too late for it."""
    checkout = tmp_path / "tfdqn"
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        (checkout / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    (checkout / "tfdqn").mkdir()
    shutil.copy(ROOT / "tfdqn/__init__.py", checkout / "tfdqn")
    code = "from setuptools import build_meta; build_meta.build_editable('.')"
    built = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = checkout.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        hooks = {name: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" not in name}
    assert len(hooks) == 1 and all(name.endswith(".pth") for name in hooks)
    assert [text.strip() for text in hooks.values()] == [str(checkout)]


def calls(tree):
    """(name of the function, its module if that is named, the call) of every call in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            function = node.func
            yield getattr(function, "attr", getattr(function, "id", "")), getattr(function, "value", None), node


def without_encoding(text):
    """The lines of a program that read or write text in whatever encoding the locale has."""
    found = []
    for name, owner, call in calls(ast.parse(text)):
        options = {keyword.arg: keyword.value for keyword in call.keywords}
        mode = options.get("mode", call.args[1] if len(call.args) > 1 else None)
        is_binary = isinstance(mode, ast.Constant) and isinstance(mode.value, str) and "b" in mode.value
        is_text = name in ("read_text", "write_text") or "text" in options or "universal_newlines" in options
        is_text |= name in ("open", "fdopen") and not is_binary and not (name == "open" and is_named(owner, "os"))
        is_text |= name == "read" and is_named(owner, "config")  # of a configparser
        if is_text and "encoding" not in options:
            found.append(call.lineno)
    return found


def is_named(owner, name):
    return isinstance(owner, ast.Name) and owner.id == name


def test_files_are_utf_8_whatever_the_locale():
    assert without_encoding("open('a')\nopen('a', 'rb')\np.read_text()\nos.open('a', 0)\nrun(['a'], text=True)") == [
        *(1, 3, 5),
    ]
    files = [path for folder in ("tfdqn", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > 60
    found = {str(path): without_encoding(path.read_text(encoding="utf-8")) for path in files}
    assert {path: lines for path, lines in found.items() if lines} == {}
