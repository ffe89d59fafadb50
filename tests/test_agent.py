"""The learner: targets, synchronisation, `fit` on a small MDP, acting, and saving."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import optimizers
from tfdqn.learners.dqn.agent import DQN
from tfdqn.replay.transitions import Transition

SHAPE = (4, 4, 1)


def make_agent(learning_rate=0.01, **kwargs) -> DQN:
    agent = DQN(SHAPE, 2, **kwargs)
    agent.compile(optimizer=tf.keras.optimizers.SGD(learning_rate), jit_compile=True)
    return agent


def random_batch(size=16, seed=0) -> Transition:
    rng = np.random.default_rng(seed)
    return Transition(
        observation=tf.constant(rng.integers(0, 256, (size, *SHAPE)), tf.uint8),
        action=tf.constant(rng.integers(0, 2, size), tf.int32),
        reward=tf.constant(rng.normal(size=size), tf.float32),
        discount=tf.constant(rng.choice([0.0, 0.9], size), tf.float32),
        next_observation=tf.constant(rng.integers(0, 256, (size, *SHAPE)), tf.uint8),
    )


def learn(agent, batch, jit=False):
    """One update, op by op if XLA is not the point: compiling takes most of a test's time."""
    run = tf.function(agent.learn, autograph=False, jit_compile=True) if jit else agent.learn
    return run(batch, tf.ones_like(batch.reward))


def test_target_network_shares_no_variable_with_the_online_one():
    agent = make_agent()
    online = {id(variable) for variable in agent.online.variables}
    assert not online & {id(variable) for variable in agent.target.variables}
    for ours, theirs in zip(agent.online.variables, agent.target.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    before = [variable.numpy() for variable in agent.target.variables]
    learn(agent, random_batch())
    assert any(not np.array_equal(a, b) for a, b in zip(agent.online.variables, before, strict=True))
    for variable, old in zip(agent.target.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


def test_hard_target_is_copied_after_each_period_of_updates_and_never_between():
    agent = make_agent(target_update_period_updates=3)
    step = tf.function(agent.learn, autograph=False, jit_compile=True)
    batch, copied = random_batch(), []
    for _ in range(10):
        step(batch, tf.ones([16]))
        copied.append(
            all(np.array_equal(a, b) for a, b in zip(agent.online.variables, agent.target.variables, strict=True))
        )
    assert [update + 1 for update, is_copy in enumerate(copied) if is_copy] == [3, 6, 9]


def test_hard_target_keeps_its_phase_at_a_great_age():
    agent = make_agent(target_update_period_updates=3)
    agent.optimizer.build(agent.online.trainable_variables)
    agent.optimizer.iterations.assign(2**40 + 1)  # (2^40 + 1) % 3 == 2: the next update copies
    learn(agent, random_batch(), jit=True)
    np.testing.assert_array_equal(agent.online.variables[0], agent.target.variables[0])


def test_soft_target_moves_by_tau():
    agent = make_agent(target="soft", target_tau=0.25)
    old = agent.target.variables[0].numpy()
    learn(agent, random_batch(), jit=True)
    np.testing.assert_allclose(
        agent.target.variables[0], 0.75 * old + 0.25 * agent.online.variables[0].numpy(), rtol=1e-5, atol=1e-7
    )


def test_the_target_network_plays_only_while_it_is_in_front():
    agent = make_agent(target="soft", target_tau=0.25)
    learn(agent, random_batch())
    observation = random_batch().observation
    online, target = agent.online.get_weights(), agent.target.get_weights()
    expected = agent.head.values(agent.target(observation)).numpy()
    assert not np.array_equal(expected, agent(observation))
    with pytest.raises(KeyboardInterrupt), agent.target_in_front():
        np.testing.assert_array_equal(agent(observation), expected)
        raise KeyboardInterrupt
    for ours, before in zip(agent.online.get_weights() + agent.target.get_weights(), online + target, strict=True):
        np.testing.assert_array_equal(ours, before)


CASES = [
    (("hard", 0.0, 0.0), True),
    (("hard", 0.3, 0.0), False),
    (("hard", 0.0, 0.8), True),
    (("none", 0.0, 0.0), False),
]
OTHERS = [(rule, not double) for rule, double in CASES]


@pytest.mark.parametrize(
    "rule, double, jit",
    [
        *((*case, False) for case in CASES + OTHERS),
        *((*case, True) for case in CASES),
        *(pytest.param(*case, True, marks=pytest.mark.slow) for case in OTHERS),
    ],
)
def test_td_error_is_computed_from_the_right_networks(rule, double, jit):
    target, epsilon, alpha = rule
    agent = make_agent(double=double, target=target, target_epsilon=epsilon, advantage_alpha=alpha)
    rng = np.random.default_rng(3)
    for variable in agent.target.variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.3))
    batch = random_batch()
    online_next, target_next = (
        agent.online(batch.next_observation).numpy(),
        agent.target(batch.next_observation).numpy(),
    )
    if target == "none":
        next_value = online_next.max(1)
    elif double:
        next_value = target_next[np.arange(16), online_next.argmax(1)]
    else:
        next_value = target_next.max(1)
    next_value = (1 - epsilon) * next_value + epsilon * (target_next if target == "hard" else online_next).mean(1)
    values = agent(batch.observation).numpy()
    taken = values[np.arange(16), batch.action]
    expected = taken - (batch.reward + batch.discount * next_value - alpha * (values.max(1) - taken))
    run = tf.function(agent.learn, autograph=False, jit_compile=True) if jit else agent.learn
    result = run(batch, tf.ones([16]))
    np.testing.assert_allclose(result.td_error, expected, rtol=1e-4, atol=1e-5)
    size = np.abs(expected)
    np.testing.assert_allclose(result.loss, np.where(size <= 1, size**2 / 2, size - 0.5).mean(), rtol=1e-4)


