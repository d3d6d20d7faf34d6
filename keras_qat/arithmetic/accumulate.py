"""Exact int32 accumulators from float32 convolutions and matrix products.

Float32 holds every integer below 2**24. A float32 sum of integer products is therefore exact, in
any order of additions, while the sum of their magnitudes stays below 2**24. For larger sums the
input channels are split, and the parts are added in int32. A window that is too large for one
channel is split too: each part has zeros in place of the other taps. A single part is returned
unchanged, so that `whole` can be fused with later operations. The number of products in a part
follows from the largest product, which each caller takes from its scheme.
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
        UnsupportedLayerError: If one product alone exceeds float32.

    Example:
    >>> x, kernel = np.full((1, 1, 1, 2000), 255.0), np.full((1, 1, 2000, 1), 127.0)
    >>> y = conv(x, kernel, convolve=lambda x, k: ops.conv(x, k), largest_product=255 * 127)
    >>> y.numpy().item() == 255 * 127 * 2000
    True
    """
    x, kernel = ops.convert_to_tensor(x, "float32"), ops.convert_to_tensor(kernel, "float32")
    depth, taps = kernel.shape[-2], math.prod(kernel.shape[:-2])
    numbers = np.arange(x.shape[-1]).reshape(-1, depth)
    sums = []
    for part, most in _window_parts(kernel, taps, largest_product):
        bounds = _bounds(depth, most)
        for start, stop in bounds:
            channels = numbers[:, start:stop].ravel()
            is_whole = len(bounds) == 1
            some = (x, part) if is_whole else (_channels(x, channels), part[..., start:stop, :])
            sums.append(convolve(*some))
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
        UnsupportedLayerError: If one product alone exceeds float32.

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
    return _total(
        [
            convolve(x[..., a:b], part[..., a:b])
            for part, most in _window_parts(kernel, taps, largest_product)
            for a, b in _bounds(depth, most)
        ]
    )


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
        UnsupportedLayerError: If one product alone exceeds float32.

    Example:
    >>> x, kernel = np.full((1, 3, 3, 1), 255.0), np.full((3, 3, 1, 1), 127.0)
    >>> convolve = lambda x, k: ops.depthwise_conv(x, k)
    >>> y = depthwise(x, kernel, convolve=convolve, largest_product=255 * 127)
    >>> y.numpy().item() == 255 * 127 * 9
    True
    """
    x, kernel = ops.convert_to_tensor(x, "float32"), ops.convert_to_tensor(kernel, "float32")
    parts = _window_parts(kernel, math.prod(kernel.shape[:-2]), largest_product)
    return _total([convolve(x, part) for part, _ in parts])


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
    parts = len(_bounds(inputs, _most_products(largest_product)))
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
    bounds = _bounds(a.shape[-1], _most_products(largest_product))
    return _total([ops.matmul(a[..., i:j], b[..., i:j, :]) for i, j in bounds])


def in_bytes(x: Any) -> tuple[Any, Any]:
    """Splits 16-bit integers into `256 * high + low`, both from -128 to 128.

    Args:
        x: float32 tensor of whole numbers.

    Returns:
        Two float32 tensors of whole numbers.

    Example:
    >>> [part.numpy().tolist() for part in in_bytes(ops.array([300.0, -32768.0, 200.0]))]
    [[1.0, -128.0, 1.0], [44.0, 0.0, -56.0]]
    """
    high = ops.floor((x + np.float32(128.0)) * np.float32(1 / 256))
    return high, x - high * np.float32(256.0)


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


def _most_products(largest_product: int) -> int:
    """Returns the number of products in one exact float32 sum."""
    most = (EXACT_BOUND - 1) // largest_product
    if most == 0:
        raise UnsupportedLayerError(
            "A product of two integers is too large for an exact accumulator.",
            received=f"products up to {largest_product}",
            expected=f"products below {EXACT_BOUND}",
            fix="Use a scheme with narrower activations or weights, such as 'int8'.",
        )
    return most


def _window_parts(kernel: Any, taps: int, largest_product: int) -> list[tuple[Any, int]]:
    """Splits a window whose sum for one channel may not be exact.

    Args:
        kernel: float32 tensor `(*window, ..., ...)`.
        taps: The number of taps that add to one output, for one channel.
        largest_product: Bound of the magnitude of one product.

    Returns:
        Kernels whose sum is the kernel, each with the number of channels in one exact sum.
    """
    most = _most_products(largest_product)
    if taps <= most:
        return [(kernel, most // taps)]
    window = kernel.shape[:-2]
    numbers = np.arange(math.prod(window)).reshape(*window, 1, 1)
    masks = [(a <= numbers) & (numbers < b) for a, b in _bounds(numbers.size, most)]
    return [(kernel * mask.astype("float32"), 1) for mask in masks]


def _channels(x: Any, channels: np.ndarray) -> Any:
    """Returns some of the channels of a tensor."""
    start, stop = channels[0], channels[-1] + 1
    is_slice = stop - start == len(channels)
    return x[..., start:stop] if is_slice else ops.take(x, channels, axis=-1)


def _bounds(depth: int, most: int) -> list[tuple[int, int]]:
    """Splits `depth` channels into as few nearly equal parts of at most `most` as possible."""
    parts = -(-depth // most)
    edges = [depth * part // parts for part in range(parts + 1)]
    return list(zip(edges[:-1], edges[1:], strict=True))
