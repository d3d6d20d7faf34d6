"""The layers of a quantized model, built and linked, without the model around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import keras

from keras_qat.checking.statistics import Statistics
from keras_qat.conversion import carry_weights
from keras_qat.errors import KerasQatError
from keras_qat.graph import Graph, Node
from keras_qat.layers.quantized_model import link_layers
from keras_qat.quantizers import RangeObserver


@dataclasses.dataclass(frozen=True)
class LinkedModel:
    """What would be exported, as far as it is known before training.

    Attributes:
        graph: Each node but the inputs is a call of a layer that is built, has its weights, and is
            linked to the quantization parameters around it.
        statistics: What is known of the values of tensors, by their observers.
        is_quantized: Whether the user quantized it, so that its ranges are those at hand.
    """

    graph: Graph
    statistics: Mapping[RangeObserver, Statistics]
    is_quantized: bool = False

    def layers(self) -> list[Any]:
        """Returns the layers that compute integers, each once."""
        heads = (node.head for node in self.graph.nodes.values() if not node.is_input)
        return list({id(head): head for head in heads if head.scheme is not None}.values())


def build_layers(made: Graph, rewritten: Graph) -> list[KerasQatError]:
    """Builds and links the layers of a graph, and gives them their weights.

    No layer is called, not even symbolically: that is what costs time in `quantize_model`.

    Args:
        made: What `make_layers` and the passes behind it made. Its layers are changed.
        rewritten: The graph of Keras operations that it was made of, which has the weights.

    Returns:
        What layers refuse when they see the shapes of their inputs. If there is any, the layers
        are not linked.
    """
    errors: list[KerasQatError] = []
    seen: set[int] = set()
    for node in made.nodes.values():
        if node.is_input or id(node.head) in seen:
            continue
        seen.add(id(node.head))
        try:
            _build(node, made)
        except KerasQatError as error:
            errors.append(error)
        else:
            carry_weights(rewritten, node)
    if not errors:
        link_layers(made)
    return errors


def _build(node: Node, graph: Graph) -> None:
    shapes = [graph.shape(edge) for edge in node.inputs]
    layer: Any = node.head
    for name, value in list(vars(layer).items()):
        if isinstance(value, keras.initializers.Initializer):
            # What is random would be drawn, only to be overwritten.
            setattr(layer, name, keras.initializers.Zeros())
    layer.build(shapes[0] if len(shapes) == 1 else shapes)
