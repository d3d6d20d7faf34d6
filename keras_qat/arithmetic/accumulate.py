"""Exact int32 accumulators from float32 convolutions and matrix products.

Float32 holds every integer below 2**24. A float32 sum of integer products is therefore exact, in
any order of additions, while the sum of their magnitudes stays below 2**24. For larger sums the
input channels are split, and the parts are added in int32. A single part is returned unchanged,
so that `whole` can be fused with later operations. The number of products in a part follows from
the largest product, which each caller takes from its scheme.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError

EXACT_BOUND = 2 ** (np.finfo(np.float32).nmant + 1)  # float32 does not store one mantissa bit


def conv(
    x: Any,
    kernel: Any,
    *,
    convolve: Callable[[Any, Any], Any],
    largest_product: int,
) -> Any:
    """Convolves integers exactly, whatever the number of input channels.

    Args:
        x: float32 tensor `(..., channels)` of integers, zero point subtracted.
        kernel: float32 tensor `(*window, channels / groups, filters)` of integers.
        convolve: `(x, kernel) -> float32`: the convolution, with its strides and padding. It
            is called once for each part, with fewer channels but as many groups.
        largest_product: Bound of the magnitude of an integer of `x` times one of `kernel`.

    Returns:
        The accumulators of `convolve(x, kernel)` in exact arithmetic, for `whole`.

    Raises:
        UnsupportedLayerError: If one input channel alone exceeds float32.

    Example:
    >>> x, kernel = np.full((1, 1, 1, 2000), 255.0), np.full((1, 1, 2000, 1), 127.0)
    >>> y = conv(x, kernel, convolve=lambda x, k: ops.conv(x, k), largest_product=255 * 127)
    >>> y.numpy().item() == 255 * 127 * 2000
    True
    """
    x, kernel = ops.convert_to_tensor(x, "float32"), ops.convert_to_tensor(kernel, "float32")
    *window, depth, _ = kernel.shape
    groups = x.shape[-1] // depth
    most = _largest_part(math.prod(window), largest_product, window)
    bounds = _bounds(depth, most)
    if len(bounds) == 1:
        return convolve(x, kernel)
    sums = []
    for start, stop in bounds:
        channels = np.arange(groups * depth).reshape(groups, depth)[:, start:stop].ravel()
        part = x[..., start:stop] if groups == 1 else ops.take(x, channels, axis=-1)
        sums.append(convolve(part, kernel[..., start:stop, :]))
    return _total(sums)


def conv_transpose(
    x: Any,
    kernel: Any,
    *,
    convolve: Callable[[Any, Any], Any],
    strides: Sequence[int],
    largest_product: int,
) -> Any:
    """Applies a transposed convolution to integers exactly.

    Args:
        x: float32 tensor `(..., channels)` of integers, zero point subtracted.
        kernel: float32 tensor `(*window, filters, channels)` of integers.
        convolve: `(x, kernel) -> float32`: the transposed convolution, with its strides and
            padding. It is called once for each part, with fewer channels.
        strides: Its strides. The larger they are, the fewer taps reach one output.
        largest_product: Bound of the magnitude of an integer of `x` times one of `kernel`.

    Returns:
        The accumulators of `convolve(x, kernel)` in exact arithmetic, for `whole`.

    Raises:
        UnsupportedLayerError: If one input channel alone exceeds float32.

    Example:
    >>> x, kernel = np.full((1, 1, 1, 2000), 255.0), np.full((1, 1, 1, 2000), 127.0)
    >>> convolve = lambda x, k: ops.conv_transpose(x, k)
    >>> options = {"strides": (1, 1), "largest_product": 255 * 127}
    >>> y = conv_transpose(x, kernel, convolve=convolve, **options)
    >>> y.numpy().item() == 255 * 127 * 2000
    True
    """
    x, kernel = ops.convert_to_tensor(x, "float32"), ops.convert_to_tensor(kernel, "float32")
    *window, _, depth = kernel.shape
    taps = math.prod(-(-size // stride) for size, stride in zip(window, strides, strict=True))
    bounds = _bounds(depth, _largest_part(taps, largest_product, window))
    return _total([convolve(x[..., a:b], kernel[..., a:b]) for a, b in bounds])


def depthwise(
    x: Any,
    kernel: Any,
    *,
    convolve: Callable[[Any, Any], Any],
    largest_product: int,
) -> Any:
    """Convolves each channel on its own, exactly.

    Args:
        x: float32 tensor `(..., channels)` of integers, zero point subtracted.
        kernel: float32 tensor `(*window, channels, multiplier)` of integers.
        convolve: `(x, kernel) -> float32`: the depthwise convolution.
        largest_product: Bound of the magnitude of an integer of `x` times one of `kernel`.

    Returns:
        The accumulators of `convolve(x, kernel)` in exact arithmetic, for `whole`.

    Raises:
        UnsupportedLayerError: If the window is too large for float32.

    Example:
    >>> x, kernel = np.full((1, 3, 3, 1), 255.0), np.full((3, 3, 1, 1), 127.0)
    >>> convolve = lambda x, k: ops.depthwise_conv(x, k)
    >>> y = depthwise(x, kernel, convolve=convolve, largest_product=255 * 127)
    >>> y.numpy().item() == 255 * 127 * 9
    True
    """
    x, kernel = ops.convert_to_tensor(x, "float32"), ops.convert_to_tensor(kernel, "float32")
    window = kernel.shape[:-2]
    _largest_part(math.prod(window), largest_product, window)
    return convolve(x, kernel)


def matmul(x: Any, kernel: Any, *, largest_product: int) -> Any:
    """Multiplies an integer matrix with integer weights exactly, whatever the inner size.

    Args:
        x: float32 tensor `(..., inputs)` of integers, zero point subtracted.
        kernel: float32 tensor `(inputs, units)` of integers.
        largest_product: Bound of the magnitude of an integer of `x` times one of `kernel`.

    Returns:
        The accumulators `(..., units)`, for `whole`.

    Example:
    >>> x, kernel = np.full((1, 25088), 255.0), np.full((25088, 1), 127.0)
    >>> matmul(x, kernel, largest_product=255 * 127).numpy().item() == 255 * 127 * 25088
    True
    """
    x, kernel = ops.convert_to_tensor(x, "float32"), ops.convert_to_tensor(kernel, "float32")
    inputs, units = kernel.shape
    parts = len(_bounds(inputs, _largest_part(1, largest_product, ())))
    if parts == 1:
        return ops.matmul(x, kernel)
    size = -(-inputs // parts)
    padding = parts * size - inputs
    rows = ops.pad(ops.reshape(x, (-1, inputs)), ((0, 0), (0, padding)))
    columns = ops.pad(kernel, ((0, padding), (0, 0)))
    split_rows = ops.transpose(ops.reshape(rows, (-1, parts, size)), (1, 0, 2))
    products = ops.matmul(split_rows, ops.reshape(columns, (parts, size, units)))
    total = ops.sum(whole(products), axis=0)
    return ops.reshape(total, (*ops.shape(x)[:-1], units))


def batch_matmul(a: Any, b: Any, *, largest_product: int) -> Any:
    """Multiplies batches of integer matrices exactly, whatever the inner size.

    Args:
        a: float32 tensor `(..., rows, inner)` of integers, zero point subtracted.
        b: float32 tensor `(..., inner, columns)` of integers, whose other axes broadcast.
        largest_product: Bound of the magnitude of an integer of `a` times one of `b`.

    Returns:
        The accumulators `(..., rows, columns)`, for `whole`.

    Example:
    >>> a, b = np.full((1, 1, 3000), 255.0), np.full((1, 3000, 1), 255.0)
    >>> batch_matmul(a, b, largest_product=255 * 255).numpy().item() == 255 * 255 * 3000
    True
    """
    a, b = ops.convert_to_tensor(a, "float32"), ops.convert_to_tensor(b, "float32")
    bounds = _bounds(a.shape[-1], _largest_part(1, largest_product, ()))
    return _total([ops.matmul(a[..., i:j], b[..., i:j, :]) for i, j in bounds])


def whole(sums: Any) -> Any:
    """Returns accumulators as int32.

    Args:
        sums: int32 tensor, or float32 tensor near whole numbers. A GPU may add fractions to sums,
            as Winograd's algorithm does.

    Returns:
        int32 tensor.

    Example:
    >>> whole(ops.array([2.99, -3.01])).numpy()
    array([ 3, -3], dtype=int32)
    """
    if keras.backend.standardize_dtype(sums.dtype) == "int32":
        return sums
    return ops.cast(ops.round(sums), "int32")


def _total(parts: Sequence[Any]) -> Any:
    return parts[0] if len(parts) == 1 else functools.reduce(ops.add, map(whole, parts))


def most_taps(largest_product: int) -> int:
    """Returns the largest window whose sum of products for one input channel is exact.

    Args:
        largest_product: Bound of the magnitude of one product.

    Example:
    >>> most_taps(255 * 127)
    518
    """
    return (EXACT_BOUND - 1) // largest_product


def _largest_part(taps: int, largest_product: int, window: Any) -> int:
    """Returns the number of input channels in one exact float32 sum."""
    most = most_taps(taps * largest_product)
    if most == 0:
        raise UnsupportedLayerError(
            "The window is too large for an exact accumulator.",
            received=f"a window of {taps} taps, {tuple(window)}",
            expected=f"at most {most_taps(largest_product)} taps",
            fix="Use a smaller kernel, or several in sequence.",
        )
    return most


def _bounds(depth: int, most: int) -> list[tuple[int, int]]:
    """Splits `depth` channels into as few nearly equal parts of at most `most` as possible."""
    parts = -(-depth // most)
    edges = [depth * part // parts for part in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
