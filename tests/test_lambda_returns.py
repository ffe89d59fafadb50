"""Lambda returns: what a window of the replay comes to, what an agent learns of it, and the values of a known game."""

import numpy as np
import pytest
import tensorflow as tf

from tests.finite import DISCOUNT, MODES, NEVER, STATES, FiniteGame, Lab
from tests.probes import random_game
from tests.test_replay import PlainBuffer, fill, hand_made, poison, random_rows
from tfdqn import config as configuration
from tfdqn.envs.spec import ObservationSpec
from tfdqn.errors import UserError
from tfdqn.learners.dqn.agent import DQN
from tfdqn.learners.dqn.learner import build_replay
from tfdqn.replay.prioritized import PrioritizedReplay
from tfdqn.replay.table import FrameReplay
from tfdqn.replay.transitions import Row, Transition

WRAPS = {
    "eager": lambda function: function,
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}
GAMMA = 0.9  # that of `PlainBuffer`


def make(num_envs, length, stack, stride, n_step, trace, kind=FrameReplay, frame=(3, 5), **given):
    spec = ObservationSpec(frame, "uint8")
    sizes = (spec, num_envs, length * num_envs, stack, stride, n_step, GAMMA, "cpu:0")
    return kind(*sizes, return_lambda=trace, **given)


def value_of(observation):
    """A state's value, as a function of all that is seen of it, float64."""
    return (observation / 255.0).reshape(*observation.shape[:-3], -1).mean(axis=-1)


def target_of(transitions, i):
    """What is learnt from an entry of a batch, with `value_of` for the network."""
    values = value_of(transitions.next_observation[i].numpy())
    return float(transitions.reward[i]) + (transitions.discount[i].numpy().astype(float) * values).sum()


def lambda_return(buffer, t, env, trace):
    """G_t = r_t + gamma d_t ((1 - lambda) V(s_t+1) + lambda G_t+1), row by row."""
    rows, start = buffer.rows, t
    while start > 0 and not rows.is_first[start, env]:
        start -= 1

    def value(now):
        return value_of(buffer.observation(now, start, env))

    def following(now):
        if now == t + buffer.n_step or rows.is_boundary[now, env]:
            return value(now)
        ahead = (1 - trace) * value(now + 1) + trace * following(now + 1)
        return float(rows.reward[now, env]) + GAMMA * float(rows.discount[now, env]) * ahead

    return following(t)


CASES = {  # num_envs, length, stack, stride, n_step, steps written, longest episode, lambda
    "half full": (3, 40, 4, 1, 3, 20, 12, 0.8),
    "wrapped often": (4, 19, 3, 2, 4, 80, 20, 0.5),
    "episodes of one": (3, 23, 2, 2, 3, 40, 1, 0.9),
    "one decision": (2, 16, 2, 1, 1, 30, 6, 0.7),
    "short episodes": (2, 31, 5, 1, 5, 50, 3, 0.0),
}


QUICK = [("wrapped often", "xla"), *((case, "eager") for case in CASES)]
SLOW = [pytest.param(case, "xla", marks=pytest.mark.slow) for case in CASES if case != "wrapped often"]


