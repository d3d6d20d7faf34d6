"""Makes Keras layers for the kernels of operations. The layers have the kernels as weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np
from keras import tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Graph, Node, Parameter, operation_named
from keras_qat.graph.penalties import regularizer_of
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.rewriting import absorb_nodes

# The names that Keras's layers have for the regularizer of their kernel.
_REGULARIZERS = ("depthwise_regularizer", "embeddings_regularizer", "kernel_regularizer")

# These operations have no arguments but their operands.
_ARITHMETIC = operation_named(
    "Add", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide"
)


@dataclasses.dataclass(frozen=True, eq=False)
class _Use:
    """The use of a variable by an operation.

    Attributes:
        name: The name of a node of the operation.
        positions: The positions of the numbers that the operation takes; None for all.
    """

    name: str
    positions: np.ndarray | None


class KernelLayers:
    """Makes one layer for each use of a kernel, and returns the same layer for the same use."""

    def __init__(self):
        self._made: dict[Hashable, Any] = {}
        self._operands: dict[int, Any] = {}

    def layer(
        self,
        operand: Any,
        use: Hashable,
        make: Callable[[], Any],
        shape: tuple,
        arrange: Callable[[np.ndarray], np.ndarray] = np.asarray,
    ) -> Any:
        """Returns a built layer with the kernel.

        Args:
            operand: The kernel: a `Parameter`, a variable or an array.
            use: Everything except the kernel that the layer depends on.
            make: Makes the layer, without a bias.
            shape: Shape of the layer's input.
            arrange: Makes the kernel of the layer from the value of the operand.
        """
        key = id(operand), use
        if key not in self._made:
            layer, value = make(), arrange(value_of(operand).astype("float32"))
            name = next(each for each in _REGULARIZERS if hasattr(layer, each))
            setattr(layer, name, regularizer_of(operand, value.size))
            layer.build(shape)
            layer.weights[0].assign(value)
            layer.trainable = bool(getattr(operand, "trainable", False))
            self._made[key] = layer
            self._operands[id(layer)] = operand
        return self._made[key]

    def check_tied(self, graph: Graph) -> None:
        """Raises if one trainable variable became two variables that would train separately.

        Args:
            graph: The graph with these layers.

        Raises:
            UnsupportedLayerError: If another operation that is not a call of the layer has the
                variable too.
        """
        owners: dict[int, dict[int, _Use]] = {}
        for node in graph.nodes.values():
            for operation in node.operations:
                leaves = [self._operands.get(id(operation)), *tree.flatten(node.arguments)]
                parameters = [leaf for leaf in leaves if isinstance(leaf, Parameter)]
                used = [(v, None) for v in getattr(operation, "trainable_variables", ())]
                used += [use for each in parameters for use in _used_by(each)]
                for variable, positions in used:
                    uses = owners.setdefault(id(variable), {})
                    mine = uses.setdefault(id(operation), _Use(node.name, positions))
                    others = [each for each in uses.values() if each is not mine]
                    tied = [each for each in others if _overlap(mine.positions, each.positions)]
                    if tied:
                        raise _tied(variable, sorted({mine.name, *(each.name for each in tied)}))


def share_arithmetic(graph: Graph) -> Graph:
    """Makes equal operations with one trainable variable calls of one operation.

    A bias that is added in each step of a loop then becomes one weight.

    Args:
        graph: The graph.

    Returns:
        The graph; the same object if no variable is used twice.
    """
    first: dict[Hashable, Node] = {}
    made: dict[str, Node] = {}
    for name, node in graph.nodes.items():
        if not _has_parameter(node) or not _ARITHMETIC(node.head):
            continue
        key = type(node.head), graph.signature(node), node.scheme
        earlier = first.setdefault(key, node)
        if earlier.head is not node.head:
            made[name] = dataclasses.replace(node, operations=earlier.operations)
    return absorb_nodes(graph, made, {}, {})


def _used_by(parameter: Parameter) -> list[tuple[Any, np.ndarray | None]]:
    """Returns the variables of a parameter, and which of their numbers it takes; None for all."""
    if parameter.numbers_of is not None:
        return [parameter.numbers_of]
    return [(variable, None) for variable in parameter.variables]


def _overlap(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    """Returns whether two parts of a variable have numbers in common."""
    return a is None or b is None or bool(np.isin(a, b).any())


def _has_parameter(node: Node) -> bool:
    leaves = tree.flatten(node.arguments)
    is_trained = any(isinstance(leaf, Parameter) and leaf.trainable for leaf in leaves)
    return is_trained and len(node.operations) == 1


def _tied(variable: Any, places: list[str]) -> UnsupportedLayerError:
    return UnsupportedLayerError(
        "A weight is used in two ways, and would become two weights that train separately.",
        layer=places[-1],
        received=f"the weight '{variable.path}' in {places}",
        expected="each weight in one operation, which may be called more than once",
        fix="Put it into a layer, such as `keras.layers.Dense` for a kernel and its bias, and call "
        "that layer each time; or set the weight's `trainable` to False.",
    )
