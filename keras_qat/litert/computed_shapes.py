"""Shapes that kernels compute from constants, whatever shape the file states for the result.

A damaged constant there is an allocation of any size.
"""

from collections.abc import Callable

import numpy as np

from keras_qat.litert.flatbuffer import Record

Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _padded(shape: np.ndarray, pads: np.ndarray) -> np.ndarray:
    return shape + pads.reshape(-1, 2).sum(axis=1)


def _resized(shape: np.ndarray, size: np.ndarray) -> np.ndarray:
    return np.concatenate([shape[:1], size, shape[3:]])


def _given(shape: np.ndarray, target: np.ndarray) -> np.ndarray:
    return target


# From the shape of the first input and the values of the second.
RULES: dict[str, Rule] = {
    "PAD": _padded,
    "PADV2": _padded,
    "MIRROR_PAD": _padded,
    "TILE": lambda shape, multiples: shape * multiples,
    "BROADCAST_TO": _given,
    "RESIZE_BILINEAR": _resized,
    "RESIZE_NEAREST_NEIGHBOR": _resized,
}


def computed_shape(name: str, tensor: Record, constant: memoryview | None) -> list[int] | None:
    """Returns the shape that a kernel will compute for its result.

    Args:
        name: Name of the operator.
        tensor: The table of its first input.
        constant: The data of its second input, an int32 tensor.

    Returns:
        The shape, or `None` if it is not computed from a constant, or cannot be.
    """
    if constant is None or name not in RULES or tensor["shape"] is None:
        return None
    values = np.frombuffer(constant, "<i4").astype(np.int64)
    shape = tensor["shape"].astype(np.int64)
    try:
        return RULES[name](shape, values).tolist()
    except ValueError:  # the kernel will refuse operands that do not fit each other
        return None


def contradicts(stated: Record, computed: list[int]) -> bool:
    """Whether a shape is not the one that a tensor states, but for dynamic dimensions.

    Args:
        stated: The table of the tensor.
        computed: The shape.
    """
    shape = [] if stated["shape"] is None else stated["shape"].tolist()
    signature = stated["shape_signature"]
    sizes = shape if signature is None or not signature.size else signature.tolist()
    if len(shape) != len(computed):
        return bool(shape)  # a scalar's shape is written for one that is not known, too
    return any(a != b for a, b in zip(sizes, computed, strict=True) if a >= 0)
