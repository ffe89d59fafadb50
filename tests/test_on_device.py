"""What has to hold on a GPU, where `scripts/test --gpu` runs these. Each runs on the CPU, too, as if it were one.

Some say less on a CPU, which has no memory of its own and no TensorFloat-32; none says nothing.
"""

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.faults import harness
from tests.transfers import Transfer, operations, transfers
from tfdqn import config as configuration
from tfdqn import learners, seeds
from tfdqn.envs import make, registry
from tfdqn.envs.rollout import play, select
from tfdqn.programs.training import NEVER, Trainer
from tfdqn.runs import checkpoints
from tfdqn.runtime import compiled, devices

ROOT = Path(__file__).parent.parent
GPU = pytest.param("gpu", marks=pytest.mark.gpu)
ON_BOTH = pytest.mark.parametrize("device", ["cpu", GPU], indirect=True)
# A GPU's programs, run by a CPU: loops have another form there (`tfdqn.runtime.loops`).
ON_BOTH_AS_THERE = pytest.mark.parametrize("device", [pytest.param("", id="as-there"), GPU], indirect=True)
ON_BOTH_SLOWLY = pytest.mark.parametrize("device", [pytest.param("cpu", marks=pytest.mark.slow), GPU], indirect=True)


def on_both(name, values, slow):
    """The same with each of some values, of which some are slow on the CPU, and why is said there."""
    on_gpu = (pytest.param("gpu", value, marks=pytest.mark.gpu) for value in values)
    on_cpu = (pytest.param("cpu", value, marks=[pytest.mark.slow] * (value in slow)) for value in values)
    return pytest.mark.parametrize(f"device, {name}", [*on_gpu, *on_cpu], indirect=["device"])


SCALARS_BYTES = 1024  # above all that a program is called with and answers, below any array of it
SMALL = {"num_envs": 16, "replay_capacity": 2_000, "replay_min_rows": 200, "eval_episodes": 8, "threads": 1}


@pytest.fixture
def device(request):
    """TensorFlow's name of the device that is tested."""
    if request.param != "gpu":
        return "/CPU:0" if request.param else ""
    if not tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow sees no GPU on this machine")
    return devices.choose_device("gpu")


def settings(learner="dqn", **given):
    chosen = {"env": "catch8", "learner": learner, **given}
    known = configuration.plain(configuration.resolve(chosen))
    return {**{name: value for name, value in SMALL.items() if name in known}, **chosen}


def trainer_on(device, learner="dqn", **given):
    return Trainer(configuration.resolve(settings(learner, **given)), device)


def bits(nest):
    """All bytes of a nest of tensors, each with its type."""
    return [(each.dtype.name, each.numpy().tobytes()) for each in tf.nest.flatten(nest)]


# Games.


def played(env, device, jit, decisions):
    """States and all that is shown and paid, of 64 environments under random actions, decision by decision."""

    def start():
        return env.reset(env.sample_noise(seeds.at(seeds.stream(0, "env"), 0), 64))

    def step(state, counter):
        draws = seeds.draw(seeds.at(seeds.stream(0, "explore"), counter), 64)
        action = tf.cast(draws % env.num_actions, tf.int32)
        state, timestep, score, frames, noise = play(env, state, action, seeds.stream(0, "env"), counter, 1)
        is_over = timestep.termination | timestep.truncation
        return select(is_over, env.reset(noise), state), (timestep, score, frames)

    start, step = (compiled.program(each, jit=jit, eager=False) for each in (start, step))
    with tf.device(device):
        state, found = start(), []
        for counter in range(1, decisions + 1):
            state, shown = step(state, tf.constant(counter, tf.int64))
            found.append((state, shown))
    return found


@on_both("game", registry.names(), slow={"catch8_single", "catch16"})  # catch8 in other sizes
def test_games_are_those_of_the_cpu_in_every_bit(device, game):
    """Under XLA on the device, and as a plain graph on the CPU. Games of floats are equal to rounding."""
    env = make(game)
    decisions = 12 if game == "cartpole" else 30  # rounding grows from step to step
    found, wanted = played(env, device, True, decisions), played(env, "/CPU:0", False, decisions)
    for ours, theirs in zip(found, wanted, strict=True):
        if game != "cartpole":
            assert bits(ours) == bits(theirs)
            continue
        for a, b in zip(tf.nest.flatten(ours), tf.nest.flatten(theirs), strict=True):
            np.testing.assert_allclose(np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-4, atol=1e-5)


