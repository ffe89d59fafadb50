"""Noisy layers against NumPy in float64, what an agent draws and when, and that runs with noise can be repeated."""

import numpy as np
import pytest
import tensorflow as tf

from tests import whole_runs
from tests.faults import harness
from tfdqn import seeds
from tfdqn.envs.spec import ObservationSpec
from tfdqn.learners import exploration
from tfdqn.learners.dqn import heads
from tfdqn.learners.dqn.agent import DQN
from tfdqn.networks import catalogue, drawing
from tfdqn.networks.noisy import NoisyDense
from tfdqn.replay.transitions import Transition

WRAPS = {
    "eager": lambda function: function,
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}
SEED = tf.constant([5, 6], tf.int64)
EXPLORE = exploration.Explore(tf.zeros([]))


@pytest.fixture(params=WRAPS)
def mode(request):
    return WRAPS[request.param]


def test_the_normal_numbers_are_standard_and_follow_from_the_seed_the_word_and_the_row(mode):
    numbers = mode(lambda seed: drawing.normal(drawing.Draws(seed, 1000), 7, 100))(SEED).numpy()
    assert numbers.shape == (1000, 100)
    assert abs(numbers.mean()) < 5 / np.sqrt(1e5) and abs(numbers.std() - 1) < 5 / np.sqrt(2e5)
    assert abs((numbers**4).mean() - 3) < 0.2 and abs((numbers < 1).mean() - 0.8413) < 0.01
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.02
    few = drawing.normal(drawing.Draws(SEED, 3), 7, 100)
    np.testing.assert_allclose(few, numbers[:3], rtol=1e-4, atol=1e-5)  # whatever the number of rows
    for seed, word in ((SEED, 8), (SEED, 2**32 - 1), (SEED + 1, 7)):
        assert abs(np.corrcoef(drawing.normal(drawing.Draws(seed, 3), word, 100)[0], numbers[0])[0, 1]) < 0.5


def layer(inputs=4, units=3, **given):
    made = NoisyDense(units, seed=11, **given)
    made.build([None, inputs])
    dice = np.random.default_rng(0)
    for weight in made.weights:
        weight.assign(dice.normal(size=weight.shape))
    return made


@pytest.mark.parametrize("rows, batch", [(1, 6), (6, 6), (2, 6)])
@pytest.mark.parametrize("rounded", [False, True])
def test_the_layer_and_its_gradients_are_the_papers(mode, rows, batch, rounded):
    """A row's weights are W + S * f(e_in) f(e_out)^T; gradients of the sum of squares by hand in float64."""
    made = layer(rounded=rounded)
    inputs = np.random.default_rng(1).integers(-4, 5, (batch, 4)) / 4.0  # so that few digits are lost by rounding
    draws = drawing.Draws(SEED, rows)

    def run(inputs):
        with tf.GradientTape() as tape, drawing.within(draws):
            outputs = made(inputs)
            loss = tf.reduce_sum(outputs**2) / 2
        return outputs, tape.gradient(loss, [made.kernel, made.bias, made.sigma_kernel, made.sigma_bias])

    outputs, gradients = mode(run)(tf.constant(inputs, tf.float32))
    kernel, bias, sigma_kernel, sigma_bias = (
        np.float64(weight) for weight in (made.kernel, made.bias, made.sigma_kernel, made.sigma_bias)
    )
    drawn = np.float64(drawing.normal(draws, 11, 7))
    scaled = np.repeat(np.sign(drawn) * np.sqrt(np.abs(drawn)), batch // rows, axis=0)
    expected, slopes = np.zeros((batch, 3)), [np.zeros(weight.shape) for weight in (kernel, bias, kernel, bias)]
    for b in range(batch):
        outer = scaled[b, :4, None] * scaled[b, None, 4:]
        expected[b] = inputs[b] @ (kernel + sigma_kernel * outer) + bias + sigma_bias * scaled[b, 4:]
        flow = np.outer(inputs[b], expected[b])
        for slope, part in zip(slopes, (flow, expected[b], flow * outer, expected[b] * scaled[b, 4:]), strict=True):
            slope += part
    tolerance = {"rtol": 2e-2, "atol": 0.3} if rounded else {"rtol": 1e-3, "atol": 1e-4}
    np.testing.assert_allclose(outputs, expected, **tolerance)
    for found, wanted in zip(gradients, slopes, strict=True):
        np.testing.assert_allclose(found, wanted, **tolerance)
    np.testing.assert_allclose(made(inputs), inputs @ kernel + bias, atol=0.05 if rounded else 1e-5)  # without noise


def test_the_weights_begin_as_in_the_paper():
    made = NoisyDense(2000, seed=3, sigma=0.4)
    made.build([None, 16])
    for weight in (made.kernel, made.bias):
        assert np.abs(weight).max() <= 0.25 and abs(np.std(weight) - 0.25 / np.sqrt(3)) < 0.01
    assert np.all(made.sigma_kernel == np.float32(0.1)) and np.all(made.sigma_bias == np.float32(0.1))


def test_the_heads_layers_are_noisy_and_the_bodys_are_not():
    for name, count in (("mlp", 4), ("mlp_norm", 2), ("conv3_norm", 4), ("columns", 4)):  # dueling: two of each
        network = catalogue.build(
            name, ObservationSpec((8, 8, 1)), heads.ScalarHead(3, dueling=True), 1, "net", noisy_sigma=0.5
        )
        noisy = [each for each in network.layers if isinstance(each, NoisyDense)]
        assert len(noisy) == count and len({each.seed for each in noisy}) == count, name
        assert all(each.sigma == 0.5 for each in noisy)


def agent_with(jit=True, **given) -> DQN:
    agent = DQN((4, 4, 1), 2, noisy=True, **given)
    agent.compile(optimizer=tf.keras.optimizers.SGD(0.01), jit_compile=jit)
    return agent


def frames(count, seed=0):
    return tf.constant(np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1)), tf.uint8)