@pytest.mark.parametrize(
    "double, epsilon, jit",
    [
        *((double, epsilon, False) for double in (True, False) for epsilon in (0.0, 0.3)),
        *((True, 0.3, True), (False, 0.0, True)),
        *(pytest.param(*case, True, marks=pytest.mark.slow) for case in ((True, 0.0), (False, 0.3))),
    ],
)
def test_categorical_target_takes_the_distribution_of_the_chosen_action(double, epsilon, jit):
    given = {"head": "categorical", "atoms": 5, "value_min": -2.0, "value_max": 2.0}
    agent = make_agent(double=double, target_epsilon=epsilon, **given)
    rng = np.random.default_rng(3)
    for variable in agent.target.variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.3))
    batch = random_batch()
    atoms = np.linspace(-2, 2, 5)

    def distributions(network, observation):
        logits = network(observation).numpy().astype(np.float64).reshape(16, -1, 5)
        return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)

    online, target = (distributions(network, batch.next_observation) for network in (agent.online, agent.target))
    choice = ((online if double else target) @ atoms).argmax(1)
    outcomes = batch.reward.numpy()[:, None] + batch.discount.numpy()[:, None] * atoms
    place = (np.clip(outcomes, -2, 2) + 2) / 1.0
    expected = np.zeros((16, 5))
    for row in range(16):
        for j in range(5):
            low = int(np.floor(place[row, j]))
            share = (1 - epsilon) * target[row, choice[row], j] + epsilon * target[row, :, j].mean()
            expected[row, low] += share * (1 - (place[row, j] - low))
            if low < 4:
                expected[row, low + 1] += share * (place[row, j] - low)
    taken = distributions(agent.online, batch.observation)[np.arange(16), batch.action]
    run = tf.function(agent.learn, autograph=False, jit_compile=True) if jit else agent.learn
    result = run(batch, tf.ones([16]))
    np.testing.assert_allclose(result.loss, -(expected * np.log(taken)).sum(1).mean(), rtol=1e-4)
    np.testing.assert_allclose(result.td_error, taken @ atoms - expected @ atoms, atol=1e-4)


