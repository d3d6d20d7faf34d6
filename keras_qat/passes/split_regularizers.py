"""Makes the `activity_regularizer` argument of a layer a separate operation."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.keras_internals import shallow_copy
from keras_qat.graph.penalties import PENALTIES
from keras_qat.passes.rewriting import Replacement, Rewriting, followed_by, replace_nodes


def split_regularizers(graph: Graph) -> Graph:
    """Writes `Dense(activity_regularizer="l2")` as a `Dense` and an `ActivityRegularization`.

    Matches: a layer with an `activity_regularizer`.
    Builds: the same layer without it, and after it an `ActivityRegularization`, which makes no
    operator.
    Why: the penalty is on the output of this layer. The layer may be opened, may lose its
    activation, or may be fused with the layers around it, and then computes another output or
    none.

    Args:
        graph: The graph.

    Returns:
        A graph in which only `ActivityRegularization` layers have penalties on their outputs.

    Raises:
        UnsupportedLayerError: If a penalty is not L1, L2 or L1L2.
    """
    split: dict[Any, tuple[keras.layers.Layer, keras.layers.Layer]] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not _is_penalized(node.head):
            return None
        if node.head not in split:  # a shared layer stays shared, for all its calls
            split[node.head] = _without_penalty(node.head), _penalty(node)
        layer, penalty = split[node.head]
        count = range(len(node.shapes))
        penalties = [followed_by(penalty, node, rewriting, index) for index in count]
        outputs = [Edge(each.name) for each in penalties]
        return Replacement([dataclasses.replace(node, operations=(layer,)), *penalties], outputs)

    return replace_nodes(graph, write)


def _is_penalized(operation: Any) -> bool:
    """Returns whether a layer has a penalty on its output, and another purpose."""
    is_own = isinstance(operation, keras.layers.ActivityRegularization)
    return not is_own and getattr(operation, "activity_regularizer", None) is not None


def _without_penalty(layer: Any) -> keras.layers.Layer:
    """Returns a copy of a layer, which shares its variables, without the penalty on its output."""
    copy = shallow_copy(layer)
    vars(copy)["activity_regularizer"] = None
    return copy


def _penalty(node: Node) -> keras.layers.Layer:
    regularizer = node.head.activity_regularizer
    if not isinstance(regularizer, PENALTIES):
        raise UnsupportedLayerError(
            "A penalty of this type on the output of a layer cannot be kept.",
            layer=node.name,
            received=f"activity_regularizer={type(regularizer).__name__}",
            expected="L1, L2 or L1L2 of `keras.regularizers`",
            fix="Use one of these, or leave `activity_regularizer` out.",
        )
    sizes = {name: float(getattr(regularizer, name, 0.0)) for name in ("l1", "l2")}
    name = f"{node.head.name}_regularizer"
    return keras.layers.ActivityRegularization(**sizes, name=name, dtype="float32")
