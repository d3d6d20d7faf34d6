"""The shapes written in a file, against hand-computed shapes."""

import numpy as np

from keras_qat.litert import Model, Operator, Tensor
from keras_qat.litert.writing.static_shapes import static_shape, unknown_sizes


def test_static_shapes_of_a_reshape_that_merges_the_batch():
    x = Tensor("x", (None, 3, 4), "int32")
    rows, doubled = Tensor("rows", (None, 4), "int32"), Tensor("doubled", (None, 4), "int32")
    back, total = Tensor("back", (None, 3, 4), "int32"), Tensor("total", (None, 1, 1), "int32")
    axes = Tensor("axes", (2,), "int32", data=np.array([1, 2], "int32"))
    operators = (
        Operator("RESHAPE", (x,), (rows,)),
        Operator("ADD", (rows, rows), (doubled,)),
        Operator("RESHAPE", (doubled,), (back,)),
        Operator("SUM", (back, axes), (total,)),
    )
    sizes = unknown_sizes(Model({"x": x}, {"total": total}, operators))
    shapes = [static_shape(tensor, sizes) for tensor in (x, rows, doubled, back, total)]
    assert shapes == [[1, 3, 4], [3, 4], [3, 4], [1, 3, 4], [1, 1, 1]]
