"""clone_model, quantize_model and calibrate: what a user calls before training."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.calibration import calibrate
from keras_qat.errors import InvalidModelError
from keras_qat.graph import Edge, Graph, build_model
from keras_qat.graph.subclassed import read_any_model
from keras_qat.layers import QuantizedLayer, QuantizedModel
from keras_qat.layers.weighted import assign_copy
from keras_qat.passes import Rewrite, run_pipeline, select_rewrites
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.quantize_inputs import quantize_inputs
from keras_qat.passes.remove_layers import remove_layers
from keras_qat.passes.separate_ranges import separate_ranges
from keras_qat.quantizers import QuantDelay
from keras_qat.scheme import Scheme, get_scheme


def clone_model(
    model: keras.Model,
    *,
    rewrites: Sequence[str] | None = None,
    skip_layers: Sequence[str] = (),
    input_tensors: Any = None,
) -> keras.Model:
    """Rewrites a model into a topology fit for quantization, in float, with its weights.

    Nested models are opened, batch normalization and activations become part of the layer
    before them, what does nothing is dropped. The function is preserved: nothing is quantized.

    Args:
        model: A built Keras model, functional, sequential or subclassed. It is not changed.
        rewrites: Names of the rewrites to apply, see `docs/rewrites.md`; None for all. They are
            applied in the order of the pipeline.
        skip_layers: Names of layers to leave out, of nested models too. Each must have one input
            of the shape of its output. This changes the function.
        input_tensors: Keras tensors to build the clone upon, in the structure of the model's
            inputs; None for new inputs like the model's.

    Returns:
        A functional `keras.Model` of `keras_qat` layers that trains and saves like any other.
        Its `rewrite_log` lists what was rewritten.

    Raises:
        InvalidModelError: If the model cannot be read, has weights that are not finite, or has
            no layer of a name in `skip_layers` that could be left out.
        InvalidRewriteError: If there is no rewrite of a name.
        UnsupportedLayerError: If a layer has no integer form.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3),
    ...                           keras.layers.BatchNormalization(), keras.layers.ReLU()])
    >>> [type(layer).__name__ for layer in clone_model(model).layers]
    ['InputLayer', 'QConv2D']
    """
    graph, log = _rewritten(model, rewrites, skip_layers)
    return _build(graph, log, None, keras.Model, input_tensors)


def quantize_model(
    model: keras.Model,
    scheme: str | Scheme = "int8",
    *,
    calibration_data: Any = None,
    rewrites: Sequence[str] | None = None,
    quant_delay: int = 0,
) -> QuantizedModel:
    """Turns a model into one that trains with quantization and computes integers at inference.

    Each layer of the result is one LiteRT operator, or a fixed small group of them. With
    `training=True` it computes in float with straight-through fake quantization; at inference
    it computes what LiteRT's reference kernels compute, bit for bit.

    Args:
        model: A built Keras model, functional, sequential or subclassed, or what `clone_model`
            returned. It is not changed.
        scheme: `"int8"`, or a `Scheme`.
        calibration_data: Data to observe the range of each activation with, see `calibrate`.
            Without it the ranges come from the first training steps.
        rewrites: Names of the rewrites to apply, see `docs/rewrites.md`; None for all.
        quant_delay: How many training steps to train in float first, while ranges are observed;
            quantization then starts by itself. The steps left are saved with the weights.
            Inference computes integers all the time.

    Returns:
        A functional `keras.Model`, to be compiled and trained. Its `rewrite_log` lists what was
        rewritten.

    Raises:
        InvalidModelError: If the model cannot be read, or has weights that are not finite.
        UnsupportedLayerError: If a layer has no integer form.
        InvalidSchemeError: If the scheme is unknown.
        InvalidDataError: If the calibration data does not fit.
        InvalidDelayError: If `quant_delay` is not a whole number of steps.

    Example:
    >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    >>> images = np.random.default_rng(0).random((32, 8, 8, 3), "float32")
    >>> qat = quantize_model(model)
    >>> calibrate(qat, images, verbose=0)
    >>> qat.predict(images, verbose=0).shape
    (32, 6, 6, 4)
    """
    resolved, delay = get_scheme(scheme), QuantDelay(quant_delay, name="quant_delay")
    graph, log = _rewritten(model, rewrites)
    quantized = _build(graph, log, resolved, QuantizedModel, delay=delay)
    if calibration_data is not None:
        calibrate(quantized, calibration_data)
    return quantized


def _rewritten(
    model: keras.Model, rewrites: Sequence[str] | None, skip_layers: Sequence[str] = ()
) -> tuple[Graph, tuple[Rewrite, ...]]:
    """Reads a float model and runs the pipeline on it."""
    passes = select_rewrites(rewrites)
    if skip_layers:
        passes = (inline_models, functools.partial(remove_layers, names=skip_layers), *passes)
    graph = read_any_model(model)
    _check_weights(model)
    _check_inputs(graph)
    graph, log = run_pipeline(graph, passes)
    _check_float(graph)
    return graph, log


def _build(
    graph: Graph,
    log: tuple[Rewrite, ...],
    scheme: Scheme | None,
    model_class: Any,
    input_tensors: Any = None,
    delay: QuantDelay | None = None,
) -> Any:
    """Makes a model of a rewritten graph, with its weights."""
    rewritten = make_layers(graph, scheme).check(after="make_layers")
    if scheme is not None:
        rewritten = quantize_inputs(rewritten, scheme).check(after="quantize_inputs")
        rewritten = separate_ranges(rewritten, scheme).check(after="separate_ranges")
    if delay is not None and delay.steps:
        first = next(node for node in rewritten.nodes.values() if not node.is_input)
        first.head.quant_delay = delay
    result = build_model(rewritten, model_class, input_tensors=input_tensors)
    for name, node in graph.nodes.items():
        layer = rewritten.nodes[name].head
        if isinstance(node.head, QuantizedLayer):
            _copy_by_path(node.head, layer)
        elif isinstance(layer, QuantizedLayer):
            layer.carry_weights(node)
    result.rewrite_log = log
    return result


def _copy_by_path(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Copies the variables that a float and a quantized layer of one class both have."""

    def tail(layer, variable):
        return variable.path.rpartition(f"{layer.name}/")[2]

    values = {tail(source, variable): variable for variable in source.variables}
    for variable in target.variables:
        if tail(target, variable) in values:
            assign_copy(variable, values[tail(target, variable)])
    target.trainable = source.trainable


