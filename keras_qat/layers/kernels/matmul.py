"""BATCH_MATMUL."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from keras_qat.arithmetic import accumulate
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, operation_named
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.rules import integer_rule
from keras_qat.layers.core.shapes import broadcast_shape
from keras_qat.layers.kernels.accumulators import requantize_centered
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme

# Source: `Prepare` in TFLite's `kernels/batch_matmul.cc`.
_RANKS = (3, 4, 5)


@register(operation_named("Matmul"))
@keras.saving.register_keras_serializable("keras_qat")
class QMatmul(QuantizedLayer):
    """Product of two batches of matrices: one BATCH_MATMUL.

    Both tensors have the same rank, 3 to 5, and the batch as their first axis. All axes between the
    batch and the last two may broadcast.

    Args:
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Example:
    >>> import numpy as np
    >>> QMatmul()([np.ones((2, 3, 4), "float32"), np.ones((2, 4, 5), "float32")]).shape
    TensorShape([2, 3, 5])
    """

    operators = ("BATCH_MATMUL",)

    def build(self, input_shape):
        """Checks the shapes and builds the range observer."""
        ranks = {len(shape) for shape in input_shape}
        if len(input_shape) != 2 or len(ranks) != 1 or not ranks <= set(_RANKS):
            raise UnsupportedLayerError(
                "A product of matrices takes two tensors with the same number of axes.",
                layer=self.name,
                received=f"shapes {[tuple(shape) for shape in input_shape]}",
                expected="two shapes of one rank, 3 to 5, with the batch",
                fix="Reshape the tensors; a constant of two axes may be the second operand.",
            )
        super().build(input_shape)

    def compute_output_shape(self, input_shape):
        """Returns the shape of the product."""
        a, b = (tuple(shape) for shape in input_shape)
        return (*broadcast_shape(a[:-2], b[:-2]), a[-2], b[-1])

    def float_forward(self, inputs, training=None):
        """Multiplies in float."""
        del training
        return ops.matmul(*inputs)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Sums exactly, and scales as the target's BATCH_MATMUL does."""
        (a, grid_a), (b, grid_b) = inputs
        scheme = self._scheme()
        sums = accumulate.batch_matmul(a, b, largest_product=scheme.largest_activation**2)
        scales = grid_a.scale, grid_b.scale

        def scaled(rule: Any) -> Any:
            options = {"rule": rule, "activation": "linear", "scheme": scheme}
            return requantize_centered(sums, 0, *scales, *output, **options)

        taken, other = (self._rule(takes_delegate=takes) for takes in (True, False))
        if taken is other:
            return scaled(other)
        # Fast kernels take the second tensor as if it were weights, which have no zero point.
        is_taken = ops.equal(grid_b.zero_point, 0)
        return ops.cond(is_taken, lambda: scaled(taken), lambda: scaled(other))

    def _rule(self, *, takes_delegate: bool) -> Any:
        dtype = self._scheme().dtype
        return integer_rule(
            "BATCH_MATMUL", self.target, dtype, takes_delegate=takes_delegate and dtype == "int8"
        )

    def lower(self, builder, *inputs):
        """Adds one BATCH_MATMUL."""
        options = {"adjX": False, "adjY": False, "asymmetricQuantizeInputs": False}
        return builder.operator("BATCH_MATMUL", inputs, options=options)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer for a product of two tensors."""
        if len(node.inputs) != 2:
            raise UnsupportedLayerError(
                "A product with constant matrices, one for each element of an axis, has no "
                "integer form here.",
                layer=node.name,
                expected="two tensors, or a tensor and a constant of two axes",
                fix="Split the axis, and multiply each part with its matrix.",
            )
        return cls(name=node.name, scheme=scheme)
