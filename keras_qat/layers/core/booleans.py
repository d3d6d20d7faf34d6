"""Checks of layers whose inputs are booleans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_qat.errors import UnsupportedLayerError


def check_booleans(name: str, tensors: Sequence[Any]) -> None:
    """Raises if a tensor is not booleans.

    Args:
        name: Name of the layer.
        tensors: The inputs of the layer.

    Raises:
        UnsupportedLayerError: If a tensor has another type.
    """
    types = [keras.backend.standardize_dtype(each.dtype) for each in tensors]
    if any(dtype != "bool" for dtype in types):
        raise UnsupportedLayerError(
            "The operation has an integer form for booleans only.",
            layer=name,
            received=f"tensors of {types}",
            expected="results of comparisons",
            fix="Compare first: `x != 0` instead of `x`.",
        )
