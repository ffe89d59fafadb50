"""Populations of learners other than DQN: members are what they would be alone, and their runs are whole ones."""

import numpy as np
import pytest
import tensorflow as tf

from tests.test_population import break_weights, check_members_alone, check_what_is_left, lines_of
from tests.test_population_based import check_handed_over, check_tuned
from tests.whole_runs import resume, train_until
from tfdqn import config as configuration
from tfdqn import members
from tfdqn.networks import recurrent, stacked
from tfdqn.networks.cells import CELLS
from tfdqn.programs.selection import Selection
from tfdqn.programs.training import Trainer
from tfdqn.runs import curves
from tfdqn.runs.population_run import PopulationRun
from tfdqn.runtime import compiled
from tfdqn.runtime.signals import StopRequest

SMALL = {"env": "catch8", "device": "cpu", "num_envs": 4, "jit": False, "log_every_frames": 100}
PQN = {**SMALL, "learner": "pqn", "num_steps": 8, "minibatches": 4}
A2C = {**SMALL, "learner": "a2c"}
R2D2 = {
    **SMALL,
    "learner": "r2d2",
    "log_every_frames": 40,
    "batch_size": 4,
    "burn_in": 2,
    "sequence_length": 6,
    "sequence_period": 3,
    "replay_capacity": 240,
    "replay_min_rows": 80,
    "target_update_period_updates": 5,
    "cell_units": 8,
}


@pytest.mark.parametrize("settings", [{**PQN, "cell": "gru", "cell_units": 16}, A2C, R2D2], ids=["pqn", "a2c", "r2d2"])
def test_agents_are_handed_over_whole(settings):
    tuned = {"pbt": True, "vary": "learning_rate=1e-4,1e-3,1e-2,1e-1", "total_env_frames": 4000}
    check_handed_over(configuration.resolve({**settings, **tuned, "eval_every_frames": 1000}), jit=False)


@pytest.mark.parametrize(
    "settings, vary",
    [
        pytest.param(PQN, "seed=0,7;learning_rate=1e-3,1e-2;q_lambda=0.2,0.9", marks=pytest.mark.slow),
        ({**PQN, "cell": "gru", "cell_units": 16}, "seed=0,7;discount=0.5,0.99"),
        pytest.param(
            {**PQN, "cell": "lstm", "cell_units": 16, "env": "minatar_seaquest", "exploration": "boltzmann"},
            "temperature_end=0.1,0.9;max_gradient_norm=0.01,1",
            marks=pytest.mark.slow,
        ),
        ({**A2C, "normalize_advantages": True}, "seed=0,7;gae_lambda=0.2,0.95;entropy_weight=0.01,0.1"),
        pytest.param(
            {**A2C, "network": "conv", "restart_share": 0.5},
            "learning_rate=1e-3,1e-2;value_weight=0.1,1;discount=0.5,0.99",
            marks=pytest.mark.slow,
        ),
        ({**R2D2, "dueling": True}, "seed=0,7;discount=0.5,0.99;priority_eta=0.1,0.9;priority_alpha=0.2,0.9"),
        pytest.param(
            {**R2D2, "prioritized": False, "cell": "gru", "frame_stack": 2},
            "seed=0,1;target_update_period_updates=3,11",
            marks=pytest.mark.slow,
        ),
    ],
    ids=["pqn", "gru", "lstm", "a2c", "practice", "r2d2", "uniform"],
)
def test_a_member_is_what_it_would_be_alone(settings, vary):
    rounds = 40 if settings["learner"] == "r2d2" else 12
    check_members_alone(configuration.resolve({**settings, "vary": vary}), rounds, of_all=False)


def test_what_is_taken_over_sequences_is_each_members():
    configs = [configuration.resolve({**PQN, "seed": seed}) for seed in (0, 1)]
    both, alone = members.Population(configs), members.Members(configs[:1])
    sequences = tf.constant(np.random.default_rng(0).normal(size=[3, 4]), tf.float32)  # T = 3, two rows of each
    parts = tf.split(sequences, 2, axis=1)
    for name in ("sum", "max", "half_square"):
        expected = [getattr(alone, name)(part, axis=1) for part in parts]
        np.testing.assert_allclose(getattr(both, name)(sequences, axis=1), expected, rtol=1e-6)
    row = both.one_row(sequences)
    np.testing.assert_array_equal(row, tf.concat([alone.one_row(part) for part in parts], axis=0))
    np.testing.assert_array_equal(stacked.sequences_of(row, 2, 3), sequences)


