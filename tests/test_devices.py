"""The choice of a device on made-up machines: which GPU, how much of it, and why there is none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfdqn import _quiet, evaluate
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.runs import run_config
from tfdqn.runtime import devices

ROOT = Path(__file__).parent.parent
# As TensorFlow 2.21 writes them, with TF_CPP_MIN_LOG_LEVEL=0.
NOISE = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795976155.368028   13956 port.cc:153] oneDNN custom operations are on. You may see slightly different \
numerical results.
I0000 00:00:1795976155.465561   13956 cpu_feature_guard.cc:227] This TensorFlow binary is optimized to use available \
CPU instructions in performance-critical operations.
To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow with the appropriate flags.
"""
NO_DRIVER_LIBRARY = """\
I0000 00:00:1795976155.368359   13956 cudart_stub.cc:31] Could not find cuda drivers on your machine, GPU will not be \
used.
E0000 00:00:1795976158.518437   13956 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to \
cuInit: UNKNOWN ERROR (303)
"""
NO_DEVICE = """\
E0000 00:00:1795976158.518437   13956 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: Failed call to \
cuInit: CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected
"""
NO_LIBRARIES = """\
W0000 00:00:1795976158.518437   13956 gpu_device.cc:2342] Cannot dlopen some GPU libraries. Please make sure the \
missing libraries mentioned above are installed properly if you would like to use GPU. Follow the guide at \
https://www.tensorflow.org/install/gpu for how to download and setup the required libraries for your platform.
Skipping registering GPU devices...
"""


class Machine:
    """TensorFlow's `tf.config` of a machine with so many GPUs."""

    def __init__(self, gpus, is_started=False, visible=None):
        self.gpus = [f"GPU {i}" for i in range(gpus)]
        self.visible = self.gpus if visible is None else [self.gpus[i] for i in visible]
        self.grows, self.is_started, self.experimental = [], is_started, self

    def list_physical_devices(self, kind):
        return list(self.gpus) if kind == "GPU" else []

    def set_visible_devices(self, chosen, kind):
        assert kind == "GPU"
        if self.is_started and chosen != self.visible:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        self.visible = chosen

    def set_memory_growth(self, gpu, grows):
        if self.is_started:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        self.grows += [gpu] if grows else []

    def get_visible_devices(self, kind):
        return self.visible if kind == "GPU" else []


