"""Legal actions: kept to in every decision, every draw and every target, op by op and under XLA."""

import functools

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests.finite import DISCOUNT, MODES, FiniteGame, Lab, Rules, rules
from tfdqn import config as configuration
from tfdqn import learners, record
from tfdqn.errors import UserError
from tfdqn.learners import losses
from tfdqn.learners.dqn import heads
from tfdqn.learners.dqn.agent import DQN
from tfdqn.learners.dqn.learner import build_replay
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer
from tfdqn.replay.table import FrameReplay
from tfdqn.replay.transitions import Transition
from tfdqn.runtime import memory

WRAP = {
    "eager": lambda function: function,
    "graph": lambda function: tf.function(function, autograph=False),
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}


@pytest.fixture(params=WRAP)
def mode(request):
    return WRAP[request.param]


# --- The equations, by hand ---

Q = tf.constant([[1.0, 5.0, 3.0], [4.0, 2.0, 9.0]])
LEGAL = tf.constant([[True, False, True], [True, True, False]])


def test_the_best_action_is_the_best_of_the_legal_ones(mode):
    np.testing.assert_array_equal(mode(losses.greedy_action)(Q, LEGAL), [2, 0])
    np.testing.assert_array_equal(mode(losses.max_value)(Q, LEGAL), [3.0, 4.0])
    target = tf.constant([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    np.testing.assert_array_equal(mode(losses.double_value)(Q, target, LEGAL), [30.0, 40.0])


def test_the_mean_over_actions_is_that_of_the_legal_ones(mode):
    def expected(greedy, each, legal):
        return losses.expected_over_actions(greedy, each, 0.5, legal)

    np.testing.assert_allclose(
        mode(expected)(tf.constant([3.0, 4.0]), Q, LEGAL), [0.5 * 3 + 0.5 * 2, 0.5 * 4 + 0.5 * 3]
    )
    each = tf.stack([Q, 2 * Q], axis=-1)
    found = mode(expected)(tf.zeros([2, 2]), each, LEGAL)
    np.testing.assert_allclose(found, [[1.0, 2.0], [1.5, 3.0]])


def test_the_lag_is_that_behind_the_best_legal_action(mode):
    run = mode(lambda *given: losses.advantage_learning(*given[:3], 0.5, given[3]))
    found = run(tf.constant([1.0, 1.0]), Q, tf.constant([0, 1]), LEGAL)
    np.testing.assert_allclose(found, [1 - 0.5 * (3 - 1), 1 - 0.5 * (4 - 2)])


def test_an_infinite_value_of_an_illegal_action_does_no_harm(mode):
    q = tf.constant([[np.inf, 1.0], [np.nan, 2.0]], tf.float32)
    legal = tf.constant([[False, True]] * 2)

    def target(q, legal):
        greedy = losses.double_value(q, q, legal)
        return losses.expected_over_actions(greedy, q, 0.5, legal)

    np.testing.assert_array_equal(mode(target)(q, legal), [1.0, 2.0])


def test_where_nothing_is_legal_and_nothing_follows_the_target_is_the_reward(mode):
    head = heads.ScalarHead(2, target_epsilon=0.5)
    none, q = tf.zeros([1, 2], tf.bool), tf.constant([[3.0, 4.0]])
    run = mode(lambda discount: head.target(tf.constant([7.0]), discount, q, q, none))
    np.testing.assert_array_equal(run(tf.constant([0.0])), [7.0])


# --- Acting ---


def make_agent(num_actions=5, jit=True, **given) -> DQN:
    agent = DQN((4, 4, 1), num_actions, **given)
    agent.compile(optimizer=tf.keras.optimizers.SGD(0.01), jit_compile=jit)
    return agent


def test_random_actions_are_uniform_over_the_legal_ones(mode):
    """Pearson's statistic of 200,000 draws for each mask: below 25 but for one case in 10,000 of four categories."""
    masks = np.array([[1, 1, 1, 1, 1], [0, 1, 1, 0, 1], [0, 0, 0, 1, 0], [1, 0, 0, 0, 1]], bool)
    each = 200_000
    legal = tf.constant(np.repeat(masks, each, axis=0))
    agent = make_agent()
    frames = tf.zeros([len(legal), 4, 4, 1], tf.uint8)
    actions = mode(lambda seed: agent.act(frames, (), tf.constant(1.0), seed, legal)[0])(tf.constant([1, 2], tf.int64))
    for mask, taken in zip(masks, np.split(actions.numpy(), len(masks)), strict=True):
        counts = np.bincount(taken, minlength=5)
        assert not counts[~mask].any()
        expected = each / mask.sum()
        statistic = ((counts[mask] - expected) ** 2 / expected).sum()
        print(f"{mask.astype(int)}: {counts}, chi-square {statistic:.1f}")
        assert statistic < 25


def test_random_actions_take_the_same_draws_as_without_rules(mode):
    agent, seed = make_agent(), tf.constant([3, 4], tf.int64)
    frames, everything = tf.zeros([4000, 4, 4, 1], tf.uint8), tf.ones([4000, 5], tf.bool)
    for epsilon in (0.0, 0.3, 1.0):
        free, _ = agent.act(frames, (), tf.constant(epsilon), seed)
        ruled, _ = mode(lambda e: agent.act(frames, (), e, seed, everything))(tf.constant(epsilon))
        np.testing.assert_array_equal(free, ruled)


def test_greedy_actions_are_the_best_legal_ones(mode):
    agent, dice = make_agent(), np.random.default_rng(0)
    frames = tf.constant(dice.integers(0, 256, (500, 4, 4, 1)), tf.uint8)
    legal = dice.random((500, 5)) < 0.4
    legal[np.arange(500), dice.integers(0, 5, 500)] = True
    expected = np.where(legal, agent(frames).numpy(), -np.inf).argmax(1)
    act = mode(lambda frames, legal: agent.act(frames, (), tf.constant(0.0), tf.constant([0, 0], tf.int64), legal)[0])
    np.testing.assert_array_equal(act(frames, tf.constant(legal)), expected)
    assert (agent(frames).numpy().argmax(1) != expected).sum() > 100


def test_masks_of_another_shape_or_type_are_refused_in_one_line():
    agent, frames = make_agent(), tf.zeros([3, 4, 4, 1], tf.uint8)
    for legal, error in (
        (np.ones([3, 4], bool), ValueError),
        (np.ones([2, 5], bool), ValueError),
        (np.ones([3, 5]), TypeError),
    ):
        with pytest.raises(error, match="legal actions") as caught:
            agent.act(frames, (), 0.0, [0, 0], legal)
        assert "\n" not in str(caught.value)


# --- Targets of whole agents, against NumPy ---


def random_batch(size, actions, seed=0) -> Transition:
    dice = np.random.default_rng(seed)

    def mask():
        legal = dice.random((size, actions)) < 0.4
        legal[np.arange(size), dice.integers(0, actions, size)] = True
        return legal

    return Transition(
        observation=dice.integers(0, 256, (size, 4, 4, 1)).astype(np.uint8),
        action=dice.integers(0, actions, size).astype(np.int32),
        reward=dice.normal(size=size).astype(np.float32),
        discount=dice.choice([0.0, 0.9], size).astype(np.float32),
        next_observation=dice.integers(0, 256, (size, 4, 4, 1)).astype(np.uint8),
        legal=mask(),
        next_legal=mask(),
    )


def softmax(logits):
    exps = np.exp(logits - logits.max(-1, keepdims=True))
    return exps / exps.sum(-1, keepdims=True)


RULES = [
    {},
    {"double": False},
    {"target": "none"},
    {"target": "soft", "dueling": True},
    {"target_epsilon": 0.3},
    {"advantage_alpha": 0.8},
    {"members": 2, "target_epsilon": 0.3},
    {"head": "categorical", "atoms": 5, "value_min": -2.0, "value_max": 2.0, "target_epsilon": 0.3},
    {"head": "categorical", "atoms": 5, "value_min": -2.0, "value_max": 2.0, "double": False},
    {"head": "quantile", "quantiles": 4, "target_epsilon": 0.3, "double": False},
    {"head": "quantile", "quantiles": 4, "dueling": True, "members": 2, "advantage_alpha": 0.8},
    {"head": "quantile", "quantiles": 4, "target_epsilon": 0.3, "members": 2},
]
COMPILED = (
    3,
    6,
    7,
    10,
)  # each head and what bends a target; `test_agent.py` compiles the other networks to take it from


@pytest.mark.parametrize(
    "given, jit",
    [
        *((given, False) for given in RULES),
        *(
            pytest.param(given, True, marks=[pytest.mark.slow] * (number not in COMPILED))
            for number, given in enumerate(RULES)
        ),
    ],
    ids=str,
)
def test_no_illegal_action_of_a_next_state_bootstraps(given, jit):
    agent, batch = make_agent(**given), random_batch(64, 5)
    dice = np.random.default_rng(3)
    for variable in (*agent.online.variables, *agent.target.variables):
        variable.assign(dice.normal(size=variable.shape, scale=0.4))
    epsilon, alpha, rows = given.get("target_epsilon", 0.0), given.get("advantage_alpha", 0.0), np.arange(64)
    members, atoms = given.get("members", 1), np.linspace(-2, 2, 5)
    is_categorical = given.get("head") == "categorical"

    def values_of(network, observation):
        """Of each member, [K, B, A]; for a categorical head what its atoms are worth."""
        parts = np.split(network(observation).numpy().astype(np.float64), members, axis=-1)
        if given.get("head") == "quantile":
            parts = [part.reshape(64, -1, 4).mean(-1) for part in parts]
        if given.get("dueling"):
            parts = [part[:, :1] + part[:, 1:] - part[:, 1:].mean(1, keepdims=True) for part in parts]
        return np.array([softmax(part.reshape(64, 5, 5)) @ atoms if is_categorical else part for part in parts])

    online, now = (values_of(agent.online, each) for each in (batch.next_observation, batch.observation))
    target = online if given.get("target") == "none" else values_of(agent.target, batch.next_observation)
    chooser = (online if given.get("double", True) else target).mean(0)
    choice = np.where(batch.next_legal, chooser, -np.inf).argmax(1)
    mean = np.where(batch.next_legal, target, 0).sum(-1) / batch.next_legal.sum(-1)
    follows = ((1 - epsilon) * target[:, rows, choice] + epsilon * mean).mean(0)
    value = now.mean(0)
    lag = np.where(batch.legal, value, -np.inf).max(1) - value[rows, batch.action]
    learnt = batch.reward + batch.discount * follows - alpha * lag
    run = tf.function(agent.learn, autograph=False, jit_compile=True) if jit else agent.learn
    result = run(Transition(*map(tf.constant, batch)), tf.ones([64]))
    expected = value[rows, batch.action] - learnt
    # A categorical head keeps what lies between its outermost atoms; the other rows say all.
    outcomes = batch.reward[:, None] + batch.discount[:, None] * atoms
    is_kept = (np.abs(outcomes).max(1) <= 2) if is_categorical else np.ones(64, bool)
    assert is_kept.sum() > 15
    np.testing.assert_allclose(result.td_error.numpy()[is_kept], expected[is_kept], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(result.mean_q, np.where(batch.legal, value, -np.inf).max(1).mean(), rtol=1e-4)
    np.testing.assert_allclose(result.max_q, value[batch.legal].max(), rtol=1e-4)


def test_keras_takes_batches_with_and_without_masks():
    """`fit` on a data set, on arrays and with weights; the masks change what is learnt."""
    batch, losses_ = random_batch(32, 5), {}
    for name, each in {"masks": batch, "none": batch._replace(legal=(), next_legal=())}.items():
        agent = make_agent(target="none", jit=False)  # what Keras passes on is the same
        losses_[name] = agent.evaluate(each, verbose=0, return_dict=True)["loss"]
        for source in (tf.data.Dataset.from_tensors(each), each, tf.data.Dataset.from_tensors((each, np.ones(32)))):
            agent.fit(source, verbose=0)
        agent.train_on_batch(each)
    assert losses_["masks"] != losses_["none"]


# --- A whole game ---

BRIBE = 50.0  # what an illegal action would pay, more than all that is legal together
# A row of four states; what is allowed in each, and what it pays. In the third the player may choose.
ALLOWED = np.array([[True, False], [False, True], [True, True], [True, False]])
PAYS = [[-1.0, BRIBE], [BRIBE, -1.0], [-1.0, -2.0], [-1.0, BRIBE]]
ROW: Rules = rules(
    PAYS,
    [[1, 1], [2, 2], [3, 3], [3, 3]],
    [[False, True], [True, False], [False, False], [True, True]],
    starts=range(4),
)


class Ruled(FiniteGame):
    """A finite game in which not all actions are legal everywhere."""

    name = "ruled"

    def legal_actions(self, state):
        allowed = np.ones([16, 2], bool)
        allowed[:4] = ALLOWED
        return tf.gather(tf.constant(allowed), state.place)


def ruled_q(epsilon=0.0) -> np.ndarray:
    """Values [4, 2] float64 of legal play, greedy but for a share of uniformly random legal actions."""
    q = np.array(PAYS)
    for state in (2, 1, 0):
        following = q[state + 1][ALLOWED[state + 1]]
        q[state] += np.where(
            ALLOWED[state], DISCOUNT * ((1 - epsilon) * following.max() + epsilon * following.mean()), 0
        )
    return q


HASTY = {"iterations": 600, "target_update_period_updates": 5}


@functools.cache
def sound_lab(mode: str) -> Lab:
    return Lab(game=Ruled(), **MODES[mode], **HASTY)


def error(lab: Lab, epsilon=0.0) -> float:
    """The largest error of a legal action's value after learning."""
    return float(np.abs(lab.learn(ROW, 0) - ruled_q(epsilon))[ALLOWED].max())


def most_paid(lab: Lab) -> float:
    """The largest reward of any decision that counted in what the replay holds."""
    held = lab.trainer.replay.gather_all()
    return float(np.max(held.reward.numpy()[~held.is_boundary.numpy()]))


def test_known_values_of_legal_play():
    np.testing.assert_allclose(ruled_q()[ALLOWED], [-3.439, -2.71, -1.9, -2.9, -1.0])


@pytest.mark.parametrize("mode", ["graph", "xla"])
def test_what_is_legal_is_learnt_though_what_is_not_would_pay_most(mode):
    lab = sound_lab(mode)
    assert error(lab) <= 0.05
    assert most_paid(lab) == -1.0  # nobody was bribed in random play,
    assert -4.0 <= lab.greedy_score() <= -1.0  # nor in greedy play
    assert most_paid(lab) == -1.0


@pytest.mark.slow  # the equations above are tested op by op, too, and a whole game in `test_probes.py`
def test_it_is_learnt_op_by_op():
    small = {"replay_min_rows": 64, "learning_rate": 0.01, "target_update_period_updates": 10}
    lab = Lab(150, Ruled(), **small, **MODES["eager"])
    assert error(lab) <= 0.2 and most_paid(lab) == -1.0


@pytest.mark.parametrize(
    "given, epsilon, tolerance",
    [
        # Its targets are compared with NumPy's above.
        pytest.param({"target_epsilon": 0.5, "double": False}, 0.5, 0.05, marks=pytest.mark.slow),
        ({"target": "none", "prioritized": True}, 0.0, 0.05),
        ({"head": "categorical", "atoms": 21, "value_min": -5.0, "value_max": 0.0, "jit": False}, 0.0, 0.15),
    ],
    ids=str,
)
def test_other_rules_keep_to_it_as_well(given, epsilon, tolerance):
    lab = Lab(game=Ruled(), **{**HASTY, **given})
    assert error(lab, epsilon) <= tolerance and most_paid(lab) == -1.0


class RuledToTheEnd(Ruled):
    """One that allows nothing where the episode is over."""

    def legal_actions(self, state):
        return super().legal_actions(state) & ~state.is_over[:, tf.newaxis]


def make_trainer(learner, **changes):
    replay = {"batch_size": 8, "replay_capacity": 2000, "replay_min_rows": 200}
    given = {
        "dqn": replay,
        "pqn": {"num_steps": 8, "minibatches": 4},
        "r2d2": {**replay, "burn_in": 2, "sequence_length": 4, "sequence_period": 2, "n_step": 2, "cell_units": 4},
    }.get(learner, {})
    game = RuledToTheEnd()
    game.load(ROW)
    return Trainer(
        configuration.resolve({**given, "learner": learner, "num_envs": 16, "jit": False, **changes}), env=game
    )


@pytest.mark.parametrize("learner", learners.LEARNERS)
def test_every_learner_takes_a_game_that_allows_nothing_when_it_is_over(learner):
    trainer = make_trainer(learner)
    carry = trainer.run_chunk(trainer.initial_carry(), 30, 10**9)
    assert int(carry.metrics.updates) >= 10 and int(carry.metrics.episodes) > 20
    assert int(carry.metrics.non_finite_updates) == 0
    assert all(np.isfinite(weight).all() for weight in trainer.agent.get_weights())


@pytest.mark.parametrize(
    "learner", [pytest.param(each, marks=[pytest.mark.slow] * (each != "a2c")) for each in learners.LEARNERS]
)
def test_a_member_that_has_diverged_leaves_the_others_of_such_a_game_alone(learner):
    def played(is_broken):
        trainer = make_trainer(learner, population=2)
        weights = trainer.agent.online.trainable_variables
        if is_broken:
            weights[0].assign(
                tf.where(np.reshape([False, True], [2] + [1] * (len(weights[0].shape) - 1)), np.inf, weights[0])
            )
        carry = trainer.initial_carry()
        for _ in range(3):
            carry = trainer.run_chunk(carry, 10, 10**9)
            ended = carry.metrics.non_finite_tensors.numpy() != 0
            if ended.any():
                carry = trainer.cleared(carry, ended)
        assert np.isfinite(carry.metrics.episodes).all() and int(carry.metrics.updates[0]) >= 10
        return ended.tolist(), [np.asarray(each[:16]) for each in (*carry.env_state, carry.is_over)], weights

    (ended, games, weights), (none_ended, others, other_weights) = played(True), played(False)
    assert (ended, none_ended) == ([False, True], [False, False])
    for one, other in zip(games, others, strict=True):
        np.testing.assert_array_equal(one, other)
    for one, other in zip(weights, other_weights, strict=True):
        np.testing.assert_array_equal(one[0], other[0])


def test_evaluation_keeps_to_it():
    """An agent that has learnt nothing, and one that plays at random."""
    config = configuration.resolve({"eval_episodes": 64, "device": "cpu"})
    game = Ruled()
    game.load(ROW)
    agent = DQN((4, 4, 1), 2, seed=5)
    wanted = agent(tf.constant(ROW.frames[:4, :, :, None])).numpy().argmax(1)
    assert not ALLOWED[np.arange(4), wanted].all()  # it would take what is illegal
    evaluator = Evaluator(config, game, agent)
    for epsilon in (0.0, 1.0):
        assert evaluator.evaluate(64, epsilon=epsilon).scores.max() <= -1.0


def test_a_film_keeps_to_it():
    config = configuration.resolve({"device": "cpu"})
    game = Ruled()
    game.load(ROW._replace(starts=np.zeros_like(ROW.starts)))
    agents = [DQN((4, 4, 1), 2, seed=seed) for seed in range(8)]
    # Who would begin with what is illegal, and would end the game.
    agents = [agent for agent in agents if agent(tf.constant(ROW.frames[:1, :, :, None])).numpy().argmax() == 1]
    assert agents
    for agent in agents[:2]:
        assert len(record.film(config, game, agent, 0, 100)) == 5  # the first screen, and one for each of four states


def test_an_agent_from_python_keeps_to_it():
    agent = tfdqn.Agent("catch8", device="cpu", seed=1)
    screens = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1)).astype(np.uint8)
    for epsilon in (0.0, 1.0):
        for action in range(3):
            only = np.arange(3) == action
            assert agent.act(screens[0], epsilon=epsilon, legal_actions=only) == action
            assert agent.act(screens[0], epsilon=epsilon, legal_actions=only.tolist()) == action
        two = np.tile([True, False, True], (50, 1))
        assert set(agent.act(screens, epsilon=epsilon, legal_actions=two)) <= {0, 2}
    with pytest.raises(ValueError, match="legal actions"):
        agent.act(screens[0], legal_actions=[True, False])


# --- Faults, planted one at a time ---


def random_play_over_all(patch):
    uniform = losses.uniform_action
    patch.setattr(losses, "uniform_action", lambda number, actions, legal=None: uniform(number, actions))


def sampled_with(change):
    """Let the replay return other transitions."""

    def plant(patch):
        sample = FrameReplay.sample

        def wrong(*arguments):
            transitions, weights, index = sample(*arguments)
            return change(transitions), weights, index

        patch.setattr(FrameReplay, "sample", wrong)

    return plant


FAULTS = {
    "random play over all actions": random_play_over_all,
    "targets over all actions": sampled_with(lambda found: found._replace(next_legal=())),
    "the mask of the state before": sampled_with(lambda found: found._replace(next_legal=found.legal)),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (i < 2)) for i, n in enumerate(FAULTS)])
