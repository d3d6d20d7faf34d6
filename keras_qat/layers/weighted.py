"""Layers with a kernel, a batch normalization folded into it, and a fused activation."""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.fixed_point import conv_multiplier
from keras_qat.arithmetic.multiply import product_multiplier
from keras_qat.graph import Node
from keras_qat.layers.activation_names import function_name
from keras_qat.layers.base import Centered, QuantizedLayer
from keras_qat.layers.block import Block, with_trainable
from keras_qat.layers.drop_in import activation_config, assign_copy
from keras_qat.layers.fused import activation_limits, fused_code
from keras_qat.layers.input_affine import InputAffine
from keras_qat.layers.requantize import requantize_centered
from keras_qat.layers.stored import stored
from keras_qat.quantizers import (
    Grid,
    fake_quantize_weights,
    quantize_weights,
    reciprocal,
    weight_grid,
)
from keras_qat.scheme import Scheme

# A bias is the sum of two terms; each stays below 2^29, so that accumulators do not overflow.
_LARGEST_BIAS_TERM = 2.0**29
# XNNPACK refuses a multiplier below 2^-32; only a channel without weights would have one.
_SMALLEST_MULTIPLIER = 2.0**-31


class IntegerWeights(NamedTuple):
    """The integers of a layer with a kernel, computed from its float variables.

    Attributes:
        kernel: float32 whole numbers, the zero point subtracted, in the shape of the Keras kernel.
        kernel_scale: float32, one for each output channel, or a single one.
        kernel_zero_point: The integer that stands for 0.0, int32 or a number.
        bias: int32, one for each output channel, at `input_scale * kernel_scale`.
        multiplier: int32, as many as scales.
        shift: int32, as many as scales.
    """

    kernel: Any
    kernel_scale: Any
    kernel_zero_point: Any
    bias: Any
    multiplier: Any
    shift: Any