@pytest.fixture(autouse=True)
def flags_as_before(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", os.environ.get("XLA_FLAGS", ""))


@pytest.fixture
def on(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "has_driver", lambda: False)

    def make(gpus, **state):
        machine = Machine(gpus, **state)
        monkeypatch.setattr(devices, "_tensorflow_config", lambda: machine)
        return machine

    return make


@pytest.mark.parametrize(("wanted", "number"), [("auto", 0), ("gpu", 0), ("gpu:0", 0), ("gpu:1", 1), ("gpu:2", 2)])
def test_one_gpu_is_seen_and_its_memory_taken_as_it_is_needed(on, wanted, number):
    machine = on(3)
    assert devices.choose_device(wanted) == "/GPU:0"  # TensorFlow counts those that it sees
    assert machine.visible == machine.grows == [f"GPU {number}"]
    assert devices.choose_device(wanted) == "/GPU:0"  # and again in the same process


@pytest.mark.parametrize(
    ("gpus", "line"),
    [
        (1, "--device gpu:7: TensorFlow sees 1 GPU on this machine; use gpu:0"),
        (2, "--device gpu:7: TensorFlow sees 2 GPUs on this machine; use gpu:0, gpu:1"),
    ],
)
def test_a_gpu_beyond_the_last_is_refused_with_those_there_are(on, gpus, line):
    machine = on(gpus)
    with pytest.raises(UserError) as caught:
        devices.choose_device("gpu:7")
    assert str(caught.value) == line and caught.value.exit_code == 2
    assert machine.visible == machine.gpus and not machine.grows


def test_a_process_that_has_begun_to_compute_keeps_the_gpus_that_it_sees(on):
    on(2, is_started=True)
    assert devices.choose_device("gpu:1") == "/GPU:1"
    on(2, is_started=True, visible=[1])
    assert devices.choose_device("gpu:1") == "/GPU:0"
    with pytest.raises(UserError, match="--device gpu:0: this process has begun to compute with gpu:1; use that, or"):
        devices.choose_device("gpu:0")
    on(1, is_started=True, visible=[])
    with pytest.raises(UserError, match="has begun to compute with no GPU"):
        devices.choose_device("gpu")


def test_tensorflows_own_functions_are_those_that_are_called():
    """The machines above are made up: what they are asked is what TensorFlow answers."""
    config = devices._tensorflow_config()
    assert config.list_physical_devices("GPU") == config.get_visible_devices("GPU")
    assert callable(config.set_visible_devices) and callable(config.experimental.set_memory_growth)
    (cpu,) = config.list_physical_devices("CPU")
    config.get_visible_devices("CPU")
    config.set_visible_devices([cpu], "CPU")  # what is so already is no change, also once devices are started


# Why there is none.


@pytest.mark.parametrize(
    ("chatter", "reason"),
    [
        (NO_DEVICE, "failed call to cuInit: INTERNAL: CUDA error: Failed call to cuInit: CUDA_ERROR_NO_DEVICE: no"),
        (NO_LIBRARIES, "Cannot dlopen some GPU libraries"),
        (NO_DRIVER_LIBRARY, "UNKNOWN ERROR (303); Could not find cuda drivers on your machine"),
        ("E0000 00:00:1795976158.5 13956 other.cc:7] the GPU is tired\n", "the GPU is tired"),
        ("", "it does not say why"),
    ],
)
def test_tensorflows_reason_is_found_in_its_chatter(chatter, reason):
    found = devices.reason_in(NOISE + chatter)
    assert reason in found and "\n" not in found and len(found) < 450
    assert "Please" not in found and "oneDNN" not in found


@pytest.fixture
def with_driver(on, monkeypatch, tmp_path):
    """A machine with a driver and no usable GPU: a TensorFlow that says why, where the one that asks would look."""
    on(0)
    monkeypatch.setattr(devices, "has_driver", lambda: True)

    def make(chatter, built=True):
        code = f"""
import os, types
assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"  # or it would not say it
test = types.SimpleNamespace(is_built_with_cuda=lambda: {built})
config = types.SimpleNamespace(list_physical_devices=lambda kind: os.write(2, {(NOISE + chatter).encode()!r}))
"""
        (tmp_path / "tensorflow.py").write_text(code)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return make


def test_auto_says_in_one_line_why_the_gpu_is_not_used(with_driver, capfd):
    with_driver(NO_LIBRARIES)
    assert devices.choose_device("auto") == "/CPU:0"
    (line,) = capfd.readouterr().err.splitlines()
    assert line == (
        "tfdqn: warning: this machine has an NVIDIA driver, but TensorFlow sees no GPU (Cannot dlopen some GPU "
        "libraries); going on on the CPU, as --device cpu does without this line"
    )
    assert devices.choose_device("cpu") == "/CPU:0"
    assert capfd.readouterr().err == ""


def test_a_gpu_that_was_asked_for_is_refused_with_the_reason(with_driver):
    with_driver(NO_DEVICE)
    with pytest.raises(UserError, match=r"sees no GPU on this machine \(failed call .* is detected\); use --dev"):
        devices.choose_device("gpu:1")
    with_driver("", built=False)
    with pytest.raises(UserError, match=r"\(this TensorFlow is built without CUDA\)"):
        devices.choose_device("gpu")


@pytest.mark.parametrize("value", ["-1", "", " "])
def test_who_hides_the_gpus_is_not_warned(with_driver, monkeypatch, capfd, value):
    with_driver(NO_DEVICE)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
    assert devices.choose_device("auto") == "/CPU:0" and capfd.readouterr().err == ""
    with pytest.raises(UserError, match="CUDA_VISIBLE_DEVICES is"):
        devices.choose_device("gpu")


def test_without_a_driver_there_is_nothing_to_warn_of(on, capfd):
    on(0)
    assert devices.choose_device("auto") == "/CPU:0" and capfd.readouterr().err == ""


@pytest.mark.parametrize("sign", ["proc/driver/nvidia/version", "dev/nvidia0", None])
def test_a_driver_is_told_by_its_files_or_its_command(tmp_path, monkeypatch, sign):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert not devices.has_driver(tmp_path)
    path = tmp_path / (sign or "bin/nvidia-smi")
    path.parent.mkdir(parents=True)
    path.touch(mode=0o755)
    assert devices.has_driver(tmp_path)


# The settings.


def test_a_gpu_may_have_a_number_and_nothing_else_may():
    for value in ("gpu:0", "gpu:1", "gpu:15"):
        assert configuration.resolve({"device": value}, on_gpu=True).device == value
        assert devices.is_gpu(value)
    for value in ("gpu:", "gpu:01", "gpu:-1", "gpu:one", "cpu:0", "gpu:99999", "gpu:1:2"):
        with pytest.raises(UserError, match=f"--device {value}: unknown; (did you mean|choose one of)"):
            configuration.resolve({"device": value})
        with pytest.raises(UserError, match=f"--device {value}: unknown; (did you mean|choose one of)"):
            evaluate.main(["--pretrained", "catch8", "--device", value])


def test_a_run_may_go_on_on_another_gpu_but_not_elsewhere(tmp_path):
    run_config.write_config(configuration.Config(device="gpu:1"), tmp_path)
    assert run_config.resumed_config(tmp_path, {}).device == "gpu:1"
    assert run_config.resumed_config(tmp_path, {"device": "gpu:0"}).device == "gpu:0"
    assert run_config.resumed_config(tmp_path, {"device": "gpu"}).device == "gpu"
    with pytest.raises(UserError, match="device is gpu:1 in this run, not cpu"):
        run_config.resumed_config(tmp_path, {"device": "cpu"})


# The filter of TensorFlow's chatter.


def test_the_filter_needs_no_program_but_python(tmp_path):
    (tmp_path / "tensorflow.py").write_text(
        "import os\n"
        f"os.write(2, {(NOISE + NO_DEVICE).encode()!r})\n"
        "children = f'/proc/{os.getpid()}/task/{os.getpid()}/children'\n"
        "for child in open(children).read().split() if os.path.exists(children) else []:\n"
        "    print(open(f'/proc/{child}/comm').read().strip())\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import tfdqn, tensorflow"
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment | {"PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "I0000" not in done.stderr and "InitializeLog" not in done.stderr
    assert "no CUDA-capable device is detected" in done.stderr  # no noise
    assert "grep" not in done.stdout and (not sys.platform.startswith("linux") or "python" in done.stdout)


def test_without_a_process_to_filter_it_the_chatter_comes_through(monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with _quiet._filtered_stderr():
        os.write(2, NOISE.encode())
    assert "oneDNN" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("", devices.GRAPHS_XLA_FLAG),
        ("--xla_dump_to=/x", f"--xla_dump_to=/x {devices.GRAPHS_XLA_FLAG}"),
        ("--xla_gpu_enable_command_buffer=", "--xla_gpu_enable_command_buffer="),
        ("flags.txt", "flags.txt"),
    ],
    ids=["none", "others", "its own", "a file"],
)
def test_xla_is_asked_for_graphs_where_there_is_a_driver(on, monkeypatch, given, wanted):
    monkeypatch.setattr(devices, "has_driver", lambda: True)
    monkeypatch.setenv("XLA_FLAGS", given)
    on(1)
    devices.choose_device("auto")
    assert os.environ["XLA_FLAGS"] == wanted


def test_xla_knows_the_flag_for_graphs():
    """It ends a process that names a flag, or a kind of command, that it does not know."""
    program = "import tensorflow as tf; print(tf.function(lambda x: x + 1, jit_compile=True)(tf.constant(1)).numpy())"
    environment = {**os.environ, "XLA_FLAGS": devices.GRAPHS_XLA_FLAG, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.split() == ["2"]
