"""Runs the stages of `quantize_model` past errors, to find more errors."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_qat.errors import InvalidGraphError, KerasQatError, UnsupportedLayerError
from keras_qat.graph import Graph, Node
from keras_qat.graph.reading import inner_layers
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.core.registry import find_rule
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.open_layers import open_layers
from keras_qat.passes.provenance import error_of_user
from keras_qat.passes.quantize_inputs import quantize_floats
from keras_qat.passes.rewriting import Replacement, attempt
from keras_qat.passes.running import Pass, Runner, run_pass
from keras_qat.passes.separate_ranges import separate_ranges
from keras_qat.passes.stages import check_invariants

# Passes that cannot run on stand-ins, which have no known type or range and break invariants.
_NOT_OF_STAND_INS = (quantize_floats, separate_ranges, check_invariants)
# The most time for the search for more errors, relative to the time up to the first error.
_PATIENCE = 2
# Work relative to that of reading an operation: to trace a layer, to write another operation in
# its place, and to make a quantized layer.
_TRACED, _WRITTEN, _MADE = 3, 5, 6
# The least work of a conversion, in the same unit.
_START = 10


class Exhausted(Exception):
    """The search ends before the last stage."""


class Refused:
    """A stand-in for a layer without an integer form. No pass rewrites it.

    Args:
        node: The call that the stand-in replaces.
    """

    scheme = None
    takes_indices = False
    plain_inputs: tuple[str, ...] = ()
    plain_dtype = None
    shares_inputs = False
    output_specification = None
    makes_operator = True

    def __init__(self, node: Node):
        self.name = node.name
        self._outputs = list(zip(node.shapes, node.dtypes, strict=True))

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs of the call that the stand-in replaces."""
        return [keras.KerasTensor(shape, dtype) for shape, dtype in self._outputs]


class Diagnostics(Runner):
    """Runs passes like `quantize_model`, but continues after errors.

    The first error is the error of `quantize_model`, since both run the same passes until then.
    After it, each layer that a pass refuses is replaced by a stand-in. The search for more errors
    takes at most `_PATIENCE` times the work before the first error. Work is counted in Keras
    operations that are read or made, so that the result does not depend on the machine.

    Attributes:
        errors: The errors that were found.
        work: The work that was done.
    """

    def __init__(self):
        self.errors: list[KerasQatError] = []
        self.work = 0
        self._limit: int | None = None
        self._refused: dict[int, Any] = {}  # by the `id` of operations, which are kept alive

    def run(self, rewrite: Pass, graph: Graph) -> Graph:
        """Runs a pass. Layers that the pass refuses are replaced by stand-ins first.

        Args:
            rewrite: The pass.
            graph: The graph.

        Returns:
            The graph that the pass made, with stand-ins.

        Raises:
            Exhausted: If the pass cannot run past an error, or the work is used up.
            KerasQatError: If an argument is wrong, so that the error is not about a layer.
        """
        function = getattr(rewrite, "func", rewrite)
        self.work = self.work or _START + len(inline_models(graph).nodes)
        if self.errors and function in _NOT_OF_STAND_INS:
            return graph
        if function is make_layers and not self._can_spend(sum(map(_making, _calls(graph)))):
            self._patient(rewrite)(_without_slices(graph))
            raise Exhausted
        while True:
            try:
                made = run_pass(self._patient(rewrite), graph)
            except (UnsupportedLayerError, InvalidGraphError) as error:
                graph = self._past(error, graph)
            except KerasQatError:
                if self.errors:
                    raise Exhausted from None
                raise
            else:
                if function not in (inline_models, *_COSTS):
                    self._spend(_WRITTEN * _new_operations(graph, made))
                return _without_sources(made)

    def report(self, error: KerasQatError) -> None:
        """Adds an error that no pass raised."""
        self.errors.append(error)

    def stand_ins(self, graph: Graph) -> Graph:
        """Returns a graph of only stand-ins, for a conversion that made no layers.

        Args:
            graph: The last graph that was made.
        """
        kept = {
            name: node if isinstance(node.head, Refused) else _stand_in(node)
            for name, node in graph.nodes.items()
            if isinstance(node.head, Refused) or id(node.head) in self._refused
        }
        return dataclasses.replace(graph, nodes=kept, inputs=(), outputs=[], input_structure=[])

    def _patient(self, rewrite: Any) -> Pass:
        """Returns a pass that continues after each node that it refuses, if it can."""
        cost = _COSTS.get(getattr(rewrite, "func", rewrite))
        if cost is None:
            return rewrite
        return functools.partial(rewrite, attempt=functools.partial(self._attempt, cost))

    def _attempt(
        self, cost: Callable[[Node], int], node: Node, make: Callable[[], Replacement]
    ) -> Replacement:
        """Rewrites a node, or returns a stand-in if the node is refused."""
        if isinstance(node.head, Refused):
            return Replacement([node])
        if id(node.head) in self._refused:
            return Replacement([_stand_in(node)])
        self._spend(cost(node))
        try:
            return attempt(node, make)
        except UnsupportedLayerError as error:
            self._note(error, node)
            return Replacement([_stand_in(node)])

    def _spend(self, work: int) -> None:
        """Counts work, and ends the search if the limit is reached."""
        if not self._can_spend(work):
            raise Exhausted
        self.work += work

    def _can_spend(self, work: int) -> bool:
        return self._limit is None or self.work + work <= self._limit

    def _note(self, error: KerasQatError, node: Node | None) -> None:
        """Adds an error. The first error sets the limit of the search."""
        self.errors.append(error_of_user(error, node))
        if self._limit is None:
            self._limit = self.work * (1 + _PATIENCE)
        if node is not None:
            self._refused[id(node.head)] = node.head

    def _past(self, error: KerasQatError, graph: Graph) -> Graph:
        """Returns the graph with stand-ins for the layer that a pass refuses."""
        culprit = graph.nodes.get(error.layer or "")
        is_known = culprit is None or isinstance(culprit.head, Refused) or culprit.is_input
        if is_known and self.errors:
            raise Exhausted  # the error follows from an earlier error about this layer
        self._note(error, culprit)
        if culprit is None or is_known:
            raise Exhausted
        self._spend(len(graph.nodes))
        return _without_culprit(graph, culprit)


