"""Population based training: who takes over whose agent, what changes then, and what a run keeps of it."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tests.test_population import SMALL, break_weights, lines_of, make_run
from tests.whole_runs import SETTINGS, resume, train_until
from tfdqn import config as configuration
from tfdqn import evaluate, population
from tfdqn.envs import make_for
from tfdqn.errors import UserError
from tfdqn.learners import learner_of
from tfdqn.networks import stacked
from tfdqn.programs.selection import Selection
from tfdqn.programs.training import Trainer
from tfdqn.runs import curves, population_selection, run_config
from tfdqn.runs.population_run import PopulationRun
from tfdqn.runtime.signals import StopRequest

RATES = (1e-5, 1e-4, 1e-3, 1e-2)
PBT = {"population": 1, "pbt": True, "vary": f"learning_rate={','.join(map(str, RATES))}"}


def tuning(**changes):
    return configuration.resolve({**SMALL, **PBT, **changes})


# What is decided.


@pytest.mark.parametrize(
    "given, said",
    [
        ({"pbt": True}, "--pbt: selects among 4 agents or more, not 1; add --population 4, or more values to --vary"),
        ({"pbt": True, "vary": "learning_rate=1e-4,1e-3,1e-2"}, "--pbt: selects among 4 agents or more, not 3"),
        ({"pbt": True, "population": 8}, "--pbt: --vary names no setting to tune, as seed, start_curriculum"),
        ({"pbt": True, "vary": "seed=0:4"}, "restart_share stay each member's own; add --vary learning_rate=1e-4,1e-3"),
        (
            {**PBT, "eval_every_frames": 1001, "total_env_frames": 1000},
            "--eval-every-frames 1001 leaves none before the end, --total-env-frames 1000; use at most that",
        ),
    ],
)
def test_what_cannot_be_selected_is_refused_in_one_line(given, said):
    with pytest.raises(UserError) as error:
        configuration.resolve({"env": "catch8", **given})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_what_vary_names_is_tuned_but_for_what_is_a_members_own():
    config = configuration.resolve(
        {"env": "cave", "population": 2, "pbt": True, "vary": "discount=0.9;restart_share=0,0.5;epsilon_end=0.1"}
    )
    assert population.tuned(config) == ("discount", "epsilon_end")  # of one value, too
    assert population.tuned(config.replace(pbt=False)) == ()
    assert not any(each.pbt for each in population.members(config))


def test_the_worst_fifth_take_over_the_best_fifth():
    config = configuration.resolve({"env": "catch8", "population": 10, "pbt": True, "vary": "learning_rate=1e-3"})
    configs = [each.replace(learning_rate=(i + 1) / 1000) for i, each in enumerate(population.members(config))]
    scores = {0: 5.0, 1: 9.0, 2: 3.0, 3: 5.0, 4: -1.0, 5: 8.0, 6: 4.0, 7: 0.0, 8: 6.0, 9: 7.0}
    draws = np.zeros([10, 2], np.int64)
    draws[7] = 1, 1
    found = population_selection.heirs(configs, ["learning_rate"], scores, draws)
    assert [(heir.number, heir.parent) for heir in found] == [(4, 1), (7, 5)]
    assert [heir.config.learning_rate for heir in found] == [0.8 * 0.002, 1.2 * 0.006]
    for heir in found:  # nothing else changes, least of all whose games it plays
        own = configs[heir.number]
        assert heir.config == own.replace(learning_rate=heir.config.learning_rate)
    # Those that have diverged are the worst, however many they are.
    alive = {number: score for number, score in scores.items() if number in (1, 2, 6)}
    found = population_selection.heirs(configs, ["learning_rate"], alive, draws)
    assert [(heir.number, heir.parent) for heir in found] == [
        (number, 6 if number == 7 else 1) for number in (0, 3, 4, 5, 7, 8, 9)
    ]
    # Where all are as good, nobody gains.
    assert population_selection.heirs(configs, ["learning_rate"], dict.fromkeys(range(10), 99.0), draws) == []


@pytest.mark.parametrize(
    "given, factor, expected",
    [
        ({"learning_rate": 1e-3}, 1.2, {"learning_rate": 1.2 * 1e-3}),
        ({"learning_rate": 1e-3}, 0.8, {"learning_rate": 0.8 * 1e-3}),
        ({"learning_rate": 90.0}, 1.2, {"learning_rate": 100.0}),
        ({"temperature_end": 1e6}, 1.2, {"temperature_end": 1e6}),
        ({"discount": 0.99}, 0.8, {"discount": 1 - (1 - 0.99) * 0.8}),
        ({"discount": 0.1}, 1.2, {"discount": 0.0}),
        ({"target_update_period_updates": 500}, 1.2, {"target_update_period_updates": 600}),
        ({"target_update_period_updates": 2}, 1.2, {"target_update_period_updates": 3}),
        ({"target_update_period_updates": 2}, 0.8, {"target_update_period_updates": 1}),
        ({"target_update_period_updates": 1}, 0.8, {"target_update_period_updates": 1}),
        ({"max_gradient_norm": float("inf")}, 0.8, {"max_gradient_norm": float("inf")}),
        ({"epsilon_end": 0.9}, 1.2, {"epsilon_end": 0.95}),  # no more than at first
        ({"epsilon_start": 0.9, "epsilon_end": 0.9}, 1.2, {"epsilon_start": 1.0, "epsilon_end": 1.0}),
    ],
)
def test_settings_are_multiplied_and_stay_in_their_bounds(given, factor, expected):
    config = configuration.resolve({"env": "catch8", "epsilon_start": 0.95, "epsilon_end": 0.05, **given})
    found = population_selection.perturbed(config, list(given), [factor] * len(given))
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-12) and type(getattr(found, name)) is type(value)
    assert found == config.replace(**{name: getattr(found, name) for name in given})


# What is handed over.


@pytest.mark.parametrize(
    ("optimizer", "jit"), [("rmsprop_graves", True), pytest.param("adam", False, marks=pytest.mark.slow)]
)
def test_agents_are_handed_over_whole_and_nothing_else_is(optimizer, jit):
    config = tuning(optimizer=optimizer, prioritized=True, network="tests.test_bodies:subclassed", frame_stack=1)
    check_handed_over(config, jit)


def check_handed_over(config, jit):
    """Weights, target and optimizer of the sources in all bits; games' rows, counts and settings stay."""
    learner = learner_of(config.learner)(config, make_for(config), "/CPU:0")
    rng = np.random.default_rng(0)
    for variable in learner.variables.values():
        if variable.shape.rank and variable.dtype.is_floating:
            variable.assign(rng.normal(size=variable.shape))
    agent, source = learner.agent, [0, 3, 2, 2]

    def held():
        optimizers = agent.optimizer.variables
        each = [
            [v.numpy() if stacked.owner_of(v) is not None else v.numpy()[i] for v in optimizers if is_of(v, i)]
            for i in range(4)
        ]
        models = [getattr(agent, name) for name in ("online", "target") if hasattr(agent, name)]
        networks = [[stacked.weights_of(model, i) for model in models] for i in range(4)]
        others = {n: v.numpy() for n, v in learner.variables.items() if n.startswith(("replay/", "settings/"))}
        return each, networks, others | {"iterations": int(agent.optimizer.iterations)}

    def is_of(variable, number):
        return variable.shape.rank and stacked.owner_of(variable) in (None, number)

    before = held()
    is_copied = any(stacked.owner_of(v) is not None for v in agent.optimizer.variables)
    assert is_copied == ("subclassed" in config.network)  # layers that go in as copies, too
    selection = Selection([learner], jit=jit, eager=not jit)
    selection.take_over(source)
    after = held()
    for number, parent in enumerate(source):
        for ours, theirs in zip(
            tf.nest.flatten([part[number] for part in after[:2]]),
            tf.nest.flatten([part[parent] for part in before[:2]]),
            strict=True,
        ):
            np.testing.assert_array_equal(ours, theirs)
    tf.nest.map_structure(np.testing.assert_array_equal, after[2], before[2])
    selection.set({"learning_rate": [0.1, 0.2, 0.3, 0.4]})
    assert selection.values() == {"learning_rate": [0.1, 0.2, 0.3, 0.4]}


