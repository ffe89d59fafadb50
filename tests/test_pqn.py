"""PQN: lambda returns against plain loops, what a round is, refusals, resuming, and that it learns."""

import numpy as np
import pytest
import tensorflow as tf

from tests import whole_runs
from tests.faults import harness
from tfdqn import config as configuration
from tfdqn import learners
from tfdqn.envs import registry
from tfdqn.errors import UserError
from tfdqn.learners.pqn.agent import QNetwork
from tfdqn.learners.pqn.learner import lambda_returns
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer
from tfdqn.runtime import compiled

SMALL = {"env": "catch8", "learner": "pqn", "network": "mlp_norm", "num_envs": 8, "num_steps": 6, "minibatches": 4}
WRAP = {"eager": lambda function: function, "graph": tf.function, "xla": compiled.xla}


def reference(reward, discount, value, is_boundary, last_value, q_lambda):
    """The same in float64, one environment and one decision at a time."""
    returns = np.zeros(reward.shape)
    for env in range(reward.shape[1]):
        after = following = float(last_value[env])
        for t in reversed(range(len(reward))):
            if is_boundary[t, env]:
                after = following = float(value[t, env])
                continue
            mixed = (1 - q_lambda) * following + q_lambda * after
            after = returns[t, env] = reward[t, env] + discount[t, env] * mixed
            following = float(value[t, env])
    return returns


@pytest.mark.parametrize("mode", WRAP)
@pytest.mark.parametrize("q_lambda", [0.0, 0.65, 1.0])
def test_lambda_returns_agree_with_plain_loops(mode, q_lambda):
    rng = np.random.default_rng(0)
    reward, value = rng.normal(size=(2, 9, 5)).astype(np.float32)
    discount = np.where(rng.random((9, 5)) < 0.2, 0, 0.9).astype(np.float32)
    is_boundary = rng.random((9, 5)) < 0.2
    last = rng.normal(size=5).astype(np.float32)
    found = WRAP[mode](lambda *given: lambda_returns(*given, q_lambda))(reward, discount, value, is_boundary, last)
    expected = reference(reward, discount, value, is_boundary, last, q_lambda)
    np.testing.assert_allclose(np.where(is_boundary, 0, found), expected, rtol=1e-5, atol=1e-6)


def test_lambda_returns_by_hand():
    """Three decisions, the second the last of an episode that was cut off: its last frame is worth 10."""
    found = lambda_returns(
        reward=tf.constant([[1.0], [9.0], [2.0]]),
        discount=tf.constant([[0.5], [0.5], [0.5]]),
        value=tf.constant([[7.0], [10.0], [4.0]]),
        is_boundary=tf.constant([[False], [True], [False]]),
        last_value=tf.constant([8.0]),
        q_lambda=0.5,
    )
    # The first bootstraps from the cut-off frame alone, the third from what follows it.
    assert found[0, 0] == 1 + 0.5 * 10 and found[2, 0] == 2 + 0.5 * 8


def test_a_round_holds_what_was_played():
    trainer = Trainer(configuration.resolve({**SMALL, "epsilon_start": 0.0, "epsilon_end": 0.0}))
    carry, gathered = trainer.initial_carry(), trainer.learner.begin_round()
    for number in range(6):
        frame, before = carry.history[-1], carry
        carry, decision = trainer._interact(carry)
        gathered = trainer.learner.take(gathered, tf.constant(number), decision)
        np.testing.assert_array_equal(gathered.observation[number, ..., 0], frame)
        values = trainer.agent(gathered.observation[number])
        np.testing.assert_array_equal(gathered.action[number], np.argmax(values, axis=1))
        np.testing.assert_allclose(gathered.value[number], np.max(values, axis=1), rtol=1e-6)
        np.testing.assert_array_equal(gathered.is_boundary[number], before.is_over)