def test_seaquest_is_itself_in_a_graph_of_anyones():
    """Such as of a TF-Agents driver, which TensorFlow's arithmetic optimizer changes (see `test_compiled.py`)."""
    env = make("minatar_seaquest")
    wanted = played(env, "/CPU:0", True, 30)
    compiled.program(lambda: None, jit=False, eager=False)  # which turns it off
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": True})
    try:
        step = tf.function(env.step, autograph=False)
        for counter, ((before, _), (after, _)) in enumerate(itertools.pairwise(wanted), start=2):
            draws = seeds.draw(seeds.at(seeds.stream(0, "explore"), counter), 64)
            noise = env.sample_noise(seeds.at(seeds.stream(0, "env"), counter), 64)
            state, timestep = step(before, tf.cast(draws % env.num_actions, tf.int32), noise)
            is_over = timestep.termination | timestep.truncation
            assert bits(select(is_over, env.reset(noise), state)) == bits(after)
    finally:
        tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})


# Products.


def largest_error(device, is_tf32, product, *factors):
    """Of a product, as a share of what it would be if all its terms were positive; against float64."""
    compiled.take_tf32(is_tf32)
    try:
        program = compiled.xla(product)
        with tf.device(device):
            found = program(*(tf.constant(each, tf.float32) for each in factors)).numpy()
    finally:
        compiled.take_tf32(False)
    with tf.device("/CPU:0"):
        exact = product(*(tf.constant(each, tf.float64) for each in factors)).numpy()
        scale = product(*(tf.constant(np.abs(each), tf.float64) for each in factors)).numpy()
    return np.max(np.abs(found - exact) / scale)


def native(images, kernel):
    return tf.nn.conv2d(images, kernel, 1, "VALID")


@ON_BOTH
@pytest.mark.parametrize("kind", ["matmul", "batched", "native convolution"])
def test_float32_is_float32_and_only_tf32_may_be_rounded(device, kind):
    dice = np.random.default_rng(0)
    shapes, product = {
        "matmul": (((300, 512), (512, 200)), tf.matmul),
        "batched": (((4, 64, 256), (4, 256, 32)), tf.matmul),
        "native convolution": (((8, 24, 24, 16), (4, 4, 16, 32)), native),
    }[kind]
    factors = [dice.normal(size=shape).astype(np.float32).astype(np.float64) for shape in shapes]
    assert largest_error(device, False, product, *factors) < 1e-6
    rounded = largest_error(device, True, product, *factors)
    assert rounded > 1e-6 if "GPU" in device else rounded < 1e-6


# Where things are.


@on_both("learner", learners.LEARNERS, slow=set(learners.LEARNERS) - {"dqn"})  # there the next test has them all
def test_everything_lives_on_the_device(device, learner):
    assert elsewhere(trainer_on(device, learner)) == []


