"""Makes the `activity_regularizer` argument of a layer a separate operation."""

from __future__ import annotations

import keras

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node
from keras_qat.graph.penalties import PENALTIES
from keras_qat.layers.core.registry import find_rule
from keras_qat.passes.rewriting import Replacement, Rewriting, followed_by, replace_nodes


def split_regularizers(graph: Graph) -> Graph:
    """Writes `Dense(activity_regularizer="l2")` as a `Dense` and an `ActivityRegularization`.

    Matches: a layer with a kernel that has an `activity_regularizer`.
    Builds: the same layer, and after it an `ActivityRegularization`, which makes no operator.
    Why: the penalty is on the output of this layer. The output would change if the layer lost its
    activation, or if a batch normalization and an activation were fused into it.

    Args:
        graph: The graph.

    Returns:
        A graph in which layers with a kernel have no penalty on their outputs.

    Raises:
        UnsupportedLayerError: If a penalty is not L1, L2 or L1L2.
    """
    split: dict[int, keras.layers.Layer] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not _is_penalized(node):
            return None
        # A shared layer stays shared: one layer for the penalties of all its calls.
        layer = split.setdefault(id(node.head), _penalty(node))
        return Replacement([node, followed_by(layer, node, rewriting)])

    return replace_nodes(graph, write)


def _is_penalized(node: Node) -> bool:
    """Returns whether a layer that can fuse an activation has a penalty on its output."""
    if getattr(node.head, "activity_regularizer", None) is None:
        return False
    entry = find_rule(node.operations)
    return entry is not None and entry.layer.takes_activation


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
