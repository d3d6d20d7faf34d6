"""Makes a quantized model for another target, with its weights and ranges."""

from __future__ import annotations

import dataclasses
from typing import Any

from keras_qat.graph import Graph, Node, build_model, read_model
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.core.drop_in import copy_by_path, copy_trainable, remade
from keras_qat.layers.core.registry import find_rule
from keras_qat.passes.choose_kernels import choose_kernels
from keras_qat.passes.make_layers import make_layer, runs
from keras_qat.scheme import get_scheme
from keras_qat.targets import Target, get_target


def retargeted(model: QuantizedModel, target: str) -> QuantizedModel:
    """Returns a quantized model for another target.

    Layers that look up a function become the operator that the target has for it, and layers whose
    operator the target lacks become lookups. All other layers stay the same.

    Args:
        model: A quantized model, calibrated or trained. It is not changed.
        target: Name of the target.

    Raises:
        InvalidTargetError: If there is no profile of the target.

    Example:
    >>> import keras, keras_qat
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="gelu")])
    >>> qat = keras_qat.quantize_model(model, target="litert", default_ranges_stats=(-4, 4))
    >>> [type(layer).__name__ for layer in retargeted(qat, "tflite-micro").layers[2:]]
    ['QDense', 'QLookup']
    """
    graph, profile = read_model(model), get_target(target)
    made: dict[int, Any] = {}
    for node in graph.nodes.values():
        if not node.is_input and id(node.head) not in made:
            made[id(node.head)] = _layer_for(node, profile)
    nodes = {
        name: node
        if node.is_input
        else dataclasses.replace(node, operations=(made[id(node.head)],))
        for name, node in graph.nodes.items()
    }
    result = build_model(
        choose_kernels(dataclasses.replace(graph, nodes=nodes), profile.name),
        QuantizedModel,
        after_call=lambda node: _copy_state(graph, node),
    )
    for name in ("rewrite_log", "origins", "kept_weights", "calibration_outliers"):
        setattr(result, name, getattr(model, name))
    return result


def _layer_for(node: Node, target: Target) -> QuantizedLayer:
    """Makes the layer that computes the function of a layer on a target."""
    layer = node.head
    sources = (layer.to_keras() or ()) if _is_function(layer) else ()
    if layer.scheme is None or len(sources) != 1 or find_rule(tuple(sources)) is None:
        return remade(type(layer), layer)
    # The layer's own scheme may have wider weights than the scheme of that name.
    scheme = get_scheme(layer.scheme.name)
    source = dataclasses.replace(node, operations=tuple(sources), scheme=scheme)
    other = make_layer(source, lookup=False, target=target)
    is_other = type(other) is not type(layer) and runs(target, other)
    return other if is_other else remade(type(layer), layer)


def _is_function(layer: QuantizedLayer) -> bool:
    """Returns whether a layer computes a function of one tensor, without weights of its own."""
    observed = {id(each) for own in layer.observers().values() for each in own.variables}
    return layer.scheme is not None and all(id(each) in observed for each in layer.variables)


def _copy_state(graph: Graph, node: Node) -> None:
    """Copies weights and ranges to a built layer."""
    source = graph.nodes[node.name].head
    if isinstance(source, QuantizedLayer):
        copy_by_path(source, node.head)
        copy_trainable(source, node.head)
