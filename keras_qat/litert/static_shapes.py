"""The shapes that a file states for readers that know no unknown sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from keras_qat.litert.types import Model, Tensor


def unknown_sizes(model: Model) -> dict[Tensor, int]:
    """Returns how large the unknown size of each tensor is when the model runs for one sample.

    It is 1, the batch, but behind a RESHAPE that merges the batch with other axes. Compilers for
    accelerators plan with these shapes.

    Args:
        model: The model.

    Returns:
        The size for each computed tensor whose shape has an unknown one.
    """
    sizes: dict[Tensor, int] = {}
    for operator in model.operators:
        batched = [x for x in operator.inputs if x is not None and None in x.shape]
        for output in operator.outputs:
            if None not in output.shape:
                continue
            size = sizes.get(batched[0], 1) if batched else 1
            if operator.code == "RESHAPE" and batched:
                elements = math.prod(static_shape(batched[0], sizes))
                size = elements // math.prod(n for n in output.shape if n is not None)
            sizes[output] = size
    return sizes


def static_shape(tensor: Tensor, sizes: Mapping[Tensor, int]) -> list[int]:
    """Returns a shape without unknown sizes.

    Args:
        tensor: The tensor.
        sizes: What `unknown_sizes` returned; 1 for tensors that are not in it.
    """
    return [sizes.get(tensor, 1) if size is None else size for size in tensor.shape]
