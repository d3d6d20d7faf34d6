"""Writes associative scans as a few calls of their function on whole sequences."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops, tree

from keras_qat.errors import KerasQatError, UnsupportedLayerError
from keras_qat.graph import Graph, Node, operation_named
from keras_qat.passes.canonical.edits import without_unused
from keras_qat.passes.rewriting import rewrite_nodes

_SCAN = operation_named("AssociativeScan")


def write_associative_scans(graph: Graph) -> Graph:
    """Writes `ops.associative_scan` of a known length as calls of its function.

    Matches: `ops.associative_scan` along another axis than the batch.
    Builds: for n steps, about log2(n) calls of the function. The first combines each step with the
    step before, the second each result with the result two steps before, and so on. Results of
    steps that have none before stay as they are, in a concatenation.
    Why: a file has no loops over integers. Each result is rounded log2(n) times, not n times.

    Args:
        graph: The graph.

    Returns:
        A graph without these operations.

    Raises:
        UnsupportedLayerError: If the length is unknown, or the function cannot be traced.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        if node.is_input or not _SCAN(node.head):
            return None
        return functools.partial(_scanned, node)

    written = rewrite_nodes(graph, write)
    return written if written is graph else without_unused(written)


def _scanned(node: Node, f: Callable[[Any, Any], Any], elems: Any) -> Any:
    """Applies a scan to symbolic tensors."""
    first = tree.flatten(elems)[0]
    axis = node.head.axis % len(first.shape)
    length = first.shape[axis]
    if axis == 0 or length is None:
        raise UnsupportedLayerError(
            "An associative scan is written as a fixed number of calls of its function.",
            layer=node.name,
            received=f"axis={axis} of a tensor of shape {tuple(first.shape)}",
            expected="an axis of known length, which is not the batch",
            fix="Give the model's input a fixed shape, and scan along its steps: `axis=1`.",
        )
    result, distance = elems, 1
    while distance < length:
        result = _combined(node, f, result, axis, distance)
        distance *= 2
    _check_connected(node, tree.flatten(elems), tree.flatten(result))
    return result


def _check_connected(node: Node, elems: list[Any], result: list[Any]) -> None:
    """Raises if a function depends on other tensors, such as weights of the layer around it."""
    inputs = {id(each): each for each in elems if isinstance(each, keras.KerasTensor)}
    try:
        keras.Function(list(inputs.values()), result)
    except ValueError as error:
        raise UnsupportedLayerError(
            "The function of an associative scan depends on other tensors than its arguments.",
            layer=node.name,
            received="a function that takes a weight, or a tensor of the layer around it",
            expected="a function of two results alone",
            fix="Make the tensor an element of the scan: `ops.broadcast_to(w, ops.shape(x))`.",
        ) from error


def _combined(node: Node, f: Callable[..., Any], elems: Any, axis: int, distance: int) -> Any:
    """Combines each result with the result at a distance before, or after in a reversed scan."""
    start, end = slice(None, -distance), slice(distance, None)
    is_reversed = node.head.reverse
    earlier, later = (end, start) if is_reversed else (start, end)
    alone = slice(-distance, None) if is_reversed else slice(None, distance)

    def part(key: slice) -> Any:
        """Returns a slice of each tensor along the axis of the scan."""
        place = (*(slice(None) for _ in range(axis)), key)
        return tree.map_structure(lambda x: x[place], elems)

    def joined(y: Any, kept: Any) -> Any:
        """Puts the element that needs no combining back at its end."""
        return ops.concatenate([y, kept] if is_reversed else [kept, y], axis=axis)

    try:
        return tree.map_structure(joined, f(part(earlier), part(later)), part(alone))
    except KerasQatError:
        raise
    except Exception as error:  # the function of the user may raise anything
        raise UnsupportedLayerError(
            "The function of an associative scan cannot be traced.",
            layer=node.name,
            received=f"{type(error).__name__}: {error}",
            expected="a function made of `keras.ops` that returns what it takes",
            fix="Write the scan as a loop over the steps: `for i in range(length): ...`.",
        ) from error
