"""TF-Agents: the games as its environments, its environments as games, and both ways one after the other."""

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests.envs.helpers import noise_of, to_numpy
from tests.own_games import Line, Planes
from tfdqn import envs, seeds
from tfdqn.adapters.pure import Pure
from tfdqn.adapters.tf_agents import GameTFEnvironment, from_tf_agents, split
from tfdqn.envs import check
from tfdqn.errors import UserError
from tfdqn.runtime import compiled

# After tfdqn's, which prepares them.
from tf_agents.agents.dqn import dqn_agent  # isort: skip
from tf_agents.drivers import dynamic_step_driver  # isort: skip
from tf_agents.environments import random_py_environment, random_tf_environment  # isort: skip
from tf_agents.environments import tf_environment, tf_py_environment  # isort: skip
from tf_agents.networks import q_network  # isort: skip
from tf_agents.policies import random_tf_policy  # isort: skip
from tf_agents.replay_buffers import tf_uniform_replay_buffer  # isort: skip
from tf_agents.specs import BoundedArraySpec, BoundedTensorSpec, TensorSpec  # isort: skip
from tf_agents.trajectories import StepType, time_step  # isort: skip
from tf_agents.utils import common  # isort: skip


class Limited(Line):
    """Ends of the line cannot be walked over."""

    def legal_actions(self, state):
        return tf.stack([state.place > 0, state.place < self.cells - 1], axis=-1)


class OnHost(Line):
    steps_on_host = True


class Walk(tf_environment.TFEnvironment):
    """Five cells, both ends of which end the episode: a termination with reward 1 to the right, 0 to the left.

    Written as TF-Agents' own environments are: state in variables of any shape, `tf.cond`, functions within functions,
    draws from a generator and from TensorFlow. Actions are numbered from 3.
    """

    CELLS = 5

    def __init__(self, time_limit=8, batch_size=1):
        observation = BoundedTensorSpec([self.CELLS], tf.float32, 0, 1, "observation")
        action = BoundedTensorSpec([], tf.int64, 3, 4, "action")
        super().__init__(time_step.time_step_spec(observation), action, batch_size)
        self._random = tf.random.Generator.from_seed(1)
        self._place = tf.Variable([2], dtype=tf.int32)
        self._frames = tf.Variable(0, dtype=tf.int64)  # a scalar
        self._type = tf.Variable([0], dtype=tf.int32)
        self._time_limit = time_limit

    def _shown(self):
        return tf.one_hot(self._place, self.CELLS)

    def _current_time_step(self):
        return time_step.restart(self._shown(), 1)

    @tf.function
    def _reset(self):
        self._place.assign(1 + self._random.uniform([1], 0, self.CELLS - 2, tf.int32))
        self._frames.assign(tf.zeros_like(self._frames))
        self._type.assign([0])
        return self._current_time_step()

    @tf.function
    def _step(self, action):
        def walk():
            self._frames.assign_add(1)
            self._place.assign_add(2 * tf.cast(action - 3, tf.int32) - 1)
            is_over = (self._place == 0) | (self._place == self.CELLS - 1)
            is_late = self._frames >= self._time_limit
            self._type.assign(tf.where(is_over | is_late, StepType.LAST, StepType.MID))
            reward = tf.cast(self._place == self.CELLS - 1, tf.float32)
            return time_step.TimeStep(tf.identity(self._type), reward, tf.where(is_over, 0.0, 1.0), self._shown())

        return tf.cond(self._type[0] == StepType.LAST, self._reset, walk)


@pytest.fixture(scope="module")
def taken():
    return from_tf_agents(Walk(), time_limit=7)


# --- Out ---


