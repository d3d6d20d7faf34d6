"""Makes models of one step, whose states are inputs and outputs, of recurrent models."""

from __future__ import annotations

from typing import Any

from keras_qat.errors import InvalidModelError, UnsupportedLayerError
from keras_qat.graph import Graph, Node, build_model, read_model
from keras_qat.layers import QLSTM, QuantizedModel
from keras_qat.layers.core.drop_in import copy_by_path
from keras_qat.layers.models.wrapped import quantized_model_in
from keras_qat.passes.choose_kernels import choose_kernels
from keras_qat.passes.take_last_step import take_last_step
from keras_qat.proof import check_steps
from keras_qat.quantizers import RangeParameters


def streaming(model: QuantizedModel) -> QuantizedModel:
    """Returns the model of one step of a recurrent model, for sequences without an end.

    A microcontroller calls it once for each step, with the states that the call before returned,
    and zeros at first. Its weights and ranges are those of `model`, and each state has the same
    quantization as input and as output: the integers of an output are those of the next input. All
    steps equal those of `model`, bit for bit.

    Args:
        model: A quantized model with unrolled recurrent layers, calibrated or trained. It is not
            changed. Layers before and after them must treat each step alone. Targets whose LSTM is
            one operator need a model without the rewrite `fuse_lstms`.

    Returns:
        A quantized model. Its inputs are those of `model` for one step, of shape
        `(batch, 1, channels)`, and then the states, of shape `(batch, units)`. Its outputs are the
        outputs of `model`, and then the new states in the same order.

    Raises:
        NotQuantizedError: If the model is not quantized.
        InvalidModelError: If one step is not enough to compute its outputs, as for layers that go
            backwards and convolutions over several steps.
        MissingRangeError: If a tensor lacks min/max data.

    Example:
    >>> import keras, keras_qat, numpy as np
    >>> model = keras.Sequential([keras.Input((5, 3)), keras.layers.GRU(4)])
    >>> data = np.random.default_rng(0).normal(size=(16, 5, 3)).astype("float32")
    >>> qat = keras_qat.quantize_model(model)
    >>> keras_qat.calibrate(qat, data, verbose=0)
    >>> step, state = streaming(qat), np.zeros((16, 4), "float32")
    >>> for i in range(5):
    ...     output, state = step.predict([data[:, i : i + 1], state], verbose=0)
    >>> bool((output == qat.predict(data, verbose=0)).all())
    True
    """
    model = quantized_model_in(model, "made a model of one step")
    model.check_ranges()
    graph = read_model(model)
    _check_unrolled(graph)
    step = choose_kernels(take_last_step(graph, model.origins), model.target)
    try:
        result = build_model(step, QuantizedModel, after_call=lambda node: _copy_state(graph, node))
    except UnsupportedLayerError as error:
        raise _of_several_steps(error.layer, str(error)) from error
    result.origins = {each.name: model.origins.get(each.name, ()) for each in result.layers}
    check_steps(model, result)
    return result


def _check_unrolled(graph: Graph) -> None:
    """Raises if all steps of an LSTM are one operator."""
    for node in graph.nodes.values():
        if isinstance(node.head, QLSTM):
            raise InvalidModelError(
                "All steps of this LSTM are one operator, which has no model of one step.",
                layer=node.name,
                received="a QLSTM",
                expected="an unrolled LSTM",
                fix="Quantize the float model again with `rewrites=[name for name in "
                'keras_qat.DEFAULT_REWRITES if name != "fuse_lstms"]`.',
            )


def _copy_state(graph: Graph, node: Node) -> None:
    """Copies weights and ranges to a built layer. Its output has the range of the whole group."""
    layer = node.head
    if node.is_input:
        return
    heads = (each.head for each in graph.nodes.values())
    name = getattr(layer, "state_of", None) or layer.name
    source = next(head for head in heads if head.name == name)
    if name == layer.name:
        _check_shapes(source, layer)
        copy_by_path(source, layer)
    parameters = source.neighbours.output
    if layer.observer is not None and isinstance(parameters, RangeParameters):
        layer.observer.widen(*parameters.limits())


def _check_shapes(source: Any, layer: Any) -> None:
    """Raises if a layer has other weights for one step than for all."""
    if [each.shape for each in source.weights] != [each.shape for each in layer.weights]:
        raise _of_several_steps(layer.name, f"weights of shape {source.weights[0].shape}")


def _of_several_steps(name: str | None, received: str) -> InvalidModelError:
    return InvalidModelError(
        "A layer looks at several steps at once.",
        layer=name,
        received=received,
        expected="layers that treat each step alone",
        fix="Give `streaming` the model up to the last recurrent layer.",
    )
