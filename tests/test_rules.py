"""The kinds of rules: every name that a user may give has its value, and each does what it says."""

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn.envs import make
from tfdqn.learners import exploration, optimizing
from tfdqn.learners.dqn import rules, settings
from tfdqn.learners.dqn.learner import build_replay
from tfdqn.members import Members
from tfdqn.replay.prioritized import PrioritizedReplay
from tfdqn.replay.table import FrameReplay


def test_every_name_that_settings_allow_has_its_value_and_no_other():
    choices = {name: field.metadata["choices"] for name, field in settings.FIELDS.items()}
    kinds = {"loss": rules.LOSSES, "head": rules.HEADS, "target": rules.TARGETS, "optimizer": optimizing.OPTIMIZERS}
    kinds["exploration"] = exploration.KINDS
    for name, values in kinds.items():
        assert sorted(values) == sorted(choices[name]), name
    for values in (rules.CHOOSERS, rules.PLAYERS, rules.SAMPLERS, rules.TARGET_RULES):
        assert set(values) == {False, True}


def network(value):
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, kernel_initializer=tf.keras.initializers.Constant(value))])
    model.build([None, 2])
    return model


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize(
    "name, after",
    [("hard", [1.0, 1.0, 3.0, 3.0]), ("soft", [1.5, 2.0 - 0.125, 2.15625, 2.3671875]), ("none", [1.0] * 4)],
)
def test_target_policies_follow_the_online_network(name, after, jit):
    """An online network of threes, a target that begins with ones; periods of 3 updates, a tau of a quarter."""
    online, target = network(3.0), network(1.0)
    policy = rules.TARGETS[name]({"target_update_period_updates": 3, "target_tau": 0.25}, Members(()))
    assert policy.bootstrap(online, target) is (online if name == "none" else target)
    follow = tf.function(lambda updates: policy.follow(online, target, updates), jit_compile=jit, autograph=False)
    found = []
    for update in range(1, 5):
        follow(tf.constant(update, tf.int64))
        found.append(float(target.variables[0][0, 0]))
    np.testing.assert_allclose(found, after)


def test_who_chooses_the_next_action():
    calls = []

    def online(observation):
        calls.append(observation)
        return "online"

    assert rules.CHOOSERS[False](online, "target", "seen", "output") == "output" and not calls
    assert rules.CHOOSERS[True](online, "target", "seen", "output") == "online" and calls == ["seen"]
    assert rules.CHOOSERS[True](online, online, "seen", "output") == "output" and calls == ["seen"]  # nothing twice


def test_samplers_are_what_a_configuration_says():
    for is_prioritized, kind in ((False, FrameReplay), (True, PrioritizedReplay)):
        config = configuration.resolve({"prioritized": is_prioritized, "priority_alpha": 0.3, "replay_capacity": 6400})
        replay = build_replay(config, make(config.env), "/CPU:0")
        assert type(replay) is kind
    assert replay._priorities._alpha == 0.3 and replay.capacity == 6400
