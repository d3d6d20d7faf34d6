"""DEPTH_TO_SPACE and SPACE_TO_DEPTH: cases of the contract, errors."""

import keras
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QDepthToSpace, QSpaceToDepth
from tests.layers.contract import Case, branches, layer, operation

CASES = [
    Case(
        "blocks_of_pixels",
        (QDepthToSpace, QSpaceToDepth),
        branches(
            (6, 12, 8),
            [operation(lambda x: ops.depth_to_space(x, 2)), layer(layers.Conv2D, 3, 1)],
            [operation(lambda x: ops.space_to_depth(x, 2))],
            [operation(lambda x: ops.space_to_depth(x, 3))],
        ),
    ),
]


def test_blocks_of_pixels_with_channels_first_are_refused():
    x = keras.Input((8, 6, 6), name="x")
    model = keras.Model(x, ops.depth_to_space(x, 2, data_format="channels_first"))
    with pytest.raises(UnsupportedLayerError, match="channels last.*depth_to_space"):
        keras_qat.quantize_model(model)