def _check_float(graph: Graph) -> None:
    """Raises if a layer, of a nested model too, is quantized."""
    if any(getattr(node.head, "scheme", None) is not None for node in graph.nodes.values()):
        raise InvalidModelError(
            "The model is quantized already.",
            layer=graph.name,
            fix="Pass the float model; to go on training a quantized one, just call `fit`.",
        )


def _check_inputs(graph: Graph) -> None:
    """Raises if an input is not used, or a size that LiteRT's kernels need is not known."""
    used = {*graph.consumers(), *graph.output_edges}
    for name in graph.inputs:
        if Edge(name) not in used:
            raise InvalidModelError(
                "No output of the model depends on an input.",
                layer=name,
                fix="Leave it out: `keras.Model(inputs, outputs)` with the inputs that are used.",
            )
        shape = graph.nodes[name].shapes[0]
        if None in shape[1:]:
            raise InvalidModelError(
                "An input of the model has a size that is not known.",
                layer=name,
                received=f"shape {shape}",
                expected="a fixed size for all axes but the first",
                fix="Build the model with a fixed `keras.Input(shape)`.",
            )


def _check_weights(model: keras.Model) -> None:
    """Raises if a weight is not a finite number: no scale could represent it."""
    for weight in model.weights:
        value = ops.convert_to_numpy(weight)
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            raise InvalidModelError(
                "A weight has values that are not finite numbers.",
                layer=weight.path,
                received=f"{int((~np.isfinite(value)).sum())} NaN or infinite value(s)",
                fix="Train the model again from a checkpoint before it diverged.",
            )
