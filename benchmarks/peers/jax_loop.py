"""DQN in the manner of PureJaxRL: environment, replay, network, Adam and target network in one jitted loop.

Observations are stored as the network sees them (stacked, uint8), and a transition is two neighbouring rows, as in
flashbax' flat buffer. Its time limit counts as an end, as in gymnax. Shapes: N environments, B batch.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from benchmarks.peers.jax_games import GAMES

ADAM_BETAS = (0.9, 0.999)


class Learner(NamedTuple):
    params: Any
    target: Any
    mean: Any  # Adam's first moment
    square: Any  # and second
    updates: jax.Array  # [] int32


class Buffer(NamedTuple):
    """The last T steps of all environments, [T, N, ...]."""

    observation: jax.Array  # [T, N, H, W, stack] uint8
    action: jax.Array  # [T, N] int8
    reward: jax.Array  # [T, N] float32
    is_over: jax.Array  # [T, N] bool


class Carry(NamedTuple):
    learner: Learner
    buffer: Buffer
    state: Any  # the games'
    observation: jax.Array  # [N, H, W, stack] uint8
    steps: jax.Array  # [] int32
    key: jax.Array


def init_params(key, env, network, stack):
    """Glorot uniform, as in Keras."""
    height, width = env.shape

    def weight(key, *shape):
        fan_in, fan_out = shape[-2], shape[-1]
        for size in shape[:-2]:
            fan_in, fan_out = fan_in * size, fan_out * size
        limit = (6 / (fan_in + fan_out)) ** 0.5
        return jax.random.uniform(key, shape, minval=-limit, maxval=limit), jnp.zeros(shape[-1])

    keys = iter(jax.random.split(key, 8))
    if network == "mlp":
        convs, sizes = [], (height * width * stack, 64, 32, env.num_actions)
    else:
        shapes = ((4, 4, stack, 16), (2, 2, 16, 32), (2, 2, 32, 32))
        convs, sizes = [weight(next(keys), *s) for s in shapes], (height * width // 4 * 32, 128, env.num_actions)
    return convs, [weight(next(keys), *pair) for pair in itertools.pairwise(sizes)]


def values(params, observation):
    """[B, A] of [B, H, W, stack] uint8; the convolutions are XLA's own."""
    convs, denses = params
    x = observation.astype(jnp.float32) / 255
    for stride, (kernel, bias) in zip((2, 1, 1), convs, strict=False):
        x = lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + bias)
    x = x.reshape(len(x), -1)
    for i, (kernel, bias) in enumerate(denses):
        x = x @ kernel + bias
        if i < len(denses) - 1:
            x = jax.nn.relu(x)
    return x


