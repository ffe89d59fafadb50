"""Replicas: together they are the run that one device would make, and what a run of them keeps.

`tests/test_replicas.py` runs this; to run a part, name it: `pytest tests/on_two_devices.py -k NAME`.
"""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests.test_devices import Machine
from tests.whole_runs import SETTINGS, resume, train_until
from tfdqn import config as configuration
from tfdqn import population, replicas, seeds, train
from tfdqn.envs import make_for
from tfdqn.errors import EXIT_NUMERIC, UserError
from tfdqn.learners import metrics
from tfdqn.learners.dqn import convolutions
from tfdqn.networks import stacked
from tfdqn.programs.replicated import ReplicaTrainer
from tfdqn.programs.selection import AGENT, Selection
from tfdqn.programs.spread import SpreadTrainer
from tfdqn.programs.training import NEVER, Trainer
from tfdqn.runs import curves, loop
from tfdqn.runs.loop import Run
from tfdqn.runs.population_run import PopulationRun
from tfdqn.runs.saving import named_tensors
from tfdqn.runtime import compiled, devices, hosts, loops
from tfdqn.runtime.signals import StopRequest

devices._cpus(2, 0, insists=True)  # before anything is computed in this process

A2C = {"env": "catch8", "learner": "a2c", "device": "cpu", "seed": 3, "num_envs": 8, "rollout_steps": 6, "jit": False}
TOGETHER = {"replicas": 2, "exchange_every_rounds": 10, "jit": False}


PQN = {**A2C, "learner": "pqn", "num_steps": 4, "minibatches": 2}
del PQN["rollout_steps"]


def alone(**changes):
    base = {"a2c": A2C, "pqn": PQN}.get(changes.get("learner"), {**SETTINGS, "jit": False})
    return configuration.resolve({**base, **changes})


def together(**changes):
    return ReplicaTrainer(alone(**{**TOGETHER, **changes}), "/CPU:0")


def numbers(carry):
    return {name: np.asarray(value) for name, value in named_tensors(carry, "carry").items()}


def weights(learner):
    held = {name: np.asarray(value) for name, value in learner.variables.items()}
    return {name: value for name, value in held.items() if not name.startswith("replay/")}


# What is played and learnt.

GREEDY = {"epsilon_start": 0.0, "epsilon_end": 0.0}


@pytest.mark.parametrize(
    ("settings", "rounds"),
    [
        ({"replay_min_rows": 1000, "eager": True, "jit": True}, 30),
        pytest.param(
            {"replay_min_rows": 1000, "exploration": "boltzmann", "action_repeat": 2, **GREEDY},
            30,
            marks=pytest.mark.slow,
        ),
        ({"learner": "a2c", "exchange": "collective"}, 1),
    ],
    ids=str,
)
def test_together_they_play_the_environments_of_one_device(settings, rounds):
    one = Trainer(alone(**{name: value for name, value in settings.items() if name != "exchange"}))
    whole = numbers(one.run_chunk(one.initial_carry(), rounds, NEVER))
    several = together(**settings, exchange_every_rounds=rounds)
    carry = several.run_chunk(several.initial_carry(), rounds, NEVER)
    parts = [numbers(each) for each in carry.each]
    of_each = [name for name, value in whole.items() if "metrics" not in name and value.ndim]
    assert {"carry/history", "carry/is_over", "carry/episode_score"} < set(of_each)
    for name in of_each:
        axis = 1 if name == "carry/history" else 0
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts], axis), whole[name], name)
    assert len(np.unique(whole["carry/history"], axis=1)[0]) > 1  # environments differ
    assert carry.env_frames == whole["carry/env_frames"]
    for name in ("episodes", "score", "episode_frames"):
        assert getattr(carry.metrics, name) == whole[f"carry/metrics/{name}"]
    for name, value in weights(one.learner).items():  # and with their gradients' mean learn what it learns
        np.testing.assert_allclose(weights(several.learner)[name], value, rtol=1e-5, atol=1e-7)
    assert several.agent.optimizer.iterations == (settings.get("learner") == "a2c")


