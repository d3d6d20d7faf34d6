"""DEPTH_TO_SPACE and SPACE_TO_DEPTH: cases of the contract, errors."""

from keras import layers, ops

from keras_qat.layers import QDepthToSpace, QSpaceToDepth
from tests.layers.cases import Case, branches, layer, operation

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
