"""Populations: each member is what it would be alone, and all that a run keeps of it."""

import json
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests import own_games
from tests.whole_runs import SETTINGS, resume, train_until
from tfdqn import config as configuration
from tfdqn import evaluate, list_runs, members, population, record, seeds
from tfdqn.envs import make_for, rollout
from tfdqn.errors import EXIT_NUMERIC, UserError
from tfdqn.learners import build_agent, metrics
from tfdqn.learners.base import NoState
from tfdqn.networks import stacked
from tfdqn.programs.restarts import Past, Practice
from tfdqn.programs.training import Trainer
from tfdqn.runs import checkpoints, curves, donor, run_config, statistics
from tfdqn.runs.population_run import PopulationRun
from tfdqn.runtime import compiled
from tfdqn.runtime.signals import StopRequest

SMALL = {
    "env": "catch8",
    "device": "cpu",
    "num_envs": 4,
    "batch_size": 8,
    "frame_stack": 2,
    "replay_capacity": 600,
    "replay_min_rows": 60,
    "target_update_period_updates": 7,
    "epsilon_decay_env_frames": 400,
    "log_every_frames": 100,
}


def make_run(run_dir, kind=PopulationRun, **changes):
    settings = {**SETTINGS, "population": 3, "jit": False, **changes}
    return kind(configuration.resolve(settings), run_dir, "/CPU:0", StopRequest())


# What differs.


def test_a_grid_is_every_combination_with_the_seeds_slowest():
    config = configuration.resolve(
        {**SMALL, "population": 2, "seed": 5, "vary": "learning_rate=1e-3, 1e-4;discount=0.9"}
    )
    each = population.members(config)
    assert [(m.seed, m.learning_rate, m.discount) for m in each] == [
        (5, 1e-3, 0.9),
        (5, 1e-4, 0.9),
        (6, 1e-3, 0.9),
        (6, 1e-4, 0.9),
    ]
    assert population.differences(each) == ("seed", "learning_rate")
    assert all(
        m == config.replace(population=1, vary="", seed=m.seed, learning_rate=m.learning_rate, discount=0.9)
        for m in each
    )
    assert config.replay_bytes(config.observation_spec) == 4 * each[0].replay_bytes(config.observation_spec)


def test_from_python_a_grid_is_said_by_name():
    said = tfdqn.grid(seed=range(3), learning_rate=[1e-4, 0.5])
    assert said == "seed=0,1,2;learning_rate=0.0001,0.5"
    assert population.count(configuration.resolve({**SMALL, "vary": said})) == 6
    with pytest.raises(UserError, match="seed has no values"):
        tfdqn.grid(seed=[])


@pytest.mark.parametrize(
    "given, said",
    [
        ({"vary": "lerning_rate=1"}, "--vary lerning_rate: did you mean 'learning_rate'?"),
        ({"vary": "num_envs=1,2"}, "--vary num_envs: --num-envs has to be the same for all; choose one of seed,"),
        ({"vary": "learning_rate"}, "--vary learning_rate: must be NAME=VALUE,VALUE"),
        ({"vary": "learning_rate=1,x"}, "--vary learning_rate=x: must be a number"),
        ({"vary": "seed=3:3"}, "--vary seed=3:3: must be a whole number, or FIRST:END"),
        ({"vary": "discount=0.9,1.5"}, "--vary discount=1.5: must be at most 1; use 1"),
        (
            {"vary": "restart_share=0,0.01"},
            "--restart-share 0.01: not one of 64 environments; use 0, or more --num-envs",
        ),
        ({"vary": "start_curriculum=0,0.5"}, "--start-curriculum 0.5: catch8 is equally difficult from start to end"),
        ({"vary": "seed=1,1"}, "--vary seed=1: is there twice"),
        ({"vary": "target_tau=0.1,0.2"}, "--vary target_tau: changes nothing without --target soft; add that"),
        ({"vary": "priority_beta=0,1"}, "--vary priority_beta: changes nothing without --prioritized"),
        ({"vary": "learning_rate_end=1e-6"}, "changes nothing without --learning-rate-decay-updates"),
        ({"vary": "temperature_end=1,2"}, "changes nothing without --exploration boltzmann"),
        (
            {"vary": "target_update_period_updates=5,6", "target": "soft"},
            "changes nothing without --target hard",
        ),
        ({"vary": "seed=1;seed=2"}, "--vary seed: is there twice"),
        ({"vary": "seed=0:3", "population": 2}, "--population 2: --vary names the seeds already"),
        ({"vary": "seed=0:2000"}, "makes 257 agents; at most 256"),
        ({"vary": "q_lambda=0.1,0.2"}, "--vary q_lambda: choose one of seed,"),
        ({"vary": "target_tau=0.1", "learner": "r2d2"}, "--vary target_tau: choose one of seed,"),
        ({"vary": "gae_lambda=0,2", "learner": "a2c"}, "--vary gae_lambda=2.0: must be at most 1; use 1"),
        ({"vary": "temperature_end=1", "learner": "pqn"}, "changes nothing without --exploration boltzmann"),
        ({"vary": "priority_beta=0,1", "learner": "r2d2", "prioritized": False}, "without --prioritized"),
        ({"vary": "priority_eta=0,1", "learner": "r2d2", "prioritized": False}, "without --prioritized"),
        (
            {"vary": "seed=1,2", "convolution": "native"},
            "--convolution native: agents side by side compute theirs as patches; leave it out",
        ),
        ({"vary": "epsilon_end=0.5", "epsilon_start": 0.2}, "--epsilon-end 0.5: above --epsilon-start"),
    ],
)
def test_what_cannot_differ_is_refused_in_one_line(given, said):
    with pytest.raises(UserError) as error:
        configuration.resolve({"env": "catch8", **given})
    assert said in str(error.value) and "\n" not in str(error.value)


