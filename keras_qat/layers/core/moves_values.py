"""Layers whose operator copies integers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import keras
from keras import tree

from keras_qat.graph import Edge, Node
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.quantizers import Grid, Shared


class MovesValues(QuantizedLayer):
    """Base class of layers whose operator copies integers: its float forward is exact."""

    output_specification = Shared()

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shape of the output, with the type of the input."""
        made = super().compute_output_spec(inputs, *args, **kwargs)
        return keras.KerasTensor(made.shape, tree.flatten(inputs)[0].dtype)

    def training_forward(self, inputs):
        """Calls the Keras layer: values from the grid stay on the grid."""
        return self.float_forward(inputs, training=True)

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Moves the integers as the float forward moves values; 0 is the zero point."""
        del output
        return self.float_forward(inputs[0].values, training=False)


def moves_plain(node: Node) -> bool:
    """Returns whether a layer copies plain numbers: it copies values, and adds none of its own."""
    if not isinstance(node.head, MovesValues):
        return False
    specification = node.head.specifications()["output"]
    return isinstance(specification, Shared) and specification.observed is None


def takers_of_values(consumers: Mapping[Edge, Sequence[Node]], edge: Edge) -> Iterator[Node]:
    """Yields the nodes that compute with the values of a tensor, also after layers that move them.

    Args:
        consumers: The result of `Graph.consumers`, for a graph of quantized layers.
        edge: The tensor.
    """
    for node in consumers.get(edge, ()):
        if moves_plain(node):
            yield from takers_of_values(consumers, Edge(node.name))
        else:
            yield node
