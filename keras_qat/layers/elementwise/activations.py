"""Standalone activations: SOFTMAX, and ADD with a fused RELU or RELU6."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.fixed_point import conv_multiplier
from keras_qat.arithmetic.requantize import requantize
from keras_qat.backend import compiled
from keras_qat.layers.core.activation_names import FUSED, activation_name, activation_of
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.drop_in import cannot_take_up, stands_for_others
from keras_qat.layers.core.fused import activation_limits, apply_activation, sum_options
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import refuse, register
from keras_qat.litert import Quantization
from keras_qat.quantizers import Fixed, Grid
from keras_qat.scheme import Scheme

# Ratio of an input's scale to the output's scale. XNNPACK does not take an ADD from this ratio on,
# and LiteRT refuses the ADD from 2**19 on.
_MOST_RATIO = np.float32(256.0)


class Elementwise(QuantizedLayer):
    """Base class of layers whose output has the shape of their only input."""

    def compute_output_shape(self, input_shape):
        """Returns the shape of the input."""
        return input_shape


@register(activation_of("softmax"))
@keras.saving.register_keras_serializable("keras_qat")
class QSoftmax(Elementwise):
    """Softmax over the last axis: one SOFTMAX, whose output LiteRT fixes to 1/256 and -128.

    At training the output is not rounded: a probability rounded to 0 has an infinite loss.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.
    """

    operators = ("SOFTMAX",)
    keras_class = keras.layers.Softmax
    activation_bits = (8, 16)
    output_specification = Fixed(1 / 256, -128, wide_scale=2.0**-15)
    # The kernel aborts at 2^-26. Logits within this scale have equal probabilities.
    least_input_scale = 2.0**-25

    def float_forward(self, inputs, training=None):
        """Computes the softmax in float."""
        del training
        return keras.activations.softmax(inputs)

    def training_forward(self, inputs):
        """Computes the softmax in float, and does not round it."""
        return self.float_forward(inputs, training=True)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Computes as the target's SOFTMAX does."""
        del output
        ((values, grid),), rule = inputs, self.integer_rule("SOFTMAX")
        least = 0 if self._scheme().activation_symmetric else -128  # the integer of a result of 0
        return _softmax_centered(values, grid.scale, rule=rule, least=least)

    def lower(self, builder, *inputs):
        """Adds one SOFTMAX."""
        return builder.operator("SOFTMAX", inputs, options={"beta": 1.0})

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the layer that was converted, or a `Softmax`."""
        if self.keras_layer is not None:
            return super().layers_in_keras()
        return [keras.layers.Softmax(name=self.name, dtype=self.dtype_policy)]

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration for a `keras.layers.Softmax`."""
        for follower in followers:
            raise cannot_take_up(cls, follower)
        if activation_name(head) != "softmax":
            raise stands_for_others(cls, [head], "a softmax over axis -1")
        return {"name": head.name}


@register(FUSED)
@keras.saving.register_keras_serializable("keras_qat")
class QReLU(Elementwise):
    """A ReLU or ReLU6 that cannot be fused into the layer before it: ADD of zero, which fuses it.

    XNNPACK has no RELU and RELU6 of integers, so ADD is several times as fast. RELU and RELU6
    remain where the scale of the output is less than a 256th of the input's scale.

    Args:
        activation: `"relu"` or `"relu6"`.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.
    """

    activation_bits = (8, 16)
    operators = ("ADD", "RELU", "RELU6")
    keras_class = keras.layers.ReLU

    def __init__(self, activation="relu", *, scheme: str | Scheme | None = None, **kwargs):
        super().__init__(scheme=scheme, **kwargs)
        self.activation = activation

    def float_forward(self, inputs, training=None):
        """Computes the activation in float."""
        del training
        return apply_activation(self.activation, inputs)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Rescales and clips."""
        ((values, grid),) = inputs
        options = {"activation": self.activation, "scheme": self._scheme()}
        options["add"] = self.integer_rule("ADD")
        return _relu_centered(values, grid.scale, *output, **options)

    def lower(self, builder, *inputs):
        """Adds one ADD of zero, or one RELU or RELU6 in float and at distant scales."""
        if self.scheme is None or not _are_near(*self._scales()):
            return builder.operator(self.activation.upper(), inputs)
        scheme, (scale, _) = self._scheme(), self._scales()
        quantization = Quantization(scale[None], np.zeros(1, "int64"))
        zero = builder.constant("zero", np.zeros((), scheme.dtype), quantization)
        return builder.operator(
            "ADD",
            (inputs[0], zero),
            options=sum_options(self.activation, self.output_grid()),
        )

    def _scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns the scale of the input, which zero has too, and the scale of the output."""
        neighbours = self._neighbours()
        return _scale_of(neighbours.inputs[0].grid()), _scale_of(neighbours.output.grid())

    def layers_in_keras(self) -> list[keras.layers.Layer] | None:
        """Returns the layer that was converted, or an `Activation`."""
        if self.keras_layer is not None:
            return super().layers_in_keras()
        return [keras.layers.Activation(self.activation, name=self.name, dtype=self.dtype_policy)]

    @classmethod
    def config_of_keras(cls, head: Any, followers: Sequence[Any]) -> dict[str, Any]:
        """Returns the configuration for a `keras.layers.ReLU`."""
        for follower in followers:
            raise cannot_take_up(cls, follower)
        if activation_name(head) not in ("relu", "relu6"):
            raise stands_for_others(cls, [head], "a ReLU without limit, or with a limit of 6")
        return {"name": head.name, "activation": activation_name(head)}

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "activation": self.activation}


@compiled
def _softmax_centered(x, scale, *, rule, least):
    # Only differences matter, so centered integers give the same result as the integers themselves.
    return ops.cast(rule(ops.cast(x, "int32"), scale) - least, "float32")


def _scale_of(grid: Grid) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(grid.scale), "float32")


def _are_near(input_scale, output_scale):
    return input_scale < output_scale * _MOST_RATIO


@compiled
def _relu_centered(x, input_scale, output_scale, zero_point, *, add, activation, scheme):
    """Computes ADD of zero by the rule `add`, or RELU."""
    limits = activation_limits(activation, output_scale, zero_point, scheme)
    q, output = ops.cast(x, "int32"), (output_scale, zero_point, *limits)

    def by_add():
        return add(q, input_scale, 0, 0, input_scale, 0, *output)

    def by_relu():
        multiplier, shift = conv_multiplier(input_scale, ops.ones_like(input_scale), output_scale)
        return requantize(q, multiplier, shift, *output[1:])

    q = ops.cond(_are_near(input_scale, output_scale), by_add, by_relu)
    return ops.cast(q - zero_point, "float32")


refuse(
    activation_of("sparsemax"),
    reason="Sparsemax sorts its input, which LiteRT cannot do in integers.",
    fix="Use softmax.",
)