@pytest.mark.parametrize("names", [("dqn", "r2d2"), pytest.param(tuple(learners.LEARNERS), marks=pytest.mark.slow)])
def test_everything_lives_on_a_device_that_is_not_the_first(names):
    """The CPU as two devices, which must be said before TensorFlow starts: nothing is on the second by chance."""
    code = f"""
import tfdqn, tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tests.test_on_device import elsewhere, trainer_on
for learner in {names}:
    trainer = trainer_on("/CPU:1", learner, jit=False)
    print(elsewhere(trainer))
trainer.device = "/CPU:0"
print(len(elsewhere(trainer)) > 20)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n" * len(names) + "True\n"), done.stderr


def elsewhere(trainer):
    """What of a trainer, and of what its program hands to the next, does not lie on its device."""
    carry = trainer.run_chunk(trainer.initial_carry(), 0, 0)
    wanted = tf.DeviceSpec.from_string(trainer.device)
    found = [f"{name}: {v.device}" for name, v in trainer.learner.variables.items() if not _is_at(v.device, wanted)]
    # A GPU's kernels keep int32 on the host; what XLA's programs hand over is on the device all the same.
    tensors = [each for each in tf.nest.flatten(carry) if each.dtype != tf.int32]
    return found + [str(each) for each in tensors if not _is_at(each.backing_device, wanted)]


def _is_at(place, wanted):
    place = tf.DeviceSpec.from_string(place)
    return (place.device_type, place.device_index) == (wanted.device_type, wanted.device_index)


@ON_BOTH_AS_THERE
def test_nothing_but_scalars_goes_to_the_host_in_a_chunk(device, tmp_path):
    trainer = trainer_on(device)
    carry = trainer.run_chunk(trainer.initial_carry(), 40, NEVER)  # compiles, and fills the replay
    assert int(trainer.agent.optimizer.iterations) > 0
    tf.profiler.experimental.start(str(tmp_path))
    try:
        carry = trainer.run_chunk(carry, 40, NEVER)
        int(carry.env_frames)  # waits for the device
    finally:
        tf.profiler.experimental.stop()
    assert operations(tmp_path) > 0
    found = transfers(tmp_path)
    assert not [each for each in found if not 0 <= each.size <= SCALARS_BYTES]
    # The count of frames comes back, if nothing else does.
    assert bool(found) == ("GPU" in device), "the trace has nothing of the GPU: is CUPTI there, and may it be used?"


def test_a_large_transfer_in_a_trace_would_be_seen(tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    for plane_name in ("/device:GPU:0", "/host:CPU"):
        plane = space.planes.add(name=plane_name)
        plane.stat_metadata[1].name = "memcpy_details"
        plane.stat_metadata[2].name = "kind_src:device kind_dst:pinned size:8 dest:0 async:1"
        for number, name in enumerate(("MemcpyD2H", "MemcpyD2D", "fusion_7", "MemcpyH2D", "Memcpy DtoH"), start=1):
            plane.event_metadata[number].name = name
        line = plane.lines.add()
        line.events.add(metadata_id=1).stats.add(metadata_id=1, str_value="kind_src:device kind_dst:pinned size:9000")
        line.events.add(metadata_id=2).stats.add(metadata_id=1, str_value="size:100000")
        line.events.add(metadata_id=3)
        line.events.add(metadata_id=4).stats.add(metadata_id=1, ref_value=2)
        line.events.add(metadata_id=5)
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "host.xplane.pb").write_bytes(space.SerializeToString())
    wanted = [Transfer("MemcpyD2H", 9000), Transfer("MemcpyH2D", 8), Transfer("Memcpy DtoH", -1)]
    assert transfers(tmp_path) == wanted and operations(tmp_path) == 10
    with pytest.raises(FileNotFoundError):
        transfers(tmp_path / "plugins" / "none")


@ON_BOTH
def test_a_replay_is_restored_in_the_memory_that_it_has(device, tmp_path):
    """A second copy would be as large again. On a CPU nobody counts; what comes back is looked at."""
    rows = 4_000 if "CPU" in device else 400_000
    trainer = trainer_on(device, env="cave", network="mlp", replay_capacity=rows, prioritized=True)
    variables = {name: each for name, each in trainer.learner.variables.items() if name.startswith("replay/")}
    growing = {name for name, variable in variables.items() if variable.shape.rank}
    frames = variables["replay/frame"]
    with tf.device(device):
        last = tf.IndexedSlices(
            tf.fill([1, *frames.shape[1:]], tf.constant(7, frames.dtype)), tf.constant([3], tf.int64)
        )
        frames.scatter_update(last)
    checkpoints.save(tmp_path, variables, {"updates": 1, "env_frames": 1}, dict.fromkeys(growing, 5))
    with tf.device(device):
        frames.scatter_update(tf.IndexedSlices(tf.zeros([1, *frames.shape[1:]], frames.dtype), last.indices))
    if "GPU" in device:
        tf.config.experimental.reset_memory_stats("GPU:0")
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
    checkpoints.load_newest(tmp_path)[0].restore(variables, growing)
    held = frames.sparse_read(tf.constant([2, 3, 4], tf.int64)).numpy()
    assert (held[1] == 7).all() and not held[[0, 2]].any()
    if "GPU" in device:
        peak = tf.config.experimental.get_memory_info("GPU:0")["peak"]
        assert peak - before < 0.2 * frames.shape.num_elements()
    shutil.rmtree(tmp_path / checkpoints.FOLDER)


# Without XLA.


@ON_BOTH_AS_THERE
@pytest.mark.parametrize("learner", learners.LEARNERS)
def test_a_plain_graph_runs_there_too(device, learner):
    trainer = trainer_on(device, learner, jit=False)
    carry = trainer.run_chunk(trainer.initial_carry(), 60, NEVER)
    assert int(carry.env_frames) > 0 and int(trainer.agent.optimizer.iterations) > 0
    assert not int(carry.metrics.non_finite_updates)


# Runs.


def run(device, folder, *flags, resume=False):
    """A short run in a process of its own: settings that matter must be there before TensorFlow starts."""
    kind = "gpu" if "GPU" in device else "cpu"
    command = [sys.executable, "-m", "tfdqn.train"]
    if resume:
        command += ["--resume", str(folder / "run"), *flags]
    else:
        command += [
            "--env",
            "catch8",
            "--device",
            kind,
            "--deterministic",
            "--logdir",
            str(folder),
            "--run-name",
            "run",
        ]
        command += [
            "--num-envs",
            "16",
            "--batch-size",
            "32",
            "--updates-per-iteration",
            "1",
            "--replay-capacity",
            "2000",
        ]
        command += ["--replay-min-rows", "500", "--eval-every-frames", "4000", "--eval-episodes", "8"]
        command += ["--epsilon-decay-env-frames", "5000", "--final-eval-episodes", "8", "--goal-score", "1000", *flags]
        command += ["--log-every-frames", "1000"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "run"


@ON_BOTH_SLOWLY
def test_two_runs_are_one_and_a_resumed_one_ends_like_them(device, tmp_path):
    frames = ["--total-env-frames", "12000"]
    once, again, parts = (tmp_path / name for name in ("once", "again", "parts"))
    first = run(device, once, *frames)
    assert harness.differences(first, run(device, again, *frames)) == []
    run(device, parts, "--total-env-frames", "6000")
    resumed = run(device, parts, *frames, resume=True)
    assert harness.differences(first, resumed) == []
