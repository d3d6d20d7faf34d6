"""Batch normalization as a MUL and an ADD, each with its own quantization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_qat.backend import batch_moments
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import layer_of, maybe
from keras_qat.layers.core.activation_names import FUSED, function_name
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.constants import centered_constant, stored
from keras_qat.layers.core.drop_in import (
    activation_behind,
    activation_config,
    cannot_take_up,
    quiet_config,
)
from keras_qat.layers.core.fused import fused_code
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.elementwise.arithmetic import combined_centered
from keras_qat.litert import Quantization
from keras_qat.quantizers import (
    Free,
    Grid,
    RangeObserver,
    RangeParameters,
    fake_quantize,
    fake_quantize_weights,
)

# XNNPACK does not take an ADD if an input's scale is less than this times the output's scale.
_LEAST_RATIO = np.float32(2.0**-10)
# No finite product is below this limit, but a compiler must not know that.
_LOWEST = np.float32(-3.4e38)


class _Affine(NamedTuple):
    """The factor and the offset of each channel, in the shape of the variables."""

    factor: Any
    offset: Any


@keras.saving.register_keras_serializable("keras_qat")
class UnfusedBatchNormalization(QuantizedLayer, keras.layers.BatchNormalization):
    """Batch normalization that is not folded: one MUL and one ADD.

    In float the layer is a `keras.layers.BatchNormalization`. A quantized layer is not folded into
    the layer before it, and the product between its two operators has a range of its own.
    `BatchNormalization(fused=False)` had this form in TensorFlow 1's quantization-aware training.
    Factors and offsets have one scale for all channels. A folded batch normalization is therefore
    nearly always the better choice: it has a scale for each channel, and costs nothing.

    Args:
        *args: Arguments of `keras.layers.BatchNormalization`.
        activation: Activation after it; in a quantized model `None`, `"relu"` or `"relu6"`.
        activation_name: Name of the activation if it was a layer of its own.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.BatchNormalization`.

    Example:
    >>> layer = UnfusedBatchNormalization()
    >>> layer(np.ones((1, 5, 5, 3), "float32")).shape
    TensorShape([1, 5, 5, 3])
    """

    operators = ("MUL", "ADD")
    takes_activation = True
    is_opened = False
    product_observer: RangeObserver

    def __init__(self, *args, activation=None, activation_name=None, scheme=None, **kwargs):
        super().__init__(*args, scheme=scheme, **kwargs)
        self.activation = keras.activations.get(activation)
        self.activation_name = activation_name

    def specifications(self):
        """Returns the specifications of the output and of the product."""
        return {**super().specifications(), "product": Free()}

    def build(self, input_shape):
        """Builds the batch normalization and both range observers."""
        super().build(input_shape)
        if self.scheme is not None and getattr(self, "renorm", False):
            raise UnsupportedLayerError(
                "Batch renormalization cannot be trained with quantization.",
                layer=self.name,
                received="renorm=True",
                fix="Make the layer with `renorm=False`.",
            )

    def float_forward(self, inputs, training=None):
        """Calls the Keras layer."""
        y = keras.layers.BatchNormalization.call(self, inputs, training=training)
        return self.activation(y)

    def training_forward(self, inputs):
        """Multiplies and adds with the batch's statistics, rounding after each operation."""
        affine = self._affine(*self._statistics(inputs))
        product = self._spread(inputs, self._rounded(affine.factor)) * inputs
        self.product_observer.track(product)
        limits = self._scheme().activation_low, self._scheme().activation_high
        product = fake_quantize(product, *self._product_grid(), *limits)
        y = product + self._spread(inputs, self._rounded(affine.offset))
        return self.quantize_output(self.activation(y))

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Multiplies and adds as the target's two kernels do."""
        ((values, grid),) = inputs
        between = self._product_grid()
        factor, offset = self._constants(output.scale)
        options = {
            "rule": self.integer_rule("MUL"),
            "activation": "linear",
            "scheme": self._scheme(),
        }
        factors = self._spread(values, factor.values)
        scales = grid.scale, factor.grid.scale
        product = combined_centered(values, factors, *scales, *between, **options)
        options |= {"rule": self.integer_rule("ADD"), "activation": function_name(self.activation)}
        offsets = self._spread(values, offset.values)
        scales = between.scale, offset.grid.scale
        return combined_centered(product, offsets, *scales, *output, **options)

    def lower(self, builder, *inputs):
        """Adds a MUL and an ADD."""
        fused = fused_code(function_name(self.activation), self.output_grid())
        if self.scheme is None:
            affine = self._affine(self.moving_mean, self.moving_variance)
            factor, offset = (OffsetInts(values, None) for values in affine)
            product = self._lowered(builder, "MUL", inputs[0], factor, "NONE", part="product")
            return self._lowered(builder, "ADD", product, offset, fused)
        factor, offset = self._constants(self._neighbours().output.grid().scale)
        grid = [np.reshape(ops.convert_to_numpy(value), 1) for value in self._product_grid()]
        between = Quantization(grid[0].astype("float32"), grid[1].astype("int64"))
        inner = {"part": "product", "quantization": between}
        product = self._lowered(builder, "MUL", inputs[0], factor, "NONE", **inner)
        return self._lowered(builder, "ADD", product, offset, fused)

    def inner_tensor(self, name: str, inputs):
        """Computes the product in float."""
        del name
        affine = self._affine(self.moving_mean, self.moving_variance)
        return inputs * self._spread(inputs, affine.factor)

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns a `BatchNormalization` with its weights, and its activation."""
        return [*(super().layers_in_keras() or ()), *activation_behind(self)]

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration for a batch normalization and an activation."""
        config = quiet_config(head)
        for follower in followers:
            if function_name(keras.activations.get(config.get("activation"))) != "linear":
                raise cannot_take_up(cls, follower)
            config |= activation_config(cls, follower)
        return config

    def get_config(self):
        """Returns the constructor's arguments."""
        activation = keras.activations.serialize(self.activation)
        names = {"activation": activation, "activation_name": self.activation_name}
        return {**super().get_config(), **names}

    def _lowered(self, builder, code, x, constant: OffsetInts, fused: str, **output):
        values, quantization = ops.convert_to_numpy(self._spread(x, constant.values)), None
        if constant.grid is not None:
            values, quantization = stored(values, constant.grid, self._scheme().dtype)
        role = "factor" if code == "MUL" else "offset"
        operand = builder.constant(role, values, quantization)
        return builder.operator(
            code,
            (x, operand),
            options={"fusedActivationFunction": fused},
            **output,
        )

    def _statistics(self, x):
        """Returns the batch's statistics and updates the moving ones; if frozen, the latter."""
        if not self.trainable:
            return self.moving_mean, self.moving_variance
        axis = self.axis % len(x.shape)
        axes = [each for each in range(len(x.shape)) if each != axis]
        mean, variance = batch_moments(x, axes, self.synchronized)
        for kept, new in ((self.moving_mean, mean), (self.moving_variance, variance)):
            kept.assign(kept * self.momentum + ops.stop_gradient(new) * (1.0 - self.momentum))
        return mean, variance

    def _affine(self, mean, variance) -> _Affine:
        # As for folded weights, a compiler must not make a reciprocal square root of the division.
        deviation = ops.maximum(ops.sqrt(variance + self.epsilon), 1e-12)
        factor = (self.gamma if self.scale else ops.ones_like(deviation)) / deviation
        shift = ops.maximum(mean * factor, _LOWEST)  # keeps a compiler from contracting the product
        return _Affine(factor, self.beta - shift if self.center else -shift)

    def _rounded(self, values):
        return fake_quantize_weights(values, None, self._scheme())

    def _constants(self, output_scale) -> tuple[OffsetInts, OffsetInts]:
        """Returns the factors and offsets in integers."""
        affine = self._affine(self.moving_mean, self.moving_variance)
        factor = centered_constant(affine.factor, self._scheme())
        return factor, centered_constant(affine.offset, self._scheme(), output_scale * _LEAST_RATIO)

    def _product_grid(self) -> Grid:
        return RangeParameters(self._scheme(), [self.product_observer]).grid()

    def _spread(self, x, vector):
        """Reshapes a value for each channel to broadcast against the input."""
        sizes = [1] * len(x.shape)
        sizes[self.axis] = -1
        return ops.reshape(vector, sizes)


register(layer_of(UnfusedBatchNormalization), maybe(FUSED))(UnfusedBatchNormalization)
