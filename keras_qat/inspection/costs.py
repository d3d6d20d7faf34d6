"""Multiply-accumulate operations of an operator, from the shapes of its tensors."""

import math
from collections.abc import Callable, Sequence

from keras_qat.litert import Record

Shape = tuple[int, ...]
# Arguments: shapes of the inputs, shape of the first output, options.
Rule = Callable[[Sequence[Shape | None], Shape, Record | None], int]


def operator_macs(
    name: str, inputs: Sequence[Shape | None], output: Shape, options: Record | None
) -> int | None:
    """Counts the multiply-accumulate operations of one run of an operator.

    Padding is counted as if it were multiplied, as is usual. Operators other than convolutions and
    matrix products have 0. A subgraph that an operator runs is counted separately.

    Args:
        name: Name of the operator.
        inputs: Shape of each input; `None` for an absent one.
        output: Shape of the first output.
        options: The table of its options.

    Returns:
        The number, or `None` if it is unknown: for custom operators, for operators newer than the
        schema, and if the file does not state the shapes.

    Example:
        >>> from keras_qat.inspection.costs import operator_macs
        >>> operator_macs("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3), (16,)], (1, 4, 4, 16), None)
        6912
    """
    if name.startswith(("CUSTOM(", "UNKNOWN(")) or name in UNCOUNTED:
        return None
    rule = RULES.get(name)
    if rule is None:
        return 0
    try:
        return rule(inputs, output, options)
    except (IndexError, TypeError, ValueError):  # the operator does not take these shapes
        return None


def _convolution(inputs, output, options):
    _, height, width, channels = inputs[1]
    return math.prod(output) * height * width * channels


def _depthwise(inputs, output, options):
    _, height, width, _ = inputs[1]
    return math.prod(output) * height * width


def _convolution_3d(inputs, output, options):
    depth, height, width, channels, _ = inputs[1]
    return math.prod(output) * depth * height * width * channels


def _transposed(inputs, output, options):
    """Multiplies each input element by the weights of its channel, the kernel's last dimension."""
    return math.prod(inputs[2]) * math.prod(inputs[1][:-1])


def _fully_connected(inputs, output, options):
    _, terms = inputs[1]
    return math.prod(output) * terms


def _batch_matmul(inputs, output, options):
    transposed = options is not None and options["adj_x"]
    *_, rows, columns = inputs[0]
    return math.prod(output) * (rows if transposed else columns)


def _recurrent(matrices: Sequence[int]) -> Rule:
    """Counts each matrix once per step and sample. `matrices` are input indices."""

    def rule(inputs, output, options):
        steps = math.prod(inputs[0][:-1])
        used = [inputs[i] for i in matrices if i < len(inputs) and inputs[i] is not None]
        return steps * sum(map(math.prod, used))

    return rule


_LSTM = _recurrent([*range(1, 9), 16])  # input and recurrent weights of four gates, projection
_RNN = _recurrent([1, 2])

RULES: dict[str, Rule] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "CONV_3D": _convolution_3d,
    "TRANSPOSE_CONV": _transposed,
    "CONV_3D_TRANSPOSE": _transposed,
    "FULLY_CONNECTED": _fully_connected,
    "BATCH_MATMUL": _batch_matmul,
    "LSTM": _LSTM,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _LSTM,
    "RNN": _RNN,
    "UNIDIRECTIONAL_SEQUENCE_RNN": _RNN,
    "SVDF": _RNN,
}

# Operators with products that are not counted.
UNCOUNTED = {
    "BIDIRECTIONAL_SEQUENCE_LSTM",
    "BIDIRECTIONAL_SEQUENCE_RNN",
    "STABLEHLO_CONVOLUTION",
    "STABLEHLO_DOT_GENERAL",
}
