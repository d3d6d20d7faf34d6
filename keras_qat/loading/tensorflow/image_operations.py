"""TensorFlow functions on images, written with `keras.ops`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops


def pooling(mode: str, rank: int | None) -> Callable[..., Any]:
    """Returns a TensorFlow pooling function over images, or over any number of axes.

    Args:
        mode: "average" or "max".
        rank: The number of pooled axes. None for all between the first and the last.
    """

    def pool(input: Any = None, ksize=1, strides=None, padding="VALID", data_format=None, **rest):
        x: Any = rest.get("value") if input is None else input
        sides = rank or len(x.shape) - 2
        layout = "channels_first" if str(data_format).startswith("NC") else "channels_last"
        sizes = _sides(ksize, sides, layout), _sides(strides, sides, layout)
        if not isinstance(padding, str):
            raise ValueError(f"padding {padding!r}; only SAME and VALID are known here")
        function = ops.average_pool if mode == "average" else ops.max_pool
        return function(x, *sizes, padding=padding.lower(), data_format=layout)

    return pool


def _sides(value: Any, sides: int, layout: str) -> tuple[int, ...]:
    """Returns the sizes along the pooled axes from TensorFlow's one, two or four numbers."""
    if isinstance(value, int):
        return (value,) * sides
    if len(value) == sides + 2:
        return tuple(value[2:] if layout == "channels_first" else value[1:-1])
    return tuple(value) * (sides if len(value) == 1 else 1)


def depth_to_space(input, block_size, data_format="NHWC", name=None):
    """Moves channels into blocks of pixels."""
    only("data_format", data_format, "NHWC")
    _, height, width, channels = input.shape
    depth = channels // block_size**2
    split = (-1, height, width, block_size, block_size, depth)
    x = ops.transpose(ops.reshape(input, split), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, height * block_size, width * block_size, depth))


def space_to_depth(input, block_size, data_format="NHWC", name=None):
    """Moves blocks of pixels into channels."""
    only("data_format", data_format, "NHWC")
    _, height, width, channels = input.shape
    high, wide = height // block_size, width // block_size
    x = ops.reshape(input, (-1, high, block_size, wide, block_size, channels))
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, high, wide, channels * block_size**2))


def resize(images, size, method="bilinear", antialias=False, preserve_aspect_ratio=False, **rest):
    """Resizes images to `size`, height and width."""
    only("preserve_aspect_ratio", preserve_aspect_ratio, False)
    only("align_corners", rest.get("align_corners", False), False)
    return ops.image.resize(
        images, size, interpolation=method, antialias=antialias, data_format="channels_last"
    )


def only(name: str, value: Any, *known: Any) -> None:
    """Raises if an argument has a value that is not supported here."""
    if value not in known:
        raise ValueError(f"{name}={value!r}; known here: {list(known)}")
