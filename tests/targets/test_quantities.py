"""Each quantity against hand-computed numbers."""

import numpy as np
import pytest

from keras_qat.litert import Tensor
from keras_qat.targets.quantities import QUANTITIES, measure
from tests.targets.operators import constant, convolution, grid, measured, operator, tensor

IMAGE, SAME_IMAGE = (None, 8, 9, 4), (None, 8, 9, 4)


def resize(before, after, **options):
    shape = lambda size: (None, *size, 3)  # noqa: E731
    size = constant(after)
    return operator("RESIZE_BILINEAR", (tensor(shape(before)), size), shape(after), **options)


def reduce(shape, axes, made):
    return operator("MEAN", (tensor(shape), constant(axes)), made, keepDims=False)


def slice_by(steps):
    shape = (None, 8, 8, 4)[-len(steps) :]
    numbers = [constant([0] * len(steps)), constant(shape[1:]), constant(steps)]
    return operator("STRIDED_SLICE", (tensor(shape), *numbers), shape)


def transposed(strides, made, padding="VALID", shape=None):
    weights = Tensor("kernel", (2, 3, 3, 4), "int8", grid(0.1), np.ones((2, 3, 3, 4), "int8"))
    shape = constant((1, *made, 2)) if shape is None else shape
    return operator(
        "TRANSPOSE_CONV",
        (shape, weights, tensor((None, 4, 5, 4))),
        (None, *made, 2),
        padding=padding,
        strideH=strides[0],
        strideW=strides[1],
    )


SLIDING = convolution(IMAGE, (3, 2), (None, 2, 3, 4), strideH=3, strideW=3, dilationHFactor=2)


