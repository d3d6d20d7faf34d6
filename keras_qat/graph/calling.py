"""Calls the operation of a node."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from keras import tree

from keras_qat.graph.graph import Edge, Node, Parameter


def call_node(node: Node, tensors: Mapping[Edge, Any]) -> Any:
    """Calls the first operation of a node in inference mode.

    Args:
        node: A node that is not an input.
        tensors: The values of its inputs.

    Returns:
        The output of the operation, in its structure.
    """

    def argument(leaf: Any) -> Any:
        if isinstance(leaf, Edge):
            return tensors[leaf]
        return leaf.value if isinstance(leaf, Parameter) else leaf

    args, kwargs = tree.map_structure(argument, node.arguments)
    # `predict` passes this too, even to random augmentations whose call has `training=True`.
    if "training" in inspect.signature(node.head.call).parameters:
        kwargs = {**kwargs, "training": False}
    return node.head(*args, **kwargs)