@pytest.mark.parametrize("eager", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_with_shared_gradients_they_learn_what_one_learns_from_all_their_batches(eager):
    updates = 8 if eager else 200
    several = together(exchange="collective", exchange_every_rounds=1, max_gradient_norm=0.1, eager=eager, jit=eager)
    one = Trainer(alone(max_gradient_norm=0.1)).agent
    learn = compiled.program(one.learn, jit=False, eager=False)
    carry = several.initial_carry()
    while int(several.agent.optimizer.iterations) < updates:
        before = int(several.agent.optimizer.iterations)
        carry = several.run_chunk(carry, 1, NEVER)
        if int(several.agent.optimizer.iterations) == before:
            continue
        batches = []
        for trainer in several.trainers:
            assert (trainer.config.num_envs, trainer.config.batch_size) == (4, 8)
            seed = seeds.at(seeds.stream(trainer.config.seed, "replay"), before)
            batches.append(trainer.replay.sample(seed, 8))
        transitions, importance, _ = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *batches)
        assert not np.array_equal(*(batch[0].action for batch in batches))
        learn(transitions, importance)
    for ours, theirs in zip(several.agent.online.get_weights(), one.online.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    first, second = (weights(trainer.learner) for trainer in several.trainers)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_an_average_is_the_mean_of_weights_and_slots_and_all_go_on_from_it(monkeypatch):
    several, before = together(exchange="average"), []
    average = several._programs.average

    def noted(numbers):
        before.append([weights(trainer.learner) for trainer in several.trainers])
        return average(numbers)

    monkeypatch.setattr(several._programs, "average", noted)
    carry = several.run_chunk(several.initial_carry(), 40, NEVER)
    assert len(before) == 4 and int(several.agent.optimizer.iterations) > 10
    first, second = before[-1]
    after = [weights(trainer.learner) for trainer in several.trainers]
    for name, value in first.items():
        mean = (value + second[name]) / 2 if value.dtype == np.float32 else value
        np.testing.assert_array_equal(after[0][name], mean)
        np.testing.assert_array_equal(after[1][name], mean)
    assert any(np.abs(value - second[name]).max() > 1e-6 for name, value in first.items())
    # Whatever was done to the agent of a run meanwhile, as when another's weights are taken over.
    several.agent.online.set_weights([np.zeros_like(w) for w in several.agent.online.get_weights()])
    several.begin()
    assert not any(np.abs(w).max() for trainer in several.trainers for w in trainer.agent.online.get_weights())
    assert len(carry.each) == 2


@pytest.mark.slow
def test_under_xla_an_average_is_the_same_to_rounding():
    plain, fast = together(), together(jit=True)
    for each in (plain, fast):
        each.run_chunk(each.initial_carry(), 60, NEVER)
    for name, value in weights(plain.learner).items():
        np.testing.assert_allclose(weights(fast.learner)[name], value, rtol=1e-3, atol=1e-5)


def test_sums_of_several_are_those_of_one():
    sums = metrics.sums_of((*Trainer(alone()).learner.METRICS,))
    largest = sums.largest()[0]
    parts = [
        sums.zeros()._replace(episodes=np.int64(n), score=np.float32(n / 2), **{largest: np.float32(-n)})
        for n in (1, 3)
    ]
    broken = {"non_finite_updates": np.int64(2), "first_non_finite_update": np.int64(7), "non_finite_tensors": 4}
    merged = sums.merged([parts[0], parts[1]._replace(**broken)])
    assert (merged.episodes, merged.score, getattr(merged, largest)) == (4, 2.0, -1.0)
    assert {name: getattr(merged, name) for name in broken} == broken


def test_programs_that_are_traced_side_by_side_are_each_made_for_their_own_device():
    """As of replicas on GPUs that exchange gradients: whoever is done first does not make the others' for a CPU."""
    both, first_is_done = threading.Barrier(2), threading.Event()

    def trace(device, waits):
        with loops.made_for(device):
            both.wait(timeout=60)
            if waits:
                first_is_done.wait(timeout=60)
            tensor = tf.ones([2])
            found.append(loops.by_itself(tensor) is not tensor)
        first_is_done.set()

    found = []
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(2) as threads:
        patch.setattr(loops, "is_in_xla", lambda: True)
        patch.setattr(loops, "_by_itself", lambda tensor: tensor + 0.0)
        list(threads.map(trace, ["/GPU:0", "/GPU:1"], [False, True]))
    assert found == [True, True]
    tensor = tf.ones([2])
    assert loops.by_itself(tensor) is tensor


# Agents side by side, some on each device.

MANY = {"log_every_frames": 80, "population": 2, "vary": "learning_rate=1e-3,3e-4;epsilon_end=0.1,0.2"}


def test_parts_of_a_population_are_its_members_in_their_order():
    config = alone(**TOGETHER, **MANY)
    parts = population.parts(config.replace(replicas=0), 2)
    assert [member for part in parts for member in population.members(part)] == [*population.members(config)]
    assert [population.count(part) for part in parts] == [4, 4]
    with pytest.raises(ValueError, match="3 parts"):
        population.parts(config, 3)
    # What has one value is no difference.
    config = alone(vary="learning_rate=1e-3;seed=0:4;discount=0.9,0.99", replicas=2)
    assert [member.seed for member in population.members(population.parts(config, 2)[1])] == [2, 2, 3, 3]


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_population_on_two_devices_is_that_on_one(jit):
    one = Trainer(alone(**MANY, jit=jit), "/CPU:0")
    several = SpreadTrainer(alone(**TOGETHER | {"jit": jit}, **MANY), "/CPU:0")
    whole, whole_reports = one.run_reporting_chunk(one.initial_carry(), 60, NEVER, 300)
    carry, reports = several.run_reporting_chunk(several.initial_carry(), 60, NEVER, 300)
    assert carry.iteration == whole.iteration == 60 and len(carry.each) == 2
    np.testing.assert_array_equal(carry.env_frames, whole.env_frames)
    for number in range(8):  # of products of so many the sums are rounded otherwise
        for ours, theirs in zip(several.agent.weights_of(number), one.agent.weights_of(number), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)
    assert one.agent.optimizer.iterations == several.agent.optimizer.iterations > 30
    ours, theirs = list(reports.rows()), list(whole_reports.rows())
    assert len(ours) == len(theirs) > 2
    for (frames, updates, sums), (their_frames, their_updates, their_sums) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(frames, their_frames)
        assert updates == their_updates and frames.shape == (8,)
        for name in ("episodes", "episode_frames", "updates"):
            np.testing.assert_array_equal(getattr(sums, name), getattr(their_sums, name))
    epsilon = several.learner.exploration.epsilon_at(tf.constant(frames))
    np.testing.assert_array_equal(epsilon, one.learner.exploration.epsilon_at(tf.constant(frames)))
    assert len(set(epsilon.numpy())) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {"learner": "a2c", "population": 4},
        pytest.param({"learner": "pqn", "population": 2, "cell": "gru", "cell_units": 8}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_population_of_rounds_on_two_devices_is_that_on_one(settings):
    """Of learners without a replay, whose rounds have several decisions; also in parts of one member."""
    settings |= {"log_every_frames": 80}
    one, several = Trainer(alone(**settings), "/CPU:0"), SpreadTrainer(alone(**TOGETHER, **settings), "/CPU:0")
    whole, whole_reports = one.run_reporting_chunk(one.initial_carry(), 60, 500, 80)
    carry, reports = several.run_reporting_chunk(several.initial_carry(), 60, 500, 80)
    assert several.replay is None and carry.iteration == whole.iteration < 240
    np.testing.assert_array_equal(carry.env_frames, whole.env_frames)
    assert [row[1] for row in reports.rows()] == [row[1] for row in whole_reports.rows()] != []
    for number in range(settings["population"]):
        for ours, theirs in zip(several.agent.weights_of(number), one.agent.weights_of(number), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"action_repeat": 3, "log_every_frames": 10**12}, {}], ids=str)
