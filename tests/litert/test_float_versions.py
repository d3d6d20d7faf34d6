"""Versions of float operators, by the table in TFLite's `tools/versioning/op_version.cc`."""

import pytest

from keras_qat.litert.float_versions import float_version

IMAGE, KERNEL = (None, 8, 8, 4), (2, 3, 3, 4)


@pytest.mark.parametrize(
    ("code", "shapes", "options", "version"),
    [
        ("CONV_2D", [IMAGE, KERNEL, (2,)], {}, 1),
        ("CONV_2D", [IMAGE, (2, 3, 3, 2), (2,)], {}, 6),
        ("DEPTHWISE_CONV_2D", [IMAGE], {"dilationHFactor": 1, "dilationWFactor": 1}, 1),
        ("DEPTHWISE_CONV_2D", [IMAGE], {"dilationHFactor": 1, "dilationWFactor": 2}, 2),
        ("FULLY_CONNECTED", [(None, 4)], {"keepNumDims": False}, 1),
        ("FULLY_CONNECTED", [(None, 2, 4)], {"keepNumDims": True}, 5),
        ("TRANSPOSE_CONV", [(4,), KERNEL, IMAGE], {"fusedActivationFunction": "NONE"}, 3),
        ("TRANSPOSE_CONV", [(4,), KERNEL, IMAGE], {"fusedActivationFunction": "RELU"}, 4),
        ("RESIZE_BILINEAR", [IMAGE], {"halfPixelCenters": True}, 3),
        ("RESIZE_NEAREST_NEIGHBOR", [IMAGE], {"halfPixelCenters": False}, 1),
        ("TRANSPOSE", [IMAGE, (4,)], {}, 1),
        ("TRANSPOSE", [(None, 2, 2, 2, 2), (5,)], {}, 4),
        ("TRANSPOSE", [(None, 2, 2, 2, 2, 2), (6,)], {}, 6),
        ("PAD", [IMAGE, (4, 2)], {}, 1),
        ("STRIDED_SLICE", [(None, 2, 2, 2, 2), (5,), (5,), (5,)], {}, 4),
        ("MAXIMUM", [(None, 2, 2, 2, 2), (1, 1, 1, 1, 2)], {}, 3),
        ("MAXIMUM", [(None, 2, 2, 2, 2), (None, 2, 2, 2, 2)], {}, 1),
        ("ADD", [IMAGE, IMAGE], {}, 1),
        ("GATHER", [IMAGE, (3,)], {}, 1),
    ],
)
def test_version(code, shapes, options, version):
    assert float_version(code, shapes, options) == version
