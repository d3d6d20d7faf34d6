"""Sums over the windows of images: exact for integers, in float64 for real values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


class Windows:
    """The windows of an operator: on its input image, or on its output image if transposed.

    Args:
        options: Options of the operator: padding, strides, dilations.
        size: Height and width of a window.
        image: Height and width of the image that is divided into windows.

    Attributes:
        count: Number of windows along height and width.
    """

    def __init__(self, options: Mapping[str, Any], size: Sequence[int], image: Sequence[int]):
        self.size = size
        self.strides = [options[f"stride{axis}"] for axis in "HW"]
        self.gaps = [options.get(f"dilation{axis}Factor", 1) for axis in "HW"]
        reach = [(n - 1) * gap + 1 for n, gap in zip(size, self.gaps, strict=True)]
        is_same = options["padding"] == "SAME"
        sides = list(zip(image, reach, self.strides, strict=True))
        self.count = [-(-n // s) if is_same else (n - r) // s + 1 for n, r, s in sides]
        needed = [(k - 1) * s + r for k, (_, r, s) in zip(self.count, sides, strict=True)]
        missing = [
            max(want - n, 0) if is_same else 0 for want, n in zip(needed, image, strict=True)
        ]
        self.pads = [(m // 2, m - m // 2) for m in missing]

    def taps(self) -> Iterator[tuple[tuple[int, int], tuple[slice, slice]]]:
        """Yields each position in a window, and its slice of the padded image for all windows."""
        for place in np.ndindex(*self.size):
            starts = [at * gap for at, gap in zip(place, self.gaps, strict=True)]
            where = [
                slice(start, start + (count - 1) * stride + 1, stride)
                for start, count, stride in zip(starts, self.count, self.strides, strict=True)
            ]
            yield (place[0], place[1]), (where[0], where[1])

    def padded(self, x: np.ndarray, value: float = 0.0) -> np.ndarray:
        """Returns the image with the padding that SAME adds."""
        return np.pad(x, ((0, 0), *self.pads, (0, 0)), constant_values=value)

    def gathered(self, x: np.ndarray, value: float = 0.0) -> Iterator[tuple[Any, np.ndarray]]:
        """Yields each position in a window with the values of all windows there."""
        x = self.padded(x, value)
        for place, (rows, columns) in self.taps():
            yield place, x[:, rows, columns]


def convolve(x: np.ndarray, kernel: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Returns the sums of products of a CONV_2D in float64, exact for integers.

    Args:
        x: Values, zero point subtracted.
        kernel: `(out, height, width, in)`, in groups if the image has more channels.
        options: Options of the operator.
    """
    windows = Windows(options, kernel.shape[1:3], x.shape[1:3])
    groups = x.shape[-1] // kernel.shape[-1]
    total: Any = 0.0
    for (i, j), part in windows.gathered(x.astype("float64")):
        parts = np.split(part, groups, axis=-1)
        kernels = np.split(kernel[:, i, j].astype("float64"), groups)
        products = [a @ k.T for a, k in zip(parts, kernels, strict=True)]
        total = total + np.concatenate(products, axis=-1)
    return total


def convolve_channels(x: np.ndarray, kernel: np.ndarray, options: Mapping[str, Any]) -> np.ndarray:
    """Returns the sums of products of a DEPTHWISE_CONV_2D in float64, exact for integers.

    Args:
        x: Values, zero point subtracted.
        kernel: `(1, height, width, out)`.
        options: Options of the operator.
    """
    windows = Windows(options, kernel.shape[1:3], x.shape[1:3])
    x = np.repeat(x.astype("float64"), kernel.shape[-1] // x.shape[-1], axis=-1)
    return sum(part * kernel[0, i, j] for (i, j), part in windows.gathered(x))  # pyright: ignore


def convolve_back(
    x: np.ndarray, kernel: np.ndarray, options: Mapping[str, Any], shape: Sequence[int]
) -> np.ndarray:
    """Returns the sums of products of a TRANSPOSE_CONV in float64, exact for integers.

    Args:
        x: Values, zero point subtracted.
        kernel: `(out, height, width, in)`.
        options: Options of the operator.
        shape: Shape of the output.
    """
    windows = Windows(options, kernel.shape[1:3], shape[1:3])
    windows.count = list(x.shape[1:3])
    total = windows.padded(np.zeros(shape))
    reach = [
        max((n - 1) * s + k - have, 0)
        for n, s, k, have in zip(
            x.shape[1:3], windows.strides, windows.size, total.shape[1:3], strict=True
        )
    ]
    total = np.pad(total, ((0, 0), (0, reach[0]), (0, reach[1]), (0, 0)))
    for (i, j), (rows, columns) in windows.taps():
        total[:, rows, columns] += x.astype("float64") @ kernel[:, i, j].astype("float64").T
    (top, _), (left, _) = windows.pads
    return total[:, top : top + shape[1], left : left + shape[2]]
