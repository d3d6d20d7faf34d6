"""MEAN, REDUCE_MAX, REDUCE_MIN, REDUCE_ANY and REDUCE_ALL over any axes but the batch's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import compiled
from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Node, operation_named
from keras_qat.layers.core.axes import with_axis
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.booleans import check_booleans
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.core.moves_values import MovesValues
from keras_qat.layers.core.registry import register
from keras_qat.layers.core.sequences import check_sizes_known
from keras_qat.layers.moving.reshape import batch_moved
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


class ReducesAxes(QuantizedLayer):
    """Base class of operations that reduce given axes.

    Args:
        axis: The axes to reduce, counted from the first axis, which is not allowed.
        keepdims: Whether the reduced axes are kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Attributes:
        operator_code: The LiteRT operator.
        function: The reduction, a function of `keras.ops`.
    """

    operator_code: str
    function: Any

    def __init__(
        self,
        axis: Sequence[int],
        keepdims: bool = False,
        *,
        scheme: str | Scheme | None = None,
        **kwargs,
    ):
        super().__init__(scheme=scheme, **kwargs)
        self.axis, self.keepdims = tuple(axis), bool(keepdims)

    def compute_output_shape(self, input_shape):
        """Returns the shape without the reduced axes, or with a size of 1 for each."""
        left = enumerate(input_shape)
        if self.keepdims:
            return tuple(1 if axis in self.axis else size for axis, size in left)
        return tuple(size for axis, size in left if axis not in self.axis)

    def float_forward(self, inputs, training=None):
        """Reduces in float."""
        del training
        return self.function(inputs, axis=self.axis, keepdims=self.keepdims)

    def lower(self, builder, *inputs):
        """Adds one reduction."""
        return add_reduction(builder, self.operator_code, inputs[0], self.axis, self.keepdims)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer.

        Raises:
            UnsupportedLayerError: If the batch is reduced, or the reduction starts with a value.
        """
        if getattr(node.head, "initial", None) is not None:
            raise UnsupportedLayerError(
                "LiteRT's reductions have no initial value.",
                layer=node.name,
                received=f"initial={node.head.initial}",
                expected="initial=None",
                fix="Clip the result.",
            )
        axis, keepdims = node.head.axis, bool(node.head.keepdims)
        if axis is None:
            raise batch_moved(node.name, "axis=None, all axes")
        axes = np.atleast_1d(axis).tolist()
        rank = len(node.shapes[0]) + (0 if keepdims else len(axes))
        counted = sorted(each % rank for each in axes)
        if 0 in counted:
            raise batch_moved(node.name, f"axis={axis} of {rank} axes")
        return cls(counted, keepdims, name=node.name, scheme=scheme)

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "axes": self.axis, "keepdims": self.keepdims}

    @classmethod
    def from_config(cls, config):
        """Makes the layer of a configuration."""
        return super().from_config(with_axis(config))


@register(operation_named("Mean"))
@keras.saving.register_keras_serializable("keras_qat")
class QMean(ReducesAxes):
    """Mean over any axes but the batch's, `ops.mean`: one MEAN, with a range of its own.

    Args:
        axis: The axes to reduce, counted from the first axis, which is not allowed.
        keepdims: Whether the reduced axes are kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QMean([2])(np.array([[[1.0, 2.0], [5.0, 7.0]]])).numpy().tolist()
    [[1.5, 6.0]]
    """

    activation_bits = (8, 16)
    operators = ("MEAN",)
    operator_code = "MEAN"
    function = staticmethod(ops.mean)

    def build(self, input_shape):
        """Checks that the sizes are known."""
        why = "The integer average depends on the number of values, which is not known."
        check_sizes_known(self.name, input_shape, why)
        super().build(input_shape)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Sums in int32, then scales as the target's MEAN does."""
        return averaged(self, inputs[0], self.axis, output)


@register(operation_named("Max", "Amax"))
@keras.saving.register_keras_serializable("keras_qat")
class QReduceMax(ReducesAxes, MovesValues):
    """Maximum over any axes but the batch's, `ops.max`: one REDUCE_MAX.

    Args:
        axis: The axes to reduce, counted from the first axis, which is not allowed.
        keepdims: Whether the reduced axes are kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QReduceMax([2])(np.array([[[1.0, 2.0], [5.0, 7.0]]])).numpy().tolist()
    [[2.0, 7.0]]
    """

    operators = ("REDUCE_MAX",)
    operator_code = "REDUCE_MAX"
    function = staticmethod(ops.max)