@pytest.mark.parametrize("game", ["catch8", "cartpole", "planes", "limited"])
def test_a_game_is_what_its_specs_say_and_begins_anew_after_an_end(game):
    env = GameTFEnvironment({"planes": Planes(), "limited": Limited()}.get(game, game), num_envs=6, seed=1)
    policy = random_tf_policy.RandomTFPolicy(
        env.time_step_spec(),
        env.action_spec(),
        observation_and_action_constraint_splitter=split if game == "limited" else None,
    )
    act, step = common.function(policy.action), common.function(env.step)
    now, before, firsts = env.reset(), None, 0
    assert (now.step_type.numpy() == StepType.FIRST).all()
    for _ in range(150):
        for shown in (now, env.current_time_step()):
            assert all(
                spec.is_compatible_with(tensor[0]) and tensor.shape[0] == 6
                for spec, tensor in zip(tf.nest.flatten(env.time_step_spec()), tf.nest.flatten(shown), strict=True)
            )
        tf.nest.map_structure(np.testing.assert_array_equal, now, env.current_time_step())
        if before is not None:
            was_last = before.step_type.numpy() == StepType.LAST
            np.testing.assert_array_equal(now.step_type.numpy() == StepType.FIRST, was_last)
            assert not now.reward.numpy()[was_last].any() and (now.discount.numpy()[was_last] == 1).all()
            firsts += was_last.sum()
        before, now = now, step(act(now).action)
    assert firsts > 6


def test_the_time_limit_does_not_discount_and_the_rules_do():
    env = GameTFEnvironment(Line(cells=40), num_envs=32, seed=0)
    env.reset()
    ends = {1.0: 0, 0.0: 0}
    for _ in range(Line.time_limit + 1):
        shown = env.step(tf.cast(env._state.goal > env._state.place, tf.int32))
        for discount in shown.discount.numpy()[shown.step_type.numpy() == StepType.LAST]:
            ends[float(discount)] += 1
    assert ends[0.0] > 5 and ends[1.0] > 5


def test_a_seed_decides_everything():
    def play(seed):
        env = GameTFEnvironment("catch8", num_envs=4, seed=seed)
        step = common.function(env.step)
        return np.stack([step(tf.constant([0, 1, 2, t % 3])).observation.numpy() for t in range(40)])

    first = play(0)
    np.testing.assert_array_equal(first, play(0))
    assert (first != play(1)).any()


def test_its_own_agent_learns_catch8():
    """`DdqnAgent`, driver and buffer as in TF-Agents' tutorials; the network is told that 255 is white."""
    tf.random.set_seed(0)
    num_envs, env = 64, GameTFEnvironment("catch8", num_envs=64)
    network = q_network.QNetwork(
        env.observation_spec(),
        env.action_spec(),
        preprocessing_layers=tf.keras.layers.Rescaling(1 / 255),
        fc_layer_params=(64, 32),
    )
    agent = dqn_agent.DdqnAgent(
        env.time_step_spec(),
        env.action_spec(),
        q_network=network,
        optimizer=tf.keras.optimizers.Adam(1e-3),
        epsilon_greedy=0.1,
        gamma=0.95,
        target_update_period=100,
        td_errors_loss_fn=common.element_wise_huber_loss,
    )
    agent.initialize()
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(agent.collect_data_spec, num_envs, max_length=500)
    driver = dynamic_step_driver.DynamicStepDriver(env, agent.collect_policy, [buffer.add_batch], num_steps=1)
    drive, train = common.function(driver.run), common.function(agent.train)
    at, _ = drive()
    for _ in range(50):
        at, _ = drive(at)
    batches = iter(buffer.as_dataset(sample_batch_size=64, num_steps=2).prefetch(2))
    for _ in range(1_500):
        at, _ = drive(at)
        train(next(batches)[0])
    played = GameTFEnvironment("catch8", num_envs=64, seed=99)
    act, step, now = common.function(agent.policy.action), common.function(played.step), played.reset()
    caught = dropped = 0
    for _ in range(100):
        now = step(act(now).action)
        caught, dropped = caught + (now.reward > 0).numpy().sum(), dropped + (now.reward < 0).numpy().sum()
    # At random a third is caught.
    assert caught > 10 * dropped


# --- In ---


def test_a_taken_environment_keeps_the_contract(taken):
    assert not [str(result) for result in check.check_env(taken) if result.is_fault]
    assert (taken.name, taken.num_actions, taken.observation_spec.shape) == ("Walk", 2, (5,))


