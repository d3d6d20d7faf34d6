"""Gradients of a function of variables, on each backend of Keras."""

from typing import Any

import keras


def gradients_of(loss, variables) -> list[Any]:
    """Returns the gradient of `loss()` for each variable as an array, or None if it has none."""
    if not variables:
        return []
    compute = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    found = compute(loss, variables)
    return [None if each is None else keras.ops.convert_to_numpy(each) for each in found]


def _tensorflow(loss, variables):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        value = loss()
    found = tape.gradient(value, [variable.value for variable in variables])
    # The gradient of a table is sparse.
    return [None if each is None else tf.convert_to_tensor(each) for each in found]


def _jax(loss, variables):
    import jax

    def compute(values):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return loss()

    return jax.grad(compute)([variable.value for variable in variables])


def _torch(loss, variables):
    for variable in variables:
        variable.value.grad = None
    loss().backward()
    return [variable.value.grad for variable in variables]
