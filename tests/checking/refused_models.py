"""Small models with parts of published models. Most of them are refused."""

from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from tests.own_layers import Own, weight


def kept(name, make):
    """Builds an inner layer together with its outer layer."""

    def build(layer):
        setattr(layer, name, make())

    return build


def of(shape, function, make=None, dtype="float32"):
    """Makes a model of one custom layer."""
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, Own(function, make, name="own")(x))


def plain(shape, function, dtype="float32"):
    x = keras.Input(shape, dtype=dtype, name="x")
    return keras.Model(x, function(x))


def reshape_with_the_batch(layer, x):
    return ops.reshape(x, (ops.shape(x)[0], -1, 2, 4))


def token_tiled(layer, x):
    return ops.concatenate([ops.tile(layer.table, [ops.shape(x)[0], 1, 1]), x], axis=1)


def token_repeated(layer, x):
    return ops.concatenate([ops.repeat(layer.table, ops.shape(x)[0], axis=0), x], axis=1)


def token_broadcast(layer, x):
    return ops.concatenate([ops.broadcast_to(layer.table, (ops.shape(x)[0], 1, 8)), x], axis=1)


def qkv(layer, x):
    y = ops.reshape(layer.inner(x), (-1, 6, 3, 2, 4))
    q, k, v = ops.unstack(ops.transpose(y, (2, 0, 3, 1, 4)), 3, axis=0)
    return ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, -2, -1))), v)


