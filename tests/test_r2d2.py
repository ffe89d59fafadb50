"""R2D2: targets and a step against float64, what windows tell of play, refusals, resuming, and that it remembers."""

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests import whole_runs
from tests.faults import harness
from tests.test_cells import lstm_step
from tests.test_losses import rescaled, unscaled
from tfdqn import config as configuration
from tfdqn.envs import make
from tfdqn.errors import UserError
from tfdqn.learners.r2d2.agent import R2D2, n_step_targets
from tfdqn.learners.r2d2.learner import build_replay
from tfdqn.networks.cells import LSTMState
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer
from tfdqn.replay.sequences import Windows
from tfdqn.runs import donor
from tfdqn.runtime import compiled

WRAP = {"eager": lambda function: function, "graph": tf.function, "xla": compiled.xla}
SMALL = {
    "env": "memory",
    "delay_min": 5,
    "delay_max": 5,
    "learner": "r2d2",
    "num_envs": 16,
    "batch_size": 16,
    "cell_units": 32,
    "burn_in": 2,
    "sequence_length": 6,
    "sequence_period": 4,
    "n_step": 2,
    "replay_min_rows": 1000,
    "replay_capacity": 20_000,
}


def reference_targets(reward, discount, is_boundary, value, n_step, epsilon):
    """One row at a time, forwards, in float64."""
    size = len(reward) - n_step
    targets = np.zeros((size, reward.shape[1]))
    for b in range(reward.shape[1]):
        for t in range(size):
            total, factor, now = 0.0, 1.0, t
            while now < t + n_step and not is_boundary[now, b] and factor:
                total += factor * reward[now, b]
                factor *= float(discount[now, b])
                now += 1
            total += factor * unscaled(value[now, b], epsilon) if factor else 0.0
            targets[t, b] = rescaled(total, epsilon)
    return targets


def played(steps, batch, seed=0):
    dice = np.random.default_rng(seed)
    reward, value = dice.normal(size=(2, steps, batch)).astype(np.float32) * 3
    discount = np.where(dice.random((steps, batch)) < 0.2, 0, 0.9).astype(np.float32)
    return reward, discount, dice.random((steps, batch)) < 0.2, value


