"""Finds the rewrite that `rewrites` leaves out and that a layer needs for an integer form."""

from __future__ import annotations

from collections.abc import Sequence

from keras_qat.errors import KerasQatError, UnsupportedLayerError
from keras_qat.graph import Graph
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.provenance import rewrites_of
from keras_qat.passes.running import Pass, name_of, run_pass
from keras_qat.passes.schemes import annotate_schemes


def check_left_out(graph: Graph, rewrites: Sequence[str], left_out: Sequence[Pass]) -> None:
    """Raises if a layer has no integer form because a rewrite was left out.

    Args:
        graph: The graph after some of the rewrites of the pipeline.
        rewrites: The names of these rewrites.
        left_out: The other rewrites, in order.

    Raises:
        UnsupportedLayerError: With the layer, and the rewrite that would take it.
    """
    try:
        make_layers(annotate_schemes(graph, {}, None))
    except UnsupportedLayerError as error:
        name = _rewrite_for(error.layer, graph, left_out)
        if name is None:
            raise
        raise UnsupportedLayerError(
            f"This layer has no integer form without the rewrite '{name}', which was left out.",
            layer=error.layer,
            received=f"rewrites={list(rewrites)}",
            fix=f"Add '{name}' to `rewrites`; docs/rewrites.md explains it.",
        ) from error


def _rewrite_for(layer: str | None, graph: Graph, left_out: Sequence[Pass]) -> str | None:
    """Returns the first left-out rewrite that takes a layer."""
    for rewrite in left_out:
        name = name_of(rewrite)
        try:
            changes = rewrites_of(name, graph, run_pass(rewrite, graph))
        except KerasQatError:
            continue  # The error is about another layer, which this rewrite does not take either.
        if any(layer in change.layers_in for change in changes):
            return name
    return None
