"""Opens the layers of this package that a model was defined with."""

from __future__ import annotations

from typing import Any

from keras_qat.graph import Graph, Node
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.channel_affine import ChannelAffine
from keras_qat.passes.rewriting import Replacement, Rewriting, calls_in_a_row, replace_nodes


def open_drop_ins(graph: Graph) -> Graph:
    """Replaces each drop-in layer by the row of Keras layers that it stands for.

    Matches: a float layer of `keras_qat.layers`, such as `QConv2D(batch_norm=True)`.
    Builds: `Conv2D`, `BatchNormalization` and `Activation`, with the layer's weights. Consumers
    take the output of the last one.
    Why: a drop-in accepts any activation, but LiteRT fuses few. The layers after a drop-in may
    have to be fused too. Both ways to write a model thus become the same file.

    Args:
        graph: The graph.

    Returns:
        A graph of Keras layers; the graph itself if there were no drop-in layers.
    """
    opened: dict[int, list[Any]] = {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if id(node.head) not in opened:
            opened[id(node.head)] = node.head.to_keras() or [] if _is_opened(node.head) else []
        layers = opened[id(node.head)]
        return calls_in_a_row(node, layers, rewriting) if layers else None

    return replace_nodes(graph, write)


def _is_opened(operation: Any) -> bool:
    """Returns whether this is a float drop-in layer, not one that only a rewrite makes."""
    if not isinstance(operation, QuantizedLayer) or not operation.is_opened:
        return False
    if not type(operation).__module__.startswith("keras_qat."):
        return False  # a subclass may compute something else
    norm = getattr(operation, "batch_normalization", None)
    return operation.scheme is None and not isinstance(norm, ChannelAffine)
