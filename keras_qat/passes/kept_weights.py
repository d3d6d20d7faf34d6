"""Finds the layers of a rewritten model whose weights equal those of the user's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.graph import Graph
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.layers.kernels.input_affine import without_affine
from keras_qat.passes.provenance import Rewrite


def kept_weights(source: Graph, graph: Graph, log: Sequence[Rewrite]) -> frozenset[str]:
    """Returns the names of operations whose weights equal those of one layer of the user.

    Args:
        source: The user's model, nested models opened.
        graph: The graph after all rewrites.
        log: The rewrites. Weights are not kept where one of them changes the function.

    Returns:
        Names of operations, and of the nodes that begin with these operations.
    """
    changed = {name for each in log if each.changes_function for name in each.origins}
    names: set[str] = set()
    for node in graph.nodes.values():
        layers = [source.nodes[name].head for name in node.origins if name not in changed]
        operations = without_affine(node.operations)
        for operation in operations:
            if any(_keeps(operation, layer) for layer in layers):
                names |= {operation.name, *([node.name] if operation is operations[0] else ())}
    return frozenset(names)


def _keeps(operation: Any, layer: Any) -> bool:
    """Returns whether an operation is the user's, or has copies of its weights."""
    if operation is layer:
        return True
    is_named_after = f"{operation.name}_".startswith(f"{layer.name}_")
    if isinstance(operation, ChannelAffine) or not is_named_after:
        return False
    own, known = (getattr(each, "variables", ()) for each in (operation, layer))
    return all(any(mine is v or _is_copy(mine, v) for v in known) for mine in own)


def _is_copy(own: Any, variable: Any) -> bool:
    # A `pointwise_kernel` has become a `kernel`.
    is_alike = variable.name.endswith(own.name) and own.shape == variable.shape
    return is_alike and np.array_equal(*map(ops.convert_to_numpy, (own, variable)))