def test_noise_explores_and_evaluation_has_none(mode):
    agent, same = agent_with(noisy_sigma=3.0), tf.repeat(frames(1), 200, axis=0)
    act = mode(lambda seed: agent.act(same, (), EXPLORE, seed)[0])
    actions = act(SEED).numpy()
    assert 20 < actions.sum() < 180  # each environment has noise of its own
    np.testing.assert_array_equal(act(SEED), actions)
    assert (act(SEED + 1).numpy() != actions).any()
    few, _ = agent.act(same[:5], (), EXPLORE, SEED)
    np.testing.assert_array_equal(few, actions[:5])  # an environment's noise does not hang on how many there are
    best = agent(same).numpy().argmax(1)
    for seed in (SEED, SEED + 1):
        np.testing.assert_array_equal(agent.act(same, (), tf.constant(0.0), seed)[0], best)
    assert drawing.current() is None


def batch_of(size=16) -> Transition:
    dice = np.random.default_rng(2)
    return Transition(
        observation=frames(size),
        action=tf.constant(dice.integers(0, 2, size), tf.int32),
        reward=tf.constant(dice.normal(size=size), tf.float32),
        discount=tf.constant(dice.choice([0.0, 0.9], size), tf.float32),
        next_observation=frames(size, 1),
    )


def test_an_update_draws_for_each_network_and_each_update_anew(mode):
    """The TD error is that of the networks with noise of three seeds, and another one after an update."""
    agent, batch = agent_with(), batch_of()

    def values(network, number, updates, observation):
        seed = seeds.at(seeds.stream(0, "noise", number), updates)
        with drawing.within(drawing.Draws(seed, 1)):
            return network(observation).numpy()

    learn, rows = mode(agent.learn), np.arange(16)
    for updates in (0, 1):
        q = values(agent.online, 0, updates, batch.observation)
        after, chooser = (
            values(network, number, updates, batch.next_observation)
            for number, network in ((1, agent.target), (2, agent.online))
        )
        expected = q[rows, batch.action] - (batch.reward + batch.discount * after[rows, chooser.argmax(1)])
        np.testing.assert_allclose(learn(batch, tf.ones([16])).td_error, expected, rtol=1e-3, atol=1e-4)
        calm = agent(batch.observation).numpy()[rows, batch.action]
        assert np.abs(calm - q[rows, batch.action]).max() > 1e-3


def test_noise_is_learnt_and_followed_by_the_target_network():
    agent = agent_with(target="soft", target_tau=0.5)
    sigmas = [v for v in agent.online.trainable_variables if "sigma" in v.name]
    theirs = [v for v in agent.target.variables if "sigma" in v.name]
    assert len(sigmas) == len(theirs) == 4
    before = [v.numpy() for v in sigmas]
    agent.learn(batch_of(), tf.ones([16]))
    for now, target, old in zip(sigmas, theirs, before, strict=True):
        assert (now.numpy() != old).any()
        np.testing.assert_allclose(target, (now + old) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    "given", [pytest.param({"members": 2}, marks=pytest.mark.slow), {"head": "quantile", "quantiles": 5}], ids=str
)
def test_op_by_op_and_compiled_updates_are_equal(given):
    found = []
    for wrap in WRAPS.values():
        agent = agent_with(dueling=True, **given)
        learn = wrap(agent.learn)
        for _ in range(3):
            result = learn(batch_of(), tf.ones([16]))
        found.append([result.td_error.numpy(), *agent.online.get_weights()])
    for eager, xla in zip(*found, strict=True):
        np.testing.assert_allclose(eager, xla, rtol=1e-3, atol=1e-5)


def test_a_noisy_agent_is_saved_and_loaded(tmp_path):
    agent = agent_with(noisy_sigma=0.3)
    agent.learn(batch_of(), tf.ones([16]))
    agent.save(tmp_path / "agent.keras")
    loaded = tf.keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.get_config() == agent.get_config() and loaded.get_config()["noisy_sigma"] == 0.3
    for ours, theirs in zip(agent.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for left, right in ((agent(frames(9)), loaded(frames(9))), (agent.learn, loaded.learn)):
        if callable(left):
            left, right = (learn(batch_of(), tf.ones([16])).td_error for learn in (left, right))
        np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_a_noisy_run_that_was_broken_ends_like_an_unbroken_one(tmp_path):
    """And with taus that are drawn, by the same seeds."""
    given = {"noisy": True, "head": "iqn", "epsilon_start": 0.0, "epsilon_end": 0.0, "total_env_frames": 1600}
    runs = {name: whole_runs.make_run(tmp_path / name, **given) for name in ("whole", "broken")}
    runs["whole"].train()
    whole_runs.train_until(runs["broken"], 900)
    runs["broken"].close()
    resumed = whole_runs.resume(tmp_path / "broken")
    resumed.train()
    resumed.close()
    runs["whole"].close()
    assert harness.differences(tmp_path / "whole", tmp_path / "broken") == []