@pytest.mark.parametrize("case, mode", QUICK + SLOW)
def test_windows_come_to_what_plain_recursion_says(case, mode):
    num_envs, length, stack, stride, n_step, steps, max_episode, trace = CASES[case]
    rows = random_rows(len(case), steps, num_envs, (3, 5), max_episode, legal_actions=2)
    replay = make(num_envs, length, stack, stride, n_step, trace, legal_actions=2)
    poison(replay)
    fill(replay, rows)
    transitions, weights, index = WRAPS[mode](lambda seed: replay.sample(seed, 64))(tf.constant([7, 1], tf.int64))
    assert transitions.next_observation.shape == (64, n_step, 3, 5, stack)
    assert transitions.discount.shape == (64, n_step) and transitions.next_legal.shape == (64, n_step, 2)
    buffer = PlainBuffer(rows, length, stack, stride, n_step)
    counted = np.flatnonzero(weights)
    assert len(counted) > 30
    for i in counted:
        t, env = buffer.locate(index[i])
        assert (t, env) in buffer.anchors()
        assert target_of(transitions, i) == pytest.approx(lambda_return(buffer, t, env, trace), rel=1e-5, abs=1e-6)
        np.testing.assert_array_equal(transitions.observation[i], buffer.transition(t, env).observation)
        # The last one of an episode is that of the return over all decisions, and so is every one behind it.
        ends, size = [], n_step
        for k in range(1, n_step + 1):
            buffer.n_step = k
            ends.append(buffer.transition(t, env))
            buffer.n_step = size
        for k, end in enumerate(ends):
            np.testing.assert_array_equal(transitions.next_observation[i, k], end.next_observation)
            np.testing.assert_array_equal(transitions.next_legal[i, k], end.next_legal)
    assert np.isfinite(transitions.reward).all() and np.isfinite(transitions.discount).all()


@pytest.mark.parametrize("mode", WRAPS)
def test_windows_by_hand(mode):
    """Rewards of 1, discount and lambda 1/2, V the number that a frame shows: 0 1 2 | boundary 3 | 4 5 6 7.

    The first environment meets a time limit in decision 2, the second dies there.
    """
    both = (hand_made([1, 1, alive, 1, 1, 1, 1, 1], boundary_at=3, first_at=[0, 4]) for alive in (1.0, 0.0))
    replay = FrameReplay((1, 1), 2, 16, 1, 1, 3, 0.5, "cpu:0", return_lambda=0.5)
    fill(replay, Row(*(np.concatenate(parts, axis=1) if len(parts[0]) else () for parts in zip(*both, strict=True))))
    transitions, weights, index = WRAPS[mode](lambda: replay.sample(tf.constant([0, 0], tf.int64), 128))()
    assert weights.numpy().all()
    assert set(np.unique(index)) == {2 * t + env for t in (0, 1, 2, 4) for env in (0, 1)}  # of 5 to 7 it is not held
    found = {}
    for key in set(index.numpy()):
        i = int(np.flatnonzero(index.numpy() == key)[0])
        values = transitions.next_observation[i].numpy().ravel()
        target = float(transitions.reward[i]) + (transitions.discount[i].numpy() * values).sum()
        found[key] = (target, transitions.discount[i].numpy().tolist(), values.tolist())
    truncated, terminated = ({t: found[2 * t + env] for t in (0, 1, 2, 4)} for env in (0, 1))

    # A time limit: G_2 = 1 + 3 / 2; G_1 = 1 + (2 / 2 + G_2 / 2) / 2; G_0 = 1 + (1 / 2 + G_1 / 2) / 2.
    assert truncated[2] == (2.5, [0.5, 0, 0], [3, 3, 3])
    assert truncated[1] == (2.125, [0.25, 0.125, 0], [2, 3, 3])
    assert truncated[0] == (1.78125, [0.25, 0.0625, 0.03125], [1, 2, 3])
    # The newest row: G_6 = 1 + 7 / 2; G_5 = 1 + (6 / 2 + G_6 / 2) / 2; G_4 = 1 + (5 / 2 + G_5 / 2) / 2.
    assert truncated[4] == (3.15625, [0.25, 0.0625, 0.03125], [5, 6, 7])
    # A death: G_2 = 1; G_1 = 1 + (2 / 2 + 1 / 2) / 2; G_0 = 1 + (1 / 2 + G_1 / 2) / 2.
    assert terminated[2][:2] == (1.0, [0, 0, 0])
    assert terminated[1][:2] == (1.75, [0.25, 0, 0])
    assert terminated[0][:2] == (1.6875, [0.25, 0.0625, 0])
    assert terminated[4] == truncated[4]


