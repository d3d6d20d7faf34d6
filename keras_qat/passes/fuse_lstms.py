"""Keeps LSTM layers that the target computes in one operator."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras

from keras_qat.graph import Graph, Node
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.registry import users_function
from keras_qat.layers.kernels.lstm import FusedLSTM
from keras_qat.passes.rewriting import rewrite_nodes


def fuse_lstms(graph: Graph) -> Graph:
    """Writes an LSTM as one operator, if the target prefers it to operators for each step.

    Matches: an int8 `LSTM` of a known number of steps that goes forward from states of zero,
    without a mask, dropout or returned states, and with the usual activations.
    Builds: the same LSTM as one operation. Others are unrolled by `open_layers`.
    Why: on microcontrollers UNIDIRECTIONAL_SEQUENCE_LSTM is faster than operators for each step,
    and the file and the working memory are several times smaller.

    Args:
        graph: The graph.

    Returns:
        A graph with fused layers; the graph itself if there was no such LSTM.
    """

    def write(node: Node) -> Callable[..., Any] | None:
        if not _is_fused(graph, node):
            return None
        return lambda x, **_: FusedLSTM(node.head, name=node.head.name)(x)

    return rewrite_nodes(graph, write)


def _is_fused(graph: Graph, node: Node) -> bool:
    """Returns whether one operator computes a node."""
    layer: Any = node.head
    if type(layer) is not keras.layers.LSTM or users_function(layer) is not None:
        return False
    args, kwargs = node.arguments
    given = inspect.signature(layer.call).bind(*args, **kwargs).arguments
    functions = function_name(layer.activation), function_name(layer.recurrent_activation)
    return (
        node.scheme is not None
        and node.scheme.dtype == "int8"
        and given.get("mask") is None
        and given.get("initial_state") is None
        and None not in graph.shape(node.inputs[0])[1:]
        and functions == ("tanh", "sigmoid")
        and not (layer.go_backwards or layer.stateful or layer.return_state)
        and not (layer.dropout or layer.recurrent_dropout)
    )
