"""What an agent is told of the action before and of what it paid: wherever it plays, zero at an episode's start."""

import numpy as np
import pytest
import tensorflow as tf

import tfdqn
from tfdqn import config as configuration
from tfdqn import record
from tfdqn.envs import make
from tfdqn.learners import build_agent
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer
from tfdqn.runs import run_config
from tfdqn.runtime import compiled

SMALL = {"learner": "r2d2", "cell_units": 4, "num_envs": 4, "batch_size": 4, "eager": True, "device": "cpu"}
SMALL |= {"epsilon_start": 0.0, "epsilon_end": 0.0}


def overheard(agent, monkeypatch):
    """What is carried into each call of `act`, with what it sees there and the actions it chooses."""
    act, seen = agent.act, []

    def spy(observation, agent_state, *rest, **more):
        action, carried = act(observation, agent_state, *rest, **more)
        seen.append((np.array(observation), np.array(agent_state.action), np.array(agent_state.reward), action.numpy()))
        return action, carried

    monkeypatch.setattr(agent, "act", spy)
    return seen


def test_in_training_it_is_that_of_the_row_before():
    config = configuration.resolve({"env": "catch8", **SMALL})
    trainer = Trainer(config)
    carry, before, met = trainer.initial_carry(), None, set()
    for _ in range(30):
        carry, decision = trainer._interact(carry)
        state, row = decision.agent_state, decision.row
        goes_on = ~row.is_first.numpy()
        assert np.all(state.action.numpy()[~goes_on] == -1) and not np.any(state.reward.numpy()[~goes_on])
        if before is not None:
            np.testing.assert_array_equal(state.action[goes_on], before.action[goes_on])
            np.testing.assert_array_equal(state.reward[goes_on], before.reward[goes_on])
            met |= set(state.reward.numpy()[goes_on])
        before = row
    assert len(met) > 1


def test_in_an_evaluation_it_is_the_sum_of_the_frames_of_a_decision(monkeypatch):
    config = configuration.resolve({"env": "cartpole", "action_repeat": 2, "eval_episodes": 3, **SMALL})
    env = make("cartpole")
    agent = build_agent(config, env)
    seen = overheard(agent, monkeypatch)
    Evaluator(config, env, agent).evaluate(3, max_frames=8)
    _, actions, rewards, chosen = zip(*seen, strict=True)
    np.testing.assert_array_equal(rewards, [[0.0] * 3] + [[2.0] * 3] * 3)
    np.testing.assert_array_equal(actions, [[-1] * 3, *chosen[:-1]])


def test_in_a_recording_too(monkeypatch):
    config = configuration.resolve({"env": "cartpole", "action_repeat": 3, **SMALL})
    env = make("cartpole")
    agent = build_agent(config, env)
    seen = overheard(agent, monkeypatch)
    noise = env.sample_noise(tf.constant([1, 2], tf.int64), 1)
    env.compiled_step(env.compiled_reset(noise), tf.zeros([1], tf.int32), noise)  # the game is compiled, the player not
    monkeypatch.setattr(compiled, "xla", lambda function: function)
    assert len(record.film(config, env, agent, 0, 8)) == 8
    _, actions, rewards, chosen = zip(*seen, strict=True)
    np.testing.assert_array_equal(rewards, [[0.0], [3.0], [3.0]])
    np.testing.assert_array_equal(actions, [[-1], *chosen[:-1]])


@pytest.mark.parametrize("mode", ["NEXT_STEP", "SAME_STEP"])
def test_of_a_game_on_the_host_too(mode, monkeypatch):
    gymnasium = pytest.importorskip("gymnasium")
    from tests.test_host import Game
    from tfdqn.programs.host import HostEvaluator, HostTrainer

    game = Game(getattr(gymnasium.vector.AutoresetMode, mode))
    config = configuration.resolve({"env": "gym:CartPole-v1", "eval_episodes": 4, **SMALL})
    trainer = HostTrainer(config, "/CPU:0", game)
    seen = overheard(trainer.agent, monkeypatch)
    trainer.run_chunk(trainer.initial_carry(), 12, 10**9)
    played = len(seen)
    HostEvaluator(config, game, trainer.agent).evaluate(4)
    assert played >= 12 and len(seen) >= played + 4
    for observation, action, reward, _ in seen:
        time = observation[:, 2]  # of the episode; what it pays is 10 times that, and the action
        np.testing.assert_array_equal(reward, np.where(time == 0, 0, 10 * time + action))
        assert np.all((action == -1) == (time == 0))


def test_from_python_whoever_plays_says_what_was_paid(monkeypatch):
    agent = tfdqn.Agent("catch8", **SMALL)
    seen = overheard(agent.model, monkeypatch)
    screens = np.zeros([2, 8, 8, 1], np.uint8)
    action, state = agent.act_with_state(screens)
    again, state = agent.act_with_state(screens, state, reward=[1.5, 0.0])
    agent.act_with_state(screens, state)
    np.testing.assert_array_equal([each[2] for each in seen], [[0, 0], [1.5, 0], [0, 0]])
    np.testing.assert_array_equal([each[1] for each in seen], [[-1, -1], action, again])
    one, state = agent.act_with_state(screens[0])
    agent.act_with_state(screens[0], state, reward=1)
    assert seen[-1][1] == [one] and seen[-1][2] == [1.0]
    with pytest.raises(ValueError, match="reward: "):
        agent.act_with_state(screens, agent.act_with_state(screens)[1], reward=[1.0])


def test_an_agent_of_an_earlier_version_keeps_the_network_that_it_has(tmp_path):
    (tmp_path / "config.toml").write_text('env = "catch8"\nlearner = "r2d2"\n[r2d2]\ncell = "gru"\ncell_units = 8\n')
    config = run_config.read_config(tmp_path)
    assert (config.cell, config.cell_units, config.previous_action_reward) == ("gru", 8, False)
    agent = build_agent(config, make("catch8"))
    assert agent.initial_state(1)._fields == ("hidden",)
    saved = agent.get_config()
    del saved["previous_action_reward"]
    assert type(agent).from_config(saved).get_config() == agent.get_config()


def test_the_past_decides_what_the_network_sees():
    agent = build_agent(configuration.resolve({"env": "catch8", **SMALL}), make("catch8"))
    observation = tf.zeros([4, 8, 8, 1], tf.uint8)
    state = agent.initial_state(4)._replace(action=tf.constant([-1, 0, 1, 0]), reward=tf.constant([0.0, 0.0, 0.0, 1.0]))
    values = agent.action_values(observation, state).numpy()
    assert len({tuple(each) for each in values}) == 4
    np.testing.assert_array_equal(agent(observation)[0], values[0])
