"""Takes the last step of unrolled recurrent layers out of a graph of quantized layers."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.errors import InvalidModelError
from keras_qat.graph import Edge, Graph, Node
from keras_qat.graph.graph import flatten_edges, map_edges, unique_name
from keras_qat.layers import QReshape, QStack, QStridedSlice, QuantizeInput
from keras_qat.layers.core.drop_in import remade
from keras_qat.quantizers import FixedParameters, InputStats

_FIX = (
    "Give `streaming` a model of recurrent layers that go forward, over sequences of at least two "
    "steps, with layers around them that treat each step alone."
)


def take_last_step(graph: Graph, origins: Mapping[str, Sequence[str]]) -> Graph:
    """Returns the graph of one step of the recurrent layers of a quantized model.

    Args:
        graph: The graph of a quantized model. The layers of a step are called once for each step.
        origins: The layers of the user that a layer computes, by its name. They name the states.

    Returns:
        A graph of new layers, each called once, on sequences of one step. Its inputs are the inputs
        that the step needs, then the states. Its outputs are the outputs, then the new states.

    Raises:
        InvalidModelError: If the model has no recurrent layer, or several of different lengths,
            or if a step depends on other steps than the one before it.
    """
    return _LastStep(graph, origins).taken()


class _LastStep:
    """The nodes of the last step.

    Args:
        graph: The graph of all steps.
        origins: The layers of the user that a layer computes, by its name.
    """

    def __init__(self, graph: Graph, origins: Mapping[str, Sequence[str]]):
        calls = _calls(graph)
        lengths = {len(names) for names in calls.values()}
        # The last step may need no state of its own, such as one that padding holds.
        if not lengths or max(lengths) - min(lengths) > 1:
            raise InvalidModelError(
                "A model of one step needs recurrent layers of one length.",
                received=f"layers that are called {sorted(lengths)} times" if lengths else "none",
                fix=_FIX,
            )
        self.graph, self.origins, self.length = graph, origins, max(lengths)
        self.steps = _steps(graph, calls)
        self.last: dict[int, str] = {}
        for name in sorted(self.steps, key=self.steps.__getitem__):
            self.last[id(graph.nodes[name].head)] = name
        self.nodes: dict[str, Node] = {}
        self.states: dict[str, Edge] = {}

    def taken(self) -> Graph:
        """Returns the graph of the last step."""
        outputs = map_edges(lambda edge: self._edge(edge, self.length - 1), self.graph.outputs)
        kept = [name for name in self.graph.inputs if name in self.nodes]
        inputs = [*kept, *(self.nodes[edge.node].inputs[0].node for edge in self.states.values())]
        return dataclasses.replace(
            self.graph,
            nodes=_in_order(self.nodes),
            inputs=tuple(inputs),
            input_structure=[Edge(name) for name in inputs],
            outputs=[*flatten_edges(outputs), *map(Edge, self.states)],
            output_names=(),
        )

    def _edge(self, edge: Edge, now: int) -> Edge:
        """Returns the tensor that stands for a tensor, which a node of the step `now` takes."""
        step, layer = self.steps.get(edge.node), self.graph.nodes[edge.node].head
        if step is None or step == now:
            name = edge.node if step is None else self.last[id(layer)]
            if name not in self.nodes:
                self._add(self.graph.nodes[name], self.steps.get(name, now))
            return Edge(name, edge.index)
        if step == now - 1:
            return self._state(self.graph.nodes[self.last[id(layer)]])
        raise InvalidModelError(
            "An output, or a step, depends on another step than the one before it.",
            layer=layer.name,
            received=f"its call {step + 1} of {self.length}",
            fix=_FIX,
        )

    def _add(self, node: Node, now: int) -> None:
        """Adds a node of the step `now`, and the nodes that it depends on."""
        if node.is_input:
            shape = node.shapes[0]
            is_sequence = len(shape) > 1 and shape[1] == self.length
            shape = (*shape[:1], 1, *shape[2:]) if is_sequence else shape
            self.nodes[node.name] = dataclasses.replace(node, shapes=(shape,))
            return
        layer, edges = node.head, node.inputs
        if isinstance(layer, QStack) and len(edges) == self.length and layer.axis == 1:
            edges, made = edges[-1:], QStridedSlice([None], name=layer.name, scheme=layer.scheme)
        elif isinstance(layer, QStridedSlice) and self._is_step(now, layer.key, edges[0]):
            made = remade(QStridedSlice, layer, key=[0, *layer.key[1:]])
        elif isinstance(layer, QReshape) and self._keeps_steps(layer, edges[0]):
            made = remade(QReshape, layer, target_shape=(1, *layer.target_shape[1:]))
        else:
            made = remade(type(layer), layer)
        self.nodes[node.name] = node  # so that a state that the node depends on finds it
        inputs = tuple(self._edge(edge, now) for edge in edges)
        arguments = ((inputs[0] if len(inputs) == 1 else list(inputs),), {})
        self.nodes[node.name] = dataclasses.replace(
            node, operations=(made,), inputs=inputs, arguments=arguments
        )

    def _is_step(self, now: int, key: Sequence[Any], source: Edge) -> bool:
        """Returns whether a key takes a step of a sequence."""
        return key[0] == now and self.graph.shape(source)[1] == self.length

    def _keeps_steps(self, layer: QReshape, source: Edge) -> bool:
        """Returns whether a reshape has all steps as the first axis of a sample."""
        steps = (self.length,)
        has_steps = layer.moves_batch or self.graph.shape(source)[1:2] == steps
        return has_steps and tuple(layer.target_shape[:1]) == steps

    def _state(self, node: Node) -> Edge:
        """Returns the input for the state that a node computes."""
        if node.name in self.states:
            return self.states[node.name]
        layer = node.head
        origin = next(iter(self.origins.get(layer.name, ())), layer.name)
        name = unique_name(f"{origin}_state", [*self.graph.nodes, *self.nodes])
        parameters = layer.neighbours.output
        stats = None
        if isinstance(parameters, FixedParameters):
            mean, std = parameters.zero_point_value, 1.0 / parameters.scale_value
            stats = dataclasses.asdict(InputStats(float(mean), std, layer.scheme.dtype))
        quantize = QuantizeInput(
            name=f"{name}_quantize",
            dtype="float32",
            scheme=layer.scheme,
            state_of=layer.name,
            stats=stats,
        )
        call = Node.call(quantize, quantize.name, Edge(name), node.shapes[0])
        model_input = next(each for each in self.graph.nodes.values() if each.is_input)
        self.nodes[name] = dataclasses.replace(
            model_input, name=name, shapes=node.shapes, dtypes=("float32",), origins=(name,)
        )
        self.nodes[call.name] = call.made_of(node)
        self.states[node.name] = Edge(call.name)
        self._edge(Edge(node.name), self.steps[node.name])
        return self.states[node.name]


def _calls(graph: Graph) -> dict[int, list[str]]:
    """Returns the calls of each layer that is called more than once."""
    calls = collections.defaultdict[int, list[str]](list)
    for node in graph.nodes.values():
        if not node.is_input:
            calls[id(node.head)].append(node.name)
    return {layer: names for layer, names in calls.items() if len(names) > 1}


def _steps(graph: Graph, calls: Mapping[int, Sequence[str]]) -> dict[str, int]:
    """Returns the step that each call of a layer belongs to.

    The calls of a layer that depends on its call in the step before are in order. A layer that does
    not belongs to the step of the calls that it depends on, else to that of the calls after it.
    """
    steps: dict[str, int] = {}
    for names in calls.values():
        if names[0] in _ancestors(graph, names[1]):
            steps |= {name: step for step, name in enumerate(names)}
    shared = {name for names in calls.values() for name in names}
    for name, node in graph.nodes.items():
        known = [steps[edge.node] for edge in node.inputs if edge.node in steps]
        if name in shared and name not in steps and known:
            steps[name] = max(known)
    consumers = graph.consumers()
    for name in reversed(list(graph.nodes)):
        takers = [steps[each.name] for each in consumers.get(Edge(name), ()) if each.name in steps]
        if name in shared and name not in steps and takers:
            steps[name] = min(takers)
    return steps


def _ancestors(graph: Graph, name: str) -> set[str]:
    """Returns the nodes that a node depends on."""
    found: set[str] = set()
    left = [name]
    while left:
        new = {edge.node for edge in graph.nodes[left.pop()].inputs} - found
        found |= new
        left.extend(new)
    return found


def _in_order(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Returns nodes in topological order."""
    ordered: dict[str, Node] = {}

    def add(name: str) -> None:
        """Adds a node after the nodes that it depends on."""
        if name not in ordered:
            for edge in nodes[name].inputs:
                add(edge.node)
            ordered[name] = nodes[name]

    for name in nodes:
        add(name)
    return ordered
