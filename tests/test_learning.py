"""Does the whole program learn? Trained agents against the scores that the documentation promises."""

import pytest

from tfdqn import config as configuration
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer


def train(env_frames, **given):
    """Train for a number of frames, stopping early at the goal, and return the mean score on draws never trained on."""
    config = configuration.resolve({"device": "cpu", **given})
    trainer = Trainer(config)
    evaluator = Evaluator(config, trainer.env, trainer.agent)
    carry, best, weights = trainer.initial_carry(), -float("inf"), None
    for stop in range(config.eval_every_frames, env_frames + 1, config.eval_every_frames):
        carry = trainer.run_chunk(carry, 2**40, stop)
        with trainer.learner.player():
            scores = evaluator.evaluate(config.eval_episodes, stream="evaluation", max_frames=config.eval_max_frames)
            if scores.scores.mean() > best:
                best, weights = scores.scores.mean(), trainer.agent.online.get_weights()
        if best >= config.goal_score:
            break
    assert weights is not None, "no evaluation fell due"
    trainer.agent.online.set_weights(weights)
    assert trainer.trace_count == evaluator.trace_count == 1
    return evaluator.evaluate(256).summary()["score_mean"]


def test_catch8_is_played_perfectly():
    assert train(500_000, env="catch8") >= 98.5


def test_the_articles_settings_learn_too():
    article = {"preset": "article", "optimizer": "rmsprop", "loss": "mse", "target": "none", "double": False}
    assert train(100_000, env="catch8", **article) >= 50


RULES = {
    "all together": {"dueling": True, "prioritized": True, "head": "categorical", "n_step": 3},
    "rainbow": {"preset": "rainbow"},
    "Boltzmann": {"exploration": "boltzmann", "temperature_end": 0.01, "epsilon_end": 0.0},
    "a ladder of epsilons": {"epsilon_ladder": 7.0, "epsilon_end": 0.4},
    "noise alone": {"noisy": True, "epsilon_start": 0.0, "epsilon_end": 0.0},
    "quantiles": {"head": "quantile"},
    "Munchausen": {"munchausen_alpha": 0.9},
    "Munchausen quantiles": {"munchausen_alpha": 0.9, "head": "quantile"},
    "implicit quantiles": {"head": "iqn"},
    "spectral normalisation": {"spectral_norm": True, "optimizer": "adam", "learning_rate": 1e-3},
    "dueling": {"dueling": True},
    "prioritized": {"prioritized": True},
    "categorical": {"head": "categorical"},
    "plain": {"double": False},
    "soft target": {"target": "soft"},
    "3-step": {"n_step": 3},
    "expected Sarsa": {"target_epsilon": 0.1},
    "advantage learning": {"advantage_alpha": 0.5},
    "three members": {"members": 3},
    "averaged weights": {"target": "soft", "play_target": True},
    "clipped gradient": {"max_gradient_norm": 1.0},
    "falling rate": {"learning_rate": 1e-3, "learning_rate_decay_updates": 10_000},
}
QUICK = ("all together",)  # that each head learns what it should, smaller games show, such as in `test_quantiles.py`


@pytest.mark.parametrize(
    "rules", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in RULES]
)
def test_catch8_is_learnt_with_each_rule(rules):
    assert train(1_000_000, env="catch8", **RULES[rules]) >= 98.5


@pytest.mark.slow
def test_a_planted_fault_is_seen():
    """With rewards that no longer reach the learner, the same training must fail: the tests above can."""
    config = configuration.resolve({"env": "catch8", "device": "cpu", "discount": 0.0, "n_step": 1})
    assert train(200_000, **{**configuration.plain(config), "stop_at_goal": False}) < 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_catch8_on_five_seeds(seed):
    assert train(1_000_000, env="catch8", seed=seed) >= 98.5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_catch16_on_three_seeds(seed):
    assert train(3_000_000, env="catch16", seed=seed) >= 95


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_cave_on_three_seeds(seed):
    assert train(1_400_000, env="cave", seed=seed, eval_every_frames=1_400_000) >= 600