def test_where_chunks_end_changes_nothing_of_a_spread_population(changes):
    """Nor does it play on for long where there are no reports."""
    found = []
    for chunk in (60, 7):
        several = SpreadTrainer(alone(**TOGETHER | MANY | changes), "/CPU:0")
        every = several.config.log_every_frames
        carry, rows, next_report, chunks = several.initial_carry(), [], every, 0
        while int(carry.env_frames.numpy().min()) < 300:
            carry, reports = several.run_reporting_chunk(carry, chunk, 300, next_report)
            next_report, chunks = reports.next_env_frames, chunks + 1
            rows += [(frames.tolist(), updates, metrics.score.tolist()) for frames, updates, metrics in reports.rows()]
        found.append((rows, int(carry.iteration), [each.tolist() for each in several.agent.weights_of(5)]))
        assert (chunks == 1) == (chunk == 60)
        frames = carry.env_frames.numpy().min()
        assert 300 <= frames < 300 + 8 * several.config.action_repeat
    assert found[0] == found[1] and len(found[0][0]) == (300 // every)
    assert several.run_chunk(carry, 7, 300).iteration == found[0][1]  # it has all


@pytest.mark.parametrize("kind", [SpreadTrainer, ReplicaTrainer])
def test_what_is_chosen_by_its_time_is_chosen_once(monkeypatch, kind):
    """Each device might find another kind of convolution the quicker, but a run has one to go on with."""
    quickest = iter(["native", "patches"])

    def choose(config, device, build):
        return config.replace(convolution=next(quickest)) if config.convolution == "auto" else config

    monkeypatch.setattr(convolutions, "choose", choose)
    several = kind(alone(**TOGETHER, **({"population": 2} if kind is SpreadTrainer else {})), "/CPU:0")
    assert [each.config.convolution for each in several.trainers] == ["native", "native"]
    assert several.config.convolution == "native"


def test_what_is_chosen_by_its_time_the_chief_has_chosen(monkeypatch):
    class Second(hosts.Hosts):
        rank, count = 1, 2

        def from_chief(self, text):
            return "native"

    monkeypatch.setattr(hosts, "_here", Second())
    several = together(replicas=4)
    assert [each.config.convolution for each in several.trainers] == ["native", "native"]
    assert several.config.convolution == "native" and several.numbers == range(2, 4)


def spread_run(run_dir, **changes):
    return PopulationRun(alone(**{**TOGETHER, "population": 4, **changes}), run_dir, "/CPU:0", StopRequest())


def test_a_resumed_run_of_a_spread_population_is_equal_to_an_unbroken_one(tmp_path, capfd):
    settings = {"total_env_frames": 700, "eval_every_frames": 10_000, "final_eval_episodes": 1}
    whole, broken = spread_run(tmp_path / "whole", **settings), spread_run(tmp_path / "broken", **settings)
    assert "4 agents on 2 devices" in capfd.readouterr().err
    result = whole.train()
    train_until(broken, 450)
    broken.close()
    broken = resume(tmp_path / "broken", kind=PopulationRun)
    assert broken.train()["members"] == result["members"]
    assert [row["seed"] for row in result["members"]] == [3, 4, 5, 6]
    for ours, theirs in zip(broken.members, whole.members, strict=True):
        for each, other in zip(ours.player_weights(), theirs.player_weights(), strict=True):
            np.testing.assert_array_equal(each, other)
        assert (ours.run_dir / "model.keras").exists()
    with pytest.raises(UserError, match="--replicas"):
        resume(tmp_path / "broken", kind=PopulationRun, replicas=4)


def test_a_member_of_the_second_part_that_diverges_is_named_and_the_others_go_on(tmp_path, capfd):
    run = spread_run(tmp_path / "run", total_env_frames=900, eval_every_frames=10_000, final_eval_episodes=1)
    train_until(run, 600)
    kernel = run.trainer.trainers[1].agent.online.trainable_variables[0]
    kernel.assign(tf.where(np.array([True, False]).reshape(-1, 1, 1), np.inf, kernel))
    result = run.train()
    assert result["diverged_members"] == [2] and [row["member"] for row in result["members"]] == [0, 1, 3]
    assert "member 2 (seed 5) diverged at update " in capfd.readouterr().err
    assert not any(np.abs(each).max() for each in run.trainer.agent.weights_of(2))
    assert all(np.abs(run.trainer.agent.weights_of(number)[0]).max() for number in (0, 1, 3))


def test_members_take_over_agents_of_other_devices_whole():
    """Also of layers that go in as copies; what plays stays."""
    vary = {"vary": "learning_rate=1e-4,1e-3,1e-2,1e-1", "network": "tests.test_bodies:subclassed", "frame_stack": 1}
    several = SpreadTrainer(alone(**TOGETHER, **vary, pbt=True, optimizer="adam"), "/CPU:0")
    learners, rng = several.learner.parts, np.random.default_rng(0)
    for learner in learners:
        for variable in learner.variables.values():
            if variable.shape.rank and variable.dtype.is_floating:
                variable.assign(rng.normal(size=variable.shape))

    def held():
        of_agents = [
            [stacked.agent_of([v for n, v in each.variables.items() if n.startswith(group)], i) for group in AGENT]
            for each in learners
            for i in range(2)
        ]
        kept = [{n: v.numpy() for n, v in each.variables.items() if not n.startswith(AGENT)} for each in learners]
        return of_agents, kept, several.agent.optimizer.iterations.numpy()

    before, networks = held(), [several.agent.weights_of(number) for number in range(4)]
    selection = Selection(learners, jit=False, eager=False)
    selection.take_over([3, 1, 0, 3])
    after = held()
    for number, parent in enumerate([3, 1, 0, 3]):
        tf.nest.map_structure(np.testing.assert_array_equal, after[0][number], before[0][parent])
        tf.nest.map_structure(np.testing.assert_array_equal, several.agent.weights_of(number), networks[parent])
    tf.nest.map_structure(np.testing.assert_array_equal, after[1:], before[1:])
    selection.set({"learning_rate": [0.1, 0.2, 0.3, 0.4]})
    assert selection.values() == {"learning_rate": [0.1, 0.2, 0.3, 0.4]}
    np.testing.assert_array_equal(learners[1].variables["settings/learning_rate"], [0.3, 0.4])


@pytest.mark.slow
def test_population_based_training_on_two_devices_selects_as_on_one(tmp_path):
    """And a resumed run goes on as the unbroken one."""
    settings = {"population": 1, "vary": "learning_rate=1e-5,1e-4,1e-3,1e-2", "pbt": True, "total_env_frames": 1100}
    settings |= {"eval_every_frames": 400, "eval_episodes": 2, "final_eval_episodes": 1}
    found = []
    for name, replicas_of_run in (("one", 1), ("whole", 2), ("broken", 2)):
        run = spread_run(tmp_path / name, **{**settings, "replicas": replicas_of_run})
        if name == "broken":
            train_until(run, 600)
            run.close()
            run = resume(tmp_path / name, kind=PopulationRun)
        run.train()
        lines = [json.loads(line) for line in (run.run_dir / curves.METRICS_FILE).read_text("utf-8").splitlines()]
        told = [(line["member"], line["pbt/parent"]) for line in lines if "pbt/parent" in line]
        rates = [each.config.learning_rate for each in run.members]
        found.append((told, rates, [each.player_weights() for each in run.members]))
    (one, rates, _), whole, broken = found
    assert one == whole[0] == broken[0] and len(one) > 1
    assert rates == whole[1] == broken[1] != [1e-5, 1e-4, 1e-3, 1e-2]
    tf.nest.map_structure(np.testing.assert_array_equal, whole[2], broken[2])


# What a run keeps.


def run_of(run_dir, **changes):
    return Run(alone(**{**TOGETHER, **changes}), run_dir, "/CPU:0", StopRequest())


@pytest.mark.parametrize("exchange", ["average", pytest.param("collective", marks=pytest.mark.slow)])
def test_a_resumed_run_is_equal_to_an_unbroken_one(tmp_path, exchange):
    settings = {"exchange": exchange, "total_env_frames": 1500, "eval_every_frames": 10_000}
    whole = run_of(tmp_path / "whole", **settings)
    train_until(whole, 1500, chunk=35)
    broken = run_of(tmp_path / "broken", **settings)
    train_until(broken, 900)
    broken.close()
    broken = resume(tmp_path / "broken")
    train_until(broken, 1500)
    assert broken.env_frames == whole.env_frames and broken.updates == whole.updates > 50
    expected = {**whole.trainer.learner.variables, **named_tensors(whole.carry, "carry")}
    found = {**broken.trainer.learner.variables, **named_tensors(broken.carry, "carry")}
    assert {"replay/0/reward", "replay/1/reward", "carry/replica_1/history"} < expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(np.asarray(found[name]), np.asarray(value), name)
    rows = [
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (tmp_path / "whole", tmp_path / "broken")
    ]
    for ours, theirs in zip(*rows, strict=True):
        assert {k: v for k, v in ours.items() if not k.startswith(("speed/", "wall"))} == {
            k: v for k, v in theirs.items() if not k.startswith(("speed/", "wall"))
        }


@pytest.mark.parametrize("exchange", ["collective", pytest.param("average", marks=pytest.mark.slow)])
def test_a_number_that_is_not_finite_in_one_ends_the_run(tmp_path, exchange):
    run = run_of(tmp_path / "run", exchange=exchange)
    train_until(run, 800)
    rewards = run.trainer.learner.variables["replay/1/reward"]
    rewards.assign(tf.fill(rewards.shape, np.nan))
    with pytest.raises(UserError, match=r"training diverged at update 97: the (TD target|gradient) is not") as error:
        train_until(run, 2500)
    assert error.value.exit_code == EXIT_NUMERIC


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"num_envs": 9}, "--replicas 2: --num-envs 9 does not go into so many equal parts; use 1, or --num-envs 10"),
        ({"replicas": 7}, "--replicas 7: --num-envs 8 does not go into so many equal parts; use 4, or --num-envs 14"),
        ({"batch_size": 3}, "--replicas 2: --batch-size 3 does not go into so many equal parts; use 1, or"),
        ({"population": 3}, "--replicas 2: the agents side by side do not go into so many equal parts; use 1"),
        ({"population": 2, "vary": "learning_rate=1e-3", "pbt": True}, "--pbt: selects among 4 agents or more, not 2"),
        ({"population": 2, "exchange": "collective"}, "--exchange collective: agents side by side exchange nothing"),
        (
            {"population": 2, "exchange": "collective", "replicas": 0},
            "--exchange collective: agents side by side exchange nothing",
        ),
        ({"restart_share": 0.2}, "--replicas 2: of each one's part: --restart-share 0.2: not one of 4 environments"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_refused_in_one_line(given, line):
    with pytest.raises(UserError) as error:
        alone(**{**TOGETHER, **given})
    assert line in str(error.value) and "\n" not in str(error.value)


def test_what_nobody_asked_for_is_made_to_go_evenly():
    assert configuration.resolve({"env": "catch8", "replicas": 5}).num_envs % 5 == 0
    config = configuration.resolve({"env": "catch8", "replicas": 5, "num_envs": 20})
    assert config.batch_size % 5 == 0 and replicas.config_of(config).num_envs == 4


def test_gradients_under_xla_on_a_cpu_and_games_of_the_host_are_refused(monkeypatch):
    with pytest.raises(UserError, match="XLA knows no collectives on a CPU; add --no-jit, or use --exchange average"):
        together(exchange="collective", jit=True)
    tf.zeros([])  # something is computed
    with pytest.raises(UserError, match="--replicas 3: this process has begun to compute with 2"):
        devices._cpus(3, 0, insists=True)
    game = make_for(alone())
    monkeypatch.setattr(game, "steps_on_host", True, raising=False)
    with pytest.raises(UserError, match="--replicas 2: catch8 steps on the host, for one device; use 1"):
        loop._check_game(alone(**TOGETHER), game)
    with pytest.raises(UserError, match="--population: catch8 steps on the host; train each agent in a run of its own"):
        loop._check_game(alone(**TOGETHER, population=2), game)


def test_a_run_takes_as_many_gpus_as_it_goes_evenly_onto(monkeypatch):
    config = configuration.resolve({"env": "catch8", "num_envs": 64, "batch_size": 96, "device": "gpu"})
    assert [train._replicas_here(config, gpus) for gpus in (1, 2, 3, 4, 8, 9)] == [1, 2, 2, 4, 8, 8]
    assert train._replicas_here(config.replace(population=6), 4) == 3
    assert train._replicas_here(config.replace(restart_share=0.1), 4) == 4  # of 6 practisers each has one
    assert train._replicas_here(config.replace(restart_share=0.1), 8) == 4
    assert train._replicas_here(config.replace(device="auto"), 4) == 1
    assert train._replicas_here(config.replace(replicas=1), 4) == 1
    monkeypatch.setattr(devices, "has_driver", lambda: False)
    machine = Machine(4)
    monkeypatch.setattr(devices, "_tensorflow_config", lambda: machine)
    assert devices.choose_device("gpu", replicas=lambda gpus: gpus - 1) == "/GPU:0"
    assert machine.visible == machine.grows == ["GPU 0", "GPU 1", "GPU 2"]
    assert devices.count_gpus() == 3
    with pytest.raises(UserError, match="--replicas 5: TensorFlow sees fewer GPUs on this machine; use at most 4"):
        devices.choose_device("gpu", replicas=lambda gpus: 5)
    with pytest.raises(UserError, match="--device gpu:1: is one GPU, for --replicas 2; use --device gpu"):
        devices.choose_device("gpu:1", replicas=lambda gpus: 2)


def test_what_a_new_run_has_by_default(monkeypatch):
    monkeypatch.setattr(devices, "count_gpus", lambda: 4)
    config = configuration.resolve({"env": "catch8", "num_envs": 64, "batch_size": 96, "device": "gpu"})
    assert train._count_replicas(config, "/GPU:0", None) == 4
    assert train._count_replicas(config, "/CPU:0", None) == 1
    on_host = type("OnHost", (), {"steps_on_host": True})()
    assert train._count_replicas(config, "/GPU:0", on_host) == 1  # nobody has asked for more
    assert train._count_replicas(config.replace(replicas=2), "/GPU:0", on_host) == 2  # which then is refused


def test_a_population_on_a_cpu_takes_its_cores(monkeypatch):
    monkeypatch.setattr(devices, "count_cores", lambda: 8)
    config = configuration.resolve({"env": "catch8", "population": 12, "device": "cpu", "threads": 1})
    assert train._replicas_here(config, 0) == 6
    assert train._replicas_here(config.replace(threads=2), 0) == 4
    assert train._replicas_here(config.replace(eager=True), 0) == 1
    assert train._replicas_here(config.replace(pbt=True, vary="learning_rate=1e-3"), 0) == 6
    assert train._replicas_here(config.replace(population=1), 0) == 1
    assert train._count_replicas(config, "/CPU:0", None) == 2  # which is what TensorFlow counts here
    assert train._count_replicas(config.replace(vary="learning_rate=1e-3", population=3), "/CPU:0", None) == 1
    assert devices._cpus(3, 1, insists=False) == "/CPU:0"


@pytest.mark.parametrize(("threads", "of_each"), [(0, 4), (1, 1)])
def test_parts_of_a_cpu_have_threads_of_their_own(monkeypatch, threads, of_each):
    monkeypatch.setattr(devices, "count_cores", lambda: 8)
    for name in (devices.OWN_THREADS_VARIABLE, "TF_NUM_INTRAOP_THREADS"):
        monkeypatch.delenv(name, raising=False)
    assert devices._cpus(2, threads, insists=True) == "/CPU:0"
    assert os.environ[devices.OWN_THREADS_VARIABLE] == "1" and os.environ["TF_NUM_INTRAOP_THREADS"] == str(of_each)


def test_a_process_that_has_begun_to_compute_is_left_as_it_is(monkeypatch):
    """What it and its children read of threads stays the user's, where nothing of it could be followed."""
    for name in (names := (devices.OWN_THREADS_VARIABLE, "TF_NUM_INTRAOP_THREADS")):
        monkeypatch.delenv(name, raising=False)
    tf.zeros([])
    assert devices._cpus(3, 0, insists=False) == "/CPU:0"
    assert not any(name in os.environ for name in names)


def test_gpus_that_a_process_has_left_aside_are_not_counted(monkeypatch):
    monkeypatch.setattr(devices, "has_driver", lambda: False)
    machine = Machine(4, is_started=True, visible=[0])
    monkeypatch.setattr(devices, "_tensorflow_config", lambda: machine)
    assert devices.choose_device("gpu", replicas=lambda gpus: gpus) == "/GPU:0" and devices.count_gpus() == 1


def test_an_agent_of_more_devices_than_there_are_plays_on_one(tmp_path):
    tf.zeros([])  # something is computed
    agent = tfdqn.Agent("catch8", replicas=4, device="cpu", num_envs=8, batch_size=16)
    assert agent.act(np.zeros(agent.env.observation_spec.shape, np.uint8)) in range(agent.env.num_actions)
    with pytest.raises(UserError, match="--replicas 4: this process has begun to compute with 2"):
        agent.fit(total_env_frames=100, logdir=tmp_path, verbose=0)


@pytest.mark.slow
def test_an_agent_of_several_plays_learns_and_is_loaded(tmp_path):
    agent = tfdqn.Agent("catch8", replicas=2, device="cpu", jit=False, num_envs=8, batch_size=16, seed=1)
    assert agent.evaluate(episodes=8)["episodes"] == 8
    history = agent.fit(total_env_frames=2000, logdir=str(tmp_path), run_name="run")
    assert history.history and agent.evaluate(episodes=8)["episodes"] == 8
    again = tfdqn.load(tmp_path / "run")
    assert again.evaluate(episodes=8) == agent.evaluate(episodes=8)
