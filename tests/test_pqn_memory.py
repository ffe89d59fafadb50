"""PQN with a memory: unrolled as it was played, a step against float64, what is learnt together, resuming, learning."""

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests import whole_runs
from tests.faults import harness
from tests.test_cells import REFERENCE
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.learners.pqn.agent import QNetwork
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer
from tfdqn.runtime import compiled

SMALL = {"env": "memory", "delay_min": 2, "delay_max": 5, "learner": "pqn", "cell": "lstm", "cell_units": 8}
SMALL |= {"num_envs": 8, "num_steps": 9, "minibatches": 4}
STEPS, BATCH, UNITS = 5, 3, 4


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_round_unrolled_is_the_round_as_it_was_played(cell):
    """In the second round, too, which begins in the middle of episodes; they end and begin within each."""
    trainer = Trainer(configuration.resolve({**SMALL, "cell": cell, "eager": True, "frame_stack": 2}))
    learner, carry = trainer.learner, trainer.initial_carry()
    for number in range(2):
        gathered = learner.begin_round()
        start = carry.agent_state
        for decision_number in range(9):
            carry, decision = trainer._interact(carry)
            gathered = learner.take(gathered, tf.constant(decision_number), decision)
        for held, wanted in zip(gathered.state, start, strict=True):
            np.testing.assert_array_equal(held, wanted)
        assert np.any(gathered.state.hidden) == (number == 1)
        assert gathered.is_first.numpy()[1:].any() and gathered.is_boundary.numpy().any()
        q, state = learner.agent.online.unroll(gathered.observation, gathered.is_first, gathered.state)
        np.testing.assert_allclose(tf.reduce_max(q, axis=-1), gathered.value, rtol=1e-5, atol=1e-6)
        # What is carried on, where an episode does not begin next.
        goes_on = ~carry.is_first.numpy()
        np.testing.assert_allclose(state.hidden[goes_on], carry.agent_state.hidden[goes_on], rtol=1e-5, atol=1e-6)


def small_agent(cell="lstm"):
    agent = QNetwork((3,), 2, observation_dtype="float32", cell=cell, cell_units=UNITS)
    agent.compile(tf.keras.optimizers.SGD(1.0))
    agent.optimizer.build(agent.online.trainable_variables)
    return agent


def sequences(cell="lstm"):
    """What `learn` takes: episodes begin within a sequence and at its start, and a row does not count."""
    dice = np.random.default_rng(1)
    observation, action = dice.normal(size=(STEPS, BATCH, 3)), dice.integers(0, 2, (STEPS, BATCH))
    target, weight = dice.normal(size=(STEPS, BATCH)), np.ones((STEPS, BATCH))
    is_first = np.zeros((STEPS, BATCH), bool)
    is_first[3, 0] = is_first[0, 1] = True
    weight[2, 0] = 0
    state = dice.normal(size=(2 if cell == "lstm" else 1, BATCH, UNITS)).astype(np.float32)
    floats = [each.astype(np.float32) for each in (observation, target, weight)]
    return floats[0], action.astype(np.int32), *floats[1:], is_first, state


def given(agent, entries):
    *entries, state = entries
    return [*map(tf.constant, entries), type(agent.initial_state(1))(*map(tf.constant, state))]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_step_is_the_gradient_in_float64_through_the_sequence(cell):
    agent, entries = small_agent(cell), sequences(cell)
    observation, action, target, weight, is_first, held = entries
    dice = np.random.default_rng(2)
    agent.online.set_weights([w + dice.normal(0, 0.1, w.shape) for w in agent.online.get_weights()])
    before = [value.astype(np.float64) for value in agent.online.get_weights()]

    def loss(weights):
        body, (scale, shift), kernels, last = weights[:4], weights[4:6], weights[6:-2], weights[-2:]
        total, state = 0.0, [np.asarray(each, np.float64) for each in held]
        for t in range(STEPS):
            x = observation[t].astype(np.float64)
            for i in (0, 2):
                x = np.maximum(x @ body[i] + body[i + 1], 0)
            x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-3) * scale + shift
            state = [np.where(is_first[t][:, None], 0, each) for each in state]
            state = REFERENCE[cell](x, state, *kernels)
            q = state[0] @ last[0] + last[1]
            total += np.sum(weight[t] * 0.5 * (q[np.arange(BATCH), action[t]] - target[t]) ** 2)
        return total / weight.sum()

    result = agent.learn(*given(agent, entries))
    np.testing.assert_allclose(float(result.loss), loss(before), rtol=1e-4)
    for i, (old, new) in enumerate(zip(before, agent.online.get_weights(), strict=True)):
        for _ in range(5):
            place, slopes = tuple(dice.integers(0, old.shape)), []
            for sign in (1, -1):
                moved = [value.copy() for value in before]
                moved[i][place] += sign * 1e-5
                slopes.append(loss(moved))
            np.testing.assert_allclose(old[place] - new[place], (slopes[0] - slopes[1]) / 2e-5, rtol=5e-3, atol=2e-6)