def dense_layers(network, inputs):
    """A network of dense layers in float64, by hand: the inputs of each layer, then the action values."""
    values = [inputs.reshape(len(inputs), -1) / 255]
    kernels, biases = network[::2], network[1::2]
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        out = values[-1] @ kernel + bias
        values.append(out if i + 1 == len(kernels) else np.maximum(out, 0))
    return values


@pytest.mark.parametrize("double, alpha", [(True, 0.0), (False, 0.0), (True, 0.8)])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_step_is_the_gradient_of_the_masked_clipped_loss_in_float64(mode, double, alpha):
    """Every weight of the network, by back-propagation in NumPy; a step of size 1 is the gradient."""
    agent = make_agent(learning_rate=1.0, double=double, advantage_alpha=alpha)
    rng = np.random.default_rng(4)
    for variable in agent.target.variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.3))
    batch, weights = random_batch(64), np.linspace(0, 2, 64)
    batch = batch._replace(reward=3 * batch.reward)  # errors on both sides of 1
    online, target = ([v.numpy().astype(np.float64) for v in net.variables] for net in (agent.online, agent.target))
    obs, action, reward, discount, next_obs = (np.asarray(part, np.float64) for part in batch[:5])

    values, rows, action = dense_layers(online, obs), np.arange(64), action.astype(int)
    next_target = dense_layers(target, next_obs)[-1]
    chooser = dense_layers(online, next_obs)[-1] if double else next_target
    error = values[-1][rows, action] - (reward + discount * next_target[rows, chooser.argmax(1)])
    error += alpha * (values[-1].max(1) - values[-1][rows, action])
    assert (np.abs(error) < 1).sum() > 5 and (np.abs(error) > 1).sum() > 5
    flow = np.zeros_like(values[-1])
    flow[rows, action] = np.clip(error, -1, 1) * weights / 64
    expected = []
    for i in reversed(range(len(online) // 2)):
        expected = [values[i].T @ flow, flow.sum(0), *expected]
        flow = flow @ online[2 * i].T * (values[i] > 0)

    wrap = {"eager": lambda f: f}.get(mode, lambda f: tf.function(f, autograph=False, jit_compile=mode == "xla"))
    result = wrap(agent.learn)(batch, tf.constant(weights, tf.float32))
    for before, variable, gradient in zip(online, agent.online.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(before - variable.numpy(), gradient, rtol=1e-3, atol=1e-6)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in expected))
    np.testing.assert_allclose(result.gradient_norm, norm, rtol=1e-5)
    np.testing.assert_allclose(result.td_error, error, rtol=1e-4, atol=1e-5)


def test_max_gradient_norm_bounds_the_step():
    agent = make_agent(learning_rate=1.0, max_gradient_norm=1e-3)
    before = [variable.numpy() for variable in agent.online.trainable_variables]
    norm = learn(agent, random_batch()).gradient_norm
    step = [old - new.numpy() for old, new in zip(before, agent.online.trainable_variables, strict=True)]
    assert norm > 1e-2
    np.testing.assert_allclose(np.sqrt(sum((part**2).sum() for part in step)), 1e-3, rtol=1e-2)


def test_mse_and_huber_differ_beyond_one():
    batch = random_batch()._replace(reward=tf.fill([16], 5.0))
    huber, mse = (learn(make_agent(loss=loss), batch) for loss in ("huber", "mse"))
    np.testing.assert_allclose(mse.loss, np.square(mse.td_error).mean() / 2, rtol=1e-5)
    np.testing.assert_allclose(huber.loss, np.abs(huber.td_error).mean() - 0.5, rtol=1e-5)


def test_acting_is_greedy_without_epsilon_and_uniform_with_it():
    agent = make_agent()
    frames = tf.repeat(random_batch(1).observation, 20_000, axis=0)
    act = tf.function(agent.act, autograph=False, jit_compile=True)
    seed = tf.constant([1, 2], tf.int64)
    greedy = int(np.argmax(agent(frames[:1])))
    actions, state = act(frames, (), tf.constant(0.0), seed)
    assert state == ()
    np.testing.assert_array_equal(actions, np.full(20_000, greedy))
    # Under epsilon, the other action is chosen by half of the random draws; 5 standard deviations either way.
    for epsilon in (0.1, 1.0):
        actions, _ = act(frames, (), tf.constant(epsilon), seed)
        share = epsilon / 2
        assert abs(np.mean(actions.numpy() != greedy) - share) < 5 * np.sqrt(share * (1 - share) / 20_000)
    again, _ = act(frames, (), tf.constant(1.0), seed)
    np.testing.assert_array_equal(actions, again)
    np.testing.assert_array_equal(agent.act(frames, (), tf.constant(1.0), seed)[0], again)  # the same draws op by op


def small_mdp():
    """Six states, two actions, some ends: transitions as a fixed set, and its Q by value iteration in float64."""
    rng = np.random.default_rng(5)
    states, discount = 6, 0.8
    frames = np.zeros((states, *SHAPE), np.uint8)
    for state in range(states):
        frames.reshape(states, -1)[state, 2 * state : 2 * state + 2] = 255  # one-hot, as far as a network can see
    successor = rng.integers(0, states, (states, 2))
    reward = rng.normal(size=(states, 2)).round(2)
    ends = np.zeros((states, 2), bool)
    ends[[1, 4], [0, 1]] = True
    q = np.zeros((states, 2))
    for _ in range(500):
        q = reward + discount * ~ends * q.max(1)[successor]
    state, action = (index.ravel() for index in np.indices((states, 2)))
    data = Transition(
        observation=frames[state],
        action=action.astype(np.int32),
        reward=reward[state, action].astype(np.float32),
        discount=(discount * ~ends)[state, action].astype(np.float32),
        next_observation=frames[successor[state, action]],
    )
    return data, frames, q


@pytest.mark.parametrize("double", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_fit_reaches_the_known_q_of_a_small_mdp(double):
    data, frames, q = small_mdp()
    agent = DQN(SHAPE, 2, target_update_period_updates=50, double=double, seed=1)
    agent.compile(optimizer=tf.keras.optimizers.Adam(3e-3, jit_compile=False), jit_compile=True)
    dataset = tf.data.Dataset.from_tensors(data).repeat(3000)
    history = agent.fit(dataset, epochs=1, verbose=0)
    assert set(history.history) == {"loss", "td_error", "mean_q"}
    np.testing.assert_allclose(agent.predict(frames, verbose=0), q, atol=0.01 * np.abs(q).max())


def test_fit_takes_weights():
    data, _, _ = small_mdp()
    agent = make_agent()
    weights = np.zeros(len(data.reward), np.float32)
    before = [variable.numpy() for variable in agent.online.variables]
    agent.fit(tf.data.Dataset.from_tensors((data, weights)), verbose=0)
    for variable, old in zip(agent.online.variables, before, strict=True):
        np.testing.assert_array_equal(variable, old)


def test_keras_file_round_trip_through_public_loading(tmp_path):
    agent = DQN(SHAPE, 2, network="mlp", double=False, target_tau=0.5, seed=3, name="saved")
    agent.compile(optimizer=optimizers.RMSPropGraves(1e-3), jit_compile=True)
    learn(agent, random_batch())
    path = tmp_path / "agent.keras"
    agent.save(path)
    loaded = tf.keras.models.load_model(path)
    assert loaded.get_config() == agent.get_config()
    frames = random_batch().observation
    np.testing.assert_array_equal(loaded(frames), agent(frames))
    for ours, theirs in zip(loaded.target.variables, agent.target.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_summary_works_before_training(capsys):
    DQN(SHAPE, 2).summary()
    assert "online" in capsys.readouterr().out


def test_unknown_target_is_refused():
    with pytest.raises(ValueError, match="hard, soft, none"):
        DQN(SHAPE, 2, target="polyak")
