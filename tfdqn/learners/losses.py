"""The equations of Q-learning, one function each; nothing here keeps state.

Shapes: B batch, A actions.
"""

from __future__ import annotations

import math

import tensorflow as tf


def td_target(reward: tf.Tensor, discount: tf.Tensor, next_value: tf.Tensor) -> tf.Tensor:
    """r + discount * V(s') (Mnih et al. 2015, Methods); all [B] float32, discount 0 where the episode terminated.

    `where`, not a product alone: a diverged value of a state that does not count must not turn 0 * inf into NaN.
    """
    return reward + tf.where(discount > 0, discount * next_value, 0.0)


def mixed_target(reward: tf.Tensor, discount: tf.Tensor, next_value: tf.Tensor) -> tf.Tensor:
    """r + sum_k discount_k * V(s_k), [B] (lambda returns: see `tfdqn.replay.returns.Lambda`).

    Args:
      reward: [B].
      discount: [B, K], 0 where a value does not count, as in `td_target`.
      next_value: [B * K], of each entry's K states one after the other.
    """
    next_value = tf.reshape(next_value, tf.shape(discount))
    return reward + tf.reduce_sum(tf.where(discount > 0, discount * next_value, 0.0), axis=1)


def rescale(value: tf.Tensor, epsilon: float) -> tf.Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x (Pohlen et al. 2018, "Observe and look further", proposition A.2).

    Large returns are squeezed, so that one step size suits games of any reward. Written as x / (sqrt(|x| + 1) + 1),
    which loses no digits near 0 and has a slope there, 1/2 + epsilon.
    """
    return value / (tf.sqrt(tf.abs(value) + 1.0) + 1.0) + epsilon * value


def unscale(value: tf.Tensor, epsilon: float) -> tf.Tensor:
    """The inverse of `rescale`.

    The paper's form, sign(x) (((sqrt(1 + 4 epsilon (|x| + 1 + epsilon)) - 1) / (2 epsilon))^2 - 1), takes differences
    of almost equal numbers, which leaves three digits of a float32. With w = 2 x / (root + 1 + 2 epsilon) it is
    w (|w| + 2), also for epsilon 0.
    """
    root = tf.sqrt((1.0 + 2.0 * epsilon) ** 2 + 4.0 * epsilon * tf.abs(value))
    w = 2.0 * value / (root + 1.0 + 2.0 * epsilon)
    return w * (tf.abs(w) + 2.0)


def among(q: tf.Tensor, legal: tf.Tensor | None) -> tf.Tensor:
    """`q` [B, A] to choose from: -inf for every action that is not `legal` [B, A] bool; None: all are."""
    return q if legal is None else tf.where(legal, q, -math.inf)


def max_value(next_q: tf.Tensor, legal: tf.Tensor | None = None) -> tf.Tensor:
    """max_a Q_target(s', a), [B], from `next_q` [B, A] (Mnih et al. 2015), over the `legal` [B, A] actions."""
    return tf.reduce_max(among(next_q, legal), axis=-1)


def double_value(next_q_online: tf.Tensor, next_q_target: tf.Tensor, legal: tf.Tensor | None = None) -> tf.Tensor:
    """Q_target(s', argmax_a Q_online(s', a)), [B], from two [B, A] (van Hasselt et al. 2016, eq. 4).

    `legal` [B, A] bool are the actions to choose from in s'; None: all.
    """
    return masked_value(next_q_target, greedy_action(next_q_online, legal))


def expected_over_actions(
    greedy: tf.Tensor, each: tf.Tensor, epsilon: float, legal: tf.Tensor | None = None
) -> tf.Tensor:
    """What an epsilon-greedy player can expect (Expected Sarsa, van Seijen et al. 2009, eq. 5).

    Args:
      greedy: [B, ...], numbers of the greedy action, such as its value.
      each: [B, A, ...], the same of every action.
      epsilon: share of uniformly random actions.
      legal: [B, A] bool, the actions that are drawn from; None: all.
    """
    if not epsilon:
        return greedy  # exactly, and without touching the others: one may be infinite
    return (1.0 - epsilon) * greedy + epsilon * _mean_over_actions(each, legal)


def _mean_over_actions(each: tf.Tensor, legal: tf.Tensor | None) -> tf.Tensor:
    """The mean over the legal actions [B, A], [B, ...], of numbers [B, A, ...]."""
    if legal is None:
        return tf.reduce_mean(each, axis=1)
    mask = tf.reshape(legal, [-1, legal.shape[1]] + [1] * (each.shape.rank - 2))
    count = tf.reduce_sum(tf.cast(mask, tf.float32), axis=1)
    # Where nothing is legal the game is over, and what follows does not count.
    return tf.reduce_sum(tf.where(mask, each, 0.0), axis=1) / tf.maximum(count, 1.0)


def advantage_learning(
    reward: tf.Tensor, q: tf.Tensor, action: tf.Tensor, alpha: float, legal: tf.Tensor | None = None
) -> tf.Tensor:
    """r - alpha * (max_b Q(s, b) - Q(s, a)), [B] (T_AL of Bellemare et al. 2016, "Increasing the Action Gap").

    A reward for the choice itself: the best action's value stays as it is, and every other falls behind it by
    1 / (1 - alpha) times as much, so that an error of the values is less likely to make it look best.

    Args:
      reward: [B].
      q: [B, A], values in the state of the choice; nothing is learnt through them.
      action: [B] int32, the choice.
      alpha: from 0, which changes nothing, up to but not including 1.
      legal: [B, A] bool, the actions b; None: all.
    """
    if not alpha:
        return reward
    return reward - alpha * (max_value(q, legal) - masked_value(q, action))


def log_policy(q: tf.Tensor, temperature: float, legal: tf.Tensor | None = None) -> tf.Tensor:
    """log pi = log softmax(Q / temperature) over the `legal` [B, A] actions, -inf for the others; [B, A] from [B, A].

    Where nothing is legal it is no number: the game is over there, and what follows does not count.
    """
    return tf.nn.log_softmax(among(q, legal) / temperature)


def munchausen_reward(
    reward: tf.Tensor, log_policy: tf.Tensor, action: tf.Tensor, alpha: float, temperature: float, clip: float
) -> tf.Tensor:
    """r + alpha [temperature * log pi(a|s)]_clip^0, [B] (Vieillard et al. 2020, "Munchausen reinforcement learning").

    A reward for the choice itself, 0 for one that the policy is sure of, so that the gap to the others widens, and the
    policy may not go far from the one before (a Kullback-Leibler penalty).

    Args:
      reward: [B].
      log_policy: [B, A], of the state of the choice (see `log_policy`).
      action: [B] int32, the choice.
      alpha: from 0 to 1.
      temperature: of the policy.
      clip: the least bonus before `alpha`, at most 0.
    """
    return reward + alpha * tf.clip_by_value(temperature * masked_value(log_policy, action), clip, 0.0)


def soft_expectation(each: tf.Tensor, log_policy: tf.Tensor, temperature: float) -> tf.Tensor:
    """sum_a pi(a|s) (z(s, a) - temperature * log pi(a|s)), [B, ...] (Vieillard et al. 2020, eq. 2).

    Args:
      each: [B, A, ...], numbers z of every action, such as its value.
      log_policy: [B, A]; actions of probability 0 do not count, whatever they are worth.
      temperature: of the policy.
    """
    log_policy = tf.reshape(log_policy, [-1, each.shape[1]] + [1] * (each.shape.rank - 2))
    policy = tf.exp(log_policy)
    return tf.reduce_sum(tf.where(policy > 0, policy * (each - temperature * log_policy), 0.0), axis=1)


def dueling_value(value: tf.Tensor, advantage: tf.Tensor) -> tf.Tensor:
    """V(s) + A(s, a) - mean_a A(s, a), [B, A, K], from [B, 1, K] and [B, A, K] (Wang et al. 2016, eq. 9)."""
    return value + advantage - tf.reduce_mean(advantage, axis=1, keepdims=True)


def taken(numbers: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """The K numbers of the taken actions, [B, K], from [B, A, K] through the one-hot mask of `action` [B] int32."""
    mask = tf.one_hot(action, numbers.shape[1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.reduce_sum(tf.where(mask[:, :, tf.newaxis], numbers, 0.0), axis=1)


def categorical_target(
    reward: tf.Tensor, discount: tf.Tensor, next_probabilities: tf.Tensor, returns: tf.Tensor
) -> tf.Tensor:
    """The distribution of r + discount * z on the atoms z themselves (Bellemare et al. 2017, eq. 7).

    Args:
      reward: [B].
      discount: [B], 0 where the episode terminated.
      next_probabilities: [B, K], of the action chosen in the next state.
      returns: [K], evenly spaced atoms.

    Returns:
      Probabilities [B, K]; an outcome outside the atoms counts for the nearest.
    """
    step = returns[1] - returns[0]
    outcomes = reward[:, tf.newaxis] + discount[:, tf.newaxis] * returns
    place = (tf.clip_by_value(outcomes, returns[0], returns[-1]) - returns[0]) / step  # [B, K], in atoms
    atoms = tf.range(returns.shape[0], dtype=tf.float32)
    share = tf.maximum(1.0 - tf.abs(place[:, :, tf.newaxis] - atoms), 0.0)  # [B, from, to]
    return tf.reduce_sum(next_probabilities[:, :, tf.newaxis] * share, axis=1)


def greedy_action(q: tf.Tensor, legal: tf.Tensor | None = None) -> tf.Tensor:
    """argmax_a Q(s, a) over the `legal` [B, A] actions, [B] int32, the first of equals; `q` is [B, A]."""
    return tf.argmax(among(q, legal), axis=-1, output_type=tf.int32)


def uniform_action(number: tf.Tensor, num_actions: int, legal: tf.Tensor | None = None) -> tf.Tensor:
    """An action that a large random number picks, each as likely, [B] int32.

    Args:
      number: [B] int64, from 0.
      num_actions: A.
      legal: [B, A] bool, the actions to pick from; None: all.
    """
    if legal is None:
        return tf.cast(number % num_actions, tf.int32)
    rank = tf.cumsum(tf.cast(legal, tf.int64), axis=-1)  # of each legal action among them, from 1
    picked = number % tf.maximum(rank[:, -1], 1) + 1
    return tf.argmax(legal & (rank == picked[:, tf.newaxis]), axis=-1, output_type=tf.int32)


def masked_value(q: tf.Tensor, action: tf.Tensor) -> tf.Tensor:
    """Q(s, a) of the taken actions, [B]: `q` [B, A] through the one-hot mask of `action` [B] int32.

    The mask selects instead of multiplying, so an infinite value of another action cannot become NaN.
    """
    mask = tf.one_hot(action, q.shape[-1], on_value=True, off_value=False, dtype=tf.bool)
    return tf.reduce_sum(tf.where(mask, q, 0.0), axis=-1)


def huber(td_error: tf.Tensor) -> tf.Tensor:
    """Huber loss with delta 1, [B]: its derivative is the TD error clipped to [-1, 1] (Mnih et al. 2015, Methods).

    Where what may follow an action differs by more than 1 in value, its optimum leans from the mean to the median.
    """
    size = tf.abs(td_error)
    quadratic = tf.minimum(size, 1.0)
    # size - quadratic is exactly 0 inside, so the gradient there is the error itself.
    return 0.5 * tf.square(quadratic) + (size - quadratic)


def squared(td_error: tf.Tensor) -> tf.Tensor:
    """Half the squared error, [B], so that its derivative is the TD error."""
    return 0.5 * tf.square(td_error)


def quantile_huber(
    quantiles: tf.Tensor, taus: tf.Tensor, returns: tf.Tensor, shares: tf.Tensor, kappa: float
) -> tf.Tensor:
    """The quantile Huber loss, [B] (Dabney et al. 2018a, "Distributional RL with quantile regression", eq. 10).

        sum_i sum_j share_j |tau_i - 1{u_ij < 0}| L_kappa(u_ij) / kappa,   u_ij = return_j - quantile_i

    with Huber's L_kappa, u^2 / 2 up to kappa and kappa (|u| - kappa / 2) beyond. It is divided by kappa as in Dabney et
    al. 2018b, eq. 3, so that a small one tends to quantile regression, |tau - 1{u < 0}| |u|.

    Args:
      quantiles: [B, N], what is learnt.
      taus: [N] or [B, N], which quantiles these are, between 0 and 1.
      returns: [B, M], samples of the target.
      shares: [B, M], their probabilities, which sum to 1.
      kappa: above 0.
    """
    error = returns[:, tf.newaxis, :] - quantiles[:, :, tf.newaxis]  # [B, N, M]
    size = tf.abs(error)
    quadratic = tf.minimum(size, kappa)
    # As of `huber`: size - quadratic is exactly 0 inside.
    huber_loss = 0.5 * quadratic * (quadratic / kappa) + (size - quadratic)
    side = tf.abs(taus[..., tf.newaxis] - tf.cast(error < 0, tf.float32))
    return tf.reduce_sum(shares[:, tf.newaxis, :] * side * huber_loss, axis=[1, 2])
