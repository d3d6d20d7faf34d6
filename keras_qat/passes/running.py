"""Runs passes, checks the graph after each one, and records what it rewrote."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from keras_qat.errors import InvalidGraphError, KerasQatError
from keras_qat.graph import Graph
from keras_qat.graph.statements import first_line
from keras_qat.passes.provenance import (
    Rewrite,
    check_provenance,
    error_of_user,
    rewrites_of,
    untouched,
)

Pass = Callable[[Graph], Graph]


def name_of(rewrite: Pass) -> str:
    """Returns the name of a pass, which may be a `functools.partial` of a function."""
    return getattr(rewrite, "func", rewrite).__name__


def run_pass(rewrite: Pass, graph: Graph) -> Graph:
    """Runs a pass, and checks the graph that it makes.

    Args:
        rewrite: The pass.
        graph: The graph.

    Returns:
        The graph that the pass made. The `sources` of its nodes are nodes of `graph`.

    Raises:
        InvalidGraphError: If the pass fails, or leaves the graph inconsistent.
    """
    name = name_of(rewrite)
    try:
        made = rewrite(untouched(graph)).check(after=name)
        check_provenance(name, graph, made)
        return made
    except KerasQatError:
        raise
    except Exception as error:  # a defect here, or in a function that the user registered
        raise InvalidGraphError(
            f"The stage '{name}' fails on this model.",
            layer=graph.name,
            received=f"{type(error).__name__}: {first_line(error)}",
            fix="This is a defect of the package, unless a function or layer that you registered "
            "raised it: please report it with the model.",
        ) from error


class Runner:
    """Runs the passes of a compilation, and raises the first error.

    Attributes:
        errors: The errors that did not end the compilation. There are none here.
    """

    errors: Sequence[KerasQatError] = ()

    def run(self, rewrite: Pass, graph: Graph) -> Graph:
        """Runs a pass, see `run_pass`. Errors about a node name a layer of the user's model."""
        try:
            return run_pass(rewrite, graph)
        except KerasQatError as error:
            raise error_of_user(error, graph.nodes.get(error.layer or "")) from error.__cause__

    def report(self, error: KerasQatError) -> None:
        """Raises an error that no pass raised."""
        raise error


def run_pipeline(graph: Graph, passes: Sequence[Pass]) -> tuple[Graph, tuple[Rewrite, ...]]:
    """Runs passes in order, checking the graph after each.

    Args:
        graph: The graph.
        passes: The passes.

    Returns:
        The rewritten graph, and the rewrites.

    Raises:
        InvalidGraphError: If a pass fails, or leaves the graph inconsistent.
    """
    log: list[Rewrite] = []
    for rewrite in passes:
        before, graph = graph, run_pass(rewrite, graph)
        log += rewrites_of(name_of(rewrite), before, graph)
    return graph, tuple(log)