@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "xla"])
def test_a_taken_environment_plays_as_it_does_there(taken, is_compiled):
    """From each start both plays are equal, step by step, to the ends of all kinds."""
    step = taken.compiled_step if is_compiled else taken.step
    there, ends = Walk(), {"terminated": 0, "truncated": 0}
    for lane, state in enumerate(starts(taken)):
        there.reset()
        there._place.assign(state.observation.numpy().argmax(1))
        dice = np.random.default_rng(lane)
        for t in range(1, 9):
            action = dice.integers(0, 2, 1) if lane % 2 else np.array([t % 2])  # there and back, or anywhere
            state, shown = step(state, action, noise_of(taken, 5, t, 1))
            expected = there.step(tf.constant(3 + action, tf.int64))
            np.testing.assert_array_equal(shown.observation, expected.observation)
            np.testing.assert_array_equal(shown.reward, expected.reward)
            is_last, discount = expected.is_last().numpy()[0], expected.discount.numpy()[0]
            assert shown.termination.numpy()[0] == (is_last and discount == 0)
            assert shown.truncation.numpy()[0] == (is_last and discount == 1)
            if is_last:
                ends["truncated" if discount else "terminated"] += 1
                break
    assert min(ends.values()) > 0


def starts(env):
    """States of one environment each."""
    state = env.reset(noise_of(env, 0, 0, 24))
    return [tf.nest.map_structure(lambda value, i=i: value[i : i + 1], state) for i in range(24)]


def test_starts_are_drawn_from_tfdqns_seeds(taken):
    place = taken.reset(noise_of(taken, 1, 0, 3000)).observation.numpy().argmax(1)
    counts = np.bincount(place, minlength=5)
    assert counts[[0, 4]].tolist() == [0, 0] and (np.abs(counts[1:4] - 1000) < 5 * np.sqrt(3000 * 2 / 9)).all()
    few = taken.compiled_reset(noise_of(taken, 1, 0, 7)).observation.numpy().argmax(1)
    np.testing.assert_array_equal(few, place[:7])


def test_tfdqn_learns_a_taken_environment(tmp_path):
    tfdqn.register("walk", lambda: from_tf_agents(Walk(), time_limit=7))
    agent = tfdqn.Agent("walk", seed=0, num_envs=16, replay_min_rows=500, eval_every_frames=10_000)
    agent.fit(total_env_frames=20_000, verbose=0, logdir=str(tmp_path))
    assert agent.evaluate(episodes=32)["score_mean"] == 1.0


def test_tf_agents_own_environment_draws_from_tfdqns_seeds():
    """Its `RandomTFEnvironment`: what it shows and pays is uniform, and a tenth of its steps are the last."""
    specs = [BoundedTensorSpec([2], tf.float32, -1, 3), BoundedTensorSpec([], tf.float32, 0, 2)]
    spec = time_step.time_step_spec(specs[0], reward_spec=specs[1])
    there = random_tf_environment.RandomTFEnvironment(spec, BoundedTensorSpec([], tf.int32, 0, 2))
    env = from_tf_agents(there)
    state = env.compiled_reset(noise_of(env, 0, 0, 4000))
    state, shown = env.compiled_step(state, tf.zeros([4000], tf.int32), noise_of(env, 0, 1, 4000))
    numbers = shown.observation.numpy()
    assert -1 <= numbers.min() and numbers.max() < 3 and np.abs(numbers.mean(0) - 1).max() < 0.1
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.1
    assert abs(shown.reward.numpy().mean() - 1) < 0.1
    assert abs(shown.termination.numpy().mean() - 0.1) < 5 * np.sqrt(0.09 / 4000)
    again = env.step(env.reset(noise_of(env, 0, 0, 4000)), tf.zeros([4000], tf.int32), noise_of(env, 0, 1, 4000))
    tf.nest.map_structure(np.testing.assert_array_equal, to_numpy(again), to_numpy((state, shown)))


# --- Out, and in again ---


