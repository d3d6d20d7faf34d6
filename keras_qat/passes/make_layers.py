"""Turns each node into one quantized layer."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import keras
from keras import tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, Parameter
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.core.activation_names import FUSED_CODES, Activation, function_name
from keras_qat.layers.core.drop_in import remade
from keras_qat.layers.core.moves_values import moves_plain, takers_of_values
from keras_qat.layers.core.registry import find_rule, refusal
from keras_qat.layers.kernels.input_affine import without_affine
from keras_qat.passes.rewriting import Attempt, Replacement, attempt
from keras_qat.quantizers import Shared
from keras_qat.targets import Target


def make_layers(
    graph: Graph,
    attempt: Attempt = attempt,
    lookup: bool = False,
    target: Target | None = None,
) -> Graph:
    """Replaces each chain of Keras operations by the layer that its rule makes of it.

    Matches: every node. Calls of the same operations become calls of the same layer. Operations
    without weights share a layer if their calls have the same arguments.
    Builds: quantized layers, or float layers of the same classes where the scheme is None. Inputs
    of the model become float32, except ids that are looked up, which are integers.
    Why: after this pass each layer is one LiteRT operator, or a fixed small group of operators.

    Args:
        graph: A graph of Keras operations with schemes.
        attempt: Runs a function that makes a layer, and may return something else if it fails.
        lookup: Whether activations are looked up where not every target has an operator for them.
        target: The target. Activations are looked up if it has no operator for them. None for no
            particular target.

    Returns:
        A graph of `QuantizedLayer`s, with the nodes' names.

    Raises:
        UnsupportedLayerError: If no rule takes an operation, with the reason if it is known, or if
            an operation on real values takes plain integers or booleans.
    """
    made: dict[Hashable, QuantizedLayer] = {}
    make_one = functools.partial(make_layer, lookup=lookup, target=target)
    nodes = {}
    for name, node in graph.nodes.items():
        if node.is_input:
            nodes[name] = node
            continue
        make = functools.partial(_make, node, _identity(graph, node), made, make_one)
        [nodes[name]] = (each.made_of(node) for each in attempt(node, make).nodes)
    return _with_types(dataclasses.replace(graph, nodes=nodes))


def _with_types(graph: Graph) -> Graph:
    """Returns the graph with the type of each tensor: float32, or that of plain numbers."""
    consumers, nodes = graph.consumers(), {}
    for name, node in graph.nodes.items():
        taken = [nodes[edge.node].dtypes[edge.index] for edge in node.inputs]
        if node.is_input:
            dtype = _type_of_input(graph, name, consumers)
        elif moves_plain(node) and len(set(taken)) == 1:
            dtype = taken[0]
        else:
            _check_plain(graph, node, taken)
            dtype = node.head.plain_dtype or "float32"
        # A layer makes one tensor. Only calls that `check` replaced by stand-ins have several.
        nodes[name] = dataclasses.replace(node, dtypes=(dtype, *node.dtypes[1:]))
    return dataclasses.replace(graph, nodes=nodes)


def _check_plain(graph: Graph, node: Node, taken: Sequence[str]) -> None:
    """Raises if a layer that computes with real values takes computed integers or booleans."""
    known, kinds = _plain_kinds(node), [_kind(dtype) for dtype in taken]
    is_selection = isinstance(node.head.output_specification, Shared) and "bool" in known
    for i, (edge, dtype) in enumerate(zip(node.inputs, taken, strict=True)):
        is_computed = isinstance(node.head, QuantizedLayer) and not graph.nodes[edge.node].is_input
        is_mixed = node.head.shares_inputs and len(set(kinds)) > 1
        is_taken = kinds[i] in known and not is_mixed and not (is_selection and i)
        if is_computed and kinds[i] != "float" and not is_taken:
            raise UnsupportedLayerError(
                "The operation computes with real values, and has no form for plain numbers here.",
                layer=node.name,
                received=f"the output of '{edge}', of type {dtype}",
                expected="real values",
                fix="Compare, move or look up integers, or return them as an output of the model. "
                'Make real values of booleans with `ops.cast(condition, "float32")`.',
            )


def _kind(dtype: str) -> str:
    return "bool" if dtype == "bool" else "int" if "int" in dtype else "float"


def _plain_kinds(node: Node) -> set[str]:
    """Returns the kinds of plain numbers that a layer takes: "int", "bool" or both."""
    return {*node.head.plain_inputs, *(("int",) if node.head.takes_indices else ())}


def _type_of_input(graph: Graph, name: str, consumers: Mapping[Edge, Sequence[Node]]) -> str:
    """Returns the type of an input: that of ids, that of plain numbers to compare, or float32."""
    own, edge = graph.nodes[name].dtypes[0], Edge(name)
    if any(node.head.takes_indices for node in consumers.get(edge, ())):
        return "int32" if "float" in own else own
    kind = "bool" if own == "bool" else "int" if graph.is_plain(edge) else "float"
    takers = list(takers_of_values(consumers, edge))
    return own if takers and all(kind in _plain_kinds(node) for node in takers) else "float32"


def _identity(graph: Graph, node: Node) -> Hashable:
    """The key of a node's layer. A layer without weights may depend on the sizes of its inputs."""
    has_weights = any(getattr(operation, "variables", ()) for operation in node.operations)
    leaves = [leaf for leaf in tree.flatten(node.arguments) if isinstance(leaf, Parameter)]
    trained = tuple(id(leaf) for leaf in leaves if leaf.trainable)
    call = trained if has_weights or trained else (graph.signature(node), node.shapes)
    return *map(id, node.operations), *call


