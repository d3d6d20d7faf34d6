"""Norms, products and cumulative sums: the case of the contract."""

import keras
from keras import layers, ops

from keras_qat.layers import QDense, QLookup, QMean, QMultiply, QReduceMax
from tests.layers.cases import Case


def reductions():
    """Makes reductions of a tensor, and of the output of a layer that trains."""
    x = keras.Input((6, 5))
    y = layers.Dense(4)(x)
    outputs = [ops.norm(y, axis=-1), ops.norm(x, ord=1, axis=1, keepdims=True)]
    outputs += [ops.norm(x, ord=float("inf"), axis=-1)]
    outputs += [ops.prod(x, axis=1), ops.prod(y, axis=-1, keepdims=True)]
    outputs += [ops.cumsum(y, axis=-1), ops.cumsum(x, axis=1)]
    return keras.Model(x, outputs)


CASES = [
    Case("composed_reductions", (QDense, QLookup, QMean, QMultiply, QReduceMax), reductions),
]