@pytest.mark.parametrize("kind", [FrameReplay, PrioritizedReplay])
def test_lambda_leads_from_one_decision_to_all_of_the_window(kind):
    """At 1 it is the n-step return itself, to which it tends; at 0 that over one decision."""
    rows = random_rows(1, 40, 4, (3, 5), 6)
    seed = tf.constant([3, 5], tf.int64)
    batches = {}
    for trace in (0.0, 1.0 - 1e-6, 1.0):
        replay = make(4, 32, 2, 1, 4, trace, kind)
        fill(replay, rows)
        batches[trace] = replay.sample(seed, 64)
    (none, _, index), (almost, _, same), (whole, weights, drawn) = batches.values()
    assert whole.discount.shape == (64,) and whole.next_observation.shape == (64, 3, 5, 2) and weights.numpy().all()
    np.testing.assert_array_equal(index, drawn)
    np.testing.assert_array_equal(same, drawn)
    buffer = PlainBuffer(rows, 32, 2, 1, 1)
    for i in range(64):
        n_step = float(whole.reward[i]) + float(whole.discount[i]) * value_of(whole.next_observation[i].numpy())
        assert target_of(almost, i) == pytest.approx(n_step, abs=2e-5)
        one = buffer.transition(*buffer.locate(index[i]))
        assert target_of(none, i) == pytest.approx(one.reward + one.discount * value_of(one.next_observation), abs=1e-6)
        assert not none.discount[i, 1:].numpy().any()


def test_a_lambda_out_of_range_is_refused():
    for trace in (-0.1, 1.1):
        with pytest.raises(ValueError, match=f"return_lambda is {trace}, but must lie between 0 and 1"):
            make(2, 16, 2, 1, 3, trace)


# What an agent learns.

SIZE, ENDS, ACTIONS = 48, 3, 5


def random_batch(seed=0) -> Transition:
    dice = np.random.default_rng(seed)
    action = dice.integers(0, ACTIONS, SIZE).astype(np.int32)
    legal, next_legal = dice.random((SIZE, ACTIONS)) < 0.5, dice.random((SIZE, ENDS, ACTIONS)) < 0.5
    legal[np.arange(SIZE), action] = True
    next_legal[..., 0] |= ~next_legal.any(-1)
    return Transition(
        observation=dice.integers(0, 256, (SIZE, 4, 4, 1)).astype(np.uint8),
        action=action,
        reward=dice.normal(size=SIZE).astype(np.float32),
        discount=dice.choice([0.0, 0.2, 0.5], (SIZE, ENDS)).astype(np.float32),
        next_observation=dice.integers(0, 256, (SIZE, ENDS, 4, 4, 1)).astype(np.uint8),
        legal=legal,
        next_legal=next_legal,
    )


def shuffled(**given) -> DQN:
    agent, dice = DQN((4, 4, 1), ACTIONS, **given), np.random.default_rng(3)
    for variable in (*agent.online.variables, *agent.target.variables):
        variable.assign(dice.normal(size=variable.shape, scale=0.4))
    agent.compile(optimizer=tf.keras.optimizers.SGD(0.01))
    return agent


def expected_target(agent, batch, given):
    """The same from the values of one state after the other, [SIZE] float64."""
    bootstrap = agent.online if given.get("target") == "none" else agent.target
    target = batch.reward.astype(float)
    if given.get("advantage_alpha"):
        q = agent(batch.observation).numpy()
        lag = np.where(batch.legal, q, -np.inf).max(1) - q[np.arange(SIZE), batch.action]
        target -= given["advantage_alpha"] * lag
    temperature = given.get("munchausen_temperature")
    if temperature:
        q = agent.head.values(bootstrap(batch.observation)).numpy() / temperature
        policy = q - np.log(np.where(batch.legal, np.exp(q), 0).sum(1, keepdims=True))
        target += given["munchausen_alpha"] * np.clip(temperature * policy[np.arange(SIZE), batch.action], -1, 0)
    for k in range(ENDS):
        states, legal = batch.next_observation[:, k], batch.next_legal[:, k]
        q = agent.head.values(bootstrap(states)).numpy()
        choosing = agent(states).numpy() if given.get("double", True) else q
        value = q[np.arange(SIZE), np.where(legal, choosing, -np.inf).argmax(1)]
        if given.get("target_epsilon"):
            mean = np.where(legal, q, 0).sum(1) / legal.sum(1)
            value = (1 - given["target_epsilon"]) * value + given["target_epsilon"] * mean
        if temperature:
            value = temperature * np.log(np.where(legal, np.exp(q / temperature), 0).sum(1))
        target += batch.discount[:, k] * value
    return target