def windows(layer, x):
    parts = ops.transpose(ops.reshape(x, (-1, 2, 4, 2, 4, 4)), (0, 1, 3, 2, 4, 5))
    y = layer.inner(ops.reshape(parts, (-1, 16, 4)))
    y = ops.transpose(ops.reshape(y, (-1, 2, 2, 4, 4, 4)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(y, (-1, 8, 8, 4))


def windows_by_number(layer, x):
    batch = ops.shape(x)[0]
    y = layer.inner(ops.reshape(x, (batch * 4, 16, 4)))
    return ops.reshape(y, (batch, 8, 8, 4))


def two_slices(layer, x):
    head, tail = x[:, :2] + layer.table[:, :2], x[:, 2:] + layer.table[:, 2:]
    return ops.concatenate([head, tail], axis=1)


def normalized_reshape(layer, x):
    return layer.inner(ops.reshape(x, (ops.shape(x)[0], -1, 8)))


def wrapped(make):
    """Makes a model of unknown length that is called with a fixed length."""
    x = keras.Input((None, 8))
    inner = keras.Model(x, layers.Dense(3)(make()(layers.Dense(8)(x))))
    y = keras.Input((6, 8), name="y")
    return keras.Model(y, inner(y))


def same_name_inside():
    """Makes a refused inner layer with the name of an outer layer."""

    def call(layer, x):
        return tf.math.sinh(x)

    def around(layer, x):
        return x + layer.inner(x)

    x = keras.Input((6, 8), name="x")
    y = Own(around, kept("inner", lambda: Own(call, name="norm")), name="block")(x)
    return keras.Model(x, layers.LayerNormalization(name="norm")(y))


def refused_in_a_wrapper():
    """Makes a layer that cannot be traced, before a layer of unknown length."""

    def cut(layer, x):
        return x + tf.math.sinh(layer.table)[: ops.shape(x)[1]]

    def around(layer, x):
        return layer.inner(x) + x

    x = keras.Input((None, 8))
    y = Own(cut, weight(16, 8), name="cut")(x)
    y = Own(around, kept("inner", lambda: layers.Dense(8)), name="around")(y)
    inner = keras.Model(x, layers.Dense(3)(y))
    z = keras.Input((6, 8), name="z")
    return keras.Model(z, inner(z))


def inner_argument(trainable=False):
    class Inner(layers.Layer):
        def call(self, x, scale: Any = None):
            return x + ops.reshape(scale, (1, scale.shape[0], 1))

    def make(layer):
        weight(6, trainable=trainable)(layer)
        layer.inner = Inner(name="inner")

    return of((6, 8), lambda layer, x: layer.inner(x, scale=layer.table), make)


def other_size():
    def make(layer):
        layer.inner = keras.Sequential([layers.Conv2D(4, 1, strides=2)])
        layer.inner.build((None, 10, 10, 3))

    return of((8, 8, 3), lambda layer, x: layer.inner(x), make)


def masked(tail):
    x = keras.Input((6,), dtype="int32", name="x")
    return keras.Model(x, tail(layers.Embedding(9, 4, mask_zero=True, name="words")(x)))


def positions():
    def call(layer, x):
        return x + layer.inner(ops.arange(6))

    return of((6, 8), call, kept("inner", lambda: layers.Embedding(6, 8, name="inner")))


# Models that are refused.
REFUSED = {
    "lstm": lambda: plain((5, 3), lambda x: layers.LSTM(4, recurrent_dropout=0.1, name="lstm")(x)),
    "gru_of_two": lambda: plain(
        (5, 3), lambda x: layers.Bidirectional(layers.GRU(4, recurrent_dropout=0.1))(x)
    ),
    "masked_steps": lambda: masked(lambda y: layers.TimeDistributed(layers.Softmax())(y)),
    "cumprod": lambda: plain((6, 8), lambda x: layers.Dense(2)(ops.cumprod(x, axis=1))),
    "sort": lambda: plain((6, 8), lambda x: ops.sort(x, axis=-1)),
    "conv3d_transpose": lambda: plain((4, 8, 8, 3), lambda x: layers.Conv3DTranspose(4, 3)(x)),
    "same_name_inside": same_name_inside,
    "refused_in_a_wrapper": refused_in_a_wrapper,
}
# Models that are not refused.
TAKEN = {
    "channels_first": lambda: plain(
        (3, 8, 8), lambda x: layers.Conv2D(4, 3, data_format="channels_first")(x)
    ),
    "two_slices": lambda: of((6, 4), two_slices, weight(1, 6, 4)),
    "other_size": other_size,
    "inner_weight": lambda: inner_argument(trainable=True),
    "positions": positions,
    "qkv": lambda: of((6, 8), qkv, kept("inner", lambda: layers.Dense(24))),
    "patches": lambda: plain((8, 8, 3), lambda x: ops.image.extract_patches(x, 4)),
    "roll": lambda: plain((8, 8, 4), lambda x: ops.roll(x, (-2, -2), axis=(1, 2))),
    "masked_mean": lambda: masked(lambda y: layers.GlobalAveragePooling1D()(y)),
    "where": lambda: plain((6, 8), lambda x: ops.where(x > 0, x, x * 0.1)),
    "causal": lambda: plain(
        (6, 8), lambda x: layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True)
    ),
    "inner_argument": inner_argument,
    "reshape_with_the_batch": lambda: of((6, 8), reshape_with_the_batch),
    "token_tiled": lambda: of((6, 8), token_tiled, weight(1, 1, 8)),
    "token_repeated": lambda: of((6, 8), token_repeated, weight(1, 1, 8)),
    "token_broadcast": lambda: of((6, 8), token_broadcast, weight(1, 1, 8)),
    "windows": lambda: of((8, 8, 4), windows, kept("inner", lambda: layers.Dense(4))),
    "windows_by_number": lambda: of(
        (8, 8, 4), windows_by_number, kept("inner", lambda: layers.Dense(4))
    ),
    "key_none": lambda: of((6, 8), lambda layer, x: x + layer.table[None], weight(6, 8)),
    "key_slice": lambda: of((6, 8), lambda layer, x: x + layer.table[:6], weight(9, 8)),
    "key_ellipsis": lambda: of((6, 8), lambda layer, x: x[...]),
    "normalized_reshape": lambda: of((4, 4, 8), normalized_reshape, kept("inner", normalization)),
    "wrapped_normalization": lambda: wrapped(lambda: normalization()),
    "wrapped_pooling": lambda: wrapped(
        lambda: lambda x: ops.expand_dims(layers.GlobalAveragePooling1D()(x), 1)
    ),
    "wrapped_convolution": lambda: wrapped(lambda: layers.Conv1D(8, 3, padding="same")),
    "softplus": lambda: plain((8, 8, 3), lambda x: ops.softplus(layers.Conv2D(4, 3)(x))),
}


def normalization():
    return layers.LayerNormalization(name="norm")


def blocks(count, good=False):
    """Makes blocks that each have a refused layer, or no refused layer."""

    def refused(layer, x):
        return tf.math.sinh(x)

    def call(layer, x):
        return x + (layer.dense(x) if good else layer.inner(layer.dense(x)))

    def make(layer):
        layer.dense = layers.Dense(8, activation="gelu")
        layer.inner = Own(refused, name="inner")

    x = y = keras.Input((6, 8), name="x")
    for i in range(count):
        y = Own(call, make, name=f"block_{i}")(y)
    return keras.Model(x, layers.Dense(3, name="head")(y))
