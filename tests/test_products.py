"""Products of rounded factors: values, gradients, and that a network takes them where it is told to."""

import re

import numpy as np
import pytest
import tensorflow as tf

from tests.whole_runs import make_run, resume
from tfdqn import config as configuration
from tfdqn import seeds
from tfdqn.envs import ObservationSpec, make, make_for
from tfdqn.envs.cave import rules as cave
from tfdqn.envs.rollout import push_frame, stack_frames
from tfdqn.errors import UserError
from tfdqn.learners import losses
from tfdqn.learners.dqn.building import build_agent, build_learner
from tfdqn.networks import catalogue, layers
from tfdqn.networks.products import TRANSPOSED_ROWS, rounded_matmul
from tfdqn.replay.transitions import Transition
from tfdqn.runs import models, run_config
from tfdqn.runtime import compiled


def rounded(values):
    return tf.cast(tf.cast(values, tf.bfloat16), tf.float32).numpy().astype(np.float64)


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


# Rows: fewer than a piece of the transposed factor, whole pieces, and some left over.
@pytest.mark.parametrize("rows", [3, TRANSPOSED_ROWS, 2 * TRANSPOSED_ROWS, 2 * TRANSPOSED_ROWS + 5])
@pytest.mark.parametrize("jit", [None, False, True])
def test_factors_are_rounded_and_sums_are_not(rows, jit):
    a, b, upstream = random(rows, 80), random(80, 70), random(rows, 70)

    def both(a, b):
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            product = rounded_matmul(a, b)
        return product, *tape.gradient(product, [a, b], output_gradients=tf.constant(upstream))

    function = both if jit is None else tf.function(both, jit_compile=jit, autograph=False)
    wanted = (
        rounded(a) @ rounded(b),
        rounded(upstream) @ rounded(b).T,
        rounded(a).T @ rounded(upstream),
    )
    for found, expected in zip(function(tf.constant(a), tf.constant(b)), wanted, strict=True):
        assert found.dtype == tf.float32
        # A product that was itself rounded is off by up to a part in 256.
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_a_batch_of_unknown_size_is_taken():
    kernel = tf.constant(random(80, 70))

    @tf.function(input_signature=[tf.TensorSpec([None, 80])])
    def gradient(a):
        with tf.GradientTape() as tape:
            tape.watch(kernel)
            loss = tf.reduce_sum(rounded_matmul(a, kernel))
        return tape.gradient(loss, kernel)

    a = random(130, 80)
    np.testing.assert_allclose(gradient(a), rounded(a).sum(0)[:, np.newaxis].repeat(70, 1), rtol=1e-4, atol=1e-4)


def agent_of(precision, **more):
    game = make("catch8")
    return build_agent(configuration.resolve({"env": "catch8", "precision": precision, **more}), game)


def frames_of(batch):
    return tf.constant(np.random.default_rng(0).integers(0, 2, (batch, 8, 8, 1)) * 255, tf.uint8)


def rounding(agent):
    """(units, rounded) of each network's dense layers."""
    networks = [agent.online, agent.target]
    found = [[layer for layer in network._flatten_layers() if isinstance(layer, layers.Dense)] for network in networks]
    return [{(layer.units, layer.rounded) for layer in dense} for dense in found]


def test_only_wide_hidden_layers_round():
    assert rounding(agent_of("bfloat16", members=2)) == [{(64, True), (32, False), (3, False)}] * 2
    assert rounding(agent_of("float32")) == [{(64, False), (32, False), (3, False)}] * 2
    many = agent_of("bfloat16", network="conv", head="categorical", atoms=51, dueling=True)
    assert rounding(many) == [{(128, True), (51, False), (153, False)}] * 2
    with pytest.raises(ValueError, match="must be one of float32, tf32, bfloat16"):
        catalogue.build("mlp", ObservationSpec((8, 8, 1)), None, 0, "one", precision="half")
    layer = layers.Dense(70, rounded=True)
    assert layers.Dense.from_config(layer.get_config()).rounded


def products_of(program, *arguments):
    """What is said of the precision of each product in the HLO of a program, as XLA is handed it."""
    hlo = program.experimental_get_compiler_ir(*arguments)(stage="hlo")
    lines = [line for line in hlo.splitlines() if re.search(r" (dot|convolution)\(", line)]
    return [re.findall(r"operand_precision=\{(\w+),(\w+)\}", line) for line in lines]


def learning(precision):
    """A program of an update, of a network with convolutions as they are and dense layers; and its arguments."""
    config = configuration.resolve(
        {"env": "catch8", "precision": precision, "network": "conv", "convolution": "native"}
    )
    agent = build_learner(config, make("catch8"))
    batch = Transition(frames_of(8), tf.zeros([8], tf.int32), tf.ones([8]), tf.ones([8]), frames_of(8))
    return compiled.xla(agent.learn), batch, tf.ones([8])


@pytest.mark.parametrize("last", ["float32", "tf32", "bfloat16"])
def test_only_tf32_lets_a_gpu_round_what_is_float32(last):
    """Of a program made with an agent of each precision, compiled after one of another has been built."""
    exact, rounding = learning("float32"), learning("tf32")
    agent_of(last)
    assert tf.config.experimental.tensor_float_32_execution_enabled() == (last == "tf32")
    found = products_of(*exact)
    assert len(found) > 10 and all(each == [("highest", "highest")] for each in found)
    found = products_of(*rounding)
    assert len(found) > 10 and not any(found)  # "default": what a GPU takes for TensorFloat-32