class WeightedLayer(QuantizedLayer, Block):
    """Base class of layers with a kernel, a bias, a batch normalization and an activation.

    The batch normalization belongs to the layer: at training it normalizes with the batch's
    statistics, at inference it is folded into the kernel and the bias. Weights are quantized in
    the folded domain: training computes `BN(conv(x, fq(kernel * s) / s))` with `s = gamma /
    sqrt(moving_variance + epsilon)`, so that they get the same grid as in the exported file.

    Args:
        *args: Arguments of the Keras layer.
        input_affine: Arguments of an `InputAffine`, which the layer applies first.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of the Keras layer and of `Block`.
    """

    takes_activation = True
    # The dimensions of the kernel that number its output channels.
    channel_axes: tuple[int, ...] = (-1,)

    def __init__(self, *args, input_affine: dict | None = None, scheme=None, **kwargs):
        super().__init__(*args, scheme=scheme, **kwargs)
        self.input_affine = None if input_affine is None else InputAffine(**input_affine)

    def apply_kernel(self, x, kernel):
        """Computes the linear part: float32 tensors in, float32 tensor out."""
        raise NotImplementedError

    def accumulate(self, centered, kernel):
        """Computes the linear part exactly.

        Args:
            centered: float32 whole numbers `q - zero_point`.
            kernel: float32 whole numbers, the quantized kernel.

        Returns:
            int32 accumulators.
        """
        raise NotImplementedError

    def float_forward(self, inputs, training=None):
        """Applies kernel, bias, batch normalization and activation in float."""
        return self.finish(self.apply_kernel(inputs, self._input_kernel()), training)

    def training_forward(self, inputs):
        """Applies the fake-quantized folded kernel, then the rest in float."""
        fold = self._channel_scale()
        # A channel with gamma = 0 has no folded weights: its own ones keep the gradient alive.
        fold = ops.stop_gradient(ops.where(ops.abs(fold) < 1e-20, ops.ones_like(fold), fold))
        fold = ops.reshape(fold, _channel_shape(self.kernel, self.channel_axes))
        folded = self._input_kernel() * fold
        grid = weight_grid(ops.stop_gradient(folded), self._scaled_axes(), self._scheme())
        kernel = fake_quantize_weights(folded, grid) / fold
        return self.quantize_output(self.finish(self.apply_kernel(inputs, kernel), True))

    def integer(self, *inputs: Centered, output: Grid):
        """Accumulates in int32 and requantizes as the reference kernel does."""
        ((values, grid),) = inputs
        weights = self.integer_weights(grid.scale, output.scale)
        accumulators = self.accumulate(values, weights.kernel)
        limits = activation_limits(function_name(self.activation), *output, self._scheme())
        return self.requantize(accumulators, weights, grid.scale, output, limits)

    def requantize(self, accumulators, weights: IntegerWeights, input_scale, output: Grid, limits):
        """Scales accumulators to the output's steps, by `MultiplyByQuantizedMultiplier`.

        Args:
            accumulators: What `accumulate` returned.
            weights: The layer's integers.
            input_scale: float32 scalar tensor.
            output: The grid of the output.
            limits: Smallest and largest output integer, int32 scalar tensors.

        Returns:
            float32 whole numbers `q - zero_point`.
        """
        del input_scale
        scaling = weights.bias, weights.multiplier, weights.shift
        return requantize_centered(accumulators, *scaling, output.zero_point, *limits)

    def integer_weights(self, input_scale, output_scale) -> IntegerWeights:
        """Computes the integer kernel, bias and multipliers from the current variables.

        Inference and export call this same function, and it is written so that no compiler
        can change its result: no sum of products, no division by a constant.

        Args:
            input_scale: float32 scalar tensor.
            output_scale: float32 scalar tensor.

        Returns:
            The `IntegerWeights`.
        """
        offset, shifted = self._bias_terms()
        return _integer_weights(
            self._input_kernel(),
            self._channel_scale(),
            offset,
            shifted,
            input_scale,
            output_scale,
            scheme=self._scheme(),
            channel_axes=self.channel_axes,
        )

    def lower_weights(self):
        """Returns the weights as numpy arrays for `lower`.

        Returns:
            Integer kernel, its `Quantization`, int32 bias; float32 kernel, None, float32 bias for a
            float layer.
        """
        if self.scheme is None:
            fold = ops.reshape(
                self._channel_scale(), _channel_shape(self.kernel, self.channel_axes)
            )
            kernel, bias = self._input_kernel() * fold, sum(self._bias_terms())
            return ops.convert_to_numpy(kernel), None, ops.convert_to_numpy(bias)
        links = self._linked()
        scales = links.inputs[0].grid().scale, links.output.grid().scale
        weights = self.integer_weights(*scales)
        grid = Grid(weights.kernel_scale, weights.kernel_zero_point)
        kernel, quantization = stored(weights.kernel, grid, self._scheme())
        return kernel, quantization, ops.convert_to_numpy(weights.bias)

    def fused_code(self) -> str:
        """Returns LiteRT's name of the activation."""
        return fused_code(function_name(self.activation), self.output_grid())

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for `head [+ BatchNormalization] [+ ReLU]`."""
        config = {**node.head.get_config(), "name": node.name, "dtype": "float32"}
        config.pop("activity_regularizer", None)  # has become a layer of its own
        if node.activation_split:
            config["activation"] = "linear"
        for operation in node.operations[1:]:
            if isinstance(operation, keras.layers.BatchNormalization):
                config["batch_norm"] = {**operation.get_config(), "dtype": "float32"}
                continue
            config |= activation_config(cls, operation)
        if node.activation_split:
            config["activation_name"] = None
        config = {**with_trainable(config), "scheme": scheme}
        if node.input_affine is not None:
            config["input_affine"] = dict(node.input_affine)
        return cls.from_config(config)

    def finish(self, y, training=None):
        """Applies the input's offset, bias, batch normalization and activation in float."""
        return super().finish(y if self._shift() is None else y + self._shift(), training)

    def to_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the Keras layers that compute in float what this layer does, with its weights."""
        layers = super().to_keras()
        if self.input_affine is None or layers is None:
            return layers
        return [self.input_affine.to_keras(), *layers]

    def get_config(self):
        """Returns the constructor's arguments."""
        affine = {} if self.input_affine is None else {"input_affine": self.input_affine.config()}
        return {**super().get_config(), **affine}

    def carry_weights(self, node: Node) -> None:
        """Copies kernel, bias and batch normalization."""
        sources = [op for op in node.operations if getattr(op, "weights", None)]
        for mine, theirs in zip([self, self.batch_normalization], sources, strict=False):
            copy_values(theirs, mine)

    def _channel_scale(self):
        """What the folded batch normalization multiplies each channel with."""
        norm = self.batch_normalization
        if norm is None:
            return ops.ones((self._channels(),), "float32")
        # Written so that no compiler turns it into a product with a reciprocal square root.
        deviation = ops.maximum(ops.sqrt(norm.moving_variance + norm.epsilon), 1e-12)
        return norm.gamma / deviation if norm.scale else reciprocal(deviation)

    def _bias_terms(self):
        """The folded bias as two terms: their sum in float would depend on the compiler."""
        zeros = ops.zeros((self._channels(),), "float32")
        bias = self.bias if self.use_bias else zeros
        shift = self._shift()
        bias = bias if shift is None else bias + shift
        norm = self.batch_normalization
        if norm is None:
            return ops.convert_to_tensor(bias), zeros
        beta = norm.beta if norm.center else zeros
        return ops.convert_to_tensor(beta), (bias - norm.moving_mean) * self._channel_scale()

    def _input_kernel(self):
        """The kernel to apply to the input as it is."""
        kernel = ops.convert_to_tensor(self.kernel)
        return kernel if self.input_affine is None else self.input_affine.scaled(kernel)

    def _shift(self):
        """What the input's offset adds to each output channel, None for nothing."""
        if self.input_affine is None or not self.input_affine.has_offset:
            return None
        axes = _summed_axes(self.kernel, self.channel_axes)
        return self.input_affine.shift(ops.convert_to_tensor(self.kernel), axes)

    def _scaled_axes(self) -> tuple[int, ...] | None:
        """The dimensions of the kernel that one weight scale spans, None for all."""
        is_single = not self._scheme().weight_per_channel
        return None if is_single else _summed_axes(self.kernel, self.channel_axes)

    def _channels(self) -> int:
        return int(np.prod([self.kernel.shape[axis] for axis in self.channel_axes]))


