"""Computes a model layer by layer, in float and in integers, and shows each layer its inputs."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.calibration.stored_values import StoredValues
from keras_qat.data.batches import Batch
from keras_qat.graph import Edge, Graph, Node, read_model
from keras_qat.graph.calling import call_node
from keras_qat.layers import QuantizedModel
from keras_qat.layers.core.integers import inference
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.kernels.weighted import WeightedLayer

# The values of a tensor, an array for each batch.
Values = Sequence[np.ndarray]
Tensors = dict[Edge, StoredValues]
Visit = Callable[[WeightedLayer, Values, Values], None]


def visit_kernels(
    model: QuantizedModel, data: Sequence[Batch], visit: Visit, bar: keras.utils.Progbar
) -> None:
    """Visits each quantized layer with a kernel, with its input in float and in integers.

    The layers before the visited one have been visited: their changes are in its integer input. The
    float input is that of the weights before all changes. Layers that share variables with other
    layers are not visited. The tensors between layers are in files of a temporary folder.

    Args:
        model: A quantized model with ranges.
        data: Batches of its inputs.
        visit: Called with the layer, its float inputs and the real values of its integer inputs, an
            array for each batch. It may change the weights.
        bar: A progress bar, which is updated with the number of layers.
    """
    graph = read_model(model)
    visited, left = _visited(graph), _uses(graph)
    with tempfile.TemporaryDirectory() as folder:
        real, rounded = (_inputs(model, graph, data, folder) for _ in range(2))
        for node in graph.nodes.values():
            if node.is_input:
                continue
            with float_mode():
                made = _computed(node, real, folder)
            if node.name in visited:
                visit(node.head, real[node.inputs[0]], rounded[node.inputs[0]])
                bar.update(visited.index(node.name) + 1)
            with inference():
                rounded |= _computed(node, rounded, folder)
            real |= made
            for edge in node.inputs:
                left[edge] -= 1
                if not left[edge]:
                    real.pop(edge).remove()
                    rounded.pop(edge).remove()
    bar.update(len(visited), finalize=True)


def _inputs(model: QuantizedModel, graph: Graph, data: Sequence[Batch], folder: str) -> Tensors:
    """Writes the inputs of the model."""
    return {
        Edge(name): StoredValues(folder, (np.asarray(ops.cast(x, tensor.dtype)) for x in column))
        for name, column, tensor in zip(
            graph.inputs, zip(*data, strict=True), model.inputs, strict=True
        )
    }


def count_kernels(model: QuantizedModel) -> int:
    """Returns the number of layers that `visit_kernels` visits.

    Args:
        model: A quantized model.
    """
    return len(_visited(read_model(model)))


def _visited(graph: Graph) -> list[str]:
    """Returns the names of the quantized layers with a kernel that own their variables."""
    heads = [node.head for node in graph.nodes.values() if not node.is_input]
    uses = Counter(id(variable) for head in heads for variable in head.variables)
    return [
        node.name
        for node in graph.nodes.values()
        if isinstance(node.head, WeightedLayer)
        and node.head.scheme is not None
        and all(uses[id(variable)] == 1 for variable in node.head.variables)
    ]


def _uses(graph: Graph) -> Counter[Edge]:
    """Returns how often each tensor is read."""
    return Counter(edge for node in graph.nodes.values() for edge in node.inputs)


def _computed(node: Node, tensors: Tensors, folder: str) -> Tensors:
    """Computes a node for all batches."""
    found: Tensors = {}
    count = len(tensors[node.inputs[0]])
    for i in range(count):
        inputs: dict[Edge, Any] = {
            edge: ops.convert_to_tensor(tensors[edge][i]) for edge in node.inputs
        }
        for place, value in enumerate(tree.flatten(call_node(node, inputs))):
            own = found.setdefault(Edge(node.name, place), StoredValues(folder))
            own.append(ops.convert_to_numpy(value))
    return found
