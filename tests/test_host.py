"""Games that step on the host: rows, resets in each of Gymnasium's modes, evaluation, and whole runs."""

import json
import sys

import numpy as np
import pytest
import tensorflow as tf

gymnasium = pytest.importorskip("gymnasium")

from gymnasium.vector import AutoresetMode, SyncVectorEnv  # noqa: E402

import tfdqn  # noqa: E402
from tfdqn import check_env, evaluate, train  # noqa: E402
from tfdqn import config as configuration  # noqa: E402
from tfdqn.adapters import from_gymnasium  # noqa: E402
from tfdqn.envs.host import HostEnvironment  # noqa: E402
from tfdqn.errors import UserError  # noqa: E402
from tfdqn.programs import pieces  # noqa: E402
from tfdqn.programs.host import HostEvaluator, HostTrainer  # noqa: E402
from tfdqn.runs import run_config  # noqa: E402
from tfdqn.runtime import python_calls  # noqa: E402

LENGTH = 4  # frames of an episode


class Counting(gymnasium.Env):
    """Shows (its number, the episode, the frame); the reward tells the frame and the action. Even episodes end by the
    rules, odd ones by a time limit."""

    observation_space = gymnasium.spaces.Box(0, 1000, (3,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, number):
        self.number, self.episode, self.time, self.actions = number, -1, 0, []

    def _observation(self):
        return np.array([self.number, self.episode, self.time], np.float32)

    def reset(self, *, seed=None, options=None):
        self.episode, self.time = self.episode + 1, 0
        return self._observation(), {}

    def step(self, action):
        self.actions.append((self.episode, self.time, int(action)))
        self.time += 1
        is_over, is_even = self.time == LENGTH, self.episode % 2 == 0
        return self._observation(), 10.0 * self.time + action, is_over and is_even, is_over and not is_even, {}


class Game(HostEnvironment):
    observation_spec = tfdqn.envs.ObservationSpec((3,), "float32")
    num_actions = 3

    def __init__(self, mode):
        self.mode = mode

    def begin(self, num_envs, with_pictures=False):
        factories = [lambda i=i: Counting(i) for i in range(num_envs)]
        self.vector = SyncVectorEnv(factories, autoreset_mode=self.mode)
        return from_gymnasium.VectorGames(self.vector, self.observation_spec)


def make_trainer(mode, steps=11, game=None, **settings):
    """Without XLA if not said: compiling would take most of the time of tests that are about what is played."""
    config = configuration.resolve(
        {"env": "gym:CartPole-v1", "num_envs": 2, "replay_capacity": 200, "replay_min_rows": 10, "batch_size": 4}
        | {"epsilon_start": 0.0, "epsilon_end": 0.0, "epsilon_decay_env_frames": 1, "log_every_frames": 10**6}
        | {"jit": settings.get("eager", False)}
        | settings
    )
    trainer = HostTrainer(config, "/CPU:0", game or Game(mode))
    carry = trainer.initial_carry()
    carry, _ = trainer.run_reporting_chunk(carry, steps, 10**9, 10**9)
    return trainer, carry


class Pictures(Counting):
    """Images, in episodes of lengths that their seeds decide; every third is cut off."""

    observation_space = gymnasium.spaces.Box(0, 255, (5, 4), np.uint8)
    action_space = gymnasium.spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        gymnasium.Env.reset(self, seed=seed)
        self.length = int(self.np_random.integers(1, 9))
        return self._picture(), {"length": self.length}

    def _picture(self):
        return self.np_random.integers(0, 256, (5, 4), np.uint8)

    def step(self, action):
        self.actions.append(int(action))
        self.time += 1
        is_over, is_cut = self.time >= self.length, self.episode % 3 == 0
        # Some environments say both.
        return (
            self._picture(),
            self.np_random.normal() * action,
            is_over and not is_cut,
            is_over and self.length > 4,
            {},
        )


@pytest.mark.parametrize("name", ["CartPole-v1", "MountainCar-v0", "Pictures-v0"])
@pytest.mark.parametrize("num_envs", [1, 3])
def test_environments_stepped_here_are_those_that_gymnasiums_own_vector_steps(name, num_envs):
    """In every number, over many episodes: also of one that is cut off, and of one that begins in the next step."""
    gymnasium.register("Pictures-v0", lambda: Pictures(0), max_episode_steps=7)
    try:
        game = from_gymnasium.make(name)
        ours = game.begin(num_envs)
        vector = gymnasium.make_vec(
            name, num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": AutoresetMode.NEXT_STEP}
        )
    finally:
        del gymnasium.registry["Pictures-v0"]
    theirs = from_gymnasium.VectorGames(vector, game.observation_spec)
    assert type(ours) is from_gymnasium.SteppedGames and ours.skips_resets and theirs.skips_resets
    dice, ends = np.random.default_rng(0), np.zeros(2, int)
    for start in range(2):  # in the middle of episodes, too
        seeds = [10 * start + i for i in range(num_envs)]
        np.testing.assert_array_equal(ours.reset(seeds), theirs.reset(seeds))
        for _ in range(1500):
            action = dice.integers(0, game.num_actions, num_envs, np.int32)
            one, other = ours.step(action), theirs.step(action)
            for field, left, right in zip(one._fields, one, other, strict=True):
                assert left.dtype == right.dtype, field
                np.testing.assert_array_equal(left, right, err_msg=field)
            ends += [one.termination.sum(), one.truncation.sum()]
    assert ends.sum() > 10 * num_envs and (name == "CartPole-v1" or ends[1] > 0)


def test_an_observation_of_another_shape_than_its_space_is_refused():
    games = from_gymnasium.make("CartPole-v1").begin(1)
    games.reset([0])
    env = games._vector.envs[0]
    env.step = lambda action: (np.zeros(3, np.float32), 1.0, False, False, {})
    with pytest.raises(ValueError, match=r"shows \(3,\), in a space of \(4,\)"):
        games.step(np.zeros(1, np.int32))


def count_calls(function, calls):
    def counted(*given):
        calls.append(given)
        return function(*given)

    return counted


def rows_of(trainer, number):
    fields = {name: table.numpy()[:, number] for name, table in trainer.replay.state.items() if name != "last_id"}
    count = int(trainer.replay.num_rows) // trainer.config.num_envs
    return [{name: values[i] for name, values in fields.items()} for i in range(count)]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rows_are_what_was_played_in_each_autoreset_mode(mode):
    trainer, carry = make_trainer(mode)
    first = 0 if mode == AutoresetMode.NEXT_STEP else 1  # the first frame of later episodes that has a row
    expected = [(0, t) for t in range(LENGTH + 1)]
    expected += [(episode, t) for episode in (1, 2, 3) for t in range(first, LENGTH + 1)]
    for number in range(2):
        rows = rows_of(trainer, number)
        assert [tuple(row["frame"]) for row in rows] == [(number, *place) for place in expected[:11]]
        played = {(episode, time): action for episode, time, action in trainer.stage.games._vector.envs[number].actions}
        for row, (episode, time) in zip(rows, expected, strict=False):
            assert row["is_boundary"] == (time == LENGTH)
            assert row["is_first"] == (time == (first if episode else 0))
            if time == LENGTH:
                continue
            assert row["action"] == played[episode, time]
            assert row["reward"] == 10 * (time + 1) + row["action"]
            assert row["discount"] == (0 if time == LENGTH - 1 and episode % 2 == 0 else 1)
    # Scores count every frame that was played, also those without a row.
    ends = 2 * 2
    assert int(carry.metrics.episodes) == ends and int(carry.metrics.episode_frames) == LENGTH * ends
    envs = trainer.stage.games._vector.envs
    total = sum(10 * (time + 1) + action for env in envs for e, time, action in env.actions if e < 2)
    assert float(carry.metrics.score) == total
    # The games are one step ahead of the carry.
    assert int(carry.env_frames) == sum(len(env.actions) for env in envs) - 2


@pytest.mark.parametrize(("eager", "jit"), [(False, True), (False, False), (True, True)])
def test_rows_hold_their_own_frames_where_the_environments_write_into_one_buffer(eager, jit):
    """As Gymnasium's own vector does for `GymnasiumGame`, which asks it for no copies."""
    gymnasium.register("Counting-v0", lambda: Counting(0))
    try:
        game = from_gymnasium.make("Counting-v0")
        trainer, carry = make_trainer(None, game=game, eager=eager, jit=jit)
    finally:
        del gymnasium.registry["Counting-v0"]
    assert not trainer.stage.games._vector.copy
    for number in range(2):
        frames = [tuple(row["frame"][1:]) for row in rows_of(trainer, number)]
        assert frames == [(t // (LENGTH + 1), t % (LENGTH + 1)) for t in range(11)]
    assert carry.history[-1, 0, 1:].numpy().tolist() == [2, 1]


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("stack", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_each_action_answers_to_what_is_shown(mode, stack):
    """Greedy actions on the game's own frames: also on the first of an episode that begins in the step of an end."""
    trainer, _ = make_trainer(mode, frame_stack=stack, replay_min_rows=200, learning_rate=0.0001)
    for number in range(2):
        for episode, time, action in trainer.stage.games._vector.envs[number].actions:
            # Where the first frame has no row, the next one begins the episode for learning, and so for acting.
            least = 1 if episode and time and mode != AutoresetMode.NEXT_STEP else 0
            frames = [[number, episode, max(t, least)] for t in range(time - stack + 1, time + 1)]
            values = trainer.agent(tf.constant(np.concatenate(frames)[np.newaxis], tf.float32))
            assert int(np.argmax(values)) == action, (episode, time)


def test_eager_and_compiled_runs_agree():
    (eager, carry), (compiled, other) = (
        make_trainer(AutoresetMode.NEXT_STEP, 30, eager=is_eager, jit=True, epsilon_start=0.5, epsilon_end=0.5)
        for is_eager in (True, False)
    )
    assert int(eager.agent.optimizer.iterations) > 20
    for number in range(2):
        actions = [trainer.stage.games._vector.envs[number].actions for trainer in (eager, compiled)]
        assert actions[0] == actions[1]
    np.testing.assert_allclose(float(carry.metrics.loss), float(other.metrics.loss), rtol=1e-4)
    for ours, theirs in zip(eager.agent.online.get_weights(), compiled.agent.online.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


def test_results_do_not_depend_on_the_chunks_length():
    whole, _ = make_trainer(AutoresetMode.NEXT_STEP, 24, epsilon_start=0.5, epsilon_end=0.5)
    parts, carry = make_trainer(AutoresetMode.NEXT_STEP, 0, epsilon_start=0.5, epsilon_end=0.5)
    for _ in range(8):
        carry, _ = parts.run_reporting_chunk(carry, 3, 10**9, 10**9)
    for ours, theirs in zip(whole.agent.online.get_weights(), parts.agent.online.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert parts.trace_count == 1


@pytest.mark.parametrize(
    ("mode", "settings"),
    [
        (AutoresetMode.NEXT_STEP, {"frame_stack": 2}),
        (AutoresetMode.SAME_STEP, {"iterations_per_update": 3, "updates_per_iteration": 2}),
    ],
)
def test_one_program_does_to_the_bit_what_several_do(mode, settings, monkeypatch):
    settings |= {"jit": True, "epsilon_start": 0.3, "epsilon_end": 0.3}
    settings |= {"target": "hard", "target_update_period_updates": 5}
    one, carry = make_trainer(mode, 20, **settings)
    monkeypatch.setattr(python_calls, "are_possible", lambda: False)
    several, other = make_trainer(mode, 20, **settings)
    assert not one._pieces and several._pieces and one.trace_count == 1
    assert int(one.agent.optimizer.iterations) > 10
    for ours, theirs in zip(tf.nest.flatten(carry), tf.nest.flatten(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    for name, variable in one.learner.variables.items():
        np.testing.assert_array_equal(variable, several.learner.variables[name], err_msg=name)
    for number in range(2):
        actions = [trainer.stage.games._vector.envs[number].actions for trainer in (one, several)]
        assert actions[0] == actions[1]


@pytest.mark.parametrize("period, updates", [(17, 1), (33, 2)])
def test_updates_between_two_copies_of_the_target_are_a_program_that_writes_none(monkeypatch, period, updates):
    """It is taken wherever no copy is due, and no weight of either network differs for it."""
    settings = {
        "target": "hard",
        "target_update_period_updates": period,
        "updates_per_iteration": updates,
        "jit": False,
    }

    def trained():
        trainer, carry = make_trainer(AutoresetMode.NEXT_STEP, 29, **settings)
        trainer.run_reporting_chunk(carry, 25, 10**9, 10**9)
        return trainer

    copied = []
    monkeypatch.setattr(pieces.Pieces, "_update", count_calls(pieces.Pieces._update, copied))
    calm = trained()
    assert len(copied) == 2  # each program was traced once
    assert int(calm.agent.optimizer.iterations) > 2 * period
    monkeypatch.setattr(pieces, "LEAST_CALM_ROUNDS", 10**9)
    looking = trained()
    for name in ("online", "target"):
        ours, theirs = (getattr(trainer.agent, name).get_weights() for trainer in (calm, looking))
        for a, b in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_carry_from_elsewhere_goes_on_with_new_episodes_and_cuts_the_old_ones(capfd):
    trainer, carry = make_trainer(AutoresetMode.NEXT_STEP, 3)
    trainer._iteration = -1  # as after a restart
    carry, _ = trainer.run_reporting_chunk(carry, 2, 10**9, 10**9)
    assert "2 new episodes begin" in capfd.readouterr().err
    rows = rows_of(trainer, 0)
    assert [(*row["frame"][1:], row["is_boundary"], row["is_first"]) for row in rows] == [
        (0, 0, 0, 1),
        (0, 1, 0, 0),
        (0, 2, 0, 0),
        (0, 3, 1, 0),  # the last that was seen: bootstrapped, for its discount is 1
        (1, 0, 0, 1),
        (1, 1, 0, 0),
    ]
    assert all(row["discount"] == 1 for row in rows)
    assert int(carry.env_frames) == 2 * 5


@pytest.mark.parametrize(("eager", "jit"), [(False, True), (False, False), (True, True)])
def test_what_a_game_raises_is_raised_and_nothing_goes_on_from_there(eager, jit, capfd):
    """Nor is anything made up: rounds are of three decisions, and the games are lost in the middle of one."""
    settings = {"eager": eager, "jit": jit, "iterations_per_update": 3, "replay_min_rows": 4, "n_step": 1}
    trainer, carry = make_trainer(AutoresetMode.NEXT_STEP, 1, **settings)
    assert bool(trainer._pieces) == (eager or not jit)
    games, calls = trainer.stage.games, []

    def fail(action):
        calls.append(action)
        if len(calls) == 2:
            raise RuntimeError("the rules are lost")
        return works(action)

    games.step, works = fail, games.step
    with pytest.raises(RuntimeError, match="the rules are lost"):
        trainer.run_reporting_chunk(carry, 2, 10**9, 10**9)
    updates = trainer.config.updates_per_iteration  # of the first round alone
    assert len(calls) == 2 and int(trainer.agent.optimizer.iterations) == updates
    held = [row["frame"][2] for row in rows_of(trainer, 0)]
    # In a plain graph, what waits for no step of the games may go ahead: a frame that they have shown.
    assert held == [0, 1, 2, 3, 4] or (not jit and held == [0, 1, 2, 3, 4, 0])
    games.step = works
    carry, _ = trainer.run_reporting_chunk(carry, 2, 10**9, 10**9)
    assert "2 new episodes begin" in capfd.readouterr().err
    cut, fresh = rows_of(trainer, 0)[len(held) :][:2]
    assert cut["is_boundary"] and fresh["is_first"] and fresh["frame"][1] > cut["frame"][1] and fresh["frame"][2] == 0


class CallsTensorFlow(Counting):
    since = 0

    def step(self, action):
        observation, *rest = super().step(action)
        if len(self.actions) > self.since:
            observation = tf.reverse(tf.reverse(observation, [0]), [0]).numpy()
        return observation, *rest


def test_a_game_that_calls_tensorflow_is_played_between_programs():
    gymnasium.register("CallsTensorFlow-v0", lambda: CallsTensorFlow(0))
    try:
        trainer, _ = make_trainer(None, game=from_gymnasium.make("CallsTensorFlow-v0"), jit=True)
    finally:
        del gymnasium.registry["CallsTensorFlow-v0"]
    assert trainer._pieces
    assert [row["frame"][2] for row in rows_of(trainer, 1)] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0]


def test_a_game_that_calls_tensorflow_later_on_is_stopped(monkeypatch):
    """Where it was not seen to from the start: it might wait for ever."""
    monkeypatch.setattr(CallsTensorFlow, "since", 5)
    gymnasium.register("CallsTensorFlow-v0", lambda: CallsTensorFlow(0))
    try:
        game = from_gymnasium.make("CallsTensorFlow-v0")
        with pytest.raises(UserError, match=r"gym:CallsTensorFlow-v0: calls TensorFlow.*use --no-jit"):
            make_trainer(None, game=game, jit=True)
    finally:
        del gymnasium.registry["CallsTensorFlow-v0"]


def test_evaluation_plays_the_first_episode_of_each_environment():
    trainer, _ = make_trainer(AutoresetMode.NEXT_STEP, 1, eval_episodes=3)
    evaluator = HostEvaluator(trainer.config, trainer.env, trainer.agent)
    scores = evaluator.evaluate(5)
    assert scores.frames.tolist() == [LENGTH] * 5
    actions = [[a for e, _, a in env.actions if e == 1] for env in trainer.env.vector.envs]  # of the last two
    assert scores.scores[3:].tolist() == [sum(actions[i]) + 100 for i in range(2)]
    assert scores.strip[-1].tolist() == [0, 0, LENGTH - 1] and scores.q_values.shape == (LENGTH, 3)
    assert evaluator.evaluate(2, max_frames=2).frames.tolist() == [2, 2]


# --- Whole runs ---


def test_a_run_of_a_gymnasium_game_trains_goes_on_and_is_evaluated(tmp_path, capfd):
    lengths = {"eval_every_frames": 400, "eval_episodes": 4, "final_eval_episodes": 8, "replay_min_rows": 200}
    agent = tfdqn.Agent("gym:CartPole-v1", num_envs=4, jit=False, **lengths)
    first = agent.fit(logdir=tmp_path, run_name="a", total_env_frames=800)
    assert agent.fit(total_env_frames=1200).params["updates"] > first.params["updates"] > 50
    assert "gym:CartPole-v1 steps on the host: 4 new episodes begin" in capfd.readouterr().err
    run = tmp_path / "a"
    with pytest.raises(UserError, match="add --env gym:CartPole-v1"):  # a folder does not decide which code runs
        evaluate.main([str(run)])
    capfd.readouterr()
    assert evaluate.main([str(run), "--env=gym:CartPole-v1", "--episodes=8", "--device=cpu", "--json"]) == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["episodes"] == 8


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ("--env gym:CartPol-v1", "did you mean 'CartPole-v1'?"),
        ("--env gym:CartPole-v9", "v9"),
        ("--env gym:xyz-v1", "gymnasium.pprint_registry() lists them"),
        ("--env gym:", "Malformed environment ID"),
        ("--env gym:no_such_module:X-v1", "No module named 'no_such_module'"),
        ("--env gym::X-v1", "Empty module name"),
        ("--env gym:Pendulum-v1", "Q-learning needs Discrete actions"),
        ("--env gym:FrozenLake-v1", "wrap it"),
        ("--env gym:CartPole-v1 --action-repeat 2", "--action-repeat 2: gym:CartPole-v1 steps on the host"),
        ("--env gym:CartPole-v1 --restart-share 0.5", "--restart-share 0.5"),
        ("--env gym:CartPole-v1 --network conv", "looks at screens"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(arguments, line, tmp_path):
    with pytest.raises(UserError) as error:
        train.main([*arguments.split(), f"--logdir={tmp_path}", "--device=cpu"])
    assert line in str(error.value) and "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_an_environment_that_its_own_module_registers_is_found(tmp_path, monkeypatch):
    code = "import gymnasium\ngymnasium.register('OfItsOwn-v0', 'gymnasium.envs.classic_control:CartPoleEnv')\n"
    (tmp_path / "registers_it.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        config = configuration.resolve({"env": "gym:registers_it:OfItsOwn-v0"})
        assert len(run_config.source_of(config)["sha256"]) == 64  # before it is made, too
        assert tfdqn.envs.make_for(config).observation_shape == (4,)
        with pytest.raises(UserError, match="OfItOwn"):
            from_gymnasium.make("registers_it:OfItOwn-v0")
    finally:
        gymnasium.registry.pop("OfItsOwn-v0", None)


def test_a_run_knows_the_source_of_the_environment_that_it_has_played(tmp_path, monkeypatch):
    code = "from gymnasium.envs.classic_control import CartPoleEnv\n\n\nclass Mine(CartPoleEnv):\n    pass\n"
    (tmp_path / "of_ones_own.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    gymnasium.register("Mine-v0", "of_ones_own:Mine")
    try:
        config = configuration.resolve({"env": "gym:Mine-v0"})
        held = run_config.source_of(config)
        assert held["spec"] == "gym:Mine-v0" and len(held["sha256"]) == 64
        run_config.refuse_other_source(tmp_path, held, config, False)
        (tmp_path / "of_ones_own.py").write_text(code + "    gravity = 5.0\n", encoding="utf-8")
        with pytest.raises(UserError, match="the source of gym:Mine-v0 has changed since the run was saved; to go on"):
            run_config.refuse_other_source(tmp_path, held, config, False)
    finally:
        del gymnasium.registry["Mine-v0"]
    assert run_config.source_of(configuration.resolve({"env": "gym:CartPole-v1"}))["sha256"]
    assert from_gymnasium.sha256_of("NoSuch-v0") == ""


def test_the_contract_of_compiled_games_is_not_asked_of_them():
    with pytest.raises(UserError, match="steps on the host"):
        check_env.main(["gym:CartPole-v1"])
    with pytest.raises(TypeError, match="use begin"):
        Game(AutoresetMode.NEXT_STEP).reset(None)


def test_what_pictures_need_is_named_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)  # as where it is not installed
    games = from_gymnasium.make("CartPole-v1").begin(1, with_pictures=True)
    games.reset([0])
    with pytest.raises(UserError, match=r"^gym:CartPole-v1: pygame is not installed") as error:
        games.render()
    assert len(str(error.value).splitlines()) == 1
