"""Makes the `activation` argument of a layer a separate operation."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_qat.graph import Graph, Node
from keras_qat.graph.keras_internals import shallow_copy
from keras_qat.layers.core.activation_names import Activation, function_name
from keras_qat.layers.core.registry import find_rule
from keras_qat.passes.rewriting import Replacement, Rewriting, followed_by, replace_nodes

# The linear copy of each layer, and its activation.
SplitLayers = dict[Any, tuple[keras.layers.Layer, Activation]]


def split_activations(graph: Graph, split: SplitLayers | None = None) -> Graph:
    """Writes `Conv2D(activation="relu")` as a linear `Conv2D` and an `Activation`.

    Matches: a layer with a kernel whose `activation` is not linear.
    Builds: a linear copy of the layer, with the same variables, and an `Activation` after it.
    Why: later passes see activations in one form only. `fuse_activations` fuses them again where
    LiteRT can.

    Args:
        graph: The graph.
        split: The layers that were split before. New ones are added. A layer that is called both
            inside and outside of a custom layer thus stays one layer.

    Returns:
        A graph in which layers with a kernel are linear.
    """
    known = {} if split is None else split

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not has_activation(node):
            return None
        if node.head not in known:
            known[node.head] = _split(node.head)
        linear, activation = known[node.head]
        kernel = dataclasses.replace(node, operations=(linear,))
        return Replacement([kernel, followed_by(activation, node, rewriting)])

    return replace_nodes(graph, write)


def has_activation(node: Node) -> bool:
    """Returns whether a layer with a kernel has its own activation."""
    entry = find_rule(node.operations)
    if entry is None or not entry.layer.takes_activation:
        return False
    return function_name(node.head.activation) != "linear"


def _split(layer: Any) -> tuple[keras.layers.Layer, Activation]:
    """Returns a linear copy of a layer, which shares its variables, and its activation.

    A penalty on the output of the layer becomes one on that of the activation.
    """
    linear = shallow_copy(layer)
    vars(linear).update(activation=keras.activations.linear, activity_regularizer=None)
    name = f"{layer.name}_{function_name(layer.activation)}"
    behind = Activation(layer.activation, name=name, dtype="float32")
    behind.activity_regularizer = layer.activity_regularizer
    return linear, behind