class Loop:
    """The functions of a run with some settings; `chunk` is the compiled one."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.env = GAMES[settings["env"]]()
        self.num_envs, self.batch, self.stack = settings["num_envs"], settings["batch_size"], settings["frame_stack"]
        self.length = settings["replay_capacity"] // self.num_envs  # T
        self.chunk = jax.jit(self._chunk, donate_argnums=0)
        self.fill = jax.jit(self._fill, donate_argnums=0, static_argnums=1)
        self.evaluate = jax.jit(self._evaluate, static_argnums=1)

    @functools.partial(jax.jit, static_argnums=0)
    def initial(self, key):
        key, key_params, key_start = jax.random.split(key, 3)
        params = init_params(key_params, self.env, self.settings["network"], self.stack)
        zeros = jax.tree.map(jnp.zeros_like, params)
        state = jax.vmap(self.env.reset)(jax.random.bits(key_start, (self.num_envs, self.env.draws)))
        frame = jax.vmap(self.env.observe)(state)
        observation = jnp.repeat(frame[..., None], self.stack, axis=-1)
        rows = (self.length, self.num_envs)
        buffer = Buffer(
            jnp.zeros((*rows, *observation.shape[1:]), jnp.uint8),
            jnp.zeros(rows, jnp.int8),
            jnp.zeros(rows, jnp.float32),
            jnp.zeros(rows, bool),
        )
        learner = Learner(params, params, zeros, zeros, jnp.zeros([], jnp.int32))
        return Carry(learner, buffer, state, observation, jnp.zeros([], jnp.int32), key)

    def _epsilon(self, steps):
        settings = self.settings
        share = jnp.minimum(steps.astype(jnp.float32) * self.num_envs / settings["epsilon_decay_env_frames"], 1.0)
        return settings["epsilon_start"] + share * (settings["epsilon_end"] - settings["epsilon_start"])

    def _act(self, params, observation, epsilon, coin, choice):
        greedy = jnp.argmax(values(params, observation), axis=-1)
        explores = (coin >> 8).astype(jnp.float32) < epsilon * 2.0**24
        return jnp.where(explores, (choice % self.env.num_actions).astype(jnp.int32), greedy.astype(jnp.int32))

    def _advance(self, state, observation, action, draws):
        """One frame; what ended begins anew at once."""
        stepped, step = jax.vmap(self.env.step)(state, action, draws)
        fresh = jax.vmap(self.env.reset)(draws)

        def choose(new, old):
            return jnp.where(step.is_over.reshape(-1, *[1] * (old.ndim - 1)), new, old)

        state = jax.tree.map(choose, fresh, stepped)
        frame = jax.vmap(self.env.observe)(state)[..., None]
        if self.stack > 1:
            older = jnp.where(step.is_over[:, None, None, None], frame, observation[..., 1:])
            frame = jnp.concatenate([older, frame], axis=-1)
        return state, frame, step

    def _interact(self, carry):
        key = jax.random.fold_in(carry.key, carry.steps)
        bits = jax.random.bits(key, (self.num_envs, 2 + self.env.draws))
        action = self._act(carry.learner.params, carry.observation, self._epsilon(carry.steps), bits[:, 0], bits[:, 1])
        state, observation, step = self._advance(carry.state, carry.observation, action, bits[:, 2:])
        row = Buffer(carry.observation, action.astype(jnp.int8), step.reward, step.is_over)
        slot = carry.steps % self.length
        buffer = jax.tree.map(
            lambda table, new: lax.dynamic_update_index_in_dim(table, new, slot, 0), carry.buffer, row
        )
        return carry._replace(buffer=buffer, state=state, observation=observation, steps=carry.steps + 1)

    def _learn(self, carry):
        settings, learner, buffer = self.settings, carry.learner, carry.buffer
        key = jax.random.fold_in(carry.key, -1 - learner.updates)
        held = jnp.minimum(carry.steps, self.length)
        bits = jax.random.bits(key, (self.batch,))
        draw = (bits % ((held - 1) * self.num_envs).astype(jnp.uint32)).astype(jnp.int32)
        slot = (carry.steps - held + draw // self.num_envs) % self.length
        index = slot * self.num_envs + draw % self.num_envs
        after = (slot + 1) % self.length * self.num_envs + draw % self.num_envs

        def read(table, rows):
            return table.reshape(-1, *table.shape[2:])[rows]

        next_value = values(learner.target, read(buffer.observation, after)).max(axis=-1)
        proceeds = 1.0 - read(buffer.is_over, index)
        goal = read(buffer.reward, index) + settings["discount"] * proceeds * next_value
        observation, action = read(buffer.observation, index), read(buffer.action, index)

        def loss(params):
            q = jnp.take_along_axis(values(params, observation), action[:, None].astype(jnp.int32), axis=-1)[:, 0]
            size = jnp.abs(q - goal)
            quadratic = jnp.minimum(size, 1.0)
            return jnp.mean(0.5 * quadratic**2 + size - quadratic)

        gradients = jax.grad(loss)(learner.params)
        return carry._replace(learner=self._adam(learner, gradients))

    def _adam(self, learner, gradients):
        (beta1, beta2), updates = ADAM_BETAS, learner.updates + 1
        mean = jax.tree.map(lambda m, g: beta1 * m + (1 - beta1) * g, learner.mean, gradients)
        square = jax.tree.map(lambda v, g: beta2 * v + (1 - beta2) * g * g, learner.square, gradients)
        count = updates.astype(jnp.float32)
        epsilon = self.settings["optimizer_epsilon"]
        rate = self.settings["learning_rate"] * jnp.sqrt(1 - beta2**count) / (1 - beta1**count)
        params = jax.tree.map(lambda p, m, v: p - rate * m / (jnp.sqrt(v) + epsilon), learner.params, mean, square)
        is_due = updates % self.settings["target_update_period_updates"] == 0
        target = jax.tree.map(lambda new, old: jnp.where(is_due, new, old), params, learner.target)
        return Learner(params, target, mean, square, updates)

    def _fill(self, carry, steps):
        """Play without learning."""
        return lax.fori_loop(0, steps, lambda _, carry: self._interact(carry), carry)

    def _chunk(self, carry, rounds):
        """Rounds of `iterations_per_update` steps of all environments and one update."""

        def body(_, carry):
            for _ in range(self.settings["iterations_per_update"]):
                carry = self._interact(carry)
            return self._learn(carry)

        return lax.fori_loop(0, rounds, body, carry)

    def _evaluate(self, params, episodes, key):
        """Sums of rewards of the first episode of each environment, greedy, [episodes]."""
        draws = jax.random.bits(key, (episodes, self.env.draws))
        state = jax.vmap(self.env.reset)(draws)
        observation = jnp.repeat(jax.vmap(self.env.observe)(state)[..., None], self.stack, axis=-1)

        def body(t, now):
            state, observation, score, lives = now
            draws = jax.random.bits(jax.random.fold_in(key, t), (episodes, self.env.draws))
            action = jnp.argmax(values(params, observation), axis=-1).astype(jnp.int32)
            state, observation, step = self._advance(state, observation, action, draws)
            return state, observation, score + jnp.where(lives, step.reward, 0.0), lives & ~step.is_over

        start = (state, observation, jnp.zeros(episodes), jnp.ones(episodes, bool))
        return lax.fori_loop(0, self.env.time_limit + 1, body, start)[2]