def test_a_copys_weight_of_one_number_is_handed_over_too():
    """It has no axis at all, as a count of updates that is of all members."""
    weights, count = [tf.Variable(float(number)) for number in range(3)], tf.Variable(7)
    for number, weight in enumerate(weights):
        weight.network_of_stack = number
    stacked.gather([count, *weights], tf.constant([0, 2, 0]))
    assert [float(weight) for weight in weights] == [0, 2, 0] and int(count) == 7


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        (
            {"learning_rate_decay_updates": 5, "optimizer": "adam", "eager": True, "jit": True},
            {"learning_rate": 1e-2, "learning_rate_end": 1e-4, "max_gradient_norm": 0.1, "discount": 0.5}
            | {"epsilon_decay_env_frames": 100, "epsilon_start": 0.9, "epsilon_end": 0.3}
            | {"target_update_period_updates": 3},
        ),
        pytest.param(
            {"prioritized": True},
            {"priority_alpha": 0.3, "priority_beta": 0.1, "priority_beta_updates": 20, "epsilon_start": 0.8},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"exploration": "boltzmann", "target": "soft"},
            {"target_tau": 0.3, "temperature_start": 0.5, "temperature_end": 0.1, "learning_rate": 1e-2}
            | {"epsilon_start": 0.7},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["rates", "prioritized", "boltzmann"],
)
def test_settings_that_have_changed_are_what_constants_are(settings, values):
    check_tuned({**SMALL, "replay_min_rows": 16, "jit": False, **settings}, values)


