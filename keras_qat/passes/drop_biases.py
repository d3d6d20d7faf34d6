"""Removes the biases of layers, for models whose file must have no bias."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from keras_qat.graph import Edge, Graph, Node
from keras_qat.layers.core.activation_names import function_name
from keras_qat.layers.core.drop_in import build_like, copy_by_path, quiet_config, remade
from keras_qat.layers.kernels.batch_normalization import BATCH_NORM
from keras_qat.passes.rewriting import Replacement, Rewriting, replace_nodes


def drop_bias(graph: Graph) -> Graph:
    """Rewrites layers with a bias as layers without one. Runs only if `rewrites` names it.

    Matches: a built layer of Keras, or of this package, with `use_bias=True` or `bias_axes`.
    Builds: the layer with `use_bias=False` and copies of its other weights, under its name. If
    the only consumer of a linear layer is a batch normalization, the moving mean absorbs the
    bias, and the function stays the same. In all other cases the function changes: train after it.
    Why: some targets do not support biases of 32 bits. A batch normalization or a constant that
    is folded into a layer still becomes a bias in the file. To avoid that bias too, remove the
    operation with `skip_layers`.

    Args:
        graph: The graph.

    Returns:
        A graph of layers without biases; the graph itself if none had one.
    """
    heads = {id(node.head): node.head for node in graph.nodes.values() if _has_bias(node.head)}
    made = {key: _without_bias(layer) for key, layer in heads.items()}
    norms = _normalizations(graph, heads)
    made |= {id(norm): _shifted(norm, heads[key].bias) for key, norm in norms.items()}
    takes_up = {id(norm) for norm in norms.values()}

    def write(node: Node, rewriting: Rewriting) -> Replacement | None:
        del rewriting
        if id(node.head) not in made:
            return None
        changed = dataclasses.replace(node, operations=(made[id(node.head)],))
        layers = [graph.nodes[node.inputs[0].node]] if id(node.head) in takes_up else []
        return Replacement([changed], beside=layers)

    return replace_nodes(graph, write)


def _has_bias(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.Layer) or not layer.built:
        return False
    is_known = type(layer).__module__.startswith(("keras.", "keras_qat."))
    return is_known and bool(getattr(layer, "use_bias", False) or getattr(layer, "bias_axes", None))


def _without_bias(layer: Any) -> Any:
    """Makes the layer without its bias. A batch normalization in the layer absorbs the bias."""
    config = quiet_config(layer)
    config |= {"bias_axes": None} if "bias_axes" in config else {"use_bias": False}
    if "activation" in config:
        config["activation"] = layer.activation  # Keras cannot make a lambda from a configuration
    made = type(layer).from_config(config)
    build_like(made, layer)
    copy_by_path(layer, made)
    norm: Any = getattr(made, "batch_normalization", None)
    if type(norm) is keras.layers.BatchNormalization:
        norm.moving_mean.assign(norm.moving_mean - layer.bias)
    return made


def _shifted(norm: Any, bias: Any) -> Any:
    """Makes a batch normalization that absorbs the bias of the layer before it."""
    made = remade(type(norm), norm)
    build_like(made, norm)
    copy_by_path(norm, made)
    made.moving_mean.assign(norm.moving_mean - bias)
    return made


def _normalizations(graph: Graph, heads: dict[int, Any]) -> dict[int, Any]:
    """Returns the batch normalization that takes only a layer's output, by the layer's `id`."""
    consumers, outputs = graph.consumers(), set(graph.output_edges)
    calls: dict[int, list[Edge]] = {}
    for node in graph.nodes.values():
        calls.setdefault(id(node.head), []).append(Edge(node.name))
    found = {}
    for key, layer in heads.items():
        pairs = [(edge, node) for edge in calls[key] for node in consumers.get(edge, ())]
        takers = [node.head for _, node in pairs]
        norm = takers[0] if takers else None
        if len({id(each) for each in takers}) != 1 or outputs.intersection(calls[key]):
            continue
        if not all(graph.nodes[edge.node].is_like(node) for edge, node in pairs):
            continue
        if len(takers) == len(calls[key]) == len(calls[id(norm)]) and _takes_up(norm, layer):
            found[key] = norm
    return found


def _takes_up(norm: Any, layer: Any) -> bool:
    """Returns whether a normalization subtracts the bias of the layer before, by channel."""
    is_last = getattr(layer, "data_format", "channels_last") == "channels_last"
    is_linear = function_name(getattr(layer, "activation", None)) == "linear"
    bias, own = getattr(layer, "bias", None), getattr(layer, "batch_normalization", None)
    if type(norm) is not keras.layers.BatchNormalization or bias is None or own is not None:
        return False
    is_same = tuple(bias.shape) == tuple(norm.moving_mean.shape)
    return is_last and is_linear and is_same and BATCH_NORM(norm)
