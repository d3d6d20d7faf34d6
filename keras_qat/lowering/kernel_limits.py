"""Checks the limits that LiteRT's kernels have for the scales of tensors."""

from __future__ import annotations

from keras_qat.errors import KernelLimitError
from keras_qat.litert import Model, Operator, Tensor
from keras_qat.litert.format.operators import declaration_of


def check_kernel_limits(lowered: Model) -> None:
    """Raises if LiteRT's kernels do not support the scales of an operator.

    Args:
        lowered: The file's contents.

    Raises:
        KernelLimitError: If the logits of a SOFTMAX have a scale of 2^-26 or less, the output of an
            ADD or SUB one of at most 2^-19 of an input's, or the int16 input of a LOGISTIC, TANH or
            SOFTMAX one above 5.
    """
    for operator in lowered.operators:
        check = _LIMITS.get(declaration_of(operator.code).scale_limit)
        scales = [_scale(each) for each in (*operator.inputs[:2], operator.outputs[0])]
        if check is not None and all(scales):
            check(operator.outputs[0].name, *scales)
        _check_int16(operator)


def _scale(tensor: Tensor | None) -> float:
    """Returns the scale of a tensor, or 0 if it has no scale."""
    grid = None if tensor is None else tensor.quantization
    return 0.0 if grid is None else float(grid.scale[0])


def _check_int16(operator: Operator) -> None:
    largest, data = declaration_of(operator.code).largest_int16_scale, operator.inputs[0]
    scale = _scale(data) * operator.options.get("beta", 1.0)
    if data is not None and data.dtype == "int16" and scale > largest:
        name = operator.outputs[0].name
        raise KernelLimitError(
            f"The range of the input is too large: LiteRT's {operator.code} of 16 bits overflows.",
            layer=name,
            received=f"an input with a scale of {scale:g}, so values up to {scale * 32767:.3g}",
            expected=f"a scale of at most {largest:g}",
            fix="Calibrate with data like those at inference; or leave the layer in 8 bits: "
            f'`overrides={{"{name}": "int8"}}`.',
        )


def _check_softmax(name: str, logits: float, _output: float) -> None:
    if not logits * 2**26 > 1:
        raise KernelLimitError(
            "The range of the logits is too small: LiteRT's SOFTMAX aborts.",
            layer=name,
            received=f"logits with a scale of {logits:g}",
            expected="a scale above 2^-26, about 1.5e-8",
            fix="Give `quantized_input_stats` with a smaller standard deviation, or none.",
        )


def _check_sum(name: str, first: float, second: float, output: float) -> None:
    if not output * 2**19 > max(first, second):
        raise KernelLimitError(
            "The range of the sum is too small for its inputs: LiteRT's ADD aborts.",
            layer=name,
            received=f"scales of {first:g} and {second:g} for the inputs, {output:g} for the sum",
            expected="a scale of the sum above 2^-19 of the inputs', about 1.9e-6",
            fix="Calibrate with data like those at inference; or leave the layer in float: "
            f'`overrides={{"{name}": None}}`.',
        )


_LIMITS = {"logits": _check_softmax, "sum": _check_sum}
