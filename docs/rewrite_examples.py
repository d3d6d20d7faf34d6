"""A small model for each pass of the pipeline that the pass changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

import keras_qat

IMAGE = (8, 8, 3)


def chain(*sequence: Any, shape: tuple[int, ...] = IMAGE, name: str = "image") -> keras.Model:
    """Makes a functional model of a sequence of layers and functions."""
    inputs = keras.Input(shape, name=name)
    outputs = inputs
    for each in sequence:
        outputs = each(outputs)
    return keras.Model(inputs, outputs)


class Gate(layers.Layer):
    """A custom layer."""

    def build(self, input_shape):
        """Makes the weight."""
        self.kernel = self.add_weight(shape=(input_shape[-1], 4), name="kernel")
        super().build(input_shape)

    def call(self, x):
        """Multiplies by the weight."""
        return ops.relu(ops.matmul(x, self.kernel))


class Positions(layers.Layer):
    """A position embedding."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = PositionTable(name="table")

    def call(self, x):
        """Adds a vector for each position."""
        return x + self.inner(x)


class PositionTable(layers.Layer):
    """A table with a row for each position."""

    def build(self, input_shape):
        """Makes the weight."""
        self.rows = self.add_weight(shape=input_shape[1:], name="rows")
        super().build(input_shape)

    def call(self, x):
        """Returns the table for each sample."""
        return ops.broadcast_to(self.rows, ops.shape(x))