def _make(
    node: Node,
    key: Hashable,
    made: dict[Hashable, QuantizedLayer],
    make_one: Callable[[Node], QuantizedLayer],
) -> Replacement:
    """Returns a call of the quantized layer, which calls of a shared layer share."""
    if key not in made:
        made[key] = make_one(node)
    edges = list(node.inputs)
    call = dataclasses.replace(
        node,
        operations=(made[key],),
        arguments=((edges[0] if len(edges) == 1 else edges,), {}),
    )
    return Replacement([call])


def make_layer(node: Node, lookup: bool, target: Target | None) -> QuantizedLayer:
    """Makes the quantized layer of a node.

    Args:
        node: The node of Keras operations.
        lookup: Whether an activation is looked up where not every target has an operator for it.
        target: The target; None for no particular target.

    Raises:
        UnsupportedLayerError: If no rule takes the operations.
    """
    entry = find_rule(node.operations)
    kind = type(node.head) if entry is None else entry.layer
    if not issubclass(kind, QuantizedLayer) or not _can_fuse_its_own(kind, node):
        raise _without_slice(node)
    if node.scheme is not None:
        kind.checked_scheme(node.scheme, node.name)
    if entry is not None:
        layer = (kind.lookup_from_match if lookup else kind.from_match)(node, node.scheme)
        if target is not None and not runs(target, layer):
            layer = kind.lookup_from_match(node, node.scheme)
        layer.dtype_policy = "float32"  # half precision cannot represent all integers
        _check_operators(node, layer)
        if type(node.head) is not layer.keras_class and _is_without_weights(node):
            layer.keras_layer = _serialized(node)
        return layer
    return remade(kind, node.head, name=node.name, scheme=node.scheme)


def runs(target: Target, layer: QuantizedLayer) -> bool:
    """Returns whether a target has the operators of a layer; floats are left to the target."""
    scheme = layer.scheme
    if scheme is None:
        return True
    own = {*layer.operators} - {*layer.int8_operators}
    return all(target.runs(code, scheme.dtype) for code in own)


def _check_operators(node: Node, layer: QuantizedLayer) -> None:
    """Raises if a layer's operators do not support the type of its scheme."""
    scheme = layer.scheme
    operators = {*layer.operators} - {*layer.int8_operators}
    missing = sorted(() if scheme is None else scheme.missing_operators & operators)
    if scheme is not None and missing:
        raise UnsupportedLayerError(
            f"{missing[0]} has no exact {scheme.dtype} form in LiteRT's reference kernels.",
            layer=node.name,
            received=f"scheme='{scheme.name}', for a {_described(node.head)}",
            expected="an operator that supports the type of the scheme",
            fix='Quantize the model with scheme="int8".',
        )


def _can_fuse_its_own(kind: type[QuantizedLayer], node: Node) -> bool:
    """Returns whether LiteRT fuses an `activation` argument that was not split off."""
    head = without_affine(node.operations)[0]
    return not kind.takes_activation or function_name(head.activation) in FUSED_CODES


def _is_without_weights(node: Node) -> bool:
    """Returns whether a node is one of Keras's own layers, given by its configuration alone."""
    is_own = type(node.head).__module__.startswith("keras.src.layers")
    is_own = is_own or type(node.head) is Activation
    return is_own and len(node.operations) == 1 and not node.head.variables


def _serialized(node: Node) -> dict[str, Any]:
    """Returns one of Keras's own layers in serialized form, under the name of the node."""
    head = node.head
    if type(head) is Activation:
        head = keras.layers.Activation(head.activation, dtype=head.dtype_policy)
    serialized = keras.saving.serialize_keras_object(head)
    serialized["config"]["name"] = node.name  # calls of one layer may become several
    return serialized


def _without_slice(node: Node) -> UnsupportedLayerError:
    """Makes the error for a node that no rule matches."""
    refused = refusal(node.head)
    if refused is not None:
        return UnsupportedLayerError(
            refused.reason,
            layer=node.name,
            received=_described(node.head),
            expected="a layer that LiteRT computes in integers",
            fix=refused.fix,
        )
    kind = "layer" if isinstance(node.head, keras.layers.Layer) else "operation"
    return UnsupportedLayerError(
        f"This {kind} has no integer form here.",
        layer=node.name,
        received=_described(node.head),
        expected="one of the layers in docs/supported.md",
        fix="Replace it by these layers, or write `@keras_qat.register` above a subclass of "
        "`keras_qat.layers.QuantizedLayer` for it (CONTRIBUTING.md has a worked example).",
    )


def _described(operation) -> str:
    """Returns the operation's class, with the arguments that may keep slices from taking it."""
    names = ("activation", "axis", "max_value", "negative_slope", "threshold")
    found = {name: getattr(operation, name) for name in names if hasattr(operation, name)}
    shown = [
        f"{name}={getattr(value, '__name__', value)}"
        for name, value in found.items()
        if value is not None
    ]
    return f"{type(operation).__name__}({', '.join(shown)})"