def check_tuned(settings, values):
    """Games to the bit and weights to rounding, of each setting at once, in a program made for other values."""
    small = {**settings, "population": 4}
    others = {name: 2 * value if name != "discount" else 0.9 for name, value in values.items()}
    if "epsilon_start" in others:
        others["epsilon_start"] = 1
    config = configuration.resolve({**small, "pbt": True, "vary": tfdqn.grid(**others)})
    ours, theirs = Trainer(config), Trainer(configuration.resolve({**small, **values}))
    selection = Selection([ours.learner], jit=False, eager=False)
    start = ours.initial_carry()
    ours.run_chunk(start, 0, 0)  # as a run has it: compiled before
    selection.set({name: [value] * 4 for name, value in values.items() if name in selection.values()})
    assert selection.values().keys() == values.keys()
    rounds = 14 if config.eager else 40
    carry = ours.run_chunk(start, rounds, 10**9)
    expected = theirs.run_chunk(theirs.initial_carry(), rounds, 10**9)
    for name in ("env_state", "env_frames", "is_over"):
        tf.nest.map_structure(np.testing.assert_array_equal, getattr(carry, name), getattr(expected, name))
    for mine, other in zip(ours.agent.online.variables, theirs.agent.online.variables, strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-6)
    assert int(ours.agent.optimizer.iterations) > rounds / 2


# What a run does, and keeps.

RUN = {**PBT, "eval_every_frames": 700, "total_env_frames": 1800, "log_every_frames": 400}


