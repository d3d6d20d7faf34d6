"""Removes layers that the user does not want in the quantized model."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from keras_qat.errors import InvalidModelError
from keras_qat.graph import Graph, Node
from keras_qat.graph.graph import Shape
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes


def remove_layers(graph: Graph, names: Sequence[str]) -> Graph:
    """Connects the consumers of a layer to the layer's input.

    Matches: the layers of these names, at each of their calls.
    Builds: nothing.
    Why: the model may keep its accuracy without a layer that the target has no operator for.

    Args:
        graph: The graph.
        names: Names of layers.

    Returns:
        A graph without these layers. Its function is another one.

    Raises:
        InvalidModelError: If there is no such layer, or its input cannot replace its output.
    """
    names = [names] if isinstance(names, str) else list(names)
    found = {node.head.name for node in graph.nodes.values()}
    for name in names:
        if name not in found:
            raise _unknown(name, sorted(found))

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        if node.head.name not in names:
            return None
        _check_removable(node, [rewriting.shape(edge) for edge in node.inputs])
        return Replacement([], node.inputs)

    return replace_nodes(graph, write)


def _check_removable(node: Node, inputs: list[Shape]) -> None:
    """Raises if the input of a node cannot replace its output."""
    if inputs == list(node.shapes):
        return
    raise InvalidModelError(
        "This layer cannot be left out: its input cannot replace its output.",
        layer=node.name,
        received=f"input shape(s) {inputs}, output shape(s) {list(node.shapes)}",
        expected="one input, of the shape of the output",
        fix="Take it out of `skip_layers`, and replace it in the model's definition.",
    )


def _unknown(name: str, found: list[str]) -> InvalidModelError:
    close = difflib.get_close_matches(name, found, n=3)
    return InvalidModelError(
        "There is no layer of this name to leave out.",
        layer=name,
        expected=f"the name of a layer, such as {close or found[:3]}",
        fix="`model.summary()` lists the names. Names of nested models are valid too.",
    )
