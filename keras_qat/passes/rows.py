"""Counts the rows that a tensor has for each sample of the model's inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from keras_qat.graph import Edge, Node
from keras_qat.graph.graph import Shape
from keras_qat.passes.canonical.reshapes import RESHAPE


class Rows:
    """The sizes of the first axes of tensors, as multiples of the size of the batch.

    A reshape merges parts of a sample into the batch, such as the windows of an image, and splits
    the batch again. All other nodes keep the rows of their inputs.

    Args:
        given: The rows of inputs of the graph that have more than one for each sample, by name.
    """

    def __init__(self, given: Mapping[str, int] | None = None):
        self._rows: dict[str, Fraction] = {k: Fraction(v) for k, v in (given or {}).items()}
        self._shapes: dict[Edge, Shape] = {}

    def add(self, node: Node) -> None:
        """Counts the rows of a node. Its inputs must have been added before."""
        rows = [self._rows.get(edge.node, Fraction(1)) for edge in node.inputs]
        if rows:
            self._rows[node.name] = max(rows)
        if not node.is_input and RESHAPE(node.head):
            before, after = self._shapes[node.inputs[0]], node.shapes[0]
            self._rows[node.name] *= Fraction(_values(before), _values(after))
        self._shapes |= {Edge(node.name, i): shape for i, shape in enumerate(node.shapes)}

    def of(self, edge: Edge) -> int:
        """Returns the rows of a tensor for each sample, or 1 if their number is not known."""
        rows = self._rows.get(edge.node, Fraction(1))
        is_known = rows.denominator == 1 and None not in self._shapes[edge][1:]
        return rows.numerator if is_known else 1


def _values(shape: Shape) -> int:
    """Returns the number of values of a row, without the sizes that are not known."""
    return math.prod(size for size in shape[1:] if size) or 1
