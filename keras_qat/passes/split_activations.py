"""Makes the `activation` argument of a layer an operation of its own."""

from __future__ import annotations

import dataclasses

import keras

from keras_qat.graph import Graph, Node
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.registry import find_rule
from keras_qat.passes.rewriting import Replacement, Rewriting, followed_by, replace_nodes


def split_activations(graph: Graph) -> Graph:
    """Writes `Conv2D(activation="relu")` as a linear `Conv2D` and an `Activation`.

    Matches: a layer with a kernel whose `activation` is not linear.
    Builds: the same layer, linear, and an `Activation` after it.
    Why: later passes see activations in one form only. `fuse_activations` fuses them again where
    LiteRT can.

    Args:
        graph: The graph.

    Returns:
        A graph in which layers with a kernel are linear.
    """
    split: dict[int, keras.layers.Layer] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not has_activation(node):
            return None
        # A shared layer stays shared: one activation layer for all its calls.
        label = f"{node.head.name}_{function_name(node.head.activation)}"
        layer = split.setdefault(
            id(node.head),
            keras.layers.Activation(node.head.activation, name=label, dtype="float32"),
        )
        linear = dataclasses.replace(node, activation_split=True)
        return Replacement([linear, followed_by(layer, node, rewriting)])

    return replace_nodes(graph, write)


def has_activation(node: Node) -> bool:
    """Returns whether a layer with a kernel has an activation of its own."""
    if node.activation_split:
        return False
    entry = find_rule(node.operations)
    if entry is None or not entry.layer.takes_activation:
        return False
    return function_name(node.head.activation) != "linear"