def test_a_program_without_a_network_takes_float32():
    compiled.take_tf32(False)
    tf.config.experimental.enable_tensor_float_32_execution(True)  # as TensorFlow is when it starts
    program = compiled.xla(lambda a, b: tf.matmul(a, b))
    assert products_of(program, tf.ones([3, 4]), tf.ones([4, 5])) == [[("highest", "highest")]]


@pytest.mark.parametrize("jit", [False, True])
def test_on_a_cpu_tf32_is_float32(jit):
    for_gpu, exact = agent_of("tf32", network="conv"), agent_of("float32", network="conv")
    found, wanted = (compiled.program(agent, jit=jit, eager=False)(frames_of(50)) for agent in (for_gpu, exact))
    np.testing.assert_array_equal(found, wanted)


def test_a_large_batch_compiles_as_few_operations():
    def pieces(rows):
        a, b = tf.TensorSpec([rows, 80]), tf.TensorSpec([80, 70])

        def gradient(a, b):
            with tf.GradientTape() as tape:
                tape.watch(b)
                loss = tf.reduce_sum(rounded_matmul(a, b))
            return tape.gradient(loss, b)

        operations = tf.function(gradient).get_concrete_function(a, b).graph.get_operations()
        return sum(operation.type == "StridedSlice" for operation in operations)

    assert (pieces(64), pieces(128), pieces(10_000), pieces(1_000_000)) == (0, 2, 16, 16)


def test_either_precisions_weights_fit_the_other(tmp_path):
    exact, close = agent_of("float32", seed=1), agent_of("bfloat16", seed=2)
    models.save_agent(close, tmp_path / "agent.keras")
    models.load_weights(exact, tmp_path / "agent.keras")
    values = exact(frames_of(50)).numpy()
    np.testing.assert_allclose(close(frames_of(50)), values, atol=0.02 * np.abs(values).max())
    assert np.abs(close(frames_of(50)) - values).max() > 0
    loaded = tf.keras.models.load_model(tmp_path / "agent.keras")
    np.testing.assert_array_equal(loaded(frames_of(50)), close(frames_of(50)))


@pytest.mark.parametrize("jit", [False, True])
def test_an_update_is_close_to_that_in_float32(jit):
    frames = frames_of(130)
    batch = Transition(frames, tf.zeros([130], tf.int32), tf.ones([130]), tf.ones([130]), frames)
    norms = []
    for precision in ("float32", "bfloat16"):
        config = configuration.resolve({"env": "catch8", "precision": precision})
        agent = build_learner(config, make("catch8"))
        before = [weight.numpy() for weight in agent.online.trainable_variables]
        learn = compiled.program(agent.learn, jit=jit, eager=False)
        norms.append(float(learn(batch, tf.ones([130])).gradient_norm))
        assert all(weight.dtype == tf.float32 for weight in agent.online.trainable_variables)
        assert any((a != b.numpy()).any() for a, b in zip(before, agent.online.trainable_variables, strict=True))
    assert norms[1] == pytest.approx(norms[0], rel=0.01) and norms[0] != norms[1]


def test_a_run_keeps_its_precision(tmp_path):
    short = {"env": "catch8", "num_envs": 4, "replay_capacity": 200, "replay_min_rows": 20, "log_every_frames": 20}
    short |= {"eval_episodes": 2, "final_eval_episodes": 2, "total_env_frames": 60, "precision": "bfloat16"}
    run = make_run(tmp_path / "run", **short)
    run.train()
    run._lock.close()
    resumed = resume(tmp_path / "run", total_env_frames=100)
    assert resumed.config.precision == resumed.trainer.agent.get_config()["precision"] == "bfloat16"
    resumed._lock.close()
    with pytest.raises(UserError, match="precision is bfloat16 in this run, not float32"):
        resume(tmp_path / "run", precision="float32")


def test_a_trained_agent_decides_the_same():
    """The packaged cave agent, on the screens that it comes to in 300 frames of 32 games in the narrowest tunnel."""
    folder = models.PRETRAINED / "cave"
    config = run_config.read_config(folder)
    env = make_for(config)
    exact, close = (build_agent(config.replace(precision=each), env) for each in ("float32", "bfloat16"))
    for agent in (exact, close):
        models.load_weights(agent, folder / models.BEST_MODEL)

    @compiled.xla
    def play():
        def frame(t, state, history, same):
            observation = stack_frames(history, 1)
            action, other = (losses.greedy_action(agent(observation)) for agent in (exact, close))
            state, timestep = env.step(state, action, env.sample_noise(seeds.at(7, t), 32))
            history = push_frame(history, timestep.observation, timestep.termination)
            return t + 1, state, history, same + tf.reduce_mean(tf.cast(action == other, tf.float32))

        state = env.reset(env.sample_noise(seeds.at(7, 0), 32))
        nowhere = tf.fill([32, 3], cave.NOWHERE)
        state = env.first_seen(state._replace(time=state.time + cave.SIZE + cave.NARROWEST_TIME, block_tops=nowhere))
        history = tf.repeat(env.observe(state)[tf.newaxis], config.frame_stack, axis=0)
        start = (tf.ones([], tf.int64), state, history, tf.zeros([]))
        return tf.while_loop(lambda t, *_: t <= 300, frame, start)[-1] / 300.0

    assert 0.99 < float(play()) < 1