# What members are made of.


def test_draws_of_a_population_are_those_of_its_seeds():
    streams = [seeds.stream(seed, "env") for seed in (3, 4)]
    both = seeds.draw(seeds.part(seeds.skip(seeds.at(streams, 9), 2), 5), 4)
    alone = [seeds.draw(seeds.part(seeds.skip(seeds.at(stream, 9), 2), 5), 4) for stream in streams]
    np.testing.assert_array_equal(both, np.concatenate(alone))
    np.testing.assert_array_equal(seeds.draw_rows(seeds.at(streams, 9), 8), seeds.draw(seeds.at(streams, 9), 4))


@pytest.mark.parametrize(
    "env, settings, jit",
    [
        ("catch8", {"network": "mlp_norm", "dueling": True, "precision": "bfloat16"}, False),
        ("catch8", {"network": "mlp_norm", "dueling": True, "precision": "bfloat16"}, True),
        ("catch8", {"network": "conv", "head": "quantile", "noisy": True, "spectral_norm": True}, True),
        ("cave", {"network": "columns", "members": 2, "spectral_norm": True}, False),
        pytest.param("catch8", {"network": "resnet"}, True, marks=pytest.mark.slow),
        pytest.param("cave", {"network": "columns_deep", "members": 2}, True, marks=pytest.mark.slow),
        pytest.param("cave", {"network": "conv_stride4"}, True, marks=pytest.mark.slow),
    ],
)
def test_stacked_networks_compute_what_each_does(env, settings, jit):
    config = configuration.resolve({"env": env, **settings})
    game = make_for(config)
    networks = [build_agent(config.replace(seed=seed), game).online for seed in range(2)]
    spec = game.observation_spec.stacked(config.frame_stack)
    seen = np.random.default_rng(0).integers(0, 256, [6, *spec.shape]).astype(spec.dtype)
    one = stacked.model(networks)
    found = tf.function(one, jit_compile=jit, autograph=False)(tf.constant(seen))
    expected = np.concatenate([network(part) for network, part in zip(networks, np.split(seen, 2), strict=True)])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected[:3] - expected[3:]).max() > 1e-2  # members differ
    for number, network in enumerate(networks):
        for ours, theirs in zip(stacked.weights_of(one, number), network.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_what_is_taken_over_rows_is_each_members():
    configs = [configuration.resolve({**SMALL, "seed": seed}) for seed in (0, 1)]
    both, alone = members.Population(configs), members.Members(configs[:1])
    rows = tf.constant([1.0, 2.0, 5.0, -8.0])
    for name in ("mean", "sum", "max", "half_square"):
        expected = [getattr(alone, name)(part) for part in tf.split(rows, 2)]
        np.testing.assert_allclose(getattr(both, name)(rows), expected)
    tensors = [tf.reshape(tf.range(12.0) - 4.0, [2, 2, 3]), tf.constant([[2.0], [-30.0]])]
    variables = [tf.Variable(tensor) for tensor in tensors]
    norms = both.norm(tensors, variables)
    clipped = both.clipped(tensors, variables, norms, np.array([5.0, np.inf]))
    for i, limit in enumerate((5.0, np.inf)):
        each = [tensor[i] for tensor in tensors]
        np.testing.assert_allclose(norms[i], alone.norm(each, variables), rtol=1e-6)
        expected = each if limit == np.inf else alone.clipped(each, variables, alone.norm(each, variables), limit)
        for ours, theirs in zip(clipped, expected, strict=True):
            np.testing.assert_allclose(ours[i], theirs, rtol=1e-6)


def played(config, rounds):
    """The trainer and its carry after so many rounds."""
    trainer = Trainer(config)
    carry, reports = trainer.run_reporting_chunk(trainer.initial_carry(), rounds, 10**9, 100)
    return trainer, carry, reports


@pytest.mark.parametrize(
    "settings, vary",
    [
        ({"optimizer": "adam", "max_gradient_norm": 0.05}, "seed=0,7;learning_rate=1e-3,1e-2"),
        pytest.param(
            {"env": "tests.own_games:Line", "frame_stack": 1},
            "seed=0,1;epsilon_decay_env_frames=50,400",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {
                "network": "tests.test_bodies:subclassed",
                "frame_stack": 1,
                "max_gradient_norm": 0.05,
                "optimizer": "adam",
            },
            "seed=0,7;learning_rate=1e-3,1e-2",
            marks=pytest.mark.slow,
        ),
        (
            {"prioritized": True, "restart_share": 0.5, "n_step": 2, "double": False},
            "seed=0,7;discount=0.5,0.99;priority_alpha=0.2,0.9;priority_beta=0.1,0.7",
        ),
        ({"noisy": True, "head": "quantile", "dueling": True, "epsilon_start": 0.0, "epsilon_end": 0.0}, "seed=0,7"),
        pytest.param(
            {"noisy": True, "head": "iqn", "precision": "bfloat16", "members": 2, "spectral_norm": True},
            "seed=0,7;discount=0.5,0.99",
            marks=pytest.mark.slow,
        ),
        pytest.param({}, "restart_share=0,0.25,0.75", marks=pytest.mark.slow),
        pytest.param(
            {"env": "cave", "network": "mlp"}, "start_curriculum=0,0.6;restart_share=0,0.5", marks=pytest.mark.slow
        ),
        pytest.param(
            {"n_step": 3, "return_lambda": 0.7, "target": "soft"},
            "seed=0,7;discount=0.5,0.99",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"exploration": "boltzmann", "target": "soft", "head": "iqn", "epsilon_ladder": 2.0, "frame_stack": 3},
            "target_tau=0.01,0.5;temperature_end=0.1,0.9;epsilon_end=0.01,0.2",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"learning_rate_decay_updates": 30, "restart_share": 0.5, "munchausen_alpha": 0.9},
            "learning_rate_end=1e-5,1e-4;target_update_period_updates=3,11;max_gradient_norm=0.1,1000",
            marks=pytest.mark.slow,
        ),
    ],
    ids=[
        "rates",
        "own game",
        "own network",
        "replay",
        "noise",
        "all noise",
        "practice",
        "starts",
        "mixed returns",
        "exploration",
        "targets",
    ],
)
def test_a_member_is_what_it_would_be_alone(settings, vary):
    check_members_alone(configuration.resolve({**SMALL, "jit": False, **settings, "vary": vary}), 60)


