"""Rules that move constant arithmetic and ReLU before reshapes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from keras import tree

from keras_qat.graph import Edge, Node, Parameter, operation_named
from keras_qat.graph.graph import Shape
from keras_qat.layers.core.activation_names import FUSED
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.canonical.edits import Edit, Pair
from keras_qat.passes.canonical.reshapes import RESHAPE_OPERATION

_ARITHMETIC = operation_named("Add", "Subtract", "Multiply", "TrueDivide", "Divide")


def constant_over_reshape(pair: Pair) -> Edit | None:
    """Moves ReLU and arithmetic with a constant before a reshape, so that a layer can absorb them.

    The constant has one value for each element of the last axis, or of the axes that the last axis
    is split into.
    """
    if not RESHAPE_OPERATION(pair.before.head) or not pair.can_swap:
        return None
    arguments = _moved(pair.node, pair.source_shape, pair.before.shapes[0])
    return None if arguments is None else pair.swapped(arguments)


def _moved(node: Node, source: Shape, shape: Shape) -> Any:
    """Returns the arguments before the reshape, or None if the operation has to stay after it."""
    if FUSED(node.head):
        return node.arguments
    if not _ARITHMETIC(node.head) or node.shapes[0] != shape:
        return None
    leaves = [*node.arguments[0], *node.arguments[1].values()]
    constants = [leaf for leaf in leaves if not isinstance(leaf, Edge)]
    if len(leaves) != 2 or len(constants) != 1:
        return None
    vector = _vector(constants[0], source, shape)
    if vector is None:
        return None
    return tree.map_structure(
        lambda leaf: leaf if isinstance(leaf, Edge) else vector, node.arguments
    )


def _vector(leaf: Any, source: Shape, shape: Shape) -> Any:
    """Returns a constant for the last axis of the source, given one for the axes of the reshape."""
    value = value_of(leaf)
    if value.size == 1:
        return leaf if value.ndim == 0 else _with_value(leaf, value.reshape(()))
    lead = len(source) - 1
    split = tuple(size for size in shape[lead:] if size is not None)
    is_split = len(shape) == lead + len(split) and math.prod(split) == source[-1]
    if not is_split or not split or source[:-1] != shape[:lead]:
        is_kept = source[-1] == shape[-1] == value.size == value.shape[-1]
        return _with_value(leaf, value.reshape(-1)) if is_kept else None
    sizes = (1,) * (len(shape) - value.ndim) + value.shape
    trains = getattr(leaf, "trainable", False)
    if any(size != 1 for size in sizes[:lead]) or (trains and sizes[lead:] != split):
        return None
    values = np.broadcast_to(value.reshape(sizes[lead:]), split).reshape(math.prod(split))
    return _with_value(leaf, values)


def _with_value(leaf: Any, value: np.ndarray) -> Any:
    if isinstance(leaf, Parameter):
        return dataclasses.replace(leaf, value=value)
    return Parameter(value, bool(getattr(leaf, "trainable", False)))