@register(operation_named("Min", "Amin"))
@keras.saving.register_keras_serializable("keras_qat")
class QReduceMin(ReducesAxes, MovesValues):
    """Minimum over any axes but the batch's, `ops.min`: one REDUCE_MIN.

    Args:
        axis: The axes to reduce, counted from the first axis, which is not allowed.
        keepdims: Whether the reduced axes are kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QReduceMin([2])(np.array([[[1.0, 2.0], [5.0, 7.0]]])).numpy().tolist()
    [[1.0, 5.0]]
    """

    operators = ("REDUCE_MIN",)
    operator_code = "REDUCE_MIN"
    function = staticmethod(ops.min)


class ReducesBooleans(ReducesAxes):
    """Base class of reductions of booleans."""

    plain_dtype = "bool"
    plain_inputs = ("bool",)
    output_specification = None

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shape. Raises if the input is not booleans."""
        check_booleans(self.name, [inputs])
        return super().compute_output_spec(inputs, *args, **kwargs)


@register(operation_named("Any"))
@keras.saving.register_keras_serializable("keras_qat")
class QReduceAny(ReducesBooleans):
    """Whether any boolean is true, over any axes but the batch's, `ops.any`: one REDUCE_ANY.

    Args:
        axis: The axes to reduce, counted from the first axis, which is not allowed.
        keepdims: Whether the reduced axes are kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QReduceAny([1])(np.array([[False, True], [False, False]])).numpy().tolist()
    [True, False]
    """

    operators = ("REDUCE_ANY",)
    operator_code = "REDUCE_ANY"
    function = staticmethod(ops.any)


@register(operation_named("All"))
@keras.saving.register_keras_serializable("keras_qat")
class QReduceAll(ReducesBooleans):
    """Whether all booleans are true, over any axes but the batch's, `ops.all`: one REDUCE_ALL.

    Args:
        axis: The axes to reduce, counted from the first axis, which is not allowed.
        keepdims: Whether the reduced axes are kept, with a size of 1.
        scheme: A scheme, its name, or None for a layer that computes in float.
        **kwargs: Arguments of `keras.layers.Layer`.

    Example:
    >>> QReduceAll([1])(np.array([[True, True], [False, True]])).numpy().tolist()
    [True, False]
    """

    operators = ("REDUCE_ALL",)
    operator_code = "REDUCE_ALL"
    function = staticmethod(ops.all)


def add_reduction(builder, code: str, x, axes: Sequence[int], keepdims: bool):
    """Adds one reduction, which makes the node's own output.

    Args:
        builder: A `keras_qat.lowering.Builder`.
        code: Name of the operator.
        x: LiteRT tensor.
        axes: The axes to reduce.
        keepdims: Whether the reduced axes are kept, with a size of 1.

    Returns:
        The LiteRT tensor of the output.
    """
    return builder.operator(
        code,
        (x, builder.constant("axes", np.array(axes, "int32"))),
        options={"keepDims": bool(keepdims)},
    )


def averaged(layer: Any, x: OffsetInts, axes: Sequence[int], output: Grid):
    """Averages integers over axes: sums in int32, then scales as the target's MEAN does.

    Args:
        layer: A layer with a scheme and `keepdims`.
        x: The input.
        axes: The axes.
        output: The grid of the output.

    Returns:
        float32 whole numbers `q - zero_point`.
    """
    count = math.prod(x.values.shape[axis] for axis in axes)
    total = ops.sum(ops.cast(x.values, "int32"), axis=axes, keepdims=layer.keepdims)
    options = {"low": layer.scheme.activation_low, "high": layer.scheme.activation_high}
    options |= {"rule": layer.integer_rule("MEAN"), "count": count}
    return _mean_centered(total, *x.grid, *output, **options)


@compiled
def _mean_centered(total, scale_in, zero_in, scale_out, zero_point, *, rule, count, low, high):
    total = total + zero_in * count
    q = rule(total, count, scale_in, zero_in, scale_out, zero_point, low, high)
    return ops.cast(q - zero_point, "float32")