def test_each_members_rows_come_in_an_order_of_its_own():
    configs = [configuration.resolve({**PQN, "seed": seed}) for seed in (0, 1)]
    both, alone = members.Population(configs), members.Members(configs[:1])
    draws = tf.constant([5, 1, 4, 2, 8, 9, 6, 7], tf.int64)
    for number in range(2):
        chosen = both.part(both.orders(draws), tf.constant(number), 2)
        own = [alone.part(alone.orders(part), tf.constant(number), 2) for part in tf.split(draws, 2)]
        np.testing.assert_array_equal(chosen, tf.concat([own[0], own[1] + 4], axis=0))


@pytest.mark.parametrize(
    ("cell", "jit"),
    [
        ("lstm", True),
        ("gru", False),
        pytest.param("lstm", False, marks=pytest.mark.slow),
        pytest.param("gru", True, marks=pytest.mark.slow),
    ],
)
def test_recurrent_networks_side_by_side_compute_and_learn_what_each_does(cell, jit):
    spec = configuration.resolve(SMALL).observation_spec.stacked(1)
    networks = [
        recurrent.RecurrentNetwork(spec, 3, cell, 5, seed, "online", norm=True, sees_past=True, name="mlp")
        for seed in range(2)
    ]
    one, rng = stacked.model(networks), np.random.default_rng(0)
    observation = tf.constant(rng.integers(0, 256, [6, 4, *spec.shape]), spec.dtype)
    begins, action = tf.constant(rng.random([6, 4]) < 0.3), tf.constant(rng.integers(0, 3, [6, 4]), tf.int32)
    reward, wanted = (tf.constant(rng.normal(size=size), tf.float32) for size in ([6, 4], [6, 4, 3]))

    def learnt(network):
        def values_and_gradients(observation, begins, action, reward, wanted):
            state = network.initial_state(observation.shape[1])
            state = state._replace(hidden=state.hidden + 0.3)
            with tf.GradientTape() as tape:
                values, after = network.unroll(observation, begins, state, action, reward)
                loss = tf.reduce_sum(tf.square(values - wanted))
            return values, after, tape.gradient(loss, network.trainable_variables)

        return compiled.program(values_and_gradients, jit=jit, eager=False)

    given = (observation, begins, action, reward, wanted)
    values, after, gradients = learnt(one)(*given)
    for number, network in enumerate(networks):
        part = slice(2 * number, 2 * number + 2)
        own_values, own_after, own_gradients = learnt(network)(*(each[:, part] for each in given))
        np.testing.assert_allclose(values[:, part], own_values, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(after, own_after, strict=True):
            np.testing.assert_allclose(ours[part], theirs, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(gradients, own_gradients, strict=True):
            np.testing.assert_allclose(ours[number], theirs, rtol=1e-3, atol=1e-4)
    assert np.abs(values[:, :2] - values[:, 2:]).max() > 1e-2


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("cell", CELLS)
def test_no_product_of_cells_side_by_side_is_repeated_over_steps(cell, count):
    """oneDNN computes [T, 1, B, F] times [1, F, M] wrongly, or ends the process."""
    steps, rows, units = 32, 16, 64
    alone = [CELLS[cell](units, seed) for seed in range(count)]
    both, rng = alone[0].side_by_side(count), np.random.default_rng(0)
    for each in (*alone, both):
        each.build((None, units))
    for ours, theirs in zip(both.weights, zip(*(each.weights for each in alone), strict=True), strict=True):
        ours.assign(np.stack(theirs))
    inputs = tf.constant(rng.normal(size=[steps, count * rows, units]), tf.float32)
    begins = tf.constant(rng.random([steps, count * rows]) < 0.1)

    def learnt(cell, inputs, begins):
        with tf.GradientTape() as tape:
            start = cell.initial_state(inputs.shape[1])
            outputs, _ = cell.unroll(cell(inputs), begins, start)
            loss = tf.reduce_sum(tf.square(outputs))
        return tape.gradient(loss, cell.trainable_variables)

    program = tf.function(learnt, autograph=False).get_concrete_function(both, inputs, begins)
    products = [op for op in program.graph.get_operations() if op.type.startswith("BatchMatMul")]
    for op in products:
        first, second = (each.shape[:-2] for each in op.inputs)
        assert first == second, op.name
    found = learnt(both, inputs, begins)
    for number, each in enumerate(alone):
        part = slice(number * rows, (number + 1) * rows)
        for ours, theirs in zip(found, learnt(each, inputs[:, part], begins[:, part]), strict=True):
            np.testing.assert_allclose(ours[number], theirs, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        pytest.param(
            A2C,
            {"gae_lambda": 0.4, "entropy_weight": 0.3, "value_weight": 0.1, "discount": 0.45, "learning_rate": 1e-2},
            marks=pytest.mark.slow,
        ),
        pytest.param(PQN, {"q_lambda": 0.3, "max_gradient_norm": 0.05, "discount": 0.45}, marks=pytest.mark.slow),
        pytest.param(
            {**R2D2, "replay_min_rows": 16},
            {"priority_eta": 0.4, "priority_alpha": 0.3, "target_update_period_updates": 3, "discount": 0.45},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["a2c", "pqn", "r2d2"],
)
def test_settings_that_have_changed_are_what_constants_are(settings, values):
    check_tuned(settings, values)


# What a run does, and keeps.

RUN = {"total_env_frames": 1200, "eval_every_frames": 800, "eval_episodes": 2, "final_eval_episodes": 2}


def make_run(run_dir, **settings):
    return PopulationRun(configuration.resolve({**RUN, "population": 2, **settings}), run_dir, "/CPU:0", StopRequest())


@pytest.mark.parametrize(
    "settings",
    [
        A2C,
        pytest.param({**PQN, "cell": "gru", "cell_units": 8}, marks=pytest.mark.slow),
        pytest.param(R2D2, marks=pytest.mark.slow),
    ],
    ids=["a2c", "pqn", "r2d2"],
)
def test_a_broken_population_ends_like_the_unbroken_one(settings, tmp_path):
    whole, broken = make_run(tmp_path / "whole", **settings), make_run(tmp_path / "broken", **settings)
    result = whole.train()
    train_until(broken, 700, chunk=5)
    broken.close()
    broken = resume(tmp_path / "broken", kind=PopulationRun)
    assert 700 <= broken.env_frames < 1200
    assert broken.train()["members"] == result["members"]
    for ours, theirs in zip(broken.members, whole.members, strict=True):
        assert lines_of(ours.run_dir / curves.METRICS_FILE) == lines_of(theirs.run_dir / curves.METRICS_FILE)
        for each, other in zip(ours.player_weights(), theirs.player_weights(), strict=True):
            np.testing.assert_array_equal(each, other)
        agent = tf.keras.models.load_model(ours.run_dir / "model.keras")
        assert len(agent.online.weights) == len(ours.player_weights())


@pytest.mark.parametrize(
    "settings",
    [A2C, pytest.param({**PQN, "cell": "lstm"}, marks=pytest.mark.slow), pytest.param(R2D2, marks=pytest.mark.slow)],
    ids=["a2c", "pqn", "r2d2"],
)
def test_a_member_that_diverges_is_named_and_the_others_go_on(settings, tmp_path, capfd):
    run = make_run(tmp_path / "run", **settings)
    train_until(run, 600, chunk=5)
    break_weights(run, [1])
    result = run.train()
    assert "member 1 (seed 1) diverged at update " in capfd.readouterr().err
    assert result["diverged_members"] == [1] and [row["member"] for row in result["members"]] == [0]
    alone = make_run(tmp_path / "alone", **{**settings, "population": 1, "vary": "seed=0"})
    assert alone.train()["members"][0]["score_mean"] == result["members"][0]["score_mean"]
    assert not any(np.abs(each).max() for each in run.trainer.agent.weights_of(1))


@pytest.mark.slow
def test_what_is_left_of_a_member_that_has_diverged_does_not_hang_on_where_chunks_end():
    """Windows of a replay begin with what was carried."""
    settings = {**R2D2, "population": 2, "epsilon_start": 0.0, "epsilon_end": 0.0}
    check_what_is_left(settings, lambda network: network.values.variables, 1e20)


def test_whoever_takes_over_an_agent_within_an_episode_does_not_diverge_again():
    """What it carried was not finite either, and goes on from itself."""
    trainer = Trainer(configuration.resolve({**PQN, "cell": "gru", "cell_units": 8, "num_steps": 3, "population": 2}))
    carry = trainer.initial_carry()
    kernel = trainer.agent.online.trainable_variables[0]
    kernel.assign(tf.where(np.reshape([False, True], [2, 1, 1]), np.inf, kernel))
    carry = trainer.run_chunk(carry, 1, 10**9)
    ended = carry.metrics.non_finite_tensors.numpy() != 0
    assert ended.tolist() == [False, True] and np.isnan(carry.agent_state.hidden).any()
    carry = trainer.cleared(carry, ended)
    Selection([trainer.learner], jit=False, eager=False).take_over([0, 0])
    carry = trainer.run_chunk(carry._replace(metrics=carry.metrics.zeros([2])), 1, 10**9)
    assert not carry.metrics.non_finite_tensors.numpy().any()
    assert np.isfinite(carry.agent_state.hidden).all()
