"""Quantities of an operator, by the names that the limits of profiles use."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from keras_qat.litert.format.operators import declaration_of
from keras_qat.targets.measured import Measured

Quantity = Callable[[Measured], Any]


def _option(name: str) -> Quantity:
    return lambda op: op.options.get(name)


def _entry(attribute: str, place: int) -> Quantity:
    """Makes a quantity: one entry of an attribute, None for operators without the attribute."""

    def measure(op: Measured) -> Any:
        pair = getattr(op, attribute)
        return None if pair is None else pair[place]

    return measure


def _side(image: int, axis: int) -> Quantity:
    """Makes a quantity: height or width of the input (0) or of the output (1)."""
    return lambda op: None if op.planes is None else op.planes[image][axis]


def _times(axis: int) -> Quantity:
    """Makes a quantity: size of the output over size of the input, along one axis of an image."""
    return lambda op: None if op.planes is None else op.planes[1][axis] / op.planes[0][axis]


def _reduces(axis: int) -> Quantity:
    """Makes a quantity: whether an axis is reduced."""
    return lambda op: None if op.axes is None else axis % len(op.data_shape) in op.axes


def _reduced(combine: Callable[[list[int]], int]) -> Quantity:
    """Makes a quantity: a number computed from the sizes of the reduced axes."""
    return lambda op: (
        None if op.axes is None else combine([op.data_shape[axis] for axis in op.axes])
    )


def _is_per_channel(op: Measured) -> bool:
    tensors = (*op.inputs, op.output)
    return any(x.quantization is not None and x.quantization.scale.size > 1 for x in tensors)


def _has_one_grid(op: Measured) -> bool | None:
    """Returns whether all quantized tensors have the same parameters; None without parameters."""
    if op.output.quantization is None:
        return None
    grids = {
        (*x.quantization.scale.tolist(), *x.quantization.zero_point.tolist())
        for x in (*op.inputs, op.output)
        if x.quantization is not None
    }
    return len(grids) == 1


def _weight_sum(op: Measured) -> int | None:
    """Returns the largest sum of the magnitudes of an output channel's weights."""
    kernel = op.kernel
    if kernel is None or kernel.data is None or kernel.quantization is None:
        return None
    axis = declaration_of(op.code).channel_axis
    rows = np.moveaxis(kernel.data.astype("int64"), axis, 0).reshape(kernel.data.shape[axis], -1)
    return int(np.abs(rows - kernel.quantization.zero_point.reshape(-1, 1)).sum(axis=1).max())


def _pads(op: Measured) -> bool | None:
    """Returns whether a window reaches beyond the image."""
    if op.planes is None or op.window is None or op.strides is None or op.dilations is None:
        return None
    if op.options["padding"] == "VALID":
        return False
    reach = [(size - 1) * gap + 1 for size, gap in zip(op.window, op.dilations, strict=True)]
    sides = zip(*op.planes, op.strides, reach, strict=True)
    return any((after - 1) * stride + size > before for before, after, stride, size in sides)


def _is_exact_transpose(op: Measured) -> bool | None:
    """Returns whether a transposed convolution's output has the size that its strides imply."""
    # Only transposed convolutions have both weights and an operand for the shape of the output.
    if op.kernel is None or op.parameter is None:
        return None
    if op.planes is None or not op.window or not op.strides:
        return None
    same = op.options["padding"] == "SAME"
    made = [
        before * stride + (0 if same else max(size - stride, 0))
        for before, stride, size in zip(op.planes[0], op.strides, op.window, strict=True)
    ]
    return made == op.planes[1]


def _searches_channels(op: Measured) -> bool | None:
    """Returns whether an ARG_MAX is over the last axis."""
    axis = op.constant("axis")
    return None if axis is None else axis % len(op.data_shape) == len(op.data_shape) - 1


def _moves_batch(op: Measured) -> bool | None:
    """Returns whether a TRANSPOSE moves the first of four axes, or has more than four axes."""
    order = op.constant("order")
    return None if order is None else len(order) > 4 or (len(order) == 4 and order[0] != 0)


def _pads_batch(op: Measured) -> bool | None:
    pads = op.constant("pads")
    return None if pads is None else len(pads) > 3 and any(pads[0])


def _steps(combine: Callable[[list[int]], int]) -> Quantity:
    """Makes a quantity: a number computed from the strides of a STRIDED_SLICE."""
    return lambda op: combine(steps) if (steps := op.constant("steps")) else None


def _second(measure: Callable[[Any], Any]) -> Quantity:
    """Makes a quantity: a property of the second operand."""
    return lambda op: measure(op.inputs[1]) if len(op.inputs) > 1 else None


def _has_whole_bytes(op: Measured) -> bool | None:
    """Returns whether no byte has weights of two rows: several narrow weights are a byte."""
    kernel = op.kernel
    in_byte = {"int2": 4, "int4": 2}.get("" if kernel is None else kernel.dtype, 1)
    return None if kernel is None else (kernel.shape[-1] or 0) % in_byte == 0


def _steps_of(op: Measured) -> tuple[float, list[float]] | None:
    """Returns the scale of the output and those of the inputs; None without scales."""
    tensors = (op.output, *op.inputs)
    if any(x.quantization is None for x in tensors):
        return None
    output, *inputs = (float(x.quantization.scale[0]) for x in tensors if x.quantization)
    return output, inputs