def check_members_alone(config, rounds, of_all=True):
    """Games to the bit, weights to rounding, what is reported of a member, and no member is another.

    Of the second and the last, or of the last alone.
    """
    trainer, carry, reports = played(config, rounds)
    each = population.members(config)
    rows = list(reports.rows())
    assert len(rows) > 1
    weights = [trainer.agent.weights_of(number) for number in range(len(each))]
    for number, alone in ((1, each[1]), (len(each) - 1, each[-1]))[0 if of_all else 1 :]:
        solo, own, own_reports = played(alone, rounds)
        for ours, theirs in zip(weights[number], solo.agent.online.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
        part = slice(number * config.num_envs, (number + 1) * config.num_envs)
        for ours, theirs in zip(tf.nest.flatten(carry.env_state), tf.nest.flatten(own.env_state), strict=True):
            np.testing.assert_array_equal(ours[part], theirs)
        assert int(carry.env_frames[number]) == int(own.env_frames)
        totals = {name: [0.0, 0.0] for name in {"episodes", "score", "loss", "td_error"} & {*carry.metrics._fields}}
        for side, sums in (
            (0, [r[2] for r in rows] + [carry.metrics]),
            (1, [r[2] for r in own_reports.rows()] + [own.metrics]),
        ):
            for name, total in totals.items():
                total[side] = sum(float(np.ravel(getattr(one, name))[number if side == 0 else 0]) for one in sums)
        for ours, theirs in totals.values():
            assert ours == pytest.approx(theirs, rel=1e-3)
    assert any(not np.allclose(a, b, atol=1e-6) for a, b in zip(weights[0], weights[-1], strict=True))


def test_members_differ_in_where_their_games_begin():
    """Each one's difficulties are those of its share, which the game is asked for as if it were alone."""
    game, seeds_of_all = make_for(configuration.resolve({"env": "cave"})), tf.constant([[5, 9], [7, 9]], tf.int64)
    shares = np.array([0.0, 0.9])
    state, difficulty = rollout.training_start(game, rollout.sample_noise(game, seeds_of_all, 8), shares)
    for number, (seed, share) in enumerate(zip(seeds_of_all, shares, strict=True)):
        part = slice(4 * number, 4 * number + 4)
        own, difficulties = game.training_start(game.sample_noise(seed, 4), float(share))
        np.testing.assert_array_equal(difficulty[part], difficulties)
        for ours, theirs in zip(tf.nest.flatten(state), tf.nest.flatten(own), strict=True):
            np.testing.assert_array_equal(ours[part], theirs)
    assert not difficulty[:4].numpy().any() and difficulty[4:].numpy().any()


@pytest.mark.parametrize("jit", [False, True])
def test_members_of_which_more_or_fewer_practise_do_as_each_alone(jit):
    """Practice of three members with 0, 1 and 3 practisers of 4: all that is remembered, drawn and put back."""
    num_envs, counts, depth = 4, (0, 1, 3), 3
    rng, streams = np.random.default_rng(0), tf.constant([[3, 1], [4, 1], [5, 1]], tf.int64)

    def past(values):
        return Past(NoState(), values[:, tf.newaxis] + tf.range(float(depth)), Held(values))

    def follow(practice, seed, starts, moves):
        """What some decisions leave, all of it [N, ...]."""
        memory, seen = practice.begin(past(starts)), []
        for decision, (values, crashed, begins) in enumerate(moves):
            _, back = practice.go_back(memory, NoState(), NoState(), begins, seed + decision)
            history = tf.transpose(past(values).history)
            told = practice.lead_in(memory, history, history + 0.5, back, begins)
            carried = practice.state_of(back, Held(tf.zeros_like(values)))
            seen += [practice.is_leading_in(memory), tf.transpose(told), carried.value]
            of_now = past(values)._replace(history=tf.transpose(told))
            memory = practice.remember(memory, of_now, crashed, begins, tf.constant(15 + decision, tf.int64))
        return [practice.is_player, *seen]

    moves = [
        (tf.constant(rng.normal(size=12), tf.float32), *(tf.constant(rng.random(12) < 0.4) for _ in range(2)))
        for _ in range(4 if jit else 10)
    ]
    starts = tf.range(12.0)
    whole = compiled.program(lambda *given: follow(Practice(num_envs, counts), *given), jit=jit, eager=not jit)
    found = whole(streams, starts, moves)
    for number, count in enumerate(counts):
        part = slice(number * num_envs, (number + 1) * num_envs)
        own = follow(
            Practice(num_envs, count), streams[number], starts[part], [[each[part] for each in m] for m in moves]
        )
        for ours, theirs in zip(found, own, strict=True):
            np.testing.assert_array_equal(ours[part], theirs)
    assert any(np.any(each[4:] != 0) for each in found[3::3])  # some have gone back


class Held(NamedTuple):
    """What a player carries, in tests."""

    value: tf.Tensor  # [N] float32


@pytest.mark.slow
def test_the_compiled_population_computes_what_the_plain_graph_does():
    config = configuration.resolve({**SMALL, "vary": "seed=0,3;learning_rate=1e-3,1e-2"})
    compiled, carry, _ = played(config, 40)
    plain, other, _ = played(config.replace(jit=False), 40)
    for ours, theirs in zip(tf.nest.flatten(carry.env_state), tf.nest.flatten(other.env_state), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for ours, theirs in zip(compiled.agent.online.variables, plain.agent.online.variables, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


# What a run keeps.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("population") / "run"
    run = make_run(run_dir)
    result = run.train()
    run.close()
    return run_dir, result, run


def lines_of(path):
    """A file's reports, without what hangs on time."""
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k != "wall_seconds" and not k.startswith("speed/")} for line in found]


def test_each_member_has_reports_and_a_model_of_its_own(whole):
    run_dir, result, run = whole
    lines = lines_of(run_dir / curves.METRICS_FILE)
    assert {line["member"] for line in lines} == {0, 1, 2}
    for member in run.members:
        own = lines_of(member.run_dir / curves.METRICS_FILE)
        assert own == [
            {k: v for k, v in line.items() if k != "member"} for line in lines if line["member"] == member.number
        ]
        assert max(line.get(curves.SCORE, -9) for line in own) == member.progress.best_score
        assert configuration.read_toml(member.run_dir / "config.toml")["seed"] == SETTINGS["seed"] + member.number
        agent = tfdqn.load(member.run_dir)
        for ours, theirs in zip(agent.model.online.get_weights(), member.best_weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    scores = [row["score_mean"] for row in result["members"]]
    assert len(scores) == 3 and result["population"] == 3 and result["diverged_members"] == []
    assert result["best_member"] == max(run.members, key=lambda each: each.progress.best_score).number


def test_tensorboard_has_the_mean_and_its_band(whole):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(folder):
        found = EventAccumulator(str(folder)).Reload()
        events = found.Tensors(curves.SCORE)
        return [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events]

    run_dir, _, run = whole
    each = [scalars(member.run_dir / "eval") for member in run.members]
    mean, low, high = (scalars(run_dir / name) for name in ("eval", "band/low/eval", "band/high/eval"))
    assert len(mean) == len(low) == len(high) == len(each[0]) > 1
    for i in range(len(mean)):
        values = np.array([one[i][1] for one in each])
        half = curves.student(3) * values.std(ddof=1) / np.sqrt(3)
        assert mean[i][1] == pytest.approx(values.mean(), rel=1e-5)
        assert [low[i][1], high[i][1]] == pytest.approx(
            [values.mean() - half, values.mean() + half], rel=1e-4, abs=1e-5
        )


def test_a_broken_population_ends_like_the_unbroken_one(whole, tmp_path):
    run_dir = tmp_path / "run"
    run = make_run(run_dir)
    train_until(run, 2500, chunk=29)
    run._lock.close()
    run.monitor.report({0: 1}, 1, 1.0, {0: {"train/loss": 1.0}}, {})  # lost: after the checkpoint
    run.monitor.close()
    run = resume(run_dir, kind=PopulationRun, minutes=99.0)
    assert 2500 <= run.env_frames < 2900
    assert run.train()["members"] == whole[1]["members"]
    for member in whole[2].members:
        other = run.members[member.number]
        assert run_config.read_config(other.run_dir) == other.config == member.config.replace(minutes=99.0)
        assert lines_of(other.run_dir / curves.METRICS_FILE) == lines_of(member.run_dir / curves.METRICS_FILE)
        for ours, theirs in zip(other.player_weights(), member.player_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for ours, theirs in zip(other.best_weights, member.best_weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert lines_of(run_dir / curves.METRICS_FILE) == lines_of(whole[0] / curves.METRICS_FILE)


def test_a_checkpoint_has_what_the_replay_keeps_of_each_member_while_that_has_few_rows(tmp_path):
    run = make_run(tmp_path / "run", population=6, prioritized=True, frame_stack=1)
    run.progress.rounds = 2  # rows of each environment, fewer than members
    run.train_chunk()
    largest = np.arange(2.0, 8.0, dtype=np.float32)
    run.trainer.learner.variables["replay/max_priority"].assign(largest)
    run.saver.save_now()
    run.close()
    run = resume(tmp_path / "run", kind=PopulationRun)
    np.testing.assert_array_equal(run.trainer.learner.variables["replay/max_priority"], largest)
    run.close()


def break_weights(run, numbers):
    """Let some members have a weight that is not finite."""
    kernel = run.trainer.agent.online.trainable_variables[0]
    is_broken = np.isin(np.arange(kernel.shape[0]), numbers).reshape(-1, 1, 1)
    kernel.assign(tf.where(is_broken, np.inf, kernel))


def test_what_is_left_of_a_member_that_has_diverged_does_not_hang_on_where_chunks_end():
    """Frames are counted of all, and population based training goes on with its games and its replay."""
    settings = {"population": 2, "prioritized": True, "epsilon_start": 0.0, "epsilon_end": 0.0, "jit": False}
    check_what_is_left({**SMALL, **settings}, lambda network: network.variables, 1e10)


def check_what_is_left(settings, variables_of, factor):
    """Of two members, the second of which has targets that are too large, though its weights are finite."""
    found = []
    for chunk in (60, 4):
        trainer = Trainer(configuration.resolve(settings))
        for variable in variables_of(trainer.agent.online):
            variable.assign(variable * np.reshape([1, factor], [2] + [1] * (variable.shape.rank - 1)))
        carry = trainer.initial_carry()
        while carry.iteration < 60:
            carry = trainer.run_chunk(carry, chunk, 10**9)
            ended = carry.metrics.non_finite_tensors.numpy() != 0
            assert not ended[0] and (ended[1] or carry.iteration < 60)
            if ended.any():
                carry = trainer.cleared(carry, ended)
        kept = {name: value for name, value in trainer.learner.variables.items() if name.startswith("replay/")}
        found.append([np.asarray(each) for each in tf.nest.flatten((carry.env_state, carry.env_frames, kept))])
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_member_that_diverges_is_named_and_the_others_go_on(tmp_path, capfd):
    settings = {"population": 1, "vary": "learning_rate=1e-3,1e-2", "total_env_frames": 3000}
    run = make_run(tmp_path / "run", **settings)
    train_until(run, 1000)
    break_weights(run, [1])
    result = run.train()
    said = capfd.readouterr().err
    assert "member 1 (learning_rate 0.01) diverged at update " in said and "the others go on" in said
    assert result["diverged_members"] == [1] and [row["member"] for row in result["members"]] == [0]
    assert run.members[1].progress.diverged_update > 0
    assert [line["member"] for line in lines_of(run.run_dir / curves.METRICS_FILE)][-1] == 0
    alone = make_run(tmp_path / "alone", **{**settings, "vary": "learning_rate=1e-3"})
    assert alone.train()["members"][0]["score_mean"] == result["members"][0]["score_mean"]
    run.close()
    run = resume(tmp_path / "run", kind=PopulationRun, total_env_frames=3500)  # it stays what it is
    assert run.train()["diverged_members"] == [1]
    assert "diverged" not in capfd.readouterr().err


@pytest.mark.slow
def test_a_population_that_diverges_altogether_ends_by_name(tmp_path):
    run = make_run(tmp_path / "run", population=2)
    train_until(run, 1000)
    break_weights(run, [0, 1])
    with pytest.raises(UserError, match="all 2 agents diverged") as error:
        run.train()
    assert error.value.exit_code == EXIT_NUMERIC


def test_evaluate_takes_one_member_the_best_or_all(whole, capfd):
    run_dir, result, run = whole
    words = [str(run_dir), "--episodes", "4", "--json", "--device", "cpu"]
    evaluate.main([*words, "--member", "all"])
    out, err = capfd.readouterr()
    rows = json.loads(out)["members"]
    assert [(row["member"], row["score_mean"]) for row in rows] == [
        (row["member"], row["score_mean"]) for row in result["members"]
    ]
    assert "IQM" in err and "95% of it" in err
    evaluate.main([*words, "--member", "best"])
    assert json.loads(capfd.readouterr().out)["member"] == result["best_member"]
    for which, said in {"7": "must be best, all, or a number from 0 to 2", None: "say which: --member best"}.items():
        with pytest.raises(UserError, match=said):
            evaluate.main(words if which is None else [*words, "--member", which])
    with pytest.raises(UserError, match="holds no population"):
        evaluate.main([str(run.members[0].run_dir), "--member", "best"])


@pytest.mark.slow
def test_a_population_from_python_leaves_its_best_member(tmp_path):
    agent = tfdqn.Agent(**{**SETTINGS, "jit": False, "total_env_frames": 2000})
    agent.fit(population=tfdqn.grid(seed=[1, 2]), logdir=tmp_path, verbose=0)
    held = checkpoints.peek(agent.run_dir)["members"]
    best = max(range(2), key=lambda number: held[number]["best_score"])
    expected = tfdqn.load(agent.run_dir / f"members/{best:02d}")
    for ours, theirs in zip(agent.model.online.get_weights(), expected.model.online.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (agent.config.seed, agent.config.vary) == (best + 1, "")
    assert agent.config.replace(convolution="patches") == expected.config


# How scores are summed up.


def test_the_interquartile_mean_is_that_of_the_middle_half():
    assert statistics.iqm([9.0, 1.0, 2.0, 100.0]) == 5.5
    assert statistics.iqm(range(10)) == np.mean(range(2, 8))  # 2.5 of 10 are 2
    assert statistics.iqm([3.0]) == 3.0
    scores = [1.0, 2.0, 4.0, 8.0]
    # Every resampling of four, as likely as any other: 256 of them.
    each = np.sort([statistics.iqm(np.array(scores)[list(np.unravel_index(i, [4] * 4))]) for i in range(256)])
    low, high = statistics.interval(scores)
    assert [low, high] == pytest.approx(np.percentile(each, [2.5, 97.5]), abs=0.51)
    assert statistics.interval([7.0]) == (7.0, 7.0)


def test_reports_of_a_population_have_a_place_for_each():
    sums = metrics.sums_of(())
    reports = metrics.Reports.none(tf.constant(10, tf.int64), sums, (2,))
    frames = tf.constant([12, 11], tf.int64)
    reports, after = reports.close_if_due(
        frames, tf.constant(3, tf.int64), sums.zeros((2,)), 10, tf.constant(11, tf.int64)
    )
    ((told, updates, _),) = reports.rows()
    assert (list(told), updates, int(reports.next_env_frames)) == ([12, 11], 3, 20)
    assert after.episodes.shape == (2,)


def test_layers_that_are_not_known_go_in_as_copies():
    """Dense layers on sequences, normalisation over two axes, a convolution of Keras's: each as if alone."""
    keras = tf.keras

    def network():
        inputs = keras.Input([6, 4])
        features = keras.layers.LayerNormalization(axis=[1, 2])(keras.layers.Dense(5)(inputs))
        features = keras.layers.Conv1D(3, 2, activation="relu")(features)
        return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(features)))

    networks = [network() for _ in range(2)]
    seen = np.random.default_rng(0).normal(size=[6, 6, 4]).astype(np.float32)
    expected = np.concatenate([each(part) for each, part in zip(networks, np.split(seen, 2), strict=True)])
    kept = [[weight.copy() for weight in each.get_weights()] for each in networks]
    one = stacked.model(networks)
    assert [stacked.owner_of(weight) for weight in one.trainable_weights[-2:]] == [None, None]
    np.testing.assert_allclose(one(seen), expected, rtol=1e-5, atol=1e-6)
    for number, weights in enumerate(kept):
        for ours, theirs in zip(stacked.weights_of(one, number), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    stacked.set_weights(one, kept[1], 2)
    np.testing.assert_allclose(one(seen)[3:], expected[3:], rtol=1e-5, atol=1e-6)


def _a_chain(first):
    return [
        first,
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(8, activation="relu"),
        tf.keras.layers.LayerNormalization(),
    ]


SEQUENTIAL = {
    "of documentation": lambda: tf.keras.Sequential(_a_chain(tf.keras.layers.Rescaling(1 / 255.0))),
    "that names its input": lambda: tf.keras.Sequential(
        [tf.keras.layers.InputLayer([6, 4], dtype=tf.uint8), *_a_chain(tf.keras.layers.Rescaling(1 / 255.0))]
    ),
    "of bytes": lambda: tf.keras.Sequential(_a_chain(tf.keras.layers.Reshape([24]))),
    "in another, one without weights": lambda: tf.keras.Sequential(
        [
            tf.keras.Sequential([tf.keras.layers.Rescaling(1 / 255.0)]),
            tf.keras.Sequential(_a_chain(tf.keras.layers.Reshape([24]))),
            tf.keras.layers.Dense(4),
        ]
    ),
}


class Doubled(tf.keras.Sequential):
    def call(self, inputs, training=None, mask=None):
        return 2.0 * super().call(inputs)


SEQUENTIAL["with a call of its own"] = lambda: Doubled(_a_chain(tf.keras.layers.Reshape([24])))


DRAWS = {
    "by seeds": seeds.draw,
    "TensorFlow's": lambda seed, num_envs: tf.random.stateless_uniform([num_envs], seed, None, None, tf.int64),
    "words taken apart": lambda seed, num_envs: seeds.draw(tf.stack([seed[0], seed[1] + 7]), num_envs),
}


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("drawn", DRAWS)
def test_a_game_need_not_draw_for_all_members_at_once(drawn, jit):
    class Game(own_games.Line):
        def sample_noise(self, seed, num_envs):
            return own_games.Noise(tf.cast(DRAWS[drawn](seed, num_envs) % self.cells**2, tf.int32))

    game, each = Game(), tf.constant([[3, 4], [5, 6]], tf.int64)
    found = compiled.program(lambda seed: rollout.sample_noise(game, seed, 10), jit=jit, eager=False)(each)
    alone = [game.sample_noise(seed, 5).start for seed in tf.unstack(each)]
    np.testing.assert_array_equal(found.start, np.concatenate(alone))
    assert game.draws_for_members == (drawn == "by seeds")


@pytest.mark.parametrize("kind", SEQUENTIAL)
def test_sequential_models_go_in_layer_by_layer(kind):
    body = SEQUENTIAL[kind]

    def network():
        inputs = tf.keras.Input([6, 4], dtype=tf.uint8)
        return tf.keras.Model(inputs, tf.keras.layers.Dense(2)(body()(inputs)))

    networks = [network() for _ in range(2)]
    for each in networks:  # Keras begins all biases alike
        each.set_weights([weight + np.random.default_rng(0).normal(size=weight.shape) for weight in each.get_weights()])
    seen = np.random.default_rng(0).integers(0, 256, [6, 6, 4], np.uint8)
    expected = np.concatenate([each(part) for each, part in zip(networks, np.split(seen, 2), strict=True)])
    one = stacked.model(networks)
    assert any(stacked.owner_of(weight) is not None for weight in one.weights) == (kind == "with a call of its own")
    np.testing.assert_allclose(one(seen), expected, rtol=1e-4, atol=1e-4)
    for number, network in enumerate(networks):
        for ours, theirs in zip(stacked.weights_of(one, number), network.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def _in_two_models(inputs):
    """One layer, in two models and beside them."""
    shared = tf.keras.layers.Dense(4)
    models = []
    for units in (3, 3):
        within = tf.keras.Input(inputs.shape[1:])
        models.append(tf.keras.Model(within, tf.keras.layers.Dense(units)(shared(within))))
    return tf.keras.layers.Concatenate()([shared(inputs), *(model(inputs) for model in models)])


def _masked(inputs):
    """The steps that count differ from row to row."""
    words = tf.keras.layers.Lambda(lambda numbers: tf.cast(numbers > 0, tf.int32))(inputs)
    words = tf.keras.layers.Embedding(2, 4, mask_zero=True)(words)
    return tf.keras.layers.SimpleRNN(5)(words)


def _attentive(inputs):
    """Two tensors for one layer, by name, too."""
    steps = tf.keras.layers.Reshape([4, 6])(inputs)
    return tf.keras.layers.Flatten()(tf.keras.layers.MultiHeadAttention(2, 3)(steps, value=steps))


@pytest.mark.parametrize("features", [_in_two_models, _masked, _attentive])
def test_layers_in_several_places_and_of_several_inputs_go_in(features):
    def network():
        inputs = tf.keras.Input([24])
        return tf.keras.Model(inputs, tf.keras.layers.Dense(2)(features(inputs)))

    networks = [network() for _ in range(2)]
    seen = np.random.default_rng(0).normal(size=[6, 24]).astype(np.float32)
    expected = np.concatenate([each(part) for each, part in zip(networks, np.split(seen, 2), strict=True)])
    kept = [each.get_weights() for each in networks]
    one = stacked.model(networks)
    np.testing.assert_allclose(one(seen), expected, rtol=1e-4, atol=1e-5)
    for number, weights in enumerate(kept):
        for ours, theirs in zip(stacked.weights_of(one, number), weights, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_constraints_of_weights_count_in_a_population_too():
    def network():
        inputs = tf.keras.Input([3])
        return tf.keras.Model(inputs, tf.keras.layers.Dense(2, kernel_constraint="non_neg")(inputs))

    one = stacked.model([network() for _ in range(2)])
    optimizer = tf.keras.optimizers.Adam(1.0)
    optimizer.apply_gradients([(tf.ones(weight.shape), weight) for weight in one.trainable_weights])
    for number in range(2):
        kernel, bias = stacked.weights_of(one, number)
        assert kernel.min() >= 0.0 > bias.max()


def test_a_weight_that_is_not_finite_is_its_own_members_also_in_a_copy():
    """Three members, by whose number the sizes of such layers need not be divisible."""
    settings = {**SMALL, "jit": False, "population": 3, "network": "tests.test_bodies:subclassed", "frame_stack": 1}
    trainer = Trainer(configuration.resolve(settings))
    weights = trainer.agent.online.trainable_variables
    broken = next(each for each in weights if stacked.owner_of(each) == 1 and each.shape[0] % 3)
    broken.assign(tf.tensor_scatter_nd_update(broken, [[0]], tf.fill([1, *broken.shape[1:]], np.inf)))
    carry = trainer.run_chunk(trainer.initial_carry(), 1, 10**9)
    assert (carry.metrics.non_finite_tensors.numpy() != 0).tolist() == [False, True, False]


def test_other_commands_take_a_population_as_its_members(whole):
    run_dir, result, run = whole
    expected = [member.run_dir.resolve() for member in run.members]
    assert list(curves.find([str(run_dir)])) == list(curves.find([str(run_dir.parent)])) == expected
    (curve,) = curves.curves([curves.read(path) for path in expected], curves.SCORE, "frames")
    assert len(curve.runs) == 3 and curve.band is not None
    with pytest.raises(UserError, match=r"holds a population; name one of its members, such as .*members/00"):
        record.main([str(run_dir), "--out", "episode.gif"])
    best = run.members[result["best_member"]]
    for ours, theirs in zip(tfdqn.load(run_dir).model.online.get_weights(), best.best_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    listed = list_runs.listed(run_dir)
    assert (listed.best_score, listed.state) == (best.progress.best_score, "finished")


def test_to_begin_from_a_population_a_member_has_to_be_named(whole, tmp_path):
    run_dir, result, run = whole
    best = run.members[result["best_member"]].run_dir

    def refused(folder, said):
        with pytest.raises(
            UserError, match=f"--init-from {folder}: holds a population; name one of .*, such as {said}"
        ):
            donor.check_donor(configuration.resolve({**SETTINGS, "init_from": str(folder)}))

    refused(run_dir, f"{best}, its best one$")
    donor.check_donor(configuration.resolve({**SETTINGS, "init_from": str(best)}))
    run_config.write_config(run.config, tmp_path)  # as one that was never evaluated
    (tmp_path / "members" / "01").mkdir(parents=True)
    refused(tmp_path, f"{tmp_path}/members/01$")


@pytest.mark.parametrize("number", range(3))
def test_the_best_member_that_is_saved_is_one_agent_with_its_own_settings(whole, number, tmp_path, monkeypatch):
    run_dir, _, run = whole
    held = checkpoints.peek(run_dir)
    scored = [{**each, "best_score": float(place == number)} for place, each in enumerate(held["members"])]
    monkeypatch.setattr(checkpoints, "peek", lambda _: {**held, "members": scored})
    agent, best = tfdqn.load(run_dir), run.members[number]
    agent.save(tmp_path / "mine")
    loaded = tfdqn.load(tmp_path / "mine")
    assert agent.config == loaded.config == best.config
    assert (loaded.config.vary, loaded.config.population, loaded.run_dir) == ("", 1, None)
    for ours, theirs in zip(loaded.model.online.get_weights(), best.best_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_lone_agents_run_is_no_population_when_it_goes_on():
    with pytest.raises(UserError, match="vary is none in this run, not seed=0:2; leave --vary as it was"):
        run_config.refuse_changes("runs/x", configuration.plain(configuration.Config()), {"vary": "seed=0:2"})