def test_a_planted_fault_is_seen(name, monkeypatch):
    assert error(sound_lab("graph")) <= 0.05
    faulty = Lab(game=Ruled(), **MODES["graph"], **HASTY)
    FAULTS[name](monkeypatch)
    wrong = error(faulty)
    print(f"{name}: max |Q - Q*| {wrong:.3f}, most paid {most_paid(faulty)}")
    assert wrong >= 0.15 or most_paid(faulty) == BRIBE
    assert (most_paid(faulty) == BRIBE) == (name == "random play over all actions")


def test_a_greedy_player_who_ignores_the_rules_is_seen(monkeypatch):
    faulty = Lab(game=Ruled(), **MODES["graph"], **HASTY, epsilon_start=0.0)
    act = DQN.act
    monkeypatch.setattr(DQN, "act", lambda agent, *given: act(agent, *given[:4]))
    faulty.learn(ROW, 0)
    assert most_paid(faulty) == BRIBE


def test_the_memory_of_masks_is_counted_before_it_is_taken(tmp_path, monkeypatch):
    env, sizes = Ruled(), {"num_envs": 4, "replay_capacity": 4000, "replay_min_rows": 100, "batch_size": 8}
    config = configuration.resolve(sizes)
    held = build_replay(config, env, "/CPU:0").state.values()
    held = sum(variable.dtype.size * variable.shape.num_elements() for variable in held if variable.shape.rank)
    needed = config.replay_bytes(env.observation_spec, env.masked_actions)
    assert held == needed == config.replay_bytes(env.observation_spec) + 2 * 4000
    monkeypatch.setattr(memory, "available_bytes", lambda: needed - 1 + 500_000_000)
    with pytest.raises(UserError, match=r"--replay-capacity 4000: needs .* GB are free; use at most 3999"):
        tfdqn.Agent(env, **sizes, device="cpu").fit(logdir=tmp_path)
    assert not list(tmp_path.iterdir())