@pytest.mark.parametrize(
    ("each", "expected"),
    [
        (
            SLIDING,
            {
                "version": 3,
                "type": "int8",
                "output_type": "int8",
                "weight_type": "int8",
                "weight_sum": 3 * 2 * 4,
                "per_channel": False,
                "rank": 4,
                "batch": 1,
                "kernel_h": 3,
                "kernel_w": 2,
                "kernel_area": 6,
                "stride_h": 3,
                "stride_w": 3,
                "dilation": 2,
                "one_dilation": False,
                "pads": False,
                "activation": "NONE",
                "input_h": 8,
                "input_w": 9,
                "output_h": 2,
                "output_w": 3,
                "elements": 288,
                "positions": 72,
                "largest_size": 9,
                "smallest_size": 4,
                "times_h": 0.25,
                "reduces_batch": None,
                "smallest_step": None,
                "exact_transpose": None,
            },
        ),
        (
            convolution(IMAGE, (3, 3), SAME_IMAGE, scales=(0.1, 0.2, 0.3, 0.4), padding="SAME"),
            {"per_channel": True, "pads": True, "one_dilation": True},
        ),
        # A window of 1 has no overlap.
        (convolution(IMAGE, (1, 1), SAME_IMAGE, padding="SAME"), {"pads": False}),
        (
            operator("FULLY_CONNECTED", ((None, 4), tensor((2, 4)), None), (None, 2), version=12),
            {"version": 12, "output_positions": 1, "input_channels": 4, "output_channels": 2},
        ),
        (
            operator("FULLY_CONNECTED", ((None, 7, 4), tensor((2, 4)), None), (None, 7, 2)),
            {"output_positions": 7, "kernel_h": None, "pads": None, "weight_sum": None},
        ),
        (resize((4, 6), (8, 12), halfPixelCenters=True), {"times_h": 2, "one_factor": True}),
        (resize((4, 6), (8, 6), halfPixelCenters=False), {"times_w": 1, "one_factor": False}),
        (resize((4, 6), (8, 12), halfPixelCenters=True), {"half_pixel": True}),
        (
            reduce((None, 6, 5, 3), (1, 2), (None, 3)),
            {"reduces_batch": False, "reduces_channels": False, "longest_reduced": 6},
        ),
        (
            reduce((None, 6, 5, 8), (-1, 1), (None, 5)),
            {"reduces_channels": True, "reduced_elements": 48, "whole_quads": True},
        ),
        (reduce((None, 6), (0,), (6,)), {"reduces_batch": True, "whole_quads": False}),
        (reduce((None, 6), (1,), (None,)), {"smallest_size": 1, "batch": 1}),
        (reduce((None, 5, 3, 4, 2), (1,), (None, 3, 4, 2)), {"batch": 5, "rank": 5}),
        (
            operator("ARG_MAX", ((None, 6, 4), constant(-1)), (None, 6)),
            {"searches_channels": True, "input_channels": 4},
        ),
        (
            operator("ARG_MAX", ((None, 6, 4), constant(1)), (None, 4)),
            {"searches_channels": False},
        ),
        (slice_by([1, 2, 3, 1]), {"outer_steps": 1, "smallest_step": 1, "largest_step": 3}),
        (slice_by([1, 1, 1, 2]), {"outer_steps": 2}),
        (slice_by([1, -1]), {"outer_steps": -1, "smallest_step": -1}),
        (transposed((2, 2), (9, 11)), {"exact_transpose": True, "computed_shape": False}),
        (transposed((2, 2), (10, 12)), {"exact_transpose": False}),
        (transposed((2, 2), (8, 10), "SAME"), {"exact_transpose": True}),
        (transposed((2, 2), (7, 9), "SAME"), {"exact_transpose": False}),
        (
            transposed((2, 2), (8, 10), shape=tensor((4,), "int32", name="shape")),
            {"computed_shape": True, "type": "int8"},
        ),
        (
            operator("TRANSPOSE", ((None, 3, 4), constant([0, 2, 1])), (None, 4, 3)),
            {"moves_batch": False},
        ),
        (
            operator("TRANSPOSE", ((None, 3, 4, 2), constant([1, 0, 2, 3])), (3, None, 4, 2)),
            {"moves_batch": True},
        ),
        (
            operator("PAD", (IMAGE, constant([[0, 0], [1, 1], [1, 1], [0, 0]])), (None, 10, 11, 4)),
            {"pads_batch": False, "rank": 4},
        ),
        (
            operator("PAD", (IMAGE, constant([[1, 0], [0, 0], [0, 0], [0, 0]])), (None, 8, 9, 4)),
            {"pads_batch": True},
        ),
        (operator("PACK", ((None, 3), (None, 3)), (None, 2, 3), axis=1), {"pack_axis": 1}),
        (
            operator("GATHER", (tensor((256,)), tensor((None, 3), "int32")), (None, 3)),
            {"type": "int8", "second_type": "int32"},
        ),
        (
            operator("PRELU", ((None, 3, 3, 4), tensor((1, 1, 4)))[:2], (None, 3, 3, 4)),
            {"operand_rank": 1},
        ),
        (
            operator("PRELU", ((None, 3, 3, 4), tensor((3, 3, 4)))[:2], (None, 3, 3, 4)),
            {"operand_rank": 3},
        ),
        (operator("RELU", ((None, 1, 1, 4),), (None, 1, 1, 4)), {"effective_rank": 1}),
        (operator("RELU", ((None, 2, 1, 4),), (None, 2, 1, 4)), {"effective_rank": 3}),
        (operator("RELU", ((None, 2, 5, 1, 4),), (None, 2, 5, 1, 4)), {"effective_rank": 4}),
    ],
)
def test_measure_of_each_quantity(each, expected):
    op = measured(each)
    assert {name: measure(op, name) for name in expected} == expected


def test_measure_one_grid_compares_all_quantized_operands():
    x, y = tensor((1, 2), scales=(0.5,)), tensor((1, 2), scales=(0.25,))
    assert measure(measured(operator("MAXIMUM", (x, x), (1, 2))), "one_grid") is True
    assert measure(measured(operator("MAXIMUM", (x, y), (1, 2))), "one_grid") is False
    integers = operator("MAXIMUM", (tensor((1, 2), "int32"),) * 2, (1, 2), dtype="int32")
    assert measure(measured(integers), "one_grid") is None


def test_measure_layer_operators_lists_all_operators_of_the_layer():
    op = measured(operator("CAST", ((1, 2),), (1, 2)), ["GATHER", "CAST", "ADD", "ADD"])
    assert measure(op, "layer_operators") == "ADD,CAST,GATHER"
    assert not measure(op, "layer_divides")
    op = measured(operator("CAST", ((1, 2),), (1, 2)), ["CAST", "FLOOR_DIV"])
    assert measure(op, "layer_divides")


def test_measure_returns_none_or_a_plain_value():
    for each in (SLIDING, slice_by([1, 1]), operator("RELU", ((1, 2),), (1, 2))):
        for name in QUANTITIES:
            value = measure(measured(each), name)
            assert value is None or isinstance(value, (int, float, str, bool)), name
