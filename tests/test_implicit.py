"""Implicit quantile networks: their layers and updates against NumPy in float64, what they draw, and a known return."""

import numpy as np
import pytest
import tensorflow as tf

from tests.finite import DISCOUNT, MODES, Lab
from tests.test_quantiles import DRAW, reference
from tfdqn import seeds
from tfdqn.learners import exploration
from tfdqn.learners.dqn.agent import DQN
from tfdqn.networks import drawing
from tfdqn.replay.transitions import Transition

WRAPS = {
    "eager": lambda function: function,
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}
SEED = tf.constant([5, 6], tf.int64)
TAUS = drawing.Draws(SEED, 1, taus=True)


@pytest.fixture(params=WRAPS)
def mode(request):
    return WRAPS[request.param]


def agent_with(**given) -> DQN:
    agent = DQN((4, 4, 1), 3, head="iqn", iqn_samples=5, iqn_act_samples=8, **given)
    agent.compile(optimizer=tf.keras.optimizers.SGD(0.01))
    dice = np.random.default_rng(3)
    for variable in (*agent.online.variables, *agent.target.variables):
        variable.assign(dice.normal(size=variable.shape, scale=0.3))
    return agent


def frames(count, seed=0):
    return tf.constant(np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1)), tf.uint8)


def by_hand(network, observation, taus):
    """The quantiles [B, K, A] of "mlp" at taus [B, K], as in the paper, in float64."""
    weights = [np.float64(weight) for weight in network.get_weights()]
    shapes = {weight.shape: i for i, weight in enumerate(weights)}

    def dense(inputs, shape):
        i = shapes[shape]
        return inputs @ weights[i] + weights[i + 1]

    features = np.maximum(dense(np.reshape(observation, [len(observation), 16]) / 255.0, (16, 64)), 0)
    cosines = np.cos(np.pi * np.arange(64) * np.float64(taus)[:, :, None])
    of_taus = np.maximum(cosines @ weights[embedding_of(network)] + weights[embedding_of(network) + 1], 0)
    hidden = np.maximum(dense(features[:, None] * of_taus, (64, 32)), 0)
    return dense(hidden, (32, 3))


def embedding_of(network):
    return next(i for i, weight in enumerate(network.get_weights()) if weight.shape == (64, 64))