@pytest.mark.parametrize("game", ["catch8", "limited", "planes"])
def test_out_and_in_again_is_the_same_game(game):
    """In every bit but of floats, op by op and compiled, from the draws that follow from each game's word."""
    game = {"planes": Planes(), "limited": Limited()}.get(game, game)
    env, num_envs = envs.make(game) if isinstance(game, str) else game, 5
    back = from_tf_agents(GameTFEnvironment(game), env.time_limit)
    assert (back.observation_spec, back.num_actions) == (env.observation_spec, env.num_actions)
    # A graph may divide floats by a number as it multiplies them by another.
    rtol = 1e-6 if env.observation_spec.dtype == "float32" else 0

    def draws(word):
        """The noise that reaches the game within."""
        states = [seeds.draw(seeds.at(each, 1), 3) for each in tf.unstack(word)]
        noises = [env.sample_noise(tf.stack([state[2], state[0]]), 1) for state in states]
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, 0), *noises)

    for step, reset in ((back.step, back.reset), (back.compiled_step, back.compiled_reset)):
        noise = noise_of(back, 0, 0, num_envs)
        state, expected = reset(noise), env.reset(draws(noise.word))
        for t in range(1, 12):
            np.testing.assert_allclose(back.observe(state), env.observe(expected), rtol=rtol)
            legal = back.legal_actions(state), env.legal_actions(expected)
            assert (legal[0] is None) == (legal[1] is None)
            np.testing.assert_array_equal(*(np.asarray(each) for each in legal))
            action, noise = np.random.default_rng(t).integers(0, 2, num_envs), noise_of(back, 0, t, num_envs)
            state, shown = step(state, action, noise)
            expected, wanted = env.step(expected, tf.constant(action, tf.int32), draws(noise.word))
            np.testing.assert_allclose(shown.observation, wanted.observation, rtol=rtol)
            for left, right in zip(shown[1:], wanted[1:], strict=True):
                np.testing.assert_array_equal(left, right)
            is_over = wanted.termination | wanted.truncation
            fresh, anew = reset(noise), env.reset(draws(noise.word))
            state, expected = (envs_select(is_over, *parts) for parts in ((fresh, state), (anew, expected)))


def envs_select(is_over, fresh, stepped):
    def choose(new, old):
        return tf.where(tf.reshape(is_over, [-1] + [1] * (old.shape.rank - 1)), new, old)

    return tf.nest.map_structure(choose, fresh, stepped)


# --- What is pure, and what cannot be ---


def purely(function, *arguments, word=0):
    """What `function` returns and leaves in variables, played from the values that these have now."""
    made = Pure("it", function, *(tf.TensorSpec.from_tensor(tf.convert_to_tensor(each)) for each in arguments))

    now = {variable.ref(): variable.numpy() for variable in made.variables}

    @compiled.xla
    def play(word):
        values = {ref: tf.constant(value) for ref, value in now.items()}
        result, values = made(values, [tf.convert_to_tensor(each) for each in arguments], word)
        return result, [values[variable.ref()] for variable in made.variables]

    return tf.nest.map_structure(lambda value: value.numpy(), play(tf.constant(word, tf.int64)))


def test_assignments_are_seen_in_their_order_and_change_no_variable():
    kept, table = tf.Variable(1.0), tf.Variable([[1, 2], [3, 4]])

    def function(x):
        before = kept + 0.0
        kept.assign_add(x)
        kept.assign_sub(0.5)
        kept.assign(kept * 10)
        return before, kept + 0.0, tf.gather(table, [1])

    (before, after, row), values = purely(function, 2.0)
    assert (before, after, row.tolist()) == (1.0, 25.0, [[3, 4]]) and 25.0 in [
        value for value in values if value.ndim == 0
    ]
    assert kept.numpy() == 1.0


@pytest.mark.parametrize("which", [-1, 0, 1, 2, 7])
def test_a_branch_assigns_only_where_it_is_taken(which):
    kept = tf.Variable(5)
    branches = [lambda: kept.assign(10) + 0, lambda: tf.constant(7), lambda: kept.assign_add(1) + 0]
    expected = [(10, 10), (7, 5), (6, 6)][which if 0 <= which <= 2 else 2]
    result, values = purely(lambda index: tf.switch_case(index, branches), which)
    assert (result, values[0] if values else 5) == expected
    result, values = purely(lambda index: tf.cond(index > 0, branches[0], branches[1]), which)
    assert (result, values[0]) == ((10, 10) if which > 0 else (7, 5))


def test_loops_without_variables_go_round():
    result, _ = purely(lambda n: tf.while_loop(lambda i, s: i < n, lambda i, s: (i + 1, s + i), (0, 0))[1], 5)
    assert result == 10


