"""Computes shapes without unknown sizes, for readers of files that need constant shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

from keras_qat.litert.format.operators import declaration_of
from keras_qat.litert.format.types import Model, Tensor


def unknown_sizes(model: Model, batch_size: int = 1) -> dict[Tensor, int]:
    """Returns the value of the unknown size of each tensor, for a given batch size.

    It is the batch size, except after a RESHAPE that merges the batch with other axes. Compilers
    for accelerators use these shapes.

    Args:
        model: The model.
        batch_size: The size of the batch.

    Returns:
        The size for each computed tensor or input whose shape has an unknown size.
    """
    sizes = {tensor: batch_size for tensor in model.inputs.values() if None in tensor.shape}
    for operator in model.operators:
        batched = [x for x in operator.inputs if x is not None and None in x.shape]
        for output in operator.outputs:
            if None not in output.shape:
                continue
            size = sizes.get(batched[0], batch_size) if batched else batch_size
            if batched and declaration_of(operator.code).place("new_shape") is not None:
                elements = math.prod(static_shape(batched[0], sizes))
                size = elements // math.prod(n for n in output.shape if n is not None)
            sizes[output] = size
    return sizes


def static_shape(tensor: Tensor, sizes: Mapping[Tensor, int]) -> list[int]:
    """Returns a shape without unknown sizes.

    Args:
        tensor: The tensor.
        sizes: Result of `unknown_sizes`; 1 for tensors that are not in it.
    """
    return [sizes.get(tensor, 1) if size is None else size for size in tensor.shape]
