"""Checks the `batch_size` argument of an export."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from keras_qat.errors import ExportError
from keras_qat.graph import Edge, Graph

# Sizes in a file are int32.
_LARGEST = 2**31 - 1


def check_batch_size(batch_size: Any, graph: Graph) -> None:
    """Checks that the exported file can have a batch size.

    Args:
        batch_size: The size of every batch. None keeps the model's.
        graph: The model.

    Raises:
        ExportError: If `batch_size` is not a positive integer, is too large for the model's
            tensors, or differs from the batch size of the model.
    """
    if batch_size is None:
        return
    is_integer = isinstance(batch_size, int | np.integer) and not isinstance(batch_size, bool)
    most = _LARGEST // max(_elements(graph), default=1)
    if not is_integer or not 1 <= batch_size <= most:
        raise ExportError(
            "`batch_size` must be a positive integer that the model supports.",
            received=f"batch_size={batch_size!r}",
            expected=f"an integer from 1 to {most}, for this model",
            fix="Pass batch_size=1, or leave it out for a dynamic batch.",
        )
    for name in graph.inputs:
        own = graph.shape(Edge(name))[0]
        if own not in (None, batch_size):
            raise ExportError(
                "`batch_size` differs from the model's batch size.",
                layer=name,
                received=f"batch_size={batch_size!r}",
                expected=f"batch_size={own}, that of the input",
                fix="Leave `batch_size` out, or build the model with "
                f"`keras.Input(..., batch_size={batch_size})`.",
            )


def _elements(graph: Graph) -> list[int]:
    """Returns the number of elements of each tensor, for one sample."""
    shapes = (shape for node in graph.nodes.values() for shape in node.shapes)
    return [max(1, math.prod(size for size in shape if size is not None)) for shape in shapes]
