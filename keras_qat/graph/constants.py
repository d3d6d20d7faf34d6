"""Evaluates the operations of a traced layer that depend on its weights and on constants alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.batch import factor_of, for_one_sample
from keras_qat.graph.graph import (
    Edge,
    Graph,
    Node,
    Parameter,
    flatten_edges,
    map_edges,
    unique_name,
)
from keras_qat.graph.patterns import operation_named
from keras_qat.graph.reading import read_function
from keras_qat.graph.symbols import BatchNumberError

# Operations that broadcast a constant over the batch.
_BROADCASTS = operation_named(
    "Add", "Subtract", "Multiply", "TrueDivide", "Divide", "Maximum", "Minimum"
)

# Operations that select some of the values of their operand, or arrange them in another way.
_SELECTS = operation_named(
    "ExpandDims", "Flip", "GetItem", "Reshape", "Split", "Squeeze", "Transpose", "Unstack"
)
# Operations that compute each number from one number of their only trained operand. A softmax also
# divides by what all numbers have in common.
_ELEMENTWISE = operation_named(
    *("Absolute", "Add", "Exp", "Maximum", "Minimum", "Multiply", "Relu", "Sigmoid", "Softmax"),
    *("Softplus", "Square", "Subtract"),
)
_QUOTIENT = operation_named("Divide", "TrueDivide")


def without_constants(graph: Graph, variables: Mapping[str, keras.Variable], batch: int) -> Graph:
    """Evaluates nodes that depend on variables and constants alone, and passes on the values.

    Args:
        graph: The traced graph.
        variables: The variable that each input stands for, by the name of the input.
        batch: The size of the batch in the graph.

    Returns:
        The graph without these inputs and nodes. A value that is made for each sample, such as
        `ops.tile(token, (batch, 1, 1))`, has one row. Where a tensor is needed, the value is added
        to zero times a part of a tensor.
    """
    values = {Edge(name): parameter(variable) for name, variable in variables.items()}
    constants = _Constants(graph, batch, values)
    for name, node in graph.nodes.items():
        if name not in variables:
            constants.add(node)
    outputs = tree.map_structure(constants.tensor_of_output, graph.outputs)
    kept = tuple(name for name in graph.inputs if name not in variables)
    structure = [Edge(name) for name in kept]
    return dataclasses.replace(
        graph, nodes=constants.nodes, inputs=kept, input_structure=structure, outputs=outputs
    )


class _Constants:
    """The nodes that depend on tensors, and the values of the others.

    Args:
        graph: The traced graph.
        batch: The size of the batch in the graph.
        values: The values of the graph's inputs that are variables.
    """

    def __init__(self, graph: Graph, batch: int, values: dict[Edge, Parameter]):
        self.graph, self.batch, self.values = graph, batch, values
        self.nodes: dict[str, Node] = {}

    def add(self, node: Node) -> None:
        """Adds a node, or its values if it depends on constants alone."""
        known = node if node.is_input else self._with_values(node)
        if known.is_input and not node.is_input:
            values = _evaluate(known, self.batch)
            for i, (value, shape) in enumerate(zip(values, node.shapes, strict=True)):
                samples = (factor_of(shape[0], self.batch) if shape else None) or 0
                self.values[Edge(node.name, i)] = self._of_samples(value, samples)
            return
        if not node.is_input and not _BROADCASTS(node.head):
            known = self._with_tensors(known)
        self.nodes[node.name] = known

    def tensor_of_output(self, leaf: Any) -> Any:
        """Returns an output of the graph, which becomes a tensor if it is a constant."""
        value = self.values.get(leaf)
        return leaf if value is None else self._tensor(value, leaf.node, self._inputs())

    def _inputs(self) -> list[Edge]:
        return [Edge(name) for name in self.graph.inputs if name in self.nodes]

    def _with_values(self, node: Node) -> Node:
        """Returns a node with constants in place of the tensors that are known."""

        def replaced(leaf: Any) -> Any:
            """Replaces a known tensor by its value, and an array by a parameter."""
            if isinstance(leaf, Edge):
                return self.values.get(leaf, leaf)
            return self._array(leaf) if hasattr(leaf, "shape") else leaf

        return _with_arguments(node, tree.map_structure(replaced, node.arguments))

    def _array(self, leaf: Any) -> Parameter:
        """Returns the parameter for an array, which `call` may have made for each sample."""
        value = parameter(leaf)
        shape = value.value.shape
        number = float(value.value.item()) if value.value.size == 1 else 0.0
        if number.is_integer() and factor_of(int(number), self.batch):
            raise BatchNumberError
        samples = factor_of(shape[0], self.batch) if shape else None
        return self._of_samples(value, samples or 0)

    def _of_samples(self, value: Parameter, samples: int) -> Parameter:
        """Returns a value that is made for each sample, with the row that is equal for all."""
        rows = value.value
        if not samples or not np.array_equal(rows, np.broadcast_to(rows[:1], rows.shape)):
            return value
        return dataclasses.replace(value, value=rows[:1], samples=samples)

    def _with_tensors(self, node: Node) -> Node:
        """Returns a node with tensors in place of the values that are made for each sample."""
        made: dict[int, Edge] = {}

        def replaced(leaf: Any) -> Any:
            """Replaces a real value with a batch by a tensor of the graph."""
            # Masks and ids need no tensor: they broadcast, or are looked up in constants.
            is_real = isinstance(leaf, Parameter) and leaf.value.dtype.kind == "f"
            if not is_real or not leaf.samples:
                return leaf
            if id(leaf) not in made:
                sources = [*node.inputs, *self._inputs()]
                made[id(leaf)] = self._tensor(leaf, node.name, sources)
            return made[id(leaf)]

        return _with_arguments(node, tree.map_structure(replaced, node.arguments))

    def _tensor(self, value: Parameter, name: str, sources: Sequence[Edge]) -> Edge:
        """Adds nodes that make a tensor of a value, for each sample. Returns the tensor."""
        made = (Edge(name, i) for name, node in self.nodes.items() for i in range(len(node.shapes)))
        found = [edge for edge in (*sources, *made) if self._is_source(edge, value)]
        if not found:
            raise UnsupportedLayerError(
                "`call` makes a constant for each sample, but it takes no tensor of real values.",
                layer=self.graph.name,
                received=f"a constant of shape {value.value.shape}",
                expected="a layer that is called on a tensor of real values",
                fix="Call the layer on the output of the `Embedding`, not on the ids.",
            )
        channels = value.value.shape[-1]
        source = next((edge for edge in found if self._shape(edge)[-1] == channels), found[0])
        x = keras.Input(batch_shape=self._shape(source), dtype="float32")
        constant = keras.Input(batch_shape=value.value.shape, dtype="float32")
        is_zero = not value.value.any() and constant.shape[-1] <= x.shape[-1]
        of_samples = _zeros if is_zero else _for_each_sample
        made = read_function(keras.Function([x, constant], of_samples(x, constant)), name)
        bound: dict[Any, Any] = dict(zip(map(Edge, made.inputs), (source, value), strict=True))
        for child in made.nodes.values():
            if not child.is_input:
                bound[Edge(child.name)] = self._added(child, name, bound)
        return bound[made.output_edges[0]]

    def _added(self, child: Node, name: str, bound: Mapping[Any, Any]) -> Edge:
        """Adds a node whose arguments are bound to tensors and values. Returns its output."""
        taken = {*self.graph.nodes, *self.nodes}
        own = unique_name(f"{name}_{type(child.head).__name__.lower()}", taken)
        arguments = map_edges(bound.__getitem__, child.arguments)
        self.nodes[own] = _with_arguments(
            dataclasses.replace(child, name=own, origins=(own,)), arguments
        )
        return Edge(own)

    def _shape(self, edge: Edge) -> Any:
        return self.nodes[edge.node].shapes[edge.index]

    def _is_source(self, edge: Edge, value: Parameter) -> bool:
        """Returns whether a tensor has real values for as many samples as a value."""
        shape, dtype = self._shape(edge), self.nodes[edge.node].dtypes[edge.index]
        is_alike = len(shape) > 1 and factor_of(shape[0], self.batch) == (value.samples or 1)
        return is_alike and "float" in dtype and value.value.ndim > 1


def parameter(value: Any) -> Parameter:
    """Makes a parameter of an array or a variable."""
    array = np.array(ops.convert_to_numpy(value))
    if isinstance(value, keras.Variable):
        if not value.trainable:
            return Parameter(array, name=value.name)
        positions = np.arange(array.size, dtype="int32").reshape(array.shape)
        whole = value, positions
        return Parameter(array, True, value.name, (value,), positions=positions, numbers_of=whole)
    return Parameter(array)


def _with_arguments(node: Node, arguments: Any) -> Node:
    return dataclasses.replace(node, arguments=arguments, inputs=tuple(flatten_edges(arguments)))


def _for_each_sample(x: Any, constant: Any) -> Any:
    """Adds a constant to zeros that have the batch of a tensor."""
    channels = constant.shape[-1] if x.shape[-1] == constant.shape[-1] else 1
    key = (slice(None), *(slice(0, 1) for _ in x.shape[1:-1]), slice(0, channels))
    zeros = 0.0 * x[key]
    if len(x.shape) != len(constant.shape):
        zeros = ops.reshape(zeros, (-1, *(1 for _ in constant.shape[1:-1]), channels))
    return zeros + constant


def _zeros(x: Any, constant: Any) -> Any:
    """Makes zeros that have the batch of a tensor: a difference has no range of its own."""
    part = x[(slice(None), *(0 for _ in x.shape[1:-1]), slice(0, constant.shape[-1]))]
    zeros = ops.reshape(part - part, (-1, *(1 for _ in constant.shape[1:-1]), part.shape[-1]))
    return ops.broadcast_to(zeros, (zeros.shape[0], *constant.shape[1:]))


def _evaluate(node: Node, batch: int) -> list[Parameter]:
    """Computes a node whose arguments are all constants, for a batch of one sample."""
    parameters = [leaf for leaf in tree.flatten(node.arguments) if isinstance(leaf, Parameter)]

    def computed(value: Callable[[Parameter], Any]) -> list[np.ndarray]:
        """Computes the node with a value for each parameter, as arrays."""

        def known(leaf: object) -> object:
            return value(leaf) if isinstance(leaf, Parameter) else leaf

        args, kwargs = tree.map_structure(known, node.arguments)
        results = tree.flatten(for_one_sample(node.head, batch)(*args, **kwargs))
        return [np.array(ops.convert_to_numpy(result)) for result in results]

    arrays = computed(lambda parameter: parameter.value)
    positions: list[Any] = [None] * len(arrays)
    numbers: list[Any] = [_numbers_of(node, array) for array in arrays]
    if len(parameters) == 1 and _SELECTS(node.head) and parameters[0].numbers_of is not None:
        variable, places = parameters[0].numbers_of
        selected = computed(lambda _: places)
        numbers = [(variable, each) for each in selected]
        positions = positions if parameters[0].positions is None else selected
    own = tuple(getattr(node.head, "trainable_variables", ()))  # of a layer called on constants
    names = [parameter.name for parameter in parameters if parameter.trainable]
    names += [variable.name for variable in own]
    variables = tuple(v for parameter in parameters for v in parameter.variables) + own
    name = (names or ["constant"])[0]
    return [
        Parameter(array, bool(names), name, variables, positions=found, numbers_of=of)
        for array, found, of in zip(arrays, positions, numbers, strict=True)
    ]


def _numbers_of(node: Node, result: np.ndarray) -> tuple[Any, np.ndarray] | None:
    """Returns the variable whose numbers the numbers of a computed value stand for."""
    leaves: list[Any] = tree.flatten(node.arguments)
    operands: list[Any] = (
        leaves[:1] if _QUOTIENT(node.head) else leaves if _ELEMENTWISE(node.head) else []
    )
    trained = [x for x in operands if isinstance(x, Parameter) and x.trainable]
    if len(trained) != 1 or trained[0].value.shape != result.shape:
        return None
    return trained[0].numbers_of