def test_every_decision_of_a_round_is_learnt_from_once_an_epoch_and_no_last_frame(monkeypatch):
    trainer = Trainer(configuration.resolve({**SMALL, "epochs": 3, "eager": True}))
    learner, carry = trainer.learner, trainer.initial_carry()
    gathered = learner.begin_round()
    for number in range(6):
        carry, decision = trainer._interact(carry)
        gathered = learner.take(gathered, tf.constant(number), decision)
    gathered = gathered._replace(
        action=tf.reshape(tf.range(48), [6, 8]), is_boundary=tf.cast(tf.reshape(tf.range(48), [6, 8]) % 5 == 0, tf.bool)
    )
    seen = []

    def learn(observation, action, target, weight, legal):
        assert legal is None  # of a game that allows all
        seen.append((action.numpy(), weight.numpy()))
        return result

    result = learner.agent.learn(gathered.observation[0], tf.zeros([8], tf.int32), tf.zeros([8]), tf.ones([8]))
    monkeypatch.setattr(learner.agent, "learn", learn)
    learner.update(gathered, decision.observation, carry.agent_state, carry.metrics)
    assert len(seen) == 3 * 4 and all(len(action) == 12 for action, _ in seen)
    actions = np.concatenate([action for action, _ in seen]).reshape(3, 48)
    weights = np.concatenate([weight for _, weight in seen]).reshape(3, 48)
    assert all(sorted(epoch) == list(range(48)) for epoch in actions)
    np.testing.assert_array_equal(weights, actions % 5 != 0)