def _largest_ratio(op: Measured) -> float | None:
    """Returns the largest scale of an input over that of the output."""
    scales = _steps_of(op)
    return None if scales is None else max(scales[1]) / scales[0]


def _second_zero_point(op: Measured) -> int | None:
    """Returns the zero point of the second operand; None without quantization parameters."""
    quantization = op.inputs[1].quantization if len(op.inputs) > 1 else None
    return None if quantization is None else int(quantization.zero_point[0])


def _product_ratio(op: Measured) -> float | None:
    """Returns the product of the scales of the inputs over the scale of the output."""
    scales = _steps_of(op)
    return None if scales is None else math.prod(scales[1]) / scales[0]


def _effective_rank(shape: Sequence[int]) -> int:
    """Returns the number of axes, counted from the first axis with more than one element."""
    return len(shape) - next((i for i, size in enumerate(shape) if size != 1), len(shape))


# Each function returns None for operators that do not have the quantity.
QUANTITIES: Mapping[str, Quantity] = MappingProxyType(
    {
        "version": lambda op: op.version,
        "operands": lambda op: len(op.inputs),
        # Types and parameters.
        "type": lambda op: op.data.dtype,
        "second_type": _second(lambda x: x.dtype),
        "second_zero_point": _second_zero_point,
        "output_type": lambda op: op.output.dtype,
        "weight_type": lambda op: None if op.kernel is None else op.kernel.dtype,
        "whole_bytes": _has_whole_bytes,
        "weight_sum": _weight_sum,
        "per_channel": _is_per_channel,
        "one_grid": _has_one_grid,
        "scale_ratio": _largest_ratio,
        "product_ratio": _product_ratio,
        # Shapes.
        "rank": lambda op: max(len(op.data_shape), len(op.output_shape)),
        "effective_rank": lambda op: max(map(_effective_rank, (op.data_shape, op.output_shape))),
        "operand_rank": _second(lambda x: sum(size != 1 for size in x.shape)),
        "batch": lambda op: op.data_shape[-4] if len(op.data_shape) > 3 else 1,
        "elements": lambda op: math.prod(op.data_shape),
        "positions": lambda op: math.prod(op.data_shape[-3:-1]),
        "output_positions": lambda op: math.prod(op.output_shape[:-1]),
        "largest_size": lambda op: max((*op.data_shape, *op.output_shape), default=1),
        "smallest_size": lambda op: min(op.data_shape[-3:]) if len(op.data_shape) > 2 else 1,
        "input_h": _side(0, 0),
        "input_w": _side(0, 1),
        "input_channels": lambda op: op.data_shape[-1] if op.data_shape else None,
        "output_h": _side(1, 0),
        "output_w": _side(1, 1),
        "output_channels": lambda op: op.output_shape[-1] if op.output_shape else None,
        "computed_shape": lambda op: None if op.parameter is None else op.parameter.data is None,
        # Windows.
        "activation": _option("fusedActivationFunction"),
        "kernel_h": _entry("window", 0),
        "kernel_w": _entry("window", 1),
        "kernel_area": lambda op: None if op.window is None else math.prod(op.window),
        "stride_h": _entry("strides", 0),
        "stride_w": _entry("strides", 1),
        "dilation": lambda op: None if op.dilations is None else max(op.dilations),
        "one_dilation": lambda op: op.dilations is None or len(set(op.dilations)) == 1,
        "pads": _pads,
        "exact_transpose": _is_exact_transpose,
        # Resizing.
        "times_h": _times(0),
        "times_w": _times(1),
        "one_factor": lambda op: _times(0)(op) == _times(1)(op),
        "half_pixel": _option("halfPixelCenters"),
        # Axes.
        "reduces_batch": _reduces(0),
        "reduces_channels": _reduces(-1),
        "longest_reduced": _reduced(max),
        "reduced_elements": _reduced(math.prod),
        "searches_channels": _searches_channels,
        "whole_quads": lambda op: op.data_shape[-1] % 4 == 0,
        "moves_batch": _moves_batch,
        "pads_batch": _pads_batch,
        "pack_axis": _option("axis"),
        "outer_steps": _steps(lambda steps: math.prod((*steps[:-3], steps[-1]))),
        "smallest_step": _steps(min),
        "largest_step": _steps(max),
        # The layer.
        "layer_operators": lambda op: ",".join(sorted(set(op.siblings))),
        "layer_divides": lambda op: "FLOOR_DIV" in op.siblings,
    }
)


def measure(op: Measured, name: str) -> Any:
    """Returns a quantity of an operator, or None if the operator does not have the quantity.

    Args:
        op: The operator.
        name: A key of `QUANTITIES`.

    Example:
    >>> from keras_qat.litert import Operator, Tensor
    >>> x, y = Tensor("x", (None, 8), "int8"), Tensor("y", (None, 8), "int8")
    >>> relu = Measured(Operator("RELU", (x,), (y,), 2), {}, ["RELU"])
    >>> [measure(relu, name) for name in ("version", "type", "rank", "stride_w")]
    [2, 'int8', 2, None]
    """
    return QUANTITIES[name](op)