@pytest.mark.parametrize("mode", WRAPS)
@pytest.mark.parametrize(
    "given",
    [
        {},
        {"target": "none", "advantage_alpha": 0.5},
        {"double": False, "dueling": True, "target_epsilon": 0.3},
        {"members": 2},
        {"munchausen_alpha": 0.7, "munchausen_temperature": 0.3},
    ],
    ids=str,
)
def test_an_agent_learns_the_sum_over_all_states_by_its_target_policy(given, mode):
    agent, batch = shuffled(**given), random_batch()
    expected = agent(batch.observation).numpy()[np.arange(SIZE), batch.action] - expected_target(agent, batch, given)
    given = Transition(*map(tf.constant, batch))
    networks, made = (agent.online, agent.target), tf.zeros([], tf.int64)

    def judge():
        return agent.rule.judge(*networks, made, *agent.accepts.batch(given))[1]

    np.testing.assert_allclose(WRAPS[mode](judge)(), expected, rtol=1e-3, atol=1e-4)


def test_an_update_with_one_state_is_that_of_a_return_bootstrapped_from_once():
    """Bit for bit."""
    batch = random_batch()
    mixed = batch._replace(
        discount=batch.discount[:, :1],
        next_observation=batch.next_observation[:, :1],
        next_legal=batch.next_legal[:, :1],
    )
    single = batch._replace(
        discount=batch.discount[:, 0], next_observation=batch.next_observation[:, 0], next_legal=batch.next_legal[:, 0]
    )
    learnt = []
    for each in (mixed, single):
        agent, given = shuffled(), Transition(*map(tf.constant, each))
        agent.learn(given, tf.ones([SIZE]))
        learnt.append(agent.online.get_weights())
    for ours, theirs in zip(*learnt, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("mode", WRAPS)
def test_no_gradient_flows_into_the_target(mode):
    """Where the network bootstraps from itself: that of the loss towards numbers, which weights do not move."""
    agent, batch = shuffled(target="none", loss="mse"), random_batch()
    fixed = tf.constant(expected_target(agent, batch, {"target": "none"}), tf.float32)
    with tf.GradientTape() as tape:
        q = tf.gather(agent.head.values(agent.online(batch.observation)), batch.action, axis=1, batch_dims=1)
        loss = tf.reduce_mean(0.5 * (q - fixed) ** 2)
    expected = tape.gradient(loss, agent.online.trainable_variables)
    given = Transition(*map(tf.constant, batch))
    found = WRAPS[mode](lambda: agent.gradient(given, tf.ones([SIZE])))()
    assert max(np.abs(each).max() for each in expected) > 0.1
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_keras_fits_batches_of_them():
    agent, batch = shuffled(), random_batch()
    history = agent.fit(tf.data.Dataset.from_tensor_slices(batch).batch(20), epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2 and np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    "change, words",
    [
        ({"discount": np.ones([SIZE, 2, 2], np.float32)}, r"discounts: float32 \[48, 2, 2\]; expected float32 \[48\]"),
        ({"discount": [[1.0], [1.0, 2.0]]}, "discounts: rows of different lengths"),
        (
            {"discount": np.ones([SIZE, 2], np.float32)},
            r"next observations: .*\[48, 3, 4, 4, 1\]; .*\[48, 2, 4, 4, 1\]",
        ),
        ({"discount": np.ones([7, ENDS], np.float32)}, r"discounts: float32 \[7, 3\]; expected float32 \[48, \?\]"),
        ({"next_legal": np.ones([SIZE, ACTIONS], bool)}, r"next legal actions: .*expected bool \[48, 3, 5\]"),
    ],
)
def test_batches_that_do_not_go_together_are_refused_in_one_line(change, words):
    with pytest.raises(ValueError, match=words) as error:
        shuffled().learn(random_batch()._replace(**change), tf.ones([SIZE]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("head", ["categorical", "quantile", "iqn"])
def test_distributions_of_returns_are_not_mixed(head):
    agent = DQN((4, 4, 1), ACTIONS, head=head, atoms=3, quantiles=3)
    agent.compile()
    with pytest.raises(ValueError, match=r"DQN: discounts: float32 \[48, 3\]; expected float32 \[48\]"):
        agent.learn(random_batch(), tf.ones([SIZE]))


# A whole run's learner.


def lambda_q(game, n_step, trace):
    """What the values settle at where play is at random, [S, A] float64, by iteration of the expected target."""
    q = np.zeros([STATES, 2])

    def after(numbers):
        return DISCOUNT * ~game.terminates * numbers[game.successor].mean(-1)

    for _ in range(500):
        best = q.max(1)
        q = game.reward + after(best)  # of the window's last decision
        for _ in range(n_step - 1):
            q = game.reward + after((1 - trace) * best + trace * q.mean(1))
    return q[: game.num_states]


@pytest.mark.slow
def test_a_random_games_values_are_those_of_the_iteration():
    game = random_game(0)._replace(decisions=np.array(NEVER, np.int32))
    lab = Lab(4000, n_step=3, return_lambda=0.8, loss="mse", **MODES["xla"])
    known = lambda_q(game, 3, 0.8)
    for given in ((1, 1.0), (3, 1.0), (2, 0.8), (4, 0.8)):
        assert np.abs(lambda_q(game, *given) / known - 1).max() > 0.02
    np.testing.assert_allclose(lab.learn(game, 0), known, rtol=0.01)


@pytest.mark.parametrize("prioritized", [False, True])
def test_a_runs_replay_mixes_by_its_setting(prioritized):
    given = {"num_envs": 2, "replay_capacity": 100, "replay_min_rows": 9, "batch_size": 8, "frame_stack": 1}
    config = configuration.resolve({**given, "n_step": 3, "return_lambda": 0.8, "prioritized": prioritized})
    replay = build_replay(config, FiniteGame(), "/CPU:0")
    rows = random_rows(0, 9, 2, (4, 4), 1000)  # no episode ends
    fill(replay, rows, "eager")
    transitions, _, _ = replay.sample(tf.constant([0, 0], tf.int64), 8)
    shares = [config.discount * 0.2, config.discount**2 * 0.2 * 0.8, config.discount**3 * 0.8**2]
    np.testing.assert_allclose(transitions.discount, np.tile(shares, [8, 1]), rtol=1e-6)


# What does not fit.


def test_settings_that_do_not_fit_are_refused_in_one_line_or_give_way():
    with pytest.raises(UserError, match=r"^--return-lambda 0\.8: .*--n-step 1 leaves one; use --n-step 3") as error:
        configuration.resolve({"env": "catch8", "return_lambda": 0.8, "n_step": 1})
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"^--return-lambda 0\.8: is for --head scalar, not quantile"):
        configuration.resolve({"env": "catch8", "return_lambda": 0.8, "n_step": 3, "head": "quantile"})
    with pytest.raises(UserError, match=r"^--return-lambda 1\.5: must be at most 1"):
        configuration.resolve({"return_lambda": 1.5})
    told = []  # the cave's preset has a categorical head, a game without one 1 step; they give way
    config = configuration.resolve({"env": "cave", "return_lambda": 0.8}, tell=told.append)
    assert (config.head, config.n_step, len(told)) == ("scalar", 5, 1)
    assert configuration.resolve({"env": "tests.own_games:Line", "return_lambda": 0.8}).n_step == 3
    assert configuration.resolve({"env": "cave"}).return_lambda == 1.0