def _nested() -> keras.Model:
    block = [
        layers.Conv2D(4, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(name="norm"),
    ]
    return chain(
        keras.Sequential([keras.Input(IMAGE), *block], name="block"), layers.ReLU(name="relu")
    )


def _attention() -> keras.Model:
    query, key, value = (keras.Input((4, 1, 2), name=name) for name in ("query", "key", "value"))
    return keras.Model(
        [query, key, value], ops.dot_product_attention(query, key, value, flash_attention=False)
    )


def _shared_activation() -> keras.Model:
    image = keras.Input(IMAGE, name="image")
    x = layers.Conv2D(4, 3, name="conv")(image)
    branches = [layers.Conv2D(4, 1, name=f"branch_{i}")(layers.ReLU()(x)) for i in range(2)]
    return keras.Model(image, branches)


def _two(function: Callable[..., Any], shape: tuple[int, ...] = (4,)) -> keras.Model:
    a, b = keras.Input(shape, name="a"), keras.Input(shape, name="b")
    return keras.Model([a, b], function(a, b))


def _halves(x: Any) -> Any:
    value, gate = ops.split(x, 2, axis=-1)
    return [value, ops.relu(gate)]


# The targets of rewrites that not every target needs.
TARGETS = {"fuse_lstms": "tflite-micro"}

EXAMPLES: dict[str, Callable[[], keras.Model]] = {
    "inline_models": _nested,
    "open_drop_ins": lambda: chain(
        keras_qat.layers.QConv2D(4, 3, batch_norm=True, activation="swish", name="block")
    ),
    "fuse_lstms": lambda: keras.Sequential(
        [keras.Input((2, 3), name="x"), layers.LSTM(4, name="memory")]
    ),
    "drop_bias": lambda: chain(
        layers.Conv2D(4, 3, name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.Flatten(name="flatten"),
        layers.Dense(2, name="dense"),
    ),
    "split_separables": lambda: chain(layers.SeparableConv2D(4, 3, name="sep")),
    "split_volumes": lambda: chain(
        layers.Conv3D(4, 3, name="conv"), shape=(4, 8, 8, 3), name="video"
    ),
    "split_regularizers": lambda: chain(
        layers.Dense(4, activity_regularizer="l2", name="dense"),
        layers.ReLU(name="relu"),
        shape=(5,),
        name="x",
    ),
    "split_activations": lambda: chain(layers.Conv2D(4, 3, activation="swish", name="conv")),
    "open_layers": lambda: chain(Gate(name="gate"), shape=(5,), name="x"),
    "write_associative_scans": lambda: chain(
        lambda x: ops.associative_scan(ops.maximum, x, axis=1), shape=(4, 3), name="x"
    ),
    "move_channels_last": lambda: chain(
        layers.Conv2D(4, 3, data_format="channels_first", name="conv"),
        layers.BatchNormalization(axis=1, name="norm"),
        layers.GlobalAveragePooling2D(data_format="channels_first", name="mean"),
        shape=(3, 8, 8),
    ),
    "move_normalized_axes": lambda: chain(
        layers.BatchNormalization(axis=1, name="norm"), shape=(6, 4), name="x"
    ),
    "remove_identities": lambda: chain(
        layers.Conv2D(4, 3, name="conv"),
        layers.Dropout(0.0, name="nothing"),
        layers.ReLU(name="relu"),
    ),
    "recognize_functions": lambda: chain(
        layers.Conv2D(4, 3, name="conv"), lambda x: x * ops.relu6(x + 3) / 6
    ),
    "merge_equal_operations": _shared_activation,
    "decompose_activations": lambda: chain(layers.Conv2D(4, 3, activation="swish", name="conv")),
    "move_batch_first": lambda: chain(
        lambda x: ops.transpose(ops.reshape(x, (-1, 8, 3, 8)), (2, 0, 1, 3))[0]
    ),
    "pad_maxima": lambda: chain(
        lambda x: ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=float("-inf")),
        layers.MaxPooling2D(3, 2, name="pool"),
    ),
    "fold_sample_constants": lambda: chain(Positions(name="positions"), shape=(6, 4), name="x"),
    "write_fourier_transforms": lambda: chain(
        lambda x: ops.fft2((x, ops.zeros_like(x)))[0], shape=(6, 4), name="x"
    ),
    "fold_filled_tensors": lambda: chain(
        lambda x: ops.maximum(x, ops.zeros_like(x)), shape=(3,), name="x"
    ),
    "write_compositions": lambda: chain(lambda x: ops.var(x, axis=(1, 2))),
    "split_outputs": lambda: chain(_halves, shape=(6,), name="x"),
    "write_normalizations": lambda: chain(
        lambda x: ops.layer_normalization(x, axis=-1, gamma=ops.ones(6)), shape=(6,), name="x"
    ),
    "write_attention": _attention,
    "write_quotients": lambda: _two(lambda a, b: a / b),
    "write_masks": lambda: chain(
        lambda x: ops.softmax(x + np.array([[0, 0, -1e9]], "float32")), shape=(3,), name="x"
    ),
    "write_selections": lambda: chain(
        lambda x: x + ops.where(x > 1.0, 2.0, -2.0), shape=(3,), name="x"
    ),
    "write_softmaxes": lambda: chain(lambda x: ops.softmax(x, axis=1), shape=(6, 4), name="x"),
    "write_kernels": lambda: chain(Gate(name="gate"), shape=(5,), name="x"),
    "write_products": lambda: _two(lambda a, b: ops.einsum("bij,bkj->bik", a, b), (3, 4)),
    "canonicalize": lambda: chain(
        layers.Permute((3, 1, 2), name="first"),
        layers.BatchNormalization(axis=1, name="norm"),
        layers.Permute((2, 3, 1), name="second"),
    ),
    "write_sums_as_means": lambda: chain(lambda x: ops.sum(x, axis=(1, 2))),
    "write_affines": lambda: chain(
        layers.Conv2D(4, 3, name="conv"), layers.Rescaling(2.0, offset=-1.0, name="rescaling")
    ),
    "split_merges": lambda: chain(lambda x: layers.Add(name="add")([x, ops.relu(x), ops.tanh(x)])),
    "pool_whole_images": lambda: chain(layers.AveragePooling2D(8, name="pool")),
    "fold_padding": lambda: chain(
        layers.ZeroPadding2D(((0, 1), (0, 1)), name="pad"),
        layers.Conv2D(4, 3, strides=2, name="conv"),
    ),
    "fold_batch_norms": _nested,
    "fold_affines_forward": lambda: chain(
        layers.Rescaling(1 / 127.5, offset=-1.0, name="rescaling"),
        layers.Conv2D(4, 3, name="conv"),
    ),
    "fuse_activations": _nested,
}
