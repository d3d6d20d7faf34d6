"""Functions with a LiteRT operator, whose 256 results inference looks up."""

from __future__ import annotations

from typing import Any

from keras import ops

from keras_qat.arithmetic.tables import Table, operator_table
from keras_qat.backend import compiled
from keras_qat.graph import Node
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.integers import OffsetInts
from keras_qat.layers.elementwise.activations import Elementwise
from keras_qat.layers.elementwise.lookup import QLookup
from keras_qat.quantizers import Grid
from keras_qat.scheme import BYTE, Scheme


@compiled
def _interpolated(x, scale, *, rule):
    return ops.cast(rule(ops.cast(x, "int32"), scale), "float32")


class Tabulated(Elementwise):
    """Base class of element-wise operators without weights: a table of all 256 results.

    Attributes:
        function: The function from which the kernel makes its table, of a float64 tensor. Equal
            layers have the same function object. None if `table` does not use it.
        avoids_ties: Whether a scale is widened until every C library makes the same table. This is
            the scale of the output, or of the input if the kernel prescribes the output's scale.
        has_lookup: Whether a lookup computes the same if a target or a type lacks the operator.
    """

    function: Any = None
    has_lookup = False

    @classmethod
    def from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes the layer, or a lookup if the operator does not support the type of the scheme."""
        missing = scheme is not None and scheme.missing_operators.intersection(cls.operators)
        if missing and cls.has_lookup:
            return QLookup.from_match(node, scheme)
        return cls(**cls.arguments_of(node), name=node.name, scheme=scheme)

    @classmethod
    def lookup_from_match(cls, node: Node, scheme: Scheme | None) -> QuantizedLayer:
        """Makes a lookup if one computes the same."""
        return (QLookup if cls.has_lookup else cls).from_match(node, scheme)

    @classmethod
    def arguments_of(cls, node: Node) -> dict[str, Any]:
        """Returns the constructor's arguments for an operation."""
        del node
        return {}

    def table(self, grid: Grid, output: Grid) -> Any:
        """Computes the output of the kernel for each integer.

        Args:
            grid: The grid of the input.
            output: The grid of the output.

        Returns:
            int32 tensor of shape (256,), the outputs for the smallest to the largest integer.
        """
        return operator_table(*grid, *output, function=self.function, **self.limits())

    def integer(self, *inputs: OffsetInts, output: Grid):
        """Looks each integer up in the table. The kernels interpolate tables of 16 bits."""
        ((values, grid),) = inputs
        if self._scheme().activation_bits > BYTE:
            (code,) = self.operators
            return _interpolated(values, grid.scale, rule=self.integer_rule(code))
        table = ops.cast(self.table(grid, output) - output.zero_point, "float32")
        index = ops.cast(values, "int32") + (grid.zero_point - self._scheme().activation_low)
        return ops.take(table, index, axis=0)

    def limits(self) -> dict[str, int]:
        """Returns the smallest and the largest integer, as arguments of a table."""
        scheme = self._scheme()
        return {"low": scheme.activation_low, "high": scheme.activation_high}

    def free_table(self, parameters: Any) -> tuple[Table, Grid]:
        """Returns the table, and the grid of the end whose scale does not change.

        Args:
            parameters: The parameters whose scale may change: those of the layer's input, of its
                output, or of both.
        """
        source, target = self._neighbours().inputs[0], self._neighbours().output
        ends = source is parameters, target is parameters
        free_end = {(True, False): "input", (False, True): "output"}.get(ends, "both")
        other = source if free_end == "output" else target
        grid = Grid(1.0, 0) if free_end == "both" else other.grid()
        return Table(self.function, free_end, *self.limits().values()), grid
