"""Operators for images, applied to sequences, `(batch, steps, channels)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keras_qat.errors import UnsupportedLayerError


def lower_on_image(builder, x, add: Callable):
    """Adds an operator for images, between two RESHAPEs if the input is a sequence.

    A sequence becomes an image of one row, since LiteRT's convolutions and poolings have two
    dimensions.

    Args:
        builder: A `keras_qat.lowering.Builder`.
        x: LiteRT tensor of rank 3 or 4.
        add: `(x, **output) -> tensor`: adds the operator to an image. `output` has the arguments of
            `Builder.operator` for the result, and is empty for an image.

    Returns:
        The LiteRT tensor of the node's output.
    """
    if len(x.shape) == 4:
        return add(x)
    row = builder.reshape(x, image_shape(x.shape), part="row")
    y = add(row, part="row_output", shape=image_shape(builder.output_shape))
    return builder.reshape(y, builder.output_shape)


def image_shape(shape: Sequence[Any]) -> tuple[Any, ...]:
    """Returns the shape of a sequence as an image of one row; the shape of an image unchanged.

    Example:
    >>> image_shape((None, 7, 4))
    (None, 1, 7, 4)
    """
    return tuple(shape) if len(shape) == 4 else (shape[0], 1, *shape[1:])


def planar(sizes: Sequence[int]) -> tuple[int, ...]:
    """Returns the values for height and width, from the values for steps or for an image.

    Example:
    >>> planar((3,)), planar((3, 2))
    ((1, 3), (3, 2))
    """
    return (1,) * (2 - len(sizes)) + tuple(sizes)


def check_sizes_known(name: str, input_shape: Sequence[int | None], why: str) -> None:
    """Raises if a size other than the batch's is unknown.

    Args:
        name: Name of the layer.
        input_shape: Shape of its input.
        why: The computation that needs the size, as a sentence.

    Raises:
        UnsupportedLayerError: If a size is unknown.
    """
    if None in input_shape[1:]:
        raise UnsupportedLayerError(
            why,
            layer=name,
            received=f"an input of shape {tuple(input_shape)}",
            expected="fixed sizes of all axes but the batch",
            fix="Give the model's input a fixed shape.",
        )
