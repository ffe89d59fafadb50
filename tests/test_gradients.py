"""Histograms of gradients: they are those that an update steps along, and a run that shows them stays what it is."""

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.whole_runs import make_run
from tfdqn import config as configuration
from tfdqn.errors import UserError
from tfdqn.learners.dqn.agent import DQN
from tfdqn.replay.transitions import Transition

WRAPS = {
    "eager": lambda function: function,
    "xla": lambda function: tf.function(function, autograph=False, jit_compile=True),
}
# What draws, what takes note of being trained, and what an update changes beside the weights.
RULES = {
    "plain": {},
    "looked at": {"spectral_norm": True, "prioritized": True},
    "all": {
        "network": "conv",
        "spectral_norm": True,
        "noisy": True,
        "head": "iqn",
        "iqn_samples": 4,
        "prioritized": True,
        "target": "soft",
        "play_target": True,
        "n_step": 2,
    },
}


def transitions(size):
    draw = np.random.default_rng(0)
    screens = draw.integers(0, 256, (2, size, 8, 8, 1)).astype(np.uint8)
    return Transition(
        observation=tf.constant(screens[0]),
        action=tf.constant(draw.integers(0, 3, size), tf.int32),
        reward=tf.constant(draw.normal(size=size), tf.float32),
        discount=tf.fill([size], 0.9),
        next_observation=tf.constant(screens[1]),
    )


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("settings", [{}, {"spectral_norm": True, "dueling": True}], ids=["plain", "spectral"])
def test_the_gradient_is_what_an_update_steps_along(settings, wrap):
    """By plain gradient descent at a rate of 1, which subtracts it. Looking at it changes nothing."""
    agent = DQN((8, 8, 1), 3, seed=1, **settings)
    agent.compile(tf.keras.optimizers.SGD(1.0))
    agent.optimizer.build(agent.online.trainable_variables)
    batch, weights = transitions(16), tf.constant(np.linspace(0.5, 1.0, 16), tf.float32)
    before = [variable.numpy() for variable in [*agent.variables, *agent.optimizer.variables]]
    found = WRAPS[wrap](lambda: agent.gradient(batch, weights))()
    for variable, value in zip([*agent.variables, *agent.optimizer.variables], before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.name)
    held = [variable.numpy() for variable in agent.online.trainable_variables]
    agent.learn(batch, weights)
    assert max(np.abs(gradient).max() for gradient in found) > 1e-3
    for gradient, old, variable in zip(found, held, agent.online.trainable_variables, strict=True):
        np.testing.assert_allclose(gradient, old - variable, rtol=1e-3, atol=1e-6, err_msg=variable.name)


def train(run_dir, **settings):
    """A short run, and all that it has come to: by name what learns, and what goes on beside it."""
    run = make_run(run_dir, **settings)
    run.train()
    return run, {name: variable.numpy() for name, variable in run.trainer.learner.variables.items()}


def test_a_learner_that_is_looked_at_stays_as_it_was(tmp_path):
    run = make_run(
        tmp_path / "run", gradients_every_evals=2, jit=True, eager=True, replay_min_rows=32, **RULES["looked at"]
    )
    learner = run.trainer.learner
    assert learner.histograms(2) == {}  # before there is enough to learn from
    run.trainer.run_chunk(run.carry, 8, 10**6)
    before = {name: variable.numpy() for name, variable in learner.variables.items()}
    assert learner.histograms(1) == {}
    ((metric, values),) = learner.histograms(2).items()
    assert metric.tag == "train/gradients" and metric in learner.HISTOGRAMS
    assert values.shape == (sum(np.prod(each.shape) for each in run.trainer.agent.online.trainable_variables),)
    assert np.abs(values).max() > 0
    assert int(run.trainer.agent.optimizer.iterations) > 0
    for name, variable in learner.variables.items():
        np.testing.assert_array_equal(variable, before[name], err_msg=name)
    run.close()


@pytest.mark.slow
@pytest.mark.parametrize("rules", ["plain", "all"])
@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_a_run_that_shows_them_is_the_same_run_in_every_bit(tmp_path, rules, jit):
    settings = {**RULES[rules], "jit": jit, "eval_every_frames": 1000}
    run, shown = train(tmp_path / "shown", gradients_every_evals=2, **settings)
    _, hidden = train(tmp_path / "hidden", **settings)
    assert shown.keys() == hidden.keys()
    for name, value in hidden.items():
        np.testing.assert_array_equal(shown[name], value, err_msg=name)

    events = {name: EventAccumulator(str(tmp_path / name / "train")).Reload() for name in ("shown", "hidden")}
    assert "train/gradients" not in events["hidden"].Tags()["tensors"]
    found = events["shown"].Tensors("train/gradients")
    assert [event.step // 1000 for event in found] == [2, 4]  # of evaluations after 1000, 2000, 3000 and 4000 frames
    assert events["shown"].SummaryMetadata("train/gradients").plugin_data.plugin_name == "histograms"
    bins = [tf.make_ndarray(event.tensor_proto) for event in found]
    weights = sum(np.prod(each.shape) for each in run.trainer.agent.online.trainable_variables)
    assert [counts[:, 2].sum() for counts in bins] == [weights, weights]
    assert all(counts[0, 0] < 0 < counts[-1, 1] for counts in bins)
    assert not np.array_equal(*bins)


@pytest.mark.parametrize("learner", ["pqn", "a2c", "r2d2"])
def test_learners_without_them_refuse_them(learner):
    with pytest.raises(UserError) as error:
        configuration.resolve({"env": "catch8", "learner": learner, "gradients_every_evals": 1})
    assert str(error.value) == (
        f"--gradients-every-evals 1: --learner {learner} has no such setting, only --learner dqn; leave it out"
    )