def test_the_network_is_the_papers(mode):
    agent, observation = agent_with(), frames(6)

    def drawn(observation):
        with drawing.within(TAUS):
            return agent.online(observation)

    for network, samples in ((agent.online, 8), (drawn, 5)):
        output = mode(network)(observation).numpy()
        assert output.shape == (6, samples, 4)  # behind the numbers of the actions their tau
        taus = output[:, :, 3]
        np.testing.assert_allclose(output[:, :, :3], by_hand(agent.online, observation, taus), rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(agent.head.values(output), output[:, :, :3].mean(1), rtol=1e-5)
    middles = (2 * np.arange(8) + 1) / 16
    np.testing.assert_allclose(agent.online(observation)[:, :, 3], np.tile(middles, (6, 1)))  # in play


def test_taus_are_uniform_and_each_observation_has_its_own(mode):
    agent, same = agent_with(), tf.repeat(frames(1), 4000, axis=0)

    def taus(seed):
        with drawing.within(drawing.Draws(seed, 1, taus=True)):
            return agent.online(same)[:, :, 3]

    found = mode(taus)(SEED).numpy()
    counts = np.histogram(found, 10, (0, 1))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 40 and len(np.unique(found)) > 19_900
    np.testing.assert_array_equal(taus(SEED), found)  # stateless, and the same op by op
    assert np.abs(taus(SEED + 1) - found).max() > 0.5


def test_play_draws_nothing(mode):
    agent, observation = agent_with(), frames(20)
    explore = exploration.Explore(tf.zeros([]))
    best = agent(observation).numpy().argmax(1)
    for seed in (SEED, SEED + 1):
        act = mode(lambda seed: agent.act(observation, (), explore, seed)[0])
        np.testing.assert_array_equal(act(seed), best)


def test_dueling_joins_at_each_tau():
    agent, observation = agent_with(dueling=True), frames(4)
    output = np.float64(agent.online(observation))  # V, three advantages, tau
    assert output.shape == (4, 8, 5)
    joined = output[:, :, :1] + output[:, :, 1:4] - output[:, :, 1:4].mean(2, keepdims=True)
    np.testing.assert_allclose(agent.head.values(agent.online(observation)), joined.mean(1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("given", [{}, {"target_epsilon": 0.3, "double": False}, {"members": 2}], ids=str)
def test_an_update_is_the_papers(mode, given):
    """Its loss and TD errors from quantiles of both networks at taus of other seeds, which another update has not."""
    agent, dice, rows = agent_with(**given), np.random.default_rng(2), np.arange(16)
    members, epsilon = given.get("members", 1), given.get("target_epsilon", 0.0)
    batch = Transition(
        observation=frames(16),
        action=tf.constant(dice.integers(0, 3, 16), tf.int32),
        reward=tf.constant(dice.normal(size=16), tf.float32),
        discount=tf.constant(dice.choice([0.0, 0.9], 16), tf.float32),
        next_observation=frames(16, 1),
    )
    learn = mode(agent.learn)

    def of(network, number, updates, observation):
        seed = seeds.at(seeds.stream(0, "noise", number), updates)
        with drawing.within(drawing.Draws(seed, 1, taus=True)):
            return [np.float64(part) for part in np.split(network(observation).numpy(), members, axis=2)]

    for updates in (0, 1):
        now, after = of(agent.online, 0, updates, batch[0]), of(agent.target, 1, updates, batch[4])
        chooser = of(agent.online, 2, updates, batch[4]) if given.get("double", True) else after
        best = np.mean([part[:, :, :3].mean(1) for part in chooser], 0).argmax(1)
        returns, shares = [], []
        for part in after:
            returns += [part[rows, :, best], part[:, :, :3].reshape(16, -1)]
            shares += [np.full((16, 5), (1 - epsilon) / 5), np.full((16, 15), epsilon / 15)]
        returns = np.float64(batch.reward)[:, None] + np.float64(batch.discount)[:, None] * np.concatenate(returns, 1)
        shares = np.concatenate(shares, 1) / members
        losses = [reference(part[rows, :, batch.action], part[:, :, 3], returns, shares, 1.0)[0] for part in now]
        errors = [part[rows, :, batch.action].mean(1) - (shares * returns).sum(1) for part in now]
        result = learn(batch, tf.ones([16]))
        np.testing.assert_allclose(result.loss, np.mean(losses), rtol=1e-3)
        np.testing.assert_allclose(result.td_error, np.mean(errors, 0), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_quantiles_of_a_draw_are_learnt():
    """Of 0, 0.9, 1.8 and 2.7, each as likely: near the middle of its quarter each is found; the other action pays 1."""
    lab = Lab(4000, head="iqn", huber_kappa=0.1, target_update_period_updates=10, **MODES["xla"])
    values = lab.learn(DRAW, 0)
    np.testing.assert_allclose(values[0], [DISCOUNT * 1.5, 1.0], atol=0.1)
    output = lab.trainer.agent.online(tf.constant(DRAW.frames[:1, :, :, None])).numpy()[0]  # at 32 taus
    middles = output[3::8, 0] / 2 + output[4::8, 0] / 2
    np.testing.assert_allclose(middles, DISCOUNT * np.arange(4.0), atol=0.3)
    np.testing.assert_allclose(output[:, 1], 1.0, atol=0.1)


def test_an_implicit_agent_is_saved_and_loaded(tmp_path):
    agent = agent_with(noisy=True, dueling=True)
    agent.save(tmp_path / "agent.keras")
    loaded = tf.keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.get_config() == agent.get_config() and loaded.get_config()["iqn_act_samples"] == 8
    np.testing.assert_array_equal(loaded(frames(9)), agent(frames(9)))
