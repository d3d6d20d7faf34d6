"""Descriptions of the inputs and outputs of a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_qat.errors import LiteRTFormatError


@dataclass(frozen=True, eq=False)
class TensorDetails:
    """The interpreter's description of an input or output.

    Args:
        name: The tensor's name in the file.
        shape: Dimensions; `None` for a dynamic dimension.
        dtype: numpy dtype.
        scale: float32 vector; empty if the tensor is not quantized.
        zero_point: int32 vector of the same length.
        index: Number of the tensor in the file.

    Example:
        >>> import numpy as np
        >>> from keras_qat.litert import TensorDetails
        >>> none = np.float32([])
        >>> TensorDetails("x", (None, 4), np.dtype("float32"), none, none, 0).shape
        (None, 4)
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype
    scale: np.ndarray
    zero_point: np.ndarray
    index: int


def all_details(describe: Callable[[], list[dict[str, Any]]]) -> tuple[TensorDetails, ...]:
    """Returns the details of all inputs, or of all outputs.

    Args:
        describe: The method of LiteRT's interpreter that describes them.

    Raises:
        LiteRTFormatError: If a name is not UTF-8.
    """
    try:
        return tuple(map(_details, describe()))
    except ValueError as error:
        raise LiteRTFormatError(f"LiteRT cannot describe the file's tensors: {error}") from error


def _details(raw: dict[str, Any]) -> TensorDetails:
    signature = raw["shape_signature"] if len(raw["shape_signature"]) else raw["shape"]
    quantization = raw["quantization_parameters"]
    return TensorDetails(
        name=raw["name"],
        shape=tuple(None if size < 0 else int(size) for size in signature),
        dtype=np.dtype(raw["dtype"]),
        scale=quantization["scales"],
        zero_point=quantization["zero_points"],
        index=int(raw["index"]),
    )