@pytest.mark.parametrize("mode", [tf.function, compiled.xla], ids=["graph", "xla"])
def test_a_compiled_step_is_the_step_op_by_op(mode):
    agents, entries = [small_agent() for _ in range(2)], sequences()
    results = [
        wrap(agent.learn)(*given(agent, entries)) for wrap, agent in zip((lambda f: f, mode), agents, strict=True)
    ]
    for name in results[0]._fields:
        np.testing.assert_allclose(*(getattr(r, name) for r in results), rtol=1e-4, atol=1e-6, err_msg=name)
    for ours, theirs in zip(*(agent.online.get_weights() for agent in agents), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_minibatch_is_the_whole_round_of_some_environments(monkeypatch):
    trainer = Trainer(configuration.resolve({**SMALL, "epochs": 3, "eager": True}))
    learner, carry = trainer.learner, trainer.initial_carry()
    env = tf.range(8)
    gathered = learner.begin_round()._replace(
        action=tf.repeat(env[tf.newaxis], 9, axis=0),
        is_first=tf.repeat((env % 3 == 0)[tf.newaxis], 9, axis=0),
        is_boundary=tf.repeat((env % 2 == 0)[tf.newaxis], 9, axis=0),
        state=type(carry.agent_state)(*(tf.repeat(tf.cast(env, tf.float32)[:, None], 8, axis=1) for _ in range(2))),
    )
    seen = []

    def learn(entries, sums, _):
        _, action, _, weight, is_first, state = entries
        envs = action[0].numpy()
        seen.append(envs)
        np.testing.assert_array_equal(action, np.tile(envs, (9, 1)))
        np.testing.assert_array_equal(weight, np.tile(envs % 2 != 0, (9, 1)))
        np.testing.assert_array_equal(is_first, np.tile(envs % 3 == 0, (9, 1)))
        np.testing.assert_array_equal(state.cell, np.tile(envs[:, None], 8))
        learner.agent.optimizer.iterations.assign_add(1)
        return sums

    monkeypatch.setattr(learner, "_learn", learn)
    learner.update(gathered, tf.zeros([8, 2, 4, 1], tf.uint8), carry.agent_state, carry.metrics)
    epochs = np.reshape(seen, [3, 4 * 2])
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs) and len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"minibatches": 9},
            "--minibatches 9: does not divide the 8 environments (--num-envs), whose",
        ),
        ({"env": "cave", "restart_share": 0.5}, "--restart-share 0.5: practice begins in the middle of an episode"),
        ({"cell": "rnn"}, "--cell rnn: unknown"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(changes, line):
    settings = {**SMALL, **changes}
    if settings["env"] != "memory":
        settings = {key: value for key, value in settings.items() if not key.startswith("delay")}
    with pytest.raises(UserError) as error:
        configuration.resolve(settings)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_what_nobody_asked_for_gives_way():
    wanted = {"env": "memory", "learner": "pqn", "cell": "gru"}
    assert configuration.resolve({**wanted, "num_envs": 24}).minibatches == 24
    assert configuration.resolve({**wanted, "minibatches": 100}).num_envs == 100
    assert configuration.resolve({"env": "cave", "learner": "pqn", "cell": "lstm"}).restart_share == 0


@pytest.mark.slow
def test_a_resumed_run_is_equal_to_an_unbroken_one(tmp_path):
    settings = {**SMALL, "jit": False, "device": "cpu", "total_env_frames": 1000, "eval_every_frames": 600}
    settings |= {"eval_episodes": 4, "final_eval_episodes": 4, "log_every_frames": 300, "goal_score": 9.0}
    config = configuration.resolve(settings)
    runs = {
        name: whole_runs.Run(config, tmp_path / name, "/CPU:0", whole_runs.StopRequest())
        for name in ("whole", "broken")
    }
    runs["whole"].train()
    whole_runs.train_until(runs["broken"], 500, 3)
    assert np.any(runs["broken"].carry.agent_state.hidden)  # in the middle of episodes
    runs["broken"].close()
    resumed = whole_runs.resume(tmp_path / "broken")
    resumed.train()
    resumed.close()
    runs["whole"].close()
    assert harness.differences(tmp_path / "whole", tmp_path / "broken") == []


@pytest.mark.slow
def test_it_remembers_for_ten_to_forty_decisions_and_carries_that_wherever_it_plays(tmp_path):
    """A quarter is chance."""
    settings = {"env": "memory", "learner": "pqn", "cell": "lstm"}
    config = configuration.resolve(settings)
    trainer = Trainer(config)
    carry, best = trainer.initial_carry(), 0.0
    evaluator = Evaluator(config, trainer.env, trainer.agent)
    while best < 0.95 and int(carry.env_frames) < 300_000:
        carry = trainer.run_chunk(carry, 6, 10**9)
        best = evaluator.evaluate(256).scores.mean()
    assert best >= 0.95 and trainer.trace_count == 1 and int(carry.metrics.non_finite_updates) == 0
    agent = tfdqn.Agent(**settings)
    agent.model.online.set_weights(trainer.agent.online.get_weights())
    agent.save(tmp_path / "agent")
    agent = tfdqn.load(tmp_path / "agent")
    for remembers in (True, False):
        env, state = agent.env, None
        noise = env.sample_noise(tf.constant([1, 2], tf.int64), 64)
        game = env.reset(noise._replace(delay_rank=tf.zeros_like(noise.delay_rank)))
        for _ in range(11):
            action, state = agent.act_with_state(env.observe(game).numpy()[..., None], state if remembers else None)
            game, timestep = env.step(game, action, noise)
        assert timestep.termination.numpy().all()
        score = timestep.reward.numpy().mean()
        assert score > 0.8 if remembers else score < 0.6


@pytest.mark.slow  # that it learns with a memory, the test above shows, and catch8 without one, `test_pqn.py`
def test_it_learns_catch8():
    settings = {"env": "catch8", "learner": "pqn", "cell": "gru", "cell_units": 32, "network": "mlp_norm"}
    config = configuration.resolve({**settings, "num_envs": 64, "num_steps": 16, "minibatches": 16})
    trainer = Trainer(config)
    trainer.run_chunk(trainer.initial_carry(), 80, 10**9)
    assert Evaluator(config, trainer.env, trainer.agent).evaluate(64).scores.mean() > 50