def _calls(graph: Graph) -> list[Node]:
    """Returns the nodes that are neither inputs nor stand-ins."""
    calls = (node for node in graph.nodes.values() if not node.is_input)
    return [node for node in calls if not isinstance(node.head, Refused)]


def _making(node: Node) -> int:
    """Returns the work to make a layer for a node, or 0 if no rule matches the node."""
    is_made = isinstance(node.head, QuantizedLayer) or find_rule(node.operations) is not None
    return _MADE if is_made else 0


# The passes that process each layer separately, and their work for a layer.
_COSTS: dict[Any, Callable[[Node], int]] = {
    open_layers: lambda node: _TRACED * inner_layers(node.head),
    make_layers: _making,
}


def _without_slices(graph: Graph) -> Graph:
    """Returns a graph of only the calls that `make_layers` refuses. To refuse takes no time."""
    kept = {node.name: node for node in _calls(graph) if not _making(node)}
    return dataclasses.replace(graph, nodes=kept, inputs=(), outputs=[], input_structure=[])


def _stand_in(node: Node) -> Node:
    """Returns a stand-in for a node, with the same inputs and outputs."""
    return dataclasses.replace(
        node,
        operations=(Refused(node),),
        arguments=(list(node.inputs), {}),
    )


def _without_culprit(graph: Graph, culprit: Node) -> Graph:
    """Returns the graph with stand-ins for all calls of a layer."""
    nodes = [
        _stand_in(node) if node.head is culprit.head else node for node in graph.nodes.values()
    ]
    return graph.replace(nodes, {})


def _without_sources(graph: Graph) -> Graph:
    """Returns the graph with stand-ins without sources, since they are not rewrites."""
    nodes = {
        name: dataclasses.replace(node, sources=()) if isinstance(node.head, Refused) else node
        for name, node in graph.nodes.items()
    }
    return dataclasses.replace(graph, nodes=nodes)


def _new_operations(before: Graph, after: Graph) -> int:
    """Counts the operations that a pass made."""
    known = {id(op) for node in before.nodes.values() for op in node.operations}
    return len({id(op) for node in after.nodes.values() for op in node.operations} - known)