@pytest.mark.parametrize("mode", WRAP)
@pytest.mark.parametrize("n_step", [1, 3])
def test_targets_are_those_of_plain_loops(mode, n_step):
    given = played(9, 40)
    found = WRAP[mode](lambda *given: n_step_targets(*given, n_step, 1e-2))(*given)
    expected = reference_targets(*given, n_step, 1e-2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_targets_by_hand():
    """Two steps and bare square roots: a return of 3 is worth 1, one of 8 is worth 2, and 2 is worth 8."""
    reward, nothing = tf.constant([[1.0], [4.0], [9.0], [9.0]]), tf.zeros([4, 1], tf.bool)
    value = tf.constant([[9.0], [9.0], [2.0], [9.0]])
    found = n_step_targets(reward, tf.fill([4, 1], 0.5), nothing, value, 2, 0.0)
    np.testing.assert_allclose(found[0, 0], np.sqrt(1 + 0.5 * (4 + 0.5 * 8) + 1) - 1)
    # The episode ends for good in the second decision, or is cut off after the first, whose last frame is worth 8.
    ended = n_step_targets(reward, tf.constant([[0.5], [0.0], [0.5], [0.5]]), nothing, value, 2, 0.0)
    np.testing.assert_allclose(ended[0, 0], np.sqrt(1 + 0.5 * 4 + 1) - 1)
    cut = tf.constant([[False], [True], [False], [False]])
    value = tf.constant([[9.0], [2.0], [9.0], [9.0]])
    found = n_step_targets(reward, tf.fill([4, 1], 0.5), cut, value, 2, 0.0)
    np.testing.assert_allclose(found[0, 0], np.sqrt(1 + 0.5 * 8 + 1) - 1)


BURN_IN, LEARNT, N_STEP, BATCH, UNITS = 2, 4, 2, 3, 4


def small_agent(**changes):
    settings = {"cell_units": UNITS, "burn_in": BURN_IN, "n_step": N_STEP, "discount": 0.9, "priority_eta": 0.75}
    agent = R2D2((3,), 2, observation_dtype="float32", **settings | changes)
    agent.compile(tf.keras.optimizers.SGD(1.0))
    agent.optimizer.build(agent.online.trainable_variables)
    return agent


def windows_of(seed=1):
    dice, steps = np.random.default_rng(seed), BURN_IN + LEARNT + N_STEP
    is_boundary = np.zeros((steps, BATCH), bool)
    is_boundary[BURN_IN + 1, 0] = is_boundary[0, 1] = True
    is_first = np.roll(is_boundary, 1, axis=0)
    windows = Windows(
        observation=dice.normal(size=(steps, BATCH, 3)).astype(np.float32),
        action=dice.integers(0, 2, (steps, BATCH)).astype(np.int32),
        reward=dice.normal(size=(steps, BATCH)).astype(np.float32),
        discount=np.ones((steps, BATCH), np.float32),
        is_first=is_first,
        is_boundary=is_boundary,
        state=LSTMState(*dice.normal(size=(2, BATCH, UNITS)).astype(np.float32)),
    )
    return windows, np.array([1.0, 0.5, 0.25], np.float32)


def values_of(output, last):
    """Values [B, A] of a linear layer, or of a dueling head: a hidden layer of their own for V and A, then these."""
    if len(last) == 2:
        return output @ last[0] + last[1]
    hidden = [np.maximum(output @ last[i] + last[i + 1], 0) for i in (0, 2)]
    value, advantage = (hidden[i // 2] @ last[i + 4] + last[i + 5] for i in (0, 2))
    return value + advantage - advantage.mean(axis=1, keepdims=True)


def forward(weights, windows, state, steps, past=None):
    """Values [T, B, A] and the last state in float64, from an MLP body, an LSTM and `values_of`.

    `past` is the action and the reward before the windows' first row; None: they are not seen.
    """
    values, state = [], [np.asarray(each, np.float64) for each in state]
    body, (kernel, recurrent, bias), last = weights[:4], weights[4:7], weights[7:]
    for t in steps:
        x = windows.observation[t].astype(np.float64)
        for i in (0, 2):
            x = np.maximum(x @ body[i] + body[i + 1], 0)
        if past is not None:
            action, reward = (windows.action[t - 1], windows.reward[t - 1]) if t else past
            seen = np.concatenate([np.eye(2)[action], reward[:, None]], axis=1)
            x = np.concatenate([x, np.where(windows.is_first[t][:, None], 0, seen)], axis=1)
        state = [np.where(windows.is_first[t][:, None], 0, each) for each in state]
        state = lstm_step(x, state, kernel, recurrent, bias)
        values.append(values_of(state[0], last))
    return np.array(values), state


@pytest.mark.parametrize(("sees_past", "dueling"), [(False, False), (True, True)])
def test_a_step_is_the_gradient_in_float64_and_burn_in_has_no_part_in_it(sees_past, dueling):
    agent, (windows, weights) = small_agent(previous_action_reward=sees_past, dueling=dueling), windows_of()
    dice = np.random.default_rng(5)
    past = (np.array([1, 0, 1], np.int32), np.array([0.5, -1.0, 2.0], np.float32)) if sees_past else None
    memory = windows.state
    if sees_past:
        windows = windows._replace(state=type(agent.initial_state(1))(*memory, *past))
    agent.target.set_weights([w + dice.normal(0, 0.2, w.shape) for w in agent.target.get_weights()])
    before = [value.astype(np.float64) for value in agent.online.get_weights()]
    frozen = [value.astype(np.float64) for value in agent.target.get_weights()]
    steps = BURN_IN + LEARNT + N_STEP
    target_q, _ = forward(frozen, windows, memory, range(steps), past)
    # The state that burn-in ends with is that of the weights as they are: a number, whatever they become.
    _, state = forward(before, windows, memory, range(BURN_IN), past)
    late = range(BURN_IN, steps)
    online_q, _ = forward(before, windows, state, late, past)
    value = np.take_along_axis(target_q[BURN_IN:], online_q.argmax(-1)[..., None], -1)[..., 0]
    rest = [each[BURN_IN:] for each in (windows.reward, 0.9 * windows.discount, windows.is_boundary)]
    target = reference_targets(*rest, value, N_STEP, 1e-3)
    counts = ~windows.is_boundary[BURN_IN : BURN_IN + LEARNT]

    def errors(weights_now):
        q, _ = forward(weights_now, windows, state, late, past)
        chosen = np.take_along_axis(q, windows.action[BURN_IN:][..., None], -1)[:LEARNT, :, 0]
        return np.where(counts, chosen - target, 0)

    def loss(weights_now):
        return np.sum(weights * 0.5 * errors(weights_now) ** 2) / counts.sum()

    result = agent.learn(tf.nest.map_structure(tf.constant, windows), tf.constant(weights))
    np.testing.assert_allclose(float(result.loss), loss(before), rtol=1e-4)
    size = np.abs(errors(before))
    np.testing.assert_allclose(result.priority, 0.75 * size.max(0) + 0.25 * size.sum(0) / counts.sum(0), rtol=1e-4)
    assert result.is_finite.numpy().all()
    for i, (old, new) in enumerate(zip(before, agent.online.get_weights(), strict=True)):
        for _ in range(6):
            place, slopes = tuple(dice.integers(0, old.shape)), []
            for sign in (1, -1):
                moved = [value.copy() for value in before]
                moved[i][place] += sign * 1e-5
                slopes.append(loss(moved))
            np.testing.assert_allclose(old[place] - new[place], (slopes[0] - slopes[1]) / 2e-5, rtol=5e-3, atol=2e-6)


def test_a_compiled_step_is_the_step_op_by_op():
    """Of one kind of cell: what differs between these is compared in `test_cells.py`."""
    windows, weights = tf.nest.map_structure(tf.constant, windows_of())
    agents = [small_agent(previous_action_reward=True, dueling=True) for _ in range(2)]
    windows = windows._replace(state=agents[0].initial_state(BATCH)._replace(**windows.state._asdict()))
    results = [agents[0].learn(windows, weights), compiled.xla(agents[1].learn)(windows, weights)]
    for name in results[0]._fields:
        np.testing.assert_allclose(*(getattr(r, name) for r in results), rtol=1e-4, atol=1e-6, err_msg=name)
    for ours, theirs in zip(*(agent.online.get_weights() for agent in agents), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_the_target_network_follows_by_copies():
    agent, (windows, weights) = small_agent(target_update_period_updates=2), windows_of()
    start = agent.target.get_weights()
    for number in (1, 2):
        agent.learn(tf.nest.map_structure(tf.constant, windows), tf.constant(weights))
        expected = start if number == 1 else agent.online.get_weights()
        for found, wanted in zip(agent.target.get_weights(), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_keras_saves_it_and_brings_it_back_without_a_warning(tmp_path, caplog):
    for cell in ("lstm", "gru"):
        agent = small_agent(cell=cell, seed=3, previous_action_reward=cell == "gru", dueling=cell == "gru")
        agent.save(tmp_path / "agent.keras")
        again = tf.keras.models.load_model(tmp_path / "agent.keras")
        assert again.get_config() == agent.get_config()
        observation, state = tf.random.stateless_normal([5, 3], [1, 2]), agent.initial_state(5)
        state = state._replace(hidden=state.hidden + 0.3)
        found, expected = (each.action_values(observation, state) for each in (again, agent))
        np.testing.assert_array_equal(found, expected)
    assert not caplog.records


def test_numbers_that_are_not_finite_are_told():
    agent, (windows, weights) = small_agent(), windows_of()
    windows.reward[BURN_IN + 1, 1] = np.inf
    result = agent.learn(tf.nest.map_structure(tf.constant, windows), tf.constant(weights))
    assert not result.is_finite.numpy().any()


def test_a_window_tells_again_what_the_players_saw_and_valued():
    """Played with a memory that goes on and is reset; unrolled from what the replay holds, the values are the same."""
    settings = {key: value for key, value in SMALL.items() if not key.startswith("delay")}
    settings |= {"env": "catch8", "eager": True, "frame_stack": 2, "epsilon_end": 0.5}  # rewards come within episodes
    trainer = Trainer(configuration.resolve(settings))
    learner, carry, values = trainer.learner, trainer.initial_carry(), []
    for number in range(22):
        observation_state = carry.agent_state
        carry, decision = trainer._interact(carry)
        assert decision.agent_state is observation_state
        values.append(trainer.agent.action_values(decision.observation, decision.agent_state).numpy())
        learner.take((), tf.constant(number), decision)
    windows, _, index = learner.replay.sample_windows(tf.constant([1, 2], tf.int64), 16)
    assert windows.is_first.numpy().any() and windows.is_boundary.numpy().any()
    assert np.unique(windows.reward).size > 1
    q, _ = trainer.agent.online.unroll(
        windows.observation, windows.is_first, windows.state, windows.action, windows.reward
    )
    for b, (number, env) in enumerate(zip(index.numpy() // 16, index.numpy() % 16, strict=True)):
        expected = [values[number * 4 + t][env] for t in range(len(q))]
        np.testing.assert_allclose(q[:, b], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"env": "cave", "delay_min": None, "delay_max": None, "restart_share": 0.5}, "--restart-share 0.5: practice"),
        ({"cell": "none"}, "--cell none: what R2D2 adds to DQN is a memory; use lstm, or --learner dqn"),
        ({"sequence_period": 7}, "--sequence-period 7: decisions between windows of --sequence-length 6"),
        ({"replay_capacity": 15 * 16}, "--replay-capacity 240: what is drawn spans 16 rows of each of 16 environments"),
        (
            {"replay_capacity": 16 * 1003, "replay_min_rows": 16 * 1003},
            "--replay-min-rows 16048: the replay holds 16000 rows; use at most 16000",
        ),
        ({"prioritized": False, "cell": "rnn"}, "--cell rnn"),
        ({"learner": "dqn"}, "--cell-units 32: --learner dqn has no such setting, only --learner pqn and --learner"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(given, line):
    settings = {key: value for key, value in {**SMALL, **given}.items() if value is not None}
    if "learner" in given:
        settings = {key: settings[key] for key in ("env", "learner", "cell_units")}
    with pytest.raises(UserError) as error:
        configuration.resolve(settings)
    assert line in str(error.value)


def test_the_replay_holds_the_rows_that_learning_waits_for():
    """It is cut to whole periods of all environments: of the 100,000 rows of the preset 99,840 are left."""
    config = configuration.resolve({"env": "memory", "learner": "r2d2", "replay_min_rows": 99_900})
    replay = build_replay(config, make("memory"), "/CPU:0", LSTMState(*tf.zeros([2, 1, 4])))
    assert replay.capacity >= config.replay_min_rows == 99_900


@pytest.mark.parametrize(
    ("theirs", "line"),
    [
        ('cell = "gru"', "its cell is gru, not lstm; use --cell gru"),
        ('cell = "lstm"\ncell_units = 8', "its cell_units is 8, not 32; use --cell-units 8"),
        (
            'cell = "lstm"\ncell_units = 32',
            "its previous_action_reward is False, not True; use --no-previous-action-reward",
        ),
        (
            'cell = "lstm"\ncell_units = 32\nprevious_action_reward = true\nrescale_epsilon = 0.01',
            "its rescale_epsilon is 0.01, not 0.001; use --rescale-epsilon 0.01",
        ),
    ],
)
def test_the_weights_of_another_memory_or_scale_are_refused_by_name(tmp_path, theirs, line):
    (tmp_path / "config.toml").write_text(f'env = "memory"\nlearner = "r2d2"\n{theirs}\n')
    with pytest.raises(UserError) as error:
        donor.check_donor(configuration.resolve({**SMALL, "init_from": str(tmp_path)}))
    assert line in str(error.value)


BROKEN = {**SMALL, "device": "cpu", "num_envs": 4, "batch_size": 4, "cell_units": 4, "replay_min_rows": 200}
BROKEN |= {"total_env_frames": 700, "replay_capacity": 400, "target_update_period_updates": 10}


def test_all_that_changes_is_in_its_variables_and_in_the_carry():
    """So one that has these goes on as the other does: what checkpoints rely on, which hold both."""
    config = configuration.resolve({**BROKEN, "jit": False})
    first, second = Trainer(config), Trainer(config)
    carry = first.run_chunk(first.initial_carry(), 90, 10**9)
    assert int(carry.metrics.updates) > 20 and np.any(carry.agent_state.hidden)
    held = tf.nest.map_structure(lambda each: tf.constant(each.numpy()), carry)
    for name, variable in second.learner.variables.items():
        variable.assign(first.learner.variables[name])
    ends = [trainer.run_chunk(start, 30, 10**9) for trainer, start in ((first, carry), (second, held))]
    for ours, theirs in zip(*map(tf.nest.flatten, ends), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, variable in second.learner.variables.items():
        np.testing.assert_array_equal(variable, first.learner.variables[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("jit", [False, True])
def test_a_resumed_run_is_equal_to_an_unbroken_one(tmp_path, jit):
    config = configuration.resolve(
        {**BROKEN, "eval_every_frames": 450, "eval_episodes": 4, "jit": jit}
        | {"final_eval_episodes": 4, "log_every_frames": 200, "goal_score": 9.0}
    )
    runs = {
        name: whole_runs.Run(config, tmp_path / name, "/CPU:0", whole_runs.StopRequest())
        for name in ("whole", "broken")
    }
    runs["whole"].train()
    whole_runs.train_until(runs["broken"], 400, 9)
    assert runs["broken"].updates > 20
    runs["broken"].close()
    resumed = whole_runs.resume(tmp_path / "broken")
    resumed.train()
    resumed.close()
    runs["whole"].close()
    assert harness.differences(tmp_path / "whole", tmp_path / "broken") == []


def test_it_remembers_what_it_was_shown_and_carries_that_wherever_it_plays(tmp_path):
    config = configuration.resolve({**SMALL, "learning_rate": 2e-3})
    trainer = Trainer(config)
    evaluator, carry, best = Evaluator(config, trainer.env, trainer.agent), trainer.initial_carry(), 0.0
    while best <= 0.95 and int(carry.env_frames) < 60_000:
        carry = trainer.run_chunk(carry, 250, 10**9)
        best = evaluator.evaluate(64).scores.mean()
    assert best > 0.95 and trainer.trace_count == 1 and int(carry.metrics.non_finite_updates) == 0
    # From Python, too; and an agent that is not told what it carried does not know.
    agent = tfdqn.Agent(**SMALL)
    agent.model.online.set_weights(trainer.agent.online.get_weights())
    agent.save(tmp_path / "agent")
    agent = tfdqn.load(tmp_path / "agent")
    for remembers in (True, False):
        env, state = agent.env, None
        game = env.reset(env.sample_noise(tf.constant([1, 2], tf.int64), 64))
        for _ in range(6):
            carried = state if remembers else None
            action, state = agent.act_with_state(env.observe(game).numpy()[..., None], carried)
            game, timestep = env.step(game, action, env.sample_noise(tf.constant([3, 4], tf.int64), 64))
        assert timestep.termination.numpy().all()
        score = timestep.reward.numpy().mean()
        assert score > 0.95 if remembers else score < 0.6


@pytest.mark.slow  # that no frame tells of the cue, `envs/test_memory_game.py` shows
def test_one_that_forgets_can_but_guess():
    """The same game and twice as many updates, with the network's values alone: a quarter is chance."""
    given = {key: SMALL[key] for key in ("env", "delay_min", "delay_max", "num_envs", "replay_min_rows")}
    config = configuration.resolve({**given, "frame_stack": 4})
    trainer = Trainer(config)
    carry = trainer.run_chunk(trainer.initial_carry(), 2000, 10**9)
    assert int(carry.metrics.updates) > 1500
    scores = Evaluator(config, trainer.env, trainer.agent).evaluate(512).scores
    assert abs(scores.mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / 512)


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_it_remembers_for_ten_to_forty_decisions(cell):
    config = configuration.resolve({"env": "memory", "learner": "r2d2", "cell": cell})
    trainer = Trainer(config)
    evaluator, carry = Evaluator(config, trainer.env, trainer.agent), trainer.initial_carry()
    best = 0.0
    while best < 0.99 and int(carry.env_frames) < 1_000_000:
        carry = trainer.run_chunk(carry, 500, 10**9)
        best = evaluator.evaluate(256).scores.mean()
    assert best >= 0.99
