"""Batch normalization that cannot be folded into the layer before it: a 1x1 DEPTHWISE_CONV_2D."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.graph import Matcher, maybe
from keras_qat.layers.core.activation_names import FUSED, function_name
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.layers.core.drop_in import (
    activation_behind,
    activation_config,
    build_like,
    cannot_take_up,
    copy_by_path,
    copy_variables,
    remade,
)
from keras_qat.layers.core.registry import register
from keras_qat.layers.kernels.block import norm_config
from keras_qat.layers.kernels.kernel_operator import KernelOperator, channel_sums
from keras_qat.layers.kernels.weighted import WeightedLayer


def _normalizes_last_axis(operation: Any) -> bool:
    if type(operation) not in (keras.layers.BatchNormalization, ChannelAffine):
        return False
    return operation.axis in (-1, operation.input_spec.ndim - 1)


BATCH_NORM = Matcher("keras.layers.BatchNormalization", _normalizes_last_axis)


class ScaledChannels(KernelOperator):
    """A DEPTHWISE_CONV_2D with a window of one pixel. The kernel is (1, 1, channels, 1)."""

    code = "DEPTHWISE_CONV_2D"
    channel_axes = (-2, -1)

    def apply(self, layer: Any, x, kernel):
        """Multiplies each channel."""
        del layer
        return x * ops.reshape(kernel, (-1,))

    def accumulate(self, layer: Any, values, kernel):
        """Multiplies each channel, exactly: a sum has one product."""
        return channel_sums(self, layer, values, kernel)

    def add(self, layer: Any, builder, x):
        """Adds a DEPTHWISE_CONV_2D, between two RESHAPEs if the rank of the input is not 4."""
        kernel, grid, bias = layer.lower_weights()
        shape = x.shape
        if len(shape) != 4:
            flat = (shape[0], 1, int(np.prod(shape[1:-1])), shape[-1])
            x = builder.reshape(x, flat, part="input")
        y = builder.operator(
            self.code,
            (
                x,
                builder.weights(kernel.reshape(1, 1, 1, -1), grid, axis=3),
                builder.bias(bias, x, grid),
            ),
            part=None if len(shape) == 4 else "scaled",
            shape=x.shape,
            options={
                "padding": "VALID",
                "strideH": 1,
                "strideW": 1,
                "dilationHFactor": 1,
                "dilationWFactor": 1,
                "depthMultiplier": 1,
                "fusedActivationFunction": layer.fused_code(),
            },
        )
        return y if len(shape) == 4 else builder.reshape(y, shape)


@register(BATCH_NORM, maybe(FUSED))
@keras.saving.register_keras_serializable("keras_qat")
class QBatchNormalization(WeightedLayer):
    """A standalone batch normalization: one factor and one int32 bias for each channel.

    After an activation, a pooling or an input there is no convolution to fold the batch
    normalization into. A depthwise convolution with a 1x1 kernel is one operator, and each channel
    has its own weight scale, unlike in a MUL and an ADD.

    Args:
        activation: Activation after the batch normalization: None, `"relu"` or `"relu6"`.
        batch_norm: Configuration of the `keras.layers.BatchNormalization`; True for defaults.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> layer = QBatchNormalization(activation="relu")
    >>> layer(np.ones((2, 4), "float32")).shape
    TensorShape([2, 4])
    """

    operators = ("DEPTHWISE_CONV_2D", "RESHAPE")
    kernel_operator = ScaledChannels()
    takes_activation = False
    keras_class = keras.layers.BatchNormalization
    use_bias = False

    def __init__(self, activation=None, *, batch_norm: bool | dict = True, scheme=None, **kwargs):
        super().__init__(batch_norm=batch_norm, scheme=scheme, **kwargs)
        self.activation = keras.activations.get(activation)

    def build(self, input_shape):
        """Builds the batch normalization and the range observer."""
        self.channels = input_shape[-1]
        super().build(input_shape)

    @property
    def kernel(self):
        """A float32 tensor of ones, of shape (1, 1, channels, 1)."""
        return ops.ones((1, 1, self.channels, 1), "float32")

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape

    def layers_in_keras(self):
        """Returns a `BatchNormalization` with its weights, and an `Activation`."""
        norm = self.batch_normalization
        if isinstance(norm, ChannelAffine):
            return [norm.to_keras(self.name), *activation_behind(self)]
        layer = remade(type(norm), norm, name=self.name)
        if norm.built:
            build_like(layer, norm)
            copy_by_path(norm, layer)
        return [layer, *activation_behind(self)]

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration for a batch normalization and an activation."""
        config = {"name": head.name, "batch_norm": norm_config(head)}
        for follower in followers:
            if "activation" in config:
                raise cannot_take_up(cls, follower)
            config |= activation_config(cls, follower)
        return config

    def copy_from_keras(self, chain: Sequence[Any]) -> None:
        """Copies the batch normalization's variables."""
        copy_variables(chain[0], self.batch_normalization)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "activation": function_name(self.activation)}


def batch_norm_of(layer: Any) -> Any:
    """Returns the batch normalization of a quantized layer, or the layer if it is one itself.

    Args:
        layer: Any layer.

    Returns:
        None for a layer without batch normalization, or a layer that is not quantized.
    """
    if not isinstance(layer, QuantizedLayer):
        return None
    is_own = isinstance(layer, keras.layers.BatchNormalization)
    norm = layer if is_own else getattr(layer, "batch_normalization", None)
    return None if isinstance(norm, ChannelAffine) else norm
