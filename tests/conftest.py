"""Keras 2 must be chosen before any test imports TensorFlow."""

import tfdqn  # noqa: F401
