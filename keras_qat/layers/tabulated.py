"""Functions that LiteRT has an operator for, and whose 256 results inference looks up."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.graph import Node
from keras_qat.layers.activations import Elementwise
from keras_qat.layers.base import Centered, QuantizedLayer
from keras_qat.quantizers import Grid
from keras_qat.scheme import Scheme


class Tabulated(Elementwise):
    """Base class of element-wise operators without weights: a table of all 256 results."""

    def table(self, grid: Grid, output: Grid) -> Any:
        """Computes what the kernel makes of each integer.

        Args:
            grid: The grid of the input.
            output: The grid of the output.

        Returns:
            int32 tensor of shape (256,), the outputs for the least integer to the greatest.
        """
        raise NotImplementedError

    def integer(self, *inputs: Centered, output: Grid):
        """Looks each integer up in the table."""
        ((values, grid),) = inputs
        table = ops.cast(self.table(grid, output) - output.zero_point, "float32")
        index = ops.cast(values, "int32") + (grid.zero_point - self._scheme().activation_low)
        return ops.take(table, index, axis=0)

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer."""
        return cls(name=node.name, scheme=scheme)

    def limits(self) -> dict[str, int]:
        """Returns the smallest and the largest integer, as arguments of a table."""
        scheme = self._scheme()
        return {"low": scheme.activation_low, "high": scheme.activation_high}
