"""Arithmetic of the networks, counted from their shapes, not from what a compiler makes of them.

A *multiply-add* is two operations. Per observation, by definition of the layers:

    dense        inputs x units
    convolution  H' x W' x k x k x C x filters: every output of every filter meets its whole receptive field, what is
                 added at the edges included

Biases, activations, the optimizer and the loss are left out: they are of the order of inputs + outputs, not of their
product. An update of a batch of B, with M the network's multiply-adds and M_1 those of the layer that sees the screen:

    forward of the observation                             M
    forward of the next one: target network                M
                  and, for Double DQN with a target, online M
    backward: gradient of every layer's weights            M
    backward: gradient of every layer's input but the screen's   M - M_1

    operations = 2 B ((passes + 2) M - M_1)      passes = 3 for Double, 2 without

A computation that does more than this (padding, recomputing) shows as a lower share of the limit, as it should.
"""

from __future__ import annotations

import math
from typing import Any


def multiply_adds(model: Any) -> list[int]:
    """Multiply-adds of one observation in each weighted layer of a Keras model, in order."""
    counts = []
    for layer in model.layers:
        counts += multiply_adds(layer) if hasattr(layer, "layers") else []
        kernel = getattr(layer, "kernel", None)
        if kernel is None:
            continue
        if kernel.shape.rank not in (2, 4):
            raise ValueError(f"layer {layer.name}: no rule for a kernel of rank {kernel.shape.rank}")
        # Outputs in space times the kernel: [H', W'] for a convolution, nothing for a dense layer.
        counts.append(math.prod(layer.output_shape[1:-1]) * math.prod(kernel.shape))
    return counts


def act_operations(model: Any, num_envs: int) -> int:
    """Operations of one greedy decision of `num_envs` environments."""
    return 2 * num_envs * sum(multiply_adds(model))


def learn_operations(model: Any, batch: int, *, double: bool, target: str) -> int:
    """Operations of one update on a batch; see the derivation above."""
    if members := [layer for layer in model.layers if hasattr(layer, "layers")]:
        return sum(learn_operations(member, batch, double=double, target=target) for member in members)
    layers = multiply_adds(model)
    passes = 3 if double and target != "none" else 2
    return 2 * batch * ((passes + 2) * sum(layers) - layers[0])


def learn_bytes(model: Any, slots: int) -> int:
    """Bytes that one update has to move at the very least: weights and optimizer slots read and written once."""
    return 2 * (1 + slots) * 4 * model.count_params()
