"""The record of the rewrites of a pass, read from the sources of nodes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from keras_qat.errors import InvalidGraphError, KerasQatError
from keras_qat.graph import Graph, Node, label_of
from keras_qat.graph.reading import is_model
from keras_qat.layers.elementwise.functions import function_of

_CHANGING = frozenset({"drop_bias", "remove_layers", "substitute_activations"})


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """One rewrite of one group of nodes.

    Attributes:
        rewrite: Name of the pass.
        layers_in: Names of the operations that were replaced.
        layers_out: Names of the nodes that replace them.
        functions: The element-wise function and its replacement, such as `"softplus -> relu"`.
        origins: Names of the operations of the user's model that were rewritten.
    """

    rewrite: str
    layers_in: tuple[str, ...]
    layers_out: tuple[str, ...]
    functions: str = ""
    origins: tuple[str, ...] = ()

    @property
    def changes_function(self) -> bool:
        """Whether the function of the model changes. The user enabled this rewrite by name."""
        return self.rewrite in _CHANGING

    def __str__(self):
        functions = f" ({self.functions})" if self.functions else ""
        names = f"{' + '.join(self.layers_in)} -> {' + '.join(self.layers_out)}"
        return f"{self.rewrite}: {names}{functions}"


def error_of_user(error: KerasQatError, node: Node | None) -> KerasQatError:
    """Returns an error about a node, so that it names a layer of the user's model.

    Args:
        error: The error. If it is about another node, it does not change.
        node: The node.
    """
    if node is None or error.layer != node.name or node.user_name == node.name:
        return error
    return error.of_layer(node.user_name)


def untouched(graph: Graph) -> Graph:
    """Returns the graph as the source of a pass: each node is its own source.

    Args:
        graph: A graph that another pass may have made.
    """
    if not any(node.sources for node in graph.nodes.values()):
        return graph
    nodes = {name: dataclasses.replace(node, sources=()) for name, node in graph.nodes.items()}
    return dataclasses.replace(graph, nodes=nodes)


def check_provenance(name: str, before: Graph, after: Graph) -> None:
    """Checks that each node of a pass's output names its sources.

    Args:
        name: Name of the pass.
        before: The graph that the pass took.
        after: The graph that it returned.

    Raises:
        InvalidGraphError: If a node is new, or has other operations, and has no sources; or if a
            source or an origin is not one of `before`.
    """
    known = {origin for node in before.nodes.values() for origin in node.origins}
    for node in after.nodes.values():
        parts = [before.nodes.get(source) for source in node.sources]
        old = before.nodes.get(node.name)
        is_left = old is not None and old.operations == node.operations
        # The operations of a nested model become separate origins.
        is_inner = any(part is not None and is_model(part.head) for part in parts)
        if (
            None in parts
            or not (parts or is_left)
            or not (is_inner or known.issuperset(node.origins))
        ):
            raise InvalidGraphError(
                f"After '{name}' a node does not name its sources.",
                layer=node.name,
                received=f"sources {node.sources}, origins {node.origins}",
            )


def rewrites_of(name: str, before: Graph, after: Graph) -> list[Rewrite]:
    """Lists what a pass rewrote.

    Args:
        name: Name of the pass.
        before: The graph that it took.
        after: The graph that it returned.

    Returns:
        One `Rewrite` for each set of nodes that was replaced.
    """
    found = [_rewrite(name, before, after, *group) for group in _groups(after)]
    used = {source for node in after.nodes.values() for source in node.sources}
    gone = [key for key in before.nodes if key not in used and key not in after.nodes]
    return found + [_rewrite(name, before, after, {key}, []) for key in gone]


def _groups(after: Graph) -> Iterator[tuple[set[str], list[str]]]:
    """Yields disjoint groups: a set of sources, and the nodes that replace them."""
    made = {key: node.sources for key, node in after.nodes.items() if node.sources}
    # A source may stay unchanged, beside a node that was split off.
    kept = {source for sources in made.values() for source in sources} & after.nodes.keys()
    made |= {key: (key,) for key in kept - made.keys()}
    groups: dict[str, tuple[set[str], list[str]]] = {}
    for key in (key for key in after.nodes if key in made):
        sources, names = set(made[key]), [key]
        for group in {id(g): g for s in made[key] if (g := groups.get(s))}.values():
            sources |= group[0]
            names += group[1]
        groups |= dict.fromkeys(sources, (sources, names))
    yield from {id(group): group for group in groups.values()}.values()


def _rewrite(
    name: str, before: Graph, after: Graph, sources: set[str], names: Sequence[str]
) -> Rewrite:
    """Makes the entry of a rewrite in the log."""
    old = [node for key, node in before.nodes.items() if key in sources]
    new = [node for key, node in after.nodes.items() if key in names]
    # Nodes with the name of a source come first, then nodes that were split off.
    new.sort(key=lambda node: node.name not in sources)
    origins = dict.fromkeys(origin for node in old for origin in node.origins)
    layers_in, layers_out = (tuple(node.name for node in nodes) for nodes in (old, new))
    return Rewrite(name, layers_in, layers_out, _functions(old, new), tuple(origins))


def _functions(before: Sequence[Node], after: Sequence[Node]) -> str:
    """Returns an element-wise function and its replacement, or "" for other operations."""
    function = function_of(before[0].head) if len(before) == 1 and after else None
    # The last operation of a replacement has the node's name.
    made = [label_of(node.head).removeprefix("ops.") for node in (*after[1:], *after[:1])]
    return "" if function is None else f"{function.name} -> {' + '.join(made)}"
