"""PAD, PADV2 and MIRROR_PAD."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_qat.arithmetic.requantize import quantize
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Node, any_of, layer_of, operation_named
from keras_qat.graph.graph import Parameter
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.moving.reshape import batch_moved, check_channels_last
from keras_qat.quantizers import Free, Grid, Shared
from keras_qat.scheme import Scheme

_MIRRORS = {"reflect": "REFLECT", "symmetric": "SYMMETRIC"}
ZERO_PADDING = layer_of(
    keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D
)
PADDING = any_of(ZERO_PADDING, operation_named("Pad"))
# `PadKernelMaxDimensionCount` in TFLite's `kernels/internal/reference/pad.h`.
_MOST_AXES = 5


@register(PADDING)
@keras.saving.register_keras_serializable("keras_qat")
class QPad(MovesValues):
    """Pads all axes but the first: one PAD, PADV2 or MIRROR_PAD.

    PAD pads with the zero point. PADV2 pads with another constant. For PADV2 the range of the
    tensor is also observed after the padding, so that it contains the constant.

    Args:
        pad_width: Number of values to add before and after each axis but the first.
        mode: `"constant"`, `"reflect"` or `"symmetric"`, as in `keras.ops.pad`.
        value: The padding value if the mode is `"constant"`, a finite number.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QPad([(0, 1)], value=5.0)(np.array([[1.0, 2.0]])).numpy().tolist()
    [[1.0, 2.0, 5.0]]
    """

    activation_bits = (8, 16)
    operators = ("PAD", "PADV2", "MIRROR_PAD")

    def __init__(
        self,
        pad_width: Sequence[Sequence[int]],
        mode: str = "constant",
        value: float = 0.0,
        *,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.mode, self.value = mode, float(value)
        self.pad_width = tuple((int(before), int(behind)) for before, behind in pad_width)
        self._check()

    def specifications(self):
        """Returns the specification of the output. With a constant the output is observed."""
        return {"output": Shared(Free() if self.value else None)}

    def _check(self):
        if self.mode != "constant" and self.mode not in _MIRRORS:
            raise UnsupportedLayerError(
                "LiteRT does not support this padding.",
                layer=self.name,
                received=f"mode='{self.mode}'",
                expected="'constant', 'reflect' or 'symmetric'",
                fix="Use another mode.",
            )
        if not math.isfinite(self.value):
            raise UnsupportedLayerError(
                "No scale represents a padding that is not a finite number.",
                layer=self.name,
                received=f"constant_values={self.value}",
                expected="a finite number",
                fix="Pad with a number below all others, or pool with padding='same'.",
            )

    def build(self, input_shape):
        """Checks the number of axes."""
        if len(input_shape) > _MOST_AXES:
            raise UnsupportedLayerError(
                "LiteRT pads tensors of no more than five axes.",
                layer=self.name,
                received=f"an input of shape {tuple(input_shape)}",
                expected=f"at most {_MOST_AXES} axes, with the batch",
                fix="Merge axes that are not padded with `keras.ops.reshape` before.",
            )
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the padded shape."""
        sizes = zip(input_shape[1:], self.pad_width, strict=True)
        return (input_shape[0], *(size + sum(pads) for size, pads in sizes))

    def float_forward(self, inputs, training=None):
        """Pads."""
        del training
        return self._padded(inputs, self.value)

    def training_forward(self, inputs):
        """Pads. A constant is rounded to the grid."""
        y = self.float_forward(inputs, training=True)
        return self.quantize_output(y) if self.value else y

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Pads the integers."""
        return self._padded(inputs[0].values, self._integer_value(output))

    def _padded(self, x, value):
        pads = ((0, 0), *self.pad_width)
        if self.mode != "constant":
            return ops.pad(x, pads, self.mode)
        padded = ops.pad(x, pads)
        if not self.value:
            return padded
        # Some backends do not pad with a tensor.
        return ops.where(ops.pad(ops.ones_like(x), pads) > 0, padded, value)

    def _integer_value(self, grid: Grid):
        """Returns the constant as a centered integer."""
        scheme = self._scheme()
        limits = np.int32(scheme.activation_low), np.int32(scheme.activation_high)
        return ops.cast(quantize(np.float32(self.value), *grid, *limits), "float32") - ops.cast(
            grid.zero_point, "float32"
        )

    def lower(self, builder, *inputs):
        """Adds one operator."""
        pads = builder.constant("paddings", np.array([(0, 0), *self.pad_width], "int32"))
        if self.mode != "constant":
            return builder.operator(
                "MIRROR_PAD",
                (inputs[0], pads),
                options={"mode": _MIRRORS[self.mode]},
            )
        if not self.value:
            return builder.operator("PAD", (inputs[0], pads))
        grid, value = self.output_grid(), np.array([self.value], "float32")
        if grid is not None:
            centered, zero_point = self._integer_value(grid), ops.convert_to_numpy(grid.zero_point)
            value = np.array([ops.convert_to_numpy(centered) + zero_point], self._scheme().dtype)
        operands = (inputs[0], pads, builder.constant("value", value, inputs[0].quantization))
        return builder.operator("PADV2", operands)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer.

        Raises:
            UnsupportedLayerError: If the batch is padded, or the layout is channels first.
        """
        check_channels_last(node.name, getattr(node.head, "data_format", "channels_last"))
        pads = pads_of(node)
        if any(pads[0]):
            raise batch_moved(node.name, f"pad_width={node.head.pad_width}")
        mode = getattr(node.head, "mode", "constant")
        return cls(pads[1:], mode, padding_value(node), name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"pad_width": self.pad_width, "mode": self.mode, "value": self.value}
        return {**super().get_config(), **own}


def pads_of(node: Node) -> list[list[int]]:
    """Returns the numbers of values that a padding (channels last) adds before and after each axis.

    Args:
        node: A node of an operation that `PADDING` matches.
    """
    if ZERO_PADDING(node.head):
        return [[0, 0], *np.reshape(node.head.padding, (-1, 2)).tolist(), [0, 0]]
    pads = [list(pair) for pair in node.head.pad_width]
    return pads * len(node.shapes[0]) if len(pads) == 1 else pads


def padding_value(node: Node) -> float:
    """Returns the constant value of a padding.

    Args:
        node: A node of an operation that `PADDING` matches.

    Raises:
        UnsupportedLayerError: If the value is not one number.
    """
    (_, *rest), keywords = node.arguments
    value = rest[0] if rest else keywords.get("constant_values")
    value = value.value if isinstance(value, Parameter) else value
    if isinstance(value, Edge) or np.size(value) != 1:
        raise UnsupportedLayerError(
            "A tensor is padded with one constant.",
            layer=node.name,
            received=f"constant_values of type {type(value).__name__}",
            expected="a number",
            fix="Concatenate the tensors instead.",
        )
    return 0.0 if value is None else float(np.ravel(value)[0])
