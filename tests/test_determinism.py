"""No hidden randomness anywhere, `--deterministic`, and no open door while a run trains."""

import ast
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import tfdqn
from tests.faults import harness
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.runs import run_config
from tfdqn.runtime import devices

ROOT = Path(__file__).parent.parent
SMALL = [
    *("--env", "catch8", "--device", "cpu", "--no-jit", "--num-envs", "16", "--replay-capacity", "2000"),
    *("--replay-min-rows", "500", "--eval-episodes", "8", "--final-eval-episodes", "8", "--goal-score", "1000"),
]
HIDDEN_MODULES = {"random", "secrets", "uuid"}
INITIALIZERS = {"GlorotUniform", "GlorotNormal", "HeUniform", "HeNormal", "RandomUniform", "RandomNormal", "Orthogonal"}


def hidden_randomness(source: str) -> list[str]:
    """What in a module draws from a generator that is no argument of the call."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            path = ast.unparse(node)
            if ".random." in path and not path.split(".random.")[1].startswith("stateless_"):
                found.append(path)
        elif isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name in HIDDEN_MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] * (node.module in HIDDEN_MODULES or (node.module or "").endswith(".random"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in INITIALIZERS:
            found += [] if node.args or any(word.arg == "seed" for word in node.keywords) else [ast.unparse(node)]
    return found


def test_every_draw_in_the_package_is_stateless():
    # But for the doors to other libraries, whose environments draw in their own way and are seeded.
    modules = sorted(path for path in (ROOT / "tfdqn").rglob("*.py") if path.parent.name != "adapters")
    assert len(modules) > 20
    assert {str(path): found for path in modules if (found := hidden_randomness(path.read_text()))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "tf.random.uniform([3])",
        "tf.random.set_seed(0)",
        "x = tf.random.Generator.from_seed(1)",
        "np.random.default_rng().normal()",
        "import random",
        "from random import shuffle",
        "from numpy.random import default_rng",
        "tf.keras.initializers.GlorotUniform()",
    ],
)
def test_hidden_randomness_would_be_seen(line):
    assert hidden_randomness(line)
    assert not hidden_randomness("tf.random.stateless_uniform([3], seed); tf.keras.initializers.GlorotUniform(seed)")


# --deterministic


OWN_OPTIONS = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold"


@pytest.mark.parametrize("given", [None, "--xla_cpu_multi_thread_eigen=false", f"{OWN_OPTIONS}=7"])
def test_the_flag_is_set_before_tensorflow_is_imported_and_others_are_kept(given, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    note = tmp_path / "flags"
    record = f"import os, pathlib\npathlib.Path({str(note)!r}).write_text(os.environ.get('XLA_FLAGS', ''))\n"
    (tmp_path / "tensorflow" / "__init__.py").write_text(record + "raise SystemExit(99)\n")
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment |= {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    environment |= {"XLA_FLAGS": given} if given else {}
    for flag, expected in (("--deterministic", [devices.DETERMINISTIC_XLA_FLAG]), ("--no-deterministic", [])):
        command = [sys.executable, "-m", "tfdqn.train", *SMALL, flag, "--logdir", str(tmp_path / "runs")]
        assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode == 99
        ours = [] if given and OWN_OPTIONS in given else [f"{OWN_OPTIONS}={tfdqn.ONE_KERNEL_BYTES}"]
        assert note.read_text().split() == [*([given] if given else []), *ours, *expected]


def test_a_file_of_flags_is_not_overwritten(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "/etc/xla-flags")
    with pytest.raises(UserError, match="XLA_FLAGS names a file, /etc/xla-flags"):
        devices.make_deterministic()
    assert os.environ["XLA_FLAGS"] == "/etc/xla-flags"


def test_a_resumed_run_stays_as_deterministic_as_it_was():
    """On a GPU other kernels give other bits; only what changes no bit may change when a run goes on."""
    ours = configuration.plain(configuration.Config())
    with pytest.raises(UserError, match="deterministic is False in this run, not True"):
        run_config.refuse_changes("runs/x", ours, {"deterministic": True})


# A run, and then a draw that must be refused: TensorFlow then has watched every operation of the run.
RUN_THEN_DRAW = """
import sys
from tfdqn import train
assert train.main(sys.argv[1:]) == 0
import tensorflow as tf
try:
    tf.random.uniform([1])
