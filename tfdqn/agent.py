"""The learner: a Keras model that holds the online and the target network, acts, and takes one step at a time."""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

import tensorflow as tf

from tfdqn import heads, losses, networks, optimizers, seeds
from tfdqn.learners.dqn.settings import TARGETS
from tfdqn.replay import Transition

LOSSES = {"huber": losses.huber, "mse": losses.squared}


CAUSES = ("the TD target", "the loss", "the gradient")  # of weights that are no longer finite


class LearnResult(NamedTuple):
    """What one update shows; scalars are means over the batch unless said otherwise."""

    loss: tf.Tensor  # [] float32, weighted mean, also over the members of the network
    td_error: tf.Tensor  # [B] float32, Q(s, a) minus the target
    mean_q: tf.Tensor  # [] float32, mean over the batch of max_a Q(s, a)
    max_q: tf.Tensor  # [] float32, largest Q(s, a) of the batch
    gradient_norm: tf.Tensor  # [] float32, global norm before clipping
    is_finite: tf.Tensor  # [len(CAUSES)] bool; targets and gradients whose squares overflow, beyond 1e19, are not


@tf.keras.saving.register_keras_serializable(package="tfdqn")
class DQN(tf.keras.Model):
    """Deep Q-network (Mnih et al. 2015) with a target network that shares nothing with the online one.

    `call` maps [B, H, W, stack] uint8 to action values [B, A]. After `compile(optimizer=...)` it learns from batches
    of `Transition`, by `fit` on a `tf.data` set or by `learn` inside a larger compiled loop.

    Args:
      observation_shape: (H, W, stack).
      num_actions: A.
      network: name of a network in `tfdqn.networks`.
      members: networks side by side whose values are averaged (see `tfdqn.heads.Ensemble`).
      convolution: "patches" or "native" (see `tfdqn.networks.build`).
      precision: "float32" or "bfloat16" (see `tfdqn.networks.build`).
      loss: "huber" or "mse".
      target: "hard" copies the online weights every `target_update_period_updates` updates; "soft" moves the target
        by `target_tau` at each update; "none" bootstraps from the online network.
      double: choose the next action by the online network (van Hasselt et al. 2016).
      target_epsilon: learn the returns of a player that takes so large a share of random actions (van Seijen et al.
        2009), not those of a flawless one.
      advantage_alpha: widen the gap between the best action and the others to 1 / (1 - advantage_alpha) times its
        size (Bellemare et al. 2016); the gap is the online network's.
      dueling: learn the state's value and the actions' advantages apart (Wang et al. 2016).
      head: "scalar", the expected return; or "categorical", probabilities of `atoms` returns from `value_min` to
        `value_max` (Bellemare et al. 2017), which learns by cross-entropy and has no use for `loss`.
      max_gradient_norm: clip the gradient's global norm, which is that of all members together; infinity for no
        clipping.
      seed: initial weights follow from it.
    """

    def __init__(
        self,
        observation_shape: tuple[int, int, int],
        num_actions: int,
        network: str = "mlp",
        members: int = 1,
        convolution: str = "patches",
        precision: str = "float32",
        loss: str = "huber",
        target: str = "hard",
        target_update_period_updates: int = 500,
        target_tau: float = 0.005,
        double: bool = True,
        target_epsilon: float = 0.0,
        advantage_alpha: float = 0.0,
        dueling: bool = False,
        head: str = "scalar",
        atoms: int = 51,
        value_min: float = -1.0,
        value_max: float = 1.0,
        max_gradient_norm: float = float("inf"),
        seed: int = 0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._config = {
            "observation_shape": tuple(observation_shape),
            "num_actions": num_actions,
            "network": network,
            "members": members,
            "convolution": convolution,
            "precision": precision,
            "loss": loss,
            "target": target,
            "target_update_period_updates": target_update_period_updates,
            "target_tau": target_tau,
            "double": double,
            "target_epsilon": target_epsilon,
            "advantage_alpha": advantage_alpha,
            "dueling": dueling,
            "head": head,
            "atoms": atoms,
            "value_min": value_min,
            "value_max": value_max,
            "max_gradient_norm": max_gradient_norm,
            "seed": seed,
        }
        if target not in TARGETS:
            raise ValueError(f"target {target!r}: must be one of {', '.join(TARGETS)}")
        self.num_actions = num_actions
        self._members = members
        self._target_mode = target
        self._target_period = target_update_period_updates
        self._target_tau = target_tau
        self._double = double
        self._advantage_alpha = advantage_alpha
        self._max_gradient_norm = max_gradient_norm
        if head == "categorical":
            one = heads.CategoricalHead(num_actions, dueling, atoms, value_min, value_max, target_epsilon)
        else:
            one = heads.ScalarHead(num_actions, dueling, target_epsilon, LOSSES[loss])
        self.online, self.target = (
            networks.build(network, tuple(observation_shape), one, seed, label, members, convolution, precision)
            for label in ("online", "target")
        )
        self.head = heads.Ensemble(one, members) if members > 1 else one
        self.target.trainable = False
        self.copy_to_target()
        self.build((None, *observation_shape))
        self._reports = {name: tf.keras.metrics.Mean(name) for name in ("loss", "td_error", "mean_q")}

    def call(self, inputs: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Action values [B, A] float32 of observations [B, H, W, stack] uint8."""
        return self.head.values(self.online(inputs))

    def get_config(self) -> dict[str, Any]:
        return {**self._config, "name": self.name}

    @property
    def metrics(self):
        return list(self._reports.values())

    # Acting.

    def act(
        self, observation: tf.Tensor, agent_state: Any, epsilon: tf.Tensor, seed: tf.Tensor
    ) -> tuple[tf.Tensor, Any]:
        """Choose epsilon-greedy actions.

        Args:
          observation: [N, H, W, stack] uint8.
          agent_state: what a recurrent agent carries between decisions; () here, returned as it came.
          epsilon: [] float32, the share of uniformly random actions.
          seed: [2] int64.

        Returns:
          Actions [N] int32, and the next agent state.
        """
        draws = seeds.draw(seed, tf.shape(observation)[0])
        # Two independent parts of one draw: 24 bits decide whether to explore, the others which action.
        coin = tf.cast(tf.bitwise.bitwise_and(draws, 2**24 - 1), tf.float32)
        choice = tf.bitwise.bitwise_and(tf.bitwise.right_shift(draws, 24), 2**32 - 1)
        random_action = tf.cast(choice % self.num_actions, tf.int32)
        explores = coin < epsilon * 2.0**24
        return tf.where(explores, random_action, losses.greedy_action(self(observation))), agent_state

    # Learning.

    def learn(self, transitions: Transition, weights: tf.Tensor) -> LearnResult:
        """Take one step of the optimizer on a batch, then bring the target network up to date.

        Args:
          transitions: a batch of B.
          weights: [B] float32, importance of each transition in the mean loss.
        """
        with tf.GradientTape() as tape:
            output = self.online(transitions.observation, training=True)
            with tape.stop_recording():
                target = self._target_of(transitions, self.head.values(output))
            each_loss, td_error = self.head.loss(output, transitions.action, target)
            loss = tf.reduce_mean(weights * each_loss)
        variables = self.online.trainable_variables
        gradients = tape.gradient(loss, variables)
        norm = optimizers.global_norm(gradients)
        # By its square, too: a target of 1e38 is finite, has a finite Huber loss, and is as wrong as an infinite one.
        is_finite = tf.math.is_finite(tf.stack([tf.nn.l2_loss(target), loss, norm]))
        if self._max_gradient_norm != float("inf"):
            gradients, _ = tf.clip_by_global_norm(gradients, self._max_gradient_norm, use_norm=norm)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self._sync_target()
        values = self.head.values(output)
        mean_q = tf.reduce_mean(losses.max_value(values))
        return LearnResult(loss / self._members, td_error, mean_q, tf.reduce_max(values), norm, is_finite)

    def train_step(self, data: Any) -> dict[str, tf.Tensor]:
        """One update for `fit`: `data` is a `Transition`, or (Transition, weights [B])."""
        transitions, weights = (data, None) if len(data) == len(Transition._fields) else data
        transitions = Transition(*transitions)
        if weights is None:
            weights = tf.ones_like(transitions.reward)
        result = self.learn(transitions, weights)
        self._reports["loss"].update_state(result.loss)
        self._reports["td_error"].update_state(tf.abs(result.td_error))
        self._reports["mean_q"].update_state(result.mean_q)
        return {metric.name: metric.result() for metric in self.metrics}

    def _target_of(self, transitions: Transition, values: tf.Tensor) -> Any:
        """What to learn, given the action values [B, A] of the observations."""
        network = self.online if self._target_mode == "none" else self.target
        next_output = network(transitions.next_observation)
        is_double = self._double and network is not self.online
        choosing_q = self.head.values(self.online(transitions.next_observation) if is_double else next_output)
        reward = losses.advantage_learning(transitions.reward, values, transitions.action, self._advantage_alpha)
        return self.head.target(reward, transitions.discount, next_output, choosing_q)

    # The target network.

    def copy_to_target(self) -> None:
        """Make the target network equal to the online one."""
        for target, online in zip(self.target.variables, self.online.variables, strict=True):
            target.assign(online)

    @contextlib.contextmanager
    def target_in_front(self):
        """Meanwhile the target network's weights are the online network's, which plays and is saved, and vice versa."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        online, target = self.online.get_weights(), self.target.get_weights()
        self.online.set_weights(target)
        self.target.set_weights(online)

    def _sync_target(self) -> None:
        """Copy after every period of updates, counted by `optimizer.iterations`; or move by tau at each."""
        if self._target_mode == "none":
            return
        pairs = list(zip(self.target.variables, self.online.variables, strict=True))
        if self._target_mode == "soft":
            for target, online in pairs:
                target.assign_add(self._target_tau * (online - target))
            return
        is_due = self.optimizer.iterations % self._target_period == 0
        for target, online in pairs:
            target.assign(tf.where(is_due, online, target))