class Watched(PopulationRun):
    """Notes what there is before and after each selection."""

    def __init__(self, *given, **more):
        self.selected = []
        super().__init__(*given, **more)

    def _select(self):
        before = self.seen()
        super()._select()
        self.selected.append((dict(self._scores), before, self.seen()))

    def seen(self):
        weights = [self.trainer.agent.weights_of(each.number) for each in self.members]
        return weights, [each.config for each in self.members]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run, its result, and its folder as it was between two selections."""
    folder = tmp_path_factory.mktemp("based")
    run = make_run(folder / "run", kind=Watched, **RUN)
    train_until(run, 1100, chunk=29)
    shutil.copytree(folder / "run", folder / "broken")
    result = run.train()
    run.close()
    return run, result, folder / "broken"


def takeovers(path):
    """The reports of who has taken over whose agent."""
    return [line for line in lines_of(path) if population_selection.PARENT.tag in line]


def test_losers_take_over_winners_at_each_evaluation_and_winners_stay(whole):
    run, _, _ = whole
    assert len(run.selected) == 2
    told = iter(takeovers(run.run_dir / curves.METRICS_FILE))
    moved = 0
    for scores, (weights, configs), (after, configs_after) in run.selected:
        order = sorted(scores, key=lambda number: (-scores[number], number))
        best, worst = order[0], order[-1]
        for number in range(4):
            is_heir = number == worst and scores[worst] < scores[best]
            for ours, theirs in zip(after[number], weights[best if is_heir else number], strict=True):
                np.testing.assert_array_equal(ours, theirs)
            if not is_heir:
                assert configs_after[number] == configs[number]
                continue
            rate, parent_rate = configs_after[number].learning_rate, configs[best].learning_rate
            assert rate in (0.8 * parent_rate, 1.2 * parent_rate)
            line, moved = next(told), moved + 1
            assert (line["member"], line["pbt/parent"], line["pbt/learning_rate"]) == (number, best, rate)
    assert moved and next(told, None) is None


def test_reports_and_settings_say_what_a_members_settings_are_now(whole, capfd):
    run, result, _ = whole
    assert [row["learning_rate"] for row in result["members"]] == [each.config.learning_rate for each in run.members]
    assert run.trainer.learner.variables["settings/learning_rate"].numpy().tolist() == [
        each.config.learning_rate for each in run.members
    ]
    for each in run.members:
        assert configuration.read_toml(each.run_dir / "config.toml")["learning_rate"] == each.config.learning_rate
        lines = lines_of(each.run_dir / curves.METRICS_FILE)
        rate = each.begun.learning_rate
        for line in lines:
            if population_selection.PARENT.tag in line:
                rate = line["pbt/learning_rate"]
            elif "rollout/epsilon" in line:  # a report of training
                assert line["pbt/learning_rate"] == rate
        assert rate == each.config.learning_rate
    evaluate.main([str(run.run_dir), "--episodes", "4", "--json", "--device", "cpu", "--member", "all"])
    out, err = capfd.readouterr()
    assert [row["score_mean"] for row in json.loads(out)["members"]] == [row["score_mean"] for row in result["members"]]
    assert all(f"{each.config.learning_rate:g}" in err for each in run.members)


def test_a_broken_run_selects_as_the_unbroken_one(whole):
    """Broken between two selections, the second of which is made again: weights, settings, reports, in all bits."""
    expected, result, run_dir = whole
    # Of a selection that is lost, as it came after the checkpoint.
    run_config.write_config(expected.members[0].begun.replace(learning_rate=7.0), run_dir / "members/00")
    with open(run_dir / curves.METRICS_FILE, "a") as file:
        file.write('{"member": 0, "pbt/parent": 2}\n')
    run = resume(run_dir, kind=PopulationRun)
    assert run.train()["members"] == result["members"]
    for ours, theirs in zip(run.members, expected.members, strict=True):
        assert ours.config == theirs.config
        assert configuration.read_toml(ours.run_dir / "config.toml") == configuration.read_toml(
            theirs.run_dir / "config.toml"
        )
        assert lines_of(ours.run_dir / curves.METRICS_FILE) == lines_of(theirs.run_dir / curves.METRICS_FILE)
        for mine, other in zip(ours.best_weights, theirs.best_weights, strict=True):
            np.testing.assert_array_equal(mine, other)
    for name, variable in expected.trainer.learner.variables.items():
        np.testing.assert_array_equal(run.trainer.learner.variables[name], variable)
    assert lines_of(run_dir / curves.METRICS_FILE) == lines_of(expected.run_dir / curves.METRICS_FILE)


@pytest.mark.slow
def test_a_member_that_diverges_takes_over_anothers_agent(tmp_path, capfd):
    run = make_run(tmp_path / "run", **{**RUN, "vary": f"{RUN['vary']};max_gradient_norm=inf"}, prioritized=True)
    train_until(run, 800)
    break_weights(run, [1])
    run.progress.rounds = 13
    run.train_chunk()
    assert run.members[1].progress.diverged_update
    assert np.isinf(run.trainer.learner.variables["settings/max_gradient_norm"]).all()
    run.trainer.learner.variables["replay/max_priority"].assign([1.0, np.inf, 1.0, 1.0])
    result = run.train()
    said = capfd.readouterr().err
    assert "member 1 " in said and "until it takes over one of theirs" in said
    lines = takeovers(run.run_dir / curves.METRICS_FILE)
    assert any(line["member"] == 1 and line["env_frames"] < 1500 for line in lines)
    assert result["diverged_members"] == [] and len(result["members"]) == 4
    assert not run.carry.metrics.non_finite_tensors.numpy().any()
    assert all(each.config.max_gradient_norm == np.inf for each in run.members)
    assert (run.trainer.learner.variables["replay/max_priority"].numpy() > 0).all()
    later = [line["member"] for line in lines_of(run.run_dir / curves.METRICS_FILE) if line["env_frames"] >= 1800]
    assert {0, 1, 2, 3} == set(later)


@pytest.mark.slow
def test_selection_saves_a_grid_most_of_which_is_too_slow(tmp_path):
    """catch8 by five rates, of which one can learn it in the time there is: with it, all do."""
    grid = {"env": "catch8", "device": "cpu", "vary": "learning_rate=1e-6,3e-6,1e-5,3e-5,1e-3"}
    length = {"total_env_frames": 180_000, "eval_every_frames": 30_000}

    def median(pbt):
        config = configuration.resolve({**grid, **length, "pbt": pbt})
        run = PopulationRun(config, tmp_path / f"run{pbt}", "/CPU:0", StopRequest())
        scores = [row["score_mean"] for row in run.train()["members"]]
        run.close()
        return np.median(scores)

    assert median(False) < 20 < 60 < median(True)


@pytest.mark.slow
def test_a_member_that_comes_back_in_the_last_selection_is_no_agent_to_score(tmp_path):
    """It diverged before the first evaluation, which is the only one, so nothing was ever evaluated of it."""
    run = make_run(tmp_path / "run", **{**RUN, "eval_every_frames": 900, "total_env_frames": 900})
    train_until(run, 600)
    break_weights(run, [2])
    result = run.train()
    run.close()
    assert [row["member"] for row in result["members"]] == [0, 1, 3] and result["diverged_members"] == []
    run = resume(tmp_path / "run", kind=PopulationRun, total_env_frames=1200)
    assert [row["member"] for row in run.train()["members"]] == [0, 1, 2, 3]


@pytest.mark.slow
def test_a_population_from_python_selects(tmp_path):
    agent = tfdqn.Agent(**{**SETTINGS, "jit": False, "total_env_frames": 1500, "eval_every_frames": 500})
    agent.fit(population=tfdqn.grid(learning_rate=RATES), pbt=True, logdir=tmp_path, verbose=0)
    assert takeovers(agent.run_dir / curves.METRICS_FILE)
    agent.fit(total_env_frames=2000, verbose=0)
    assert {line["member"] for line in lines_of(agent.run_dir / curves.METRICS_FILE) if line["env_frames"] > 1600}
    with pytest.raises(UserError, match="pbt is True in this run, not False"):
        agent.fit(pbt=False, verbose=0)
