"""Groups of tensors whose scale may change for the tables that kernels make."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras import ops

from keras_qat.arithmetic.tables import away_from_ties
from keras_qat.graph import Edge, Graph
from keras_qat.layers.models.range_groups import RangeGroup, fixed_parameters
from keras_qat.scheme import BYTE


def scale_adjustments(
    graph: Graph, groups: Mapping[Edge, RangeGroup]
) -> Mapping[RangeGroup, Callable[[Any, Any], Any]]:
    """Finds the groups of tensors whose scale must fit the tables that kernels make.

    The scale of the output is changed, since this has no other consequence. The scale of the input
    is changed only if the kernel prescribes the scale of the output.

    Args:
        graph: A graph of quantized layers.
        groups: The group of each tensor.

    Returns:
        Functions of the parameters and the scale of a group that return a fitting scale.
    """
    tables: dict[RangeGroup, dict[int, Any]] = {}
    depends: dict[RangeGroup, set[RangeGroup]] = {}
    for node in graph.nodes.values():
        layer = None if node.is_input else node.head
        if layer is None or layer.scheme is None or not layer.avoids_ties:
            continue
        if layer.scheme.activation_bits > BYTE:  # tables of 16 bits are interpolated
            continue
        source, target = groups[node.inputs[0]], groups[Edge(node.name)]
        if fixed_parameters(node) is not None:
            target = source
        elif source is not target:
            if target in _reached(source, depends):
                continue  # the two scales would depend on each other
            depends.setdefault(target, set()).add(source)
        tables.setdefault(target, {})[id(layer)] = layer
    return {
        group: functools.partial(_adjusted, layers=tuple(layers.values()))
        for group, layers in tables.items()
    }


def _adjusted(parameters: Any, scale: Any, layers: Sequence[Any]) -> Any:
    """Returns the scale, widened a little until no table depends on the C library."""
    tables, grids = zip(*(layer.free_table(parameters) for layer in layers), strict=True)
    others = (value for grid in grids for value in grid)
    return away_from_ties(ops.stop_gradient(scale), *others, tables=tables)


def _reached(group: RangeGroup, depends: Mapping[RangeGroup, set[RangeGroup]]) -> set[RangeGroup]:
    """Returns a group, and all groups whose scales determine its scale."""
    found, left = {group}, [group]
    while left:
        new = depends.get(left.pop(), set()) - found
        found |= new
        left += new
    return found
