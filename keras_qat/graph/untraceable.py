"""Explains why the `call` of a layer cannot be traced, with a fix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph.statements import failing_statement, first_line
from keras_qat.graph.symbols import BatchNumberError

_WHAT = "This layer has no integer form here, and its `call` cannot be traced"

# An example for a layer class of the user.
_EXAMPLE = """
    @keras_qat.register({layer})
    def written(layer, inputs):
        return keras.ops.relu(inputs)  # the computation of {layer}.call, with layer.weight
"""


def untraceable(
    layer: Any,
    name: str,
    error: Exception,
    shapes: Sequence[Any],
) -> UnsupportedLayerError:
    """Returns the error for a `call` that raised on symbolic tensors.

    Args:
        layer: The layer.
        name: Name of the layer in errors.
        error: The error that its `call` raised.
        shapes: Shapes of the tensors that the layer was called on.

    Returns:
        The error, which names the cause if the cause is a known one.
    """
    statement = failing_statement(error)
    received = (
        f"a {type(layer).__name__}, whose `call` raised {type(error).__name__}"
        f"{f' in {statement}' if statement else ''}: {first_line(error)}"
    ).rstrip(": ")
    cause, expected, fix = _cause(layer, name, error, shapes)
    return UnsupportedLayerError(
        f"{_WHAT}{cause}.", layer=name, received=received, expected=expected, fix=fix
    )


def _cause(
    layer: Any,
    name: str,
    error: Exception,
    shapes: Sequence[Any],
) -> tuple[str, str, str]:
    """Returns the cause as the end of a sentence, the expected input, and the fix."""
    if isinstance(error, BatchNumberError):
        return (
            ": it computes with the size of the batch, which is not known before the model runs",
            "`ops.shape(x)[0]` in shapes only, also times an integer",
            "Remove that computation from `call`: the results for a sample must not depend on how "
            "many samples are in the batch.",
        )
    unknown = [shape for shape in shapes if None in tuple(shape)[1:]]
    if unknown:
        return (
            ": sizes of its input are not known",
            f"an input whose sizes are known, except for the batch, not of shape {unknown[0]}",
            "Build the model that the layer is in with a fixed `keras.Input(shape)`. In a "
            "`keras.ops.reshape` before the layer write -1 for the batch and numbers for all other "
            "sizes, such as `keras.ops.reshape(x, (-1, 16, 8))`.",
        )
    return "", "a `call` made of `keras.ops` and Keras layers", _fix(layer, name)


def _fix(layer: object, name: str) -> str:
    """Suggests a fix that fits the class of the layer."""
    kind = type(layer)
    if kind.__name__ == "Lambda":
        return (
            "Give this layer alone a function of `keras.ops`, then quantize the model: "
            f"`model.get_layer('{name}').function = lambda x: keras.ops.relu(x)`, with the layer's "
            "computation instead of relu."
        )
    if kind.__module__.startswith("keras.src."):
        return "Replace it by layers of docs/supported.md."
    return (
        "If `call` leaves `keras.ops`, or branches on values, write it with `keras.ops` alone; "
        "else correct the cause in the message. Or write the computation beside the layer, for all "
        "layers of its class:\n\n"
        + _EXAMPLE.format(layer=kind.__name__)
        + "\nFor an operator of your own, "
        "decorate a `keras_qat.layers.QuantizedLayer` instead (CONTRIBUTING.md has a worked "
        "example)."
    )