def test_a_step_is_the_gradient_of_half_the_squared_error_in_float64():
    agent = QNetwork((3,), 2, network="mlp", observation_dtype="float32")
    agent.compile(tf.keras.optimizers.SGD(0.5))
    rng = np.random.default_rng(1)
    observation = rng.normal(size=(6, 3)).astype(np.float32)
    action, target = rng.integers(0, 2, 6).astype(np.int32), rng.normal(size=6).astype(np.float32)
    weight = np.array([1, 1, 0, 1, 0, 1], np.float32)
    before = [value.astype(np.float64) for value in agent.online.get_weights()]
    result = agent.learn(tf.constant(observation), tf.constant(action), tf.constant(target), tf.constant(weight))
    after = agent.online.get_weights()

    def forward(weights):
        values, activations = observation.astype(np.float64), []
        for i in range(0, len(weights), 2):
            activations.append(values)
            values = values @ weights[i] + weights[i + 1]
            values = np.maximum(values, 0) if i < len(weights) - 2 else values
        return values, activations

    q, activations = forward(before)
    error = (q[np.arange(6), action] - target) * weight
    np.testing.assert_allclose(float(result.loss), 0.5 * np.sum(error**2) / 4, rtol=1e-5)
    slope = np.zeros_like(q)
    slope[np.arange(6), action] = error / 4
    for i in reversed(range(0, len(before), 2)):
        np.testing.assert_allclose(after[i], before[i] - 0.5 * activations[i // 2].T @ slope, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(after[i + 1], before[i + 1] - 0.5 * slope.sum(axis=0), rtol=1e-4, atol=1e-6)
        slope = (slope @ before[i].T) * (activations[i // 2] > 0)


@pytest.mark.parametrize("cell", ["none", "gru"])
def test_shown_values_are_of_legal_actions_and_of_no_last_frame(cell):
    """Whatever the network says of others: as of the learners with a replay, which draw no last frame."""
    agent = QNetwork((3,), 2, network="mlp", observation_dtype="float32", cell=cell, cell_units=3)
    agent.compile(tf.keras.optimizers.SGD(0.5))
    rng = np.random.default_rng(1)
    shape = (2, 12) if agent.remembers else (12,)
    observation = tf.constant(rng.normal(size=(*shape, 3)), tf.float32)
    weight = np.ones(shape, np.float32)
    weight[..., 1] = weight[..., 4] = 0
    legal = rng.random((*shape, 2)) < 0.5
    legal[..., 0] |= ~legal[..., 1]
    legal[..., 4, :] = False  # nothing is, where an episode is over
    given = {"is_first": tf.zeros(shape, tf.bool), "state": agent.initial_state(12)} if agent.remembers else {}
    q = (agent.online.unroll(observation, *given.values())[0] if agent.remembers else agent(observation)).numpy()
    zeros = tf.zeros(shape)
    before = agent.get_weights()
    for allowed in (legal, None):
        agent.set_weights(before)
        told = None if allowed is None else tf.constant(allowed)
        result = agent.learn(observation, tf.zeros(shape, tf.int32), zeros, tf.constant(weight), **given, legal=told)
        best = np.where(True if allowed is None else allowed, q, -np.inf).max(axis=-1)[weight > 0]
        np.testing.assert_allclose([result.mean_q, result.max_q], [best.mean(), best.max()], rtol=1e-5)


@pytest.mark.parametrize("cell", ["none", "gru"])
def test_what_the_rules_allow_goes_along_into_each_minibatch(monkeypatch, cell):
    shape = {"minibatches": 2, "cell": cell, "eager": True, "epochs": 1}
    trainer = Trainer(configuration.resolve({**SMALL, **shape}))
    learner, carry = trainer.learner, trainer.initial_carry()
    action = tf.reshape(tf.range(48), [6, 8])
    legal = (action[..., tf.newaxis] // 2 ** tf.range(3)) % 2 == 1  # says whose it is
    gathered, seen = learner.begin_round()._replace(action=action, legal=legal), []

    def learn(entries, sums, allowed):
        seen.append(entries[1].numpy().size)
        np.testing.assert_array_equal(allowed, (entries[1][..., tf.newaxis] // 2 ** tf.range(3)) % 2 == 1)
        return sums

    monkeypatch.setattr(learner, "_learn", learn)
    observation = tf.zeros([8, 8, 8, 1], tf.uint8)
    learner.update(gathered, observation, carry.agent_state, carry.metrics, tf.ones([8, 3], tf.bool))
    assert seen == [24, 24]


def test_a_round_is_bootstrapped_from_what_the_rules_allow(monkeypatch):
    trainer = Trainer(configuration.resolve({**SMALL, "eager": True, "discount": 1.0}))
    learner, carry = trainer.learner, trainer.initial_carry()
    seen = []
    monkeypatch.setattr(learner, "_learn", lambda entries, sums, _: seen.append(entries[2].numpy()) or sums)
    gathered = learner.begin_round()._replace(discount=tf.ones([6, 8]))
    observation = tf.random.stateless_uniform([8, 8, 8, 1], [1, 2], 0, 256, tf.int32)
    observation = tf.cast(observation, tf.uint8)
    values = learner.agent(observation).numpy()
    legal = np.ones([8, 3], bool)
    legal[np.arange(8), values.argmax(axis=1)] = False  # the best one is not allowed
    learner.update(gathered, observation, carry.agent_state, carry.metrics, tf.constant(legal))
    second = np.sort(values, axis=1)[:, 1]
    last = [value for value in np.concatenate(seen[:4]) if any(np.isclose(value, second, rtol=1e-5))]
    assert len(last) >= 8 and not any(np.isclose(np.concatenate(seen[:4])[:, None], values.max(axis=1)).ravel())


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"minibatches": 5}, "--minibatches 5: does not divide the 48 decisions of a round"),
        ({"replay_capacity": 50}, "--replay-capacity 50: --learner pqn has no such setting, only --learner dqn"),
        ({"q_lambda": 1.5}, "--q-lambda 1.5: must be at most 1"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given, line):
    with pytest.raises(UserError) as error:
        configuration.resolve({**SMALL, **given})
    assert line in str(error.value)


@pytest.mark.parametrize("game", registry.names())
@pytest.mark.parametrize("learner", learners.LEARNERS)
def test_every_learner_takes_every_games_default_preset(game, learner):
    config = configuration.resolve({"env": game, "learner": learner})
    assert config.learner == learner and config.env == game


def test_a_resumed_run_is_equal_to_an_unbroken_one(tmp_path):
    changes = {**SMALL, "batch_size": None, "total_env_frames": 2000, "jit": False}
    settings = {k: v for k, v in {**whole_runs.SETTINGS, **changes}.items() if v is not None and "replay" not in k}
    settings.pop("target_update_period_updates")
    runs = {}
    for name in ("whole", "broken"):
        config = configuration.resolve(settings)
        runs[name] = whole_runs.Run(config, tmp_path / name, "/CPU:0", whole_runs.StopRequest())
    runs["whole"].train()
    whole_runs.train_until(runs["broken"], 900)
    runs["broken"].close()
    resumed = whole_runs.resume(tmp_path / "broken")
    resumed.train()
    resumed.close()
    runs["whole"].close()
    assert harness.differences(tmp_path / "whole", tmp_path / "broken") == []


def test_it_learns_catch8():
    config = configuration.resolve({"env": "catch8", "learner": "pqn", "network": "mlp_norm", "num_envs": 64})
    trainer = Trainer(config)
    carry = trainer.run_chunk(trainer.initial_carry(), 200, 10**9)
    assert trainer.trace_count == 1 and int(carry.metrics.updates) == 200 * 2 * 32
    scores = Evaluator(config, trainer.env, trainer.agent).evaluate(64).scores
    assert scores.mean() > 90
