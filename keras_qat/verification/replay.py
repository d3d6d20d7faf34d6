"""Comparison of float layers and the layers after them, from a file's own tensors.

Float kernels add in another order than Keras does, and a float that differs in its last bit may be
rounded to another integer later. Given the same inputs, the layers after a float layer are exact
again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.graph import Edge, Graph, Node


def behind_float(graph: Graph) -> dict[str, str]:
    """Returns the names of the nodes that stay in float, and of the nodes after them.

    Args:
        graph: The graph of a quantized model.

    Returns:
        `"float"` or `"after float"` by the name of the node. Integer layers are absent.
    """
    found: dict[str, str] = {}
    for node in graph.nodes.values():
        if node.is_input:
            continue
        if node.head.scheme is None:
            found[node.name] = "float"
        elif any(edge.node in found for edge in node.inputs):
            found[node.name] = "after float"
    return found


def local_values(
    graph: Graph,
    names: Iterable[str],
    places: Mapping[str, str],
    tensors: Mapping[str, np.ndarray],
    details: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """Computes layers from the inputs that they have in a file.

    Args:
        graph: The graph of a quantized model.
        names: Names of the nodes to compute.
        places: Name of the file's tensor for each node, by the node's name.
        tensors: Value of each tensor of the file, by name.
        details: `TensorDetails` of each tensor, by name.

    Returns:
        Real values of the output of each node.
    """

    def read(edge: Edge) -> np.ndarray:
        name = places[edge.node]
        return real_values(tensors[name], details[name])

    return {name: _called(graph.nodes[name], read) for name in names}


def real_values(values: np.ndarray, tensor: Any) -> np.ndarray:
    """Returns the real values of a tensor's integers, float32; real values and ids unchanged."""
    if not tensor.scale.size:
        return values
    centered = values.astype("int32") - np.int32(tensor.zero_point[0])
    return centered.astype("float32") * np.float32(tensor.scale[0])


def _called(node: Node, read: Any) -> np.ndarray:
    args, kwargs = tree.map_structure(
        lambda leaf: ops.convert_to_tensor(read(leaf)) if isinstance(leaf, Edge) else leaf,
        node.arguments,
    )
    layer: keras.layers.Layer = node.head
    return ops.convert_to_numpy(layer(*args, **kwargs, training=False))