def test_draws_have_their_distributions_and_follow_from_the_word():
    def function():
        return (
            tf.random.uniform([20_000]),
            tf.random.normal([20_000], 3.0, 2.0),
            tf.random.uniform([20_000], -2, 3, tf.int32),
            tf.random.uniform([20_000], dtype=tf.float64),
        )

    (uniform, normal, whole, wide), _ = purely(function)
    assert 0 <= uniform.min() and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 0.01
    assert abs(normal.mean() - 3) < 0.08 and abs(normal.std() - 2) < 0.06 and np.isfinite(normal).all()
    assert np.abs(np.bincount(whole + 2) - 4000).max() < 5 * np.sqrt(3200) and whole.max() == 2
    assert abs(np.corrcoef(uniform, wide)[0, 1]) < 0.04 and wide.dtype == np.float64
    np.testing.assert_array_equal(purely(function)[0][0], uniform)
    assert (purely(function, word=1)[0][0] != uniform).mean() > 0.9


LOOPED = tf.Variable(0)
TABLE = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer([1], [2]), -1)


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda: tf.numpy_function(lambda: np.float32(1), [], tf.float32), "calls Python from its graph"),
        (lambda: tf.random.gamma([2], 1.0), "holds the operation RandomGamma"),
        (
            lambda: tf.while_loop(lambda i: i < 3, lambda i: (LOOPED.assign_add(1) + i,), (0,)),
            "uses a variable inside of a loop",
        ),
        (
            lambda: tf.while_loop(lambda x: x < 0.9, lambda x: (tf.random.uniform([]),), (0.0,)),
            "draws inside of a loop",
        ),
        (lambda: TABLE.lookup(tf.constant(1)), "holds the operation LookupTableFind"),
        (
            lambda: tf.random.uniform([tf.random.uniform([], 1, 3, tf.int32)]),
            "draws as many numbers as only its data tell",
        ),
        (lambda: 1 / tf.constant("a"), "it does not trace: "),
    ],
)
def test_what_cannot_be_pure_is_refused_by_name(function, message):
    with pytest.raises(UserError, match=message) as error:
        purely(function)
    assert "\n" not in str(error.value) and str(error.value).startswith("it ")


def python_environment():
    array = BoundedArraySpec((2,), np.float32, 0, 1)
    return tf_py_environment.TFPyEnvironment(
        random_py_environment.RandomPyEnvironment(array, BoundedArraySpec((), np.int32, 0, 1))
    )


def shows(observation, action=None):
    action = action or BoundedTensorSpec([], tf.int32, 0, 1)
    return random_tf_environment.RandomTFEnvironment(time_step.time_step_spec(observation), action)


PLAIN = TensorSpec([2], tf.float32)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Line(), "from_tf_agents: Line is no TFEnvironment"),
        (lambda: Walk(batch_size=8), "Walk has the batch size 8: make it with 1"),
        (python_environment, "of TFPyEnvironment .* calls Python from its graph"),
        (lambda: shows({"a": PLAIN, "b": PLAIN}), "RandomTFEnvironment shows 2 tensors"),
        (lambda: shows(TensorSpec([2], tf.int64)), "RandomTFEnvironment: observation_spec: dtype 'int64'"),
        (lambda: shows(TensorSpec([], tf.float32)), "RandomTFEnvironment: observation_spec: shape"),
        (lambda: shows(PLAIN, BoundedTensorSpec([2], tf.int32, 0, 1)), "does not take one action"),
        (lambda: shows(PLAIN, BoundedTensorSpec([], tf.float32, 0, 1)), "does not take one action"),
    ],
)
def test_what_cannot_be_taken_is_refused_in_one_line(make, message):
    made = make()
    with pytest.raises(UserError, match=message) as error:
        from_tf_agents(made)
    assert "\n" not in str(error.value)


def test_a_game_that_cannot_be_made_is_refused_in_one_line():
    with pytest.raises(ValueError, match=r"^catch9: unknown; did you mean 'catch8'"):
        GameTFEnvironment("catch9")
    with pytest.raises(ValueError, match=r"^cells: this game is made already"):
        GameTFEnvironment(Line(), cells=3)
    with pytest.raises(ValueError, match=r"^OnHost steps in Python"):
        GameTFEnvironment(OnHost())
