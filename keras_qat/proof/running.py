"""Runs graphs on samples, to check that two graphs compute the same values."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.data.batches import batches
from keras_qat.errors import RewriteError
from keras_qat.graph import Edge, Graph
from keras_qat.graph.calling import call_node
from keras_qat.layers.core.moves_values import takers_of_values

# Inputs up to this size get two samples, which also show whether a model mixes samples.
_SMALL = 2**12
FIX = (
    "Please report it with the model: it is a defect of the package. As a workaround, write the "
    "layer with other layers, or leave the rewrite out: `rewrites=[...]`."
)


def run(
    graph: Graph, inputs: Sequence[Any], see: Callable[[Edge, Any], Any] | None = None
) -> dict[Edge, Any]:
    """Computes a graph. Tensors are dropped after their last use.

    Args:
        graph: The graph.
        inputs: A tensor for each input.
        see: Called with each tensor. Later layers take the tensor that it returns.
    """
    tensors = dict(zip(map(Edge, graph.inputs), inputs, strict=True))
    left = Counter(graph.output_edges)
    for node in graph.nodes.values():
        left.update(node.inputs)
    if see is not None:
        tensors = {edge: see(edge, value) for edge, value in tensors.items()}
    for node in graph.nodes.values():
        if node.is_input:
            continue
        for i, value in enumerate(tree.flatten(call_node(node, tensors))):
            edge = Edge(node.name, i)
            tensors[edge] = value if see is None else see(edge, value)
        for edge in node.inputs:
            left[edge] -= 1
            if not left[edge]:
                del tensors[edge]
    return tensors


def checked_run(
    graph: Graph, inputs: Sequence[Any], see: Callable[[Edge, Any], Any] | None = None
) -> dict[Edge, Any]:
    """Runs a rewritten graph on inputs that the source model accepted."""
    try:
        return run(graph, inputs, see)
    except Exception as error:
        raise RewriteError(
            "The rewritten model cannot be run.",
            layer=graph.name,
            received=f"{type(error).__name__}: {error}",
            expected="a model that accepts the inputs of the source model",
            fix=FIX,
        ) from error


def samples_for(source: Graph, rewritten: Graph, model: keras.Model, data: Any) -> list[Any]:
    """Returns a tensor for each input of the source: the first samples of data, or generated."""
    nodes = [source.nodes[name] for name in source.inputs]
    sizes = [[size or 1 for size in node.shapes[0][1:]] for node in nodes]
    is_small = max(map(math.prod, sizes)) <= _SMALL
    count = nodes[0].shapes[0][0] or (2 if is_small else 1)
    if hasattr(data, "__getitem__"):
        arrays = next(batches(data, model, steps=1, batch_size=count))
        arrays = [array[:count] for array in arrays]
    else:
        rng = np.random.default_rng(0)
        arrays = [
            _made_up(rng, (count, *own), node.dtypes[0], _count_of_ids(rewritten, name))
            for node, own, name in zip(nodes, sizes, rewritten.inputs, strict=True)
        ]
    return [ops.cast(x, node.dtypes[0]) for x, node in zip(arrays, nodes, strict=True)]


def _count_of_ids(graph: Graph, name: str) -> int | None:
    """Returns the number of ids for an input, or None for real values."""
    takers = takers_of_values(graph.consumers(), Edge(name))
    lookups = [each.head for each in takers if getattr(each.head, "takes_indices", False)]
    return min((layer.input_dim for layer in lookups), default=None)


def _made_up(rng: Any, shape: tuple[int, ...], dtype: str, ids: int | None) -> np.ndarray:
    """Makes random data of a shape and dtype."""
    if ids is not None:
        return rng.integers(0, ids, shape)
    if is_float(dtype):
        return rng.normal(size=shape)
    return rng.integers(0, 2 if dtype == "bool" else 128, shape)


def as_inputs(samples: Sequence[Any], model: keras.Model) -> list[Any]:
    """Returns samples in the types of a model's inputs."""
    return [ops.cast(x, each.dtype) for x, each in zip(samples, model.inputs, strict=True)]


def is_float(dtype: str) -> bool:
    """Returns whether a dtype is a floating type, of any width."""
    return keras.backend.is_float_dtype(dtype)
