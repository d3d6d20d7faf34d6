"""Makes the masks of padded sequences arguments of the layers that take them."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

import keras
from keras import tree

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, Parameter
from keras_qat.graph.graph import Shape, flatten_edges, map_edges
from keras_qat.graph.keras_internals import layers_of
from keras_qat.graph.reading import read_function
from keras_qat.layers import QuantizedLayer
from keras_qat.layers.decompositions.padding_mask import mask_layer
from keras_qat.passes.padding_masks import with_padding_masks
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes

# These compute other values if their inputs have masks.
_MERGES = (keras.layers.Multiply, keras.layers.Maximum, keras.layers.Minimum)
# The mask changes only the statistics of a batch in training.
_INDIFFERENT = (keras.layers.BatchNormalization,)


@dataclasses.dataclass(frozen=True)
class _Mask:
    """A mask that a layer can take.

    Attributes:
        edge: The tensor of the mask.
        shape: Shape of the tensor.
        nodes: The nodes that compute it, if the graph does not have them yet.
    """

    edge: Edge
    shape: Shape
    nodes: tuple[Node, ...] = ()


def connect_masks(graph: Graph) -> Graph:
    """Passes the mask of an `Embedding(mask_zero=True)` or a `Masking` to layers that take masks.

    Matches: layers whose `call` has an argument for masks, after an `Embedding` with `mask_zero`,
    a `Masking`, or a custom layer with `compute_mask`.
    Builds: the comparison that computes the mask, and the argument of the layer. Where no layer
    takes the mask, nothing.
    Why: Keras attaches masks to tensors while a model runs, so they are not edges of its graph.

    Args:
        graph: The graph.

    Returns:
        A graph in which all masks are arguments; the graph itself if there are none.

    Raises:
        UnsupportedLayerError: If a layer inside a custom layer takes the mask.
    """
    graph, masks = with_padding_masks(graph), {}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if not isinstance(node.head, keras.layers.Layer) or isinstance(node.head, QuantizedLayer):
            return None
        given = _given(node, masks)
        masks.update(_made(node, given, masks, rewriting))
        if _ignores_mask(node.head):
            return _without_mask(node)
        if isinstance(node.head, keras.layers.MultiHeadAttention):
            # Keras takes the masks off its inputs.
            for edge in node.inputs:
                masks.pop(edge, None)
        if not given:
            return None
        found = [mask for mask in tree.flatten(list(given.values())) if mask is not None]
        pending = [each for mask in found for each in mask.nodes]
        known = rewriting.graph().nodes
        added = {each.name: each for each in pending if each.name not in known}
        connected = _connected(node, given)
        outputs = [Edge(node.name, i) for i in range(len(node.shapes))]
        return Replacement([*added.values(), connected], outputs)

    return replace_nodes(graph, write)


def _arguments(node: Node) -> Mapping[str, Any]:
    """Returns the arguments of a call by name."""
    args, kwargs = node.arguments
    return inspect.signature(node.head.call).bind(*args, **kwargs).arguments


def _given(node: Node, masks: Mapping[Edge, _Mask]) -> dict[str, Any]:
    """Returns the masks that Keras would pass to a layer, by the name of the argument."""
    if isinstance(node.head, _INDIFFERENT) or not any(edge in masks for edge in node.inputs):
        return {}
    _check_inner(node)
    arguments, known = _arguments(node), inspect.signature(node.head.call).parameters
    tensors = {name: each for name, each in arguments.items() if _holds_tensors(each)}
    names = {f"{name}_mask": name for name in tensors}
    if len(tensors) == 1:
        names = {"mask": next(iter(tensors))}
    found = {
        name: _masks_of(tensors[source], masks)
        for name, source in names.items()
        if name in known and arguments.get(name) is None
    }
    return {name: each for name, each in found.items() if any(tree.flatten(each))}


def _holds_tensors(value: Any) -> bool:
    return any(isinstance(leaf, Edge | Parameter) for leaf in tree.flatten(value))


def _masks_of(structure: Any, masks: Mapping[Edge, _Mask]) -> Any:
    return map_edges(lambda edge: masks.get(edge), structure)


def _check_inner(node: Node) -> None:
    """Raises if a layer inside a custom layer would take the mask."""
    if type(node.head).__module__.startswith("keras.src."):
        return
    inner = layers_of(node.head, include_self=False)
    takers = [each.name for each in inner if _takes_mask(each)]
    if takers:
        raise UnsupportedLayerError(
            "A layer inside a custom layer would take the mask of the padding, which is lost when "
            "the custom layer is traced.",
            layer=node.name,
            received=f"a {type(node.head).__name__} with {takers} on a tensor that has a mask",
            expected="a mask that is an argument",
            fix="Set `mask_zero=False` in the `Embedding`, and pass the mask to the inner layers "
            "as an argument: `ids != 0`.",
        )


def _ignores_mask(layer: Any) -> bool:
    """Returns whether a layer takes a mask only for the layer inside it, which takes none."""
    if not isinstance(layer, keras.layers.TimeDistributed):
        return False
    inner = layers_of(layer.layer, include_self=True)
    return not any(_takes_mask(each) for each in inner if not isinstance(each, keras.Model))


def _without_mask(node: Node) -> Replacement | None:
    """Returns a call without its mask; None if it has none."""
    args, kwargs = node.arguments
    if kwargs.get("mask") is None:
        return None
    arguments = args, {name: each for name, each in kwargs.items() if name != "mask"}
    inputs = tuple(flatten_edges(arguments))
    called = dataclasses.replace(node, arguments=arguments, inputs=inputs)
    return Replacement([called], [Edge(node.name, i) for i in range(len(node.shapes))])


def _takes_mask(layer: Any) -> bool:
    names = inspect.signature(layer.call).parameters
    return not isinstance(layer, _INDIFFERENT) and any(name.endswith("mask") for name in names)


def _made(
    node: Node, given: Mapping[str, Any], masks: Mapping[Edge, _Mask], rewriting: Rewriting
) -> dict[Edge, _Mask]:
    """Returns the masks that Keras attaches to the outputs of a layer."""
    arguments = _arguments(node)
    first = next(iter(arguments.values()))
    previous = given.get("mask") or _masks_of(first, masks)
    if isinstance(arguments.get("mask"), Edge):
        edge = arguments["mask"]
        previous = _Mask(edge, rewriting.shape(edge))
    is_masked = any(tree.flatten(previous))
    if not node.head.supports_masking or not (is_masked or _makes_masks(node.head)):
        return {}
    if isinstance(node.head, _MERGES):
        raise UnsupportedLayerError(
            "Keras combines only the values that no mask hides, which has no integer form here.",
            layer=node.name,
            received=f"a {type(node.head).__name__} of tensors with masks",
            expected="tensors without masks",
            fix="Use the operation instead: `keras.ops.multiply`, `maximum` or `minimum`.",
        )
    return _computed(node, first, previous, rewriting)


def _makes_masks(layer: Any) -> bool:
    is_own = type(layer).__module__.startswith("keras.src.")
    if not is_own or isinstance(layer, keras.layers.Masking):
        return True
    return getattr(layer, "mask_zero", False)


def _computed(node: Node, first: Any, previous: Any, rewriting: Rewriting) -> dict[Edge, _Mask]:
    """Runs the `compute_mask` of a layer on symbolic tensors; that of `Masking` is one layer."""
    graph = rewriting.graph()
    tensors = {edge: _symbol(graph.shape(edge), graph.dtype(edge)) for edge in node.inputs}
    old = {mask.edge: mask for mask in tree.flatten(previous) if mask is not None}
    symbols = {edge: _symbol(mask.shape, "bool") for edge, mask in old.items()}
    inputs = map_edges(tensors.__getitem__, first)
    before = tree.map_structure(lambda mask: mask and symbols[mask.edge], previous)
    if isinstance(node.head, keras.layers.Masking):
        results = [mask_layer(node.head, "mask")(inputs)]
    else:
        results = tree.flatten(node.head.compute_mask(inputs, before))
    sources = {id(symbol): edge for edge, symbol in (*tensors.items(), *symbols.items())}
    made = {}
    for i, result in enumerate(results[: len(node.shapes)]):
        if id(result) in sources:
            made[Edge(node.name, i)] = old[sources[id(result)]]
        elif result is not None:
            known = {**tensors, **symbols}
            made[Edge(node.name, i)] = _traced(node, result, known, old, rewriting)
    return made


def _symbol(shape: Any, dtype: str) -> Any:
    return keras.Input(batch_shape=shape, dtype=dtype)


def _traced(
    node: Node,
    result: Any,
    symbols: Mapping[Edge, Any],
    old: Mapping[Edge, _Mask],
    rewriting: Rewriting,
) -> _Mask:
    """Reads the operations that compute a mask."""
    inner = read_function(keras.Function(list(symbols.values()), result), node.name)
    bound = dict(zip(map(Edge, inner.inputs), symbols, strict=True))
    nodes = [each for mask in old.values() for each in mask.nodes]
    for child in inner.nodes.values():
        if not child.is_input:
            name = rewriting.free_name(f"{node.name}_mask")
            nodes.append(dataclasses.replace(child.rewired(bound), name=name))
            bound[Edge(child.name)] = Edge(name)
    return _Mask(bound[inner.output_edges[0]], tuple(result.shape), tuple(nodes))


def _connected(node: Node, given: Mapping[str, Any]) -> Node:
    """Returns a call with masks as arguments."""
    args, kwargs = node.arguments
    named = {
        name: tree.map_structure(lambda mask: mask and mask.edge, each)
        for name, each in given.items()
    }
    arguments = args, {**kwargs, **named}
    return dataclasses.replace(node, arguments=arguments, inputs=tuple(flatten_edges(arguments)))
