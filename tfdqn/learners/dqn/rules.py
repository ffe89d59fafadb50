"""The rules of DQN that come in several kinds: each kind is a value, chosen once, by its name, when an agent is built.

Here is the only list of them. What is chosen is asked from then on; nobody compares names again. A head's or a
sampler's own code is in a module of its own.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from tfdqn.learners import losses
from tfdqn.learners.dqn import heads, targets
from tfdqn.members import Members

if TYPE_CHECKING:
    from tfdqn.learners.dqn.agent import DQN
    from tfdqn.replay.table import FrameReplay


# --- What is learnt ---

LOSSES = {"huber": losses.huber, "mse": losses.squared}

# From A and an agent's settings by name.
HEADS: dict[str, Callable[[int, Mapping[str, Any]], heads.Head]] = {
    "scalar": lambda num_actions, given: heads.ScalarHead(
        num_actions, given["dueling"], given["target_epsilon"], LOSSES[given["loss"]]
    ),
    "categorical": lambda num_actions, given: heads.CategoricalHead(
        num_actions,
        given["dueling"],
        given["atoms"],
        given["value_min"],
        given["value_max"],
        given["target_epsilon"],
    ),
    "quantile": lambda num_actions, given: heads.QuantileHead(
        num_actions, given["dueling"], given["quantiles"], given["huber_kappa"], given["target_epsilon"]
    ),
    "iqn": lambda num_actions, given: heads.ImplicitHead(
        num_actions,
        given["dueling"],
        given["iqn_samples"],
        given["iqn_act_samples"],
        given["huber_kappa"],
        given["target_epsilon"],
    ),
}


def _chosen_by_the_same(online: tf.keras.Model, bootstrap: tf.keras.Model, observation: Any, output: Any) -> Any:
    """The network that values the next action also chooses it (Mnih et al. 2015)."""
    return output


def _chosen_by_the_online(online: tf.keras.Model, bootstrap: tf.keras.Model, observation: Any, output: Any) -> Any:
    """The online network chooses, the target network values (van Hasselt et al. 2016)."""
    return output if bootstrap is online else online(observation)


# By `double`: the output that chooses the next action, from both networks, the next observation and the output of the
# network that is bootstrapped from.
CHOOSERS = {False: _chosen_by_the_same, True: _chosen_by_the_online}


def _greedy(given: Mapping[str, Any]) -> targets.TargetRule:
    return targets.GreedyTarget(CHOOSERS[given["double"]], given["advantage_alpha"])


def _munchausen(given: Mapping[str, Any]) -> targets.TargetRule:
    if given["head"] == "categorical" or given["target_epsilon"] or given["advantage_alpha"]:
        raise ValueError(
            f"munchausen_alpha {given['munchausen_alpha']}: does not go with the categorical head, target_epsilon or "
            "advantage_alpha"
        )
    return targets.MunchausenTarget(
        given["munchausen_alpha"], given["munchausen_temperature"], given["munchausen_clip"]
    )


# By whether there is a `munchausen_alpha`: from an agent's settings by name.
TARGET_RULES = {False: _greedy, True: _munchausen}


# --- The target network ---


class TargetPolicy(abc.ABC):
    """Which network is bootstrapped from, and how the target network follows the online one.

    Attributes:
      rare_period_updates: `follow` does nothing but after each so manieth update; 0: it may after any.
    """

    rare_period_updates = 0

    def bootstrap(self, online: tf.keras.Model, target: tf.keras.Model) -> tf.keras.Model:
        """The network whose values of the next state are learnt."""
        return target

    @abc.abstractmethod
    def follow(self, online: tf.keras.Model, target: tf.keras.Model, updates: tf.Tensor) -> None:
        """Move the target network after an update; `updates` [] int64 have been made."""


@dataclasses.dataclass(frozen=True)
class HardTarget(TargetPolicy):
    """A copy, made after every period of updates (Mnih et al. 2015)."""

    period_updates: Any
    members: Members

    @property
    def rare_period_updates(self):
        return 0 if len(np.shape(self.period_updates)) else self.period_updates

    def follow(self, online, target, updates):
        is_due = updates % self.period_updates == 0
        for theirs, ours in zip(target.variables, online.variables, strict=True):
            theirs.assign(tf.where(self.members.over(is_due, ours), ours, theirs))


@dataclasses.dataclass(frozen=True)
class SoftTarget(TargetPolicy):
    """An average of weights, which moves by a share of the distance at each update (Lillicrap et al. 2016)."""

    tau: Any
    members: Members

    def follow(self, online, target, updates):
        for theirs, ours in zip(target.variables, online.variables, strict=True):
            theirs.assign_add(self.members.over(self.tau, ours) * (ours - theirs))


@dataclasses.dataclass(frozen=True)
class Resting(TargetPolicy):
    """Another policy, in updates after which its target network stays as it is."""

    policy: TargetPolicy

    def bootstrap(self, online, target):
        return self.policy.bootstrap(online, target)

    def follow(self, online, target, updates):
        pass


class NoTarget(TargetPolicy):
    """The online network is bootstrapped from; the target network stays as it was made."""

    def bootstrap(self, online, target):
        return online

    def follow(self, online, target, updates):
        pass


# From an agent's settings by name, whose numbers may be [P] of a population, and the members.
TARGETS: dict[str, Callable[[Mapping[str, Any], Members], TargetPolicy]] = {
    "hard": lambda given, members: HardTarget(given["target_update_period_updates"], members),
    "soft": lambda given, members: SoftTarget(given["target_tau"], members),
    "none": lambda given, members: NoTarget(),
}


def _online_plays(agent: DQN) -> contextlib.AbstractContextManager:
    return contextlib.nullcontext()


def _target_plays(agent: DQN) -> contextlib.AbstractContextManager:
    return agent.target_in_front()


# By `play_target`: within it, the agent is the one that a run is to give.
PLAYERS = {False: _online_plays, True: _target_plays}


# --- The replay: imported where one is made, for an agent plays without TF-Agents ---


def _uniform(of: Members, **given: Any) -> FrameReplay:
    from tfdqn.replay.table import FrameReplay

    return FrameReplay(**given)


def _prioritized(of: Members, **given: Any) -> FrameReplay:
    from tfdqn.replay.prioritized import PrioritizedReplay

    own = {name: of.setting(f"priority_{name}") for name in ("alpha", "beta", "beta_updates")}
    return PrioritizedReplay(**given, **own)


# By `prioritized`: of members, from the arguments of `FrameReplay`.
SAMPLERS = {False: _uniform, True: _prioritized}