def copy_variables(source, target) -> None:
    """Copies the variables of a layer, and whether it is trained."""
    copy_values(source, target)
    target.trainable = source.trainable


def copy_values(source, target) -> None:
    """Copies the variables that both layers have under the same attribute names."""
    names = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    for name in names:
        value = getattr(source, name, None)
        if value is not None:
            assign_copy(getattr(target, name), value)


def _integer_weights(
    kernel, channel_scale, offset, shifted, input_scale, output_scale, *, scheme, channel_axes
):
    channels = _channel_shape(kernel, channel_axes)
    folded = kernel * ops.reshape(channel_scale, channels)
    # A channel with hardly any weights gets a scale at which its bias fits in 32 bits.
    bias_size = ops.maximum(ops.abs(offset), ops.abs(shifted)) * np.float32(1 / _LARGEST_BIAS_TERM)
    per_input = reciprocal(input_scale)
    smallest = output_scale * np.float32(_SMALLEST_MULTIPLIER) * per_input
    least = ops.maximum(bias_size * per_input, smallest)
    if scheme.weight_per_channel:
        axes, least = _summed_axes(kernel, channel_axes), ops.reshape(least, channels)
    else:
        axes, least = None, ops.max(least)
    grid = weight_grid(folded, axes, scheme, least)
    scale = ops.reshape(grid.scale, (-1,))
    per_step = reciprocal(input_scale * scale)
    bias = _round(offset * per_step) + _round(shifted * per_step)
    rule = product_multiplier if scheme.rounds_scale_products else conv_multiplier
    multiplier = rule(input_scale, scale, output_scale)
    quantized = quantize_weights(folded, grid)
    return IntegerWeights(quantized, scale, grid.zero_point, bias, *multiplier)


def _channel_shape(kernel, channel_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The shape in which one value for each output channel broadcasts against a kernel."""
    summed = _summed_axes(kernel, channel_axes)
    return tuple(1 if axis in summed else size for axis, size in enumerate(kernel.shape))


def _summed_axes(kernel, channel_axes: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions of a kernel that one output channel has weights along."""
    rank = len(kernel.shape)
    return tuple(axis for axis in range(rank) if axis - rank not in channel_axes)


def _round(x):
    return ops.cast(ops.round(x), "int32")
