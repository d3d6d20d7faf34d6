"""Versions of operators whose tensors are float32."""

from collections.abc import Mapping, Sequence
from typing import Any

# Which add, with a rank of more than four, a broadcast that is newer than the operator.
_BROADCASTS = {"DIV": 2, "MAXIMUM": 3, "MINIMUM": 3, "SUB": 3}
_HIGH_RANKS = {"PAD": 4, "PADV2": 4, "STRIDED_SLICE": 4, "TRANSPOSE": 4}


def float_version(code: str, shapes: Sequence[Sequence[Any]], options: Mapping[str, Any]) -> int:
    """Returns the lowest version of an operator that computes in float32 what is asked.

    The rules of `GetBuiltinOperatorVersion` in TFLite's `tools/versioning/op_version.cc`, for the
    operators that `keras_qat` writes.

    Args:
        code: Name of the operator.
        shapes: Shapes of its inputs.
        options: Its options.

    Returns:
        The version, from 1.

    Example:
        >>> from keras_qat.litert.float_versions import float_version
        >>> float_version("FULLY_CONNECTED", [(None, 4), (2, 4), (2,)], {"keepNumDims": True})
        5
    """
    rank = max(len(shape) for shape in shapes)
    if code == "CONV_2D":
        return 1 if shapes[0][3] == shapes[1][3] else 6  # grouped
    if code == "DEPTHWISE_CONV_2D":
        dilation = options["dilationHFactor"], options["dilationWFactor"]
        return 1 if dilation == (1, 1) else 2
    if code == "FULLY_CONNECTED":
        return 5 if options["keepNumDims"] else 1
    if code == "TRANSPOSE_CONV":
        return 3 if options["fusedActivationFunction"] == "NONE" else 4
    if code in ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"):
        return 3 if options["halfPixelCenters"] else 1
    if code == "TRANSPOSE" and rank > 5:
        return 6
    if rank > 4 and code in _HIGH_RANKS:
        return _HIGH_RANKS[code]
    if rank > 4 and code in _BROADCASTS and len({tuple(shape) for shape in shapes}) > 1:
        return _BROADCASTS[code]
    return 1