except RuntimeError as error:
    print("refused:", str(error)[:40])
"""


@pytest.mark.slow
def test_a_deterministic_run_is_the_same_run_on_a_cpu_and_draws_nothing_in_secret(tmp_path):
    frames = ["--total-env-frames", "3000", "--log-every-frames", "1000"]
    for name, flag in (("plain", "--no-deterministic"), ("deterministic", "--deterministic")):
        command = [sys.executable, "-c", RUN_THEN_DRAW, *SMALL, *frames, flag]
        result = subprocess.run(
            [*command, "--logdir", str(tmp_path), "--run-name", name], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert ("refused: Random ops require a seed" in result.stdout) == (name == "deterministic")
    assert harness.differences(tmp_path / "plain", tmp_path / "deterministic") == []


# No listening socket.


def listening_sockets(pid: int) -> list[str]:
    """Sockets of a process that anyone can reach: TCP that listens, UDP that is bound, as lines of /proc/PID/net."""
    owned = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(descriptor)
        except FileNotFoundError:  # closed meanwhile
            continue
        if target.startswith("socket:["):
            owned.add(target[8:-1])
    found = []
    for protocol in ("tcp", "tcp6", "udp", "udp6"):
        table = Path(f"/proc/{pid}/net/{protocol}")
        for line in table.read_text().splitlines()[1:] if table.exists() else []:
            fields = line.split()
            is_open = fields[3] == "0A" if protocol.startswith("tcp") else True  # 0A: LISTEN
            if is_open and fields[9] in owned:
                found.append(f"{protocol} {fields[1]}")
    return found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_training_run_listens_to_nobody(tmp_path):
    command = [sys.executable, "-m", "tfdqn.train", *SMALL, "--total-env-frames", str(10**9)]
    command += ["--eval-every-frames", "1000", "--checkpoint-every-seconds", "0.1", "--logdir", str(tmp_path)]
    run = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    watchdog = threading.Timer(600, run.kill)  # a hang, not a speed
    watchdog.start()
    try:
        seen = next((line for line in run.stderr if "frames/s" in line), None)
        assert seen is not None and run.poll() is None
        children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        processes = [run.pid, *map(int, children.read_text().split() if children.exists() else [])]
        assert [listening_sockets(pid) for pid in processes] == [[] for _ in processes]
    finally:
        watchdog.cancel()
        run.kill()
        run.communicate()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_listening_socket_would_be_seen():
    before = listening_sockets(os.getpid())
    with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as idle:
        for bound in (tcp, udp, idle):
            bound.bind(("127.0.0.1", 0))
        tcp.listen()
        new = [line for line in listening_sockets(os.getpid()) if line not in before]
        ports = [f"{bound.getsockname()[1]:04X}" for bound in (tcp, udp)]
        assert [line.split()[0] for line in new] == ["tcp", "udp"]
        assert [line.split(":")[1] for line in new] == ports


@pytest.mark.parametrize("of_the_user, expected", [(None, "3"), ("2", "2")])
def test_threads_are_set_before_tensorflow_starts_and_the_users_own_setting_wins(of_the_user, expected):
    environment = {name: value for name, value in os.environ.items() if name != "TF_NUM_INTRAOP_THREADS"}
    if of_the_user is not None:
        environment["TF_NUM_INTRAOP_THREADS"] = of_the_user
    code = (
        "import os, sys; from tfdqn.runtime import devices; devices.choose_device('cpu', threads=3); "
        "print('tensorflow' in sys.modules, os.environ['TF_NUM_INTRAOP_THREADS'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["False", expected], done.stderr
