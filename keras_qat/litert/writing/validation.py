"""Checks a `Model` before it is written."""

from collections.abc import Iterator

import numpy as np

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.format.types import Model, Operator, Quantization, Tensor

DTYPES = ("int2", "int4", "int8", "uint8", "int16", "int32", "int64", "float32", "bool")


def model_tensors(model: Model) -> list[Tensor]:
    """Lists the tensors of a model, each once, in the order in which the file holds them.

    Args:
        model: The model.

    Returns:
        The inputs first, then the operands, outputs and intermediates of each operator in turn.

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor
        >>> from keras_qat.litert.writing.validation import model_tensors
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> model = Model({"x": x}, {"y": y}, (Operator("MUL", (x, x), (y,)),))
        >>> [t.name for t in model_tensors(model)]
        ['x', 'y']
    """
    return list(dict.fromkeys(_mentions(model)))


def _mentions(model: Model) -> Iterator[Tensor]:
    """Yields each tensor as often as the model uses it."""
    yield from model.inputs.values()
    for operator in model.operators:
        yield from (tensor for tensor in operator.inputs if tensor is not None)
        yield from operator.outputs
        yield from operator.intermediates
    yield from model.outputs.values()


def validate(model: Model) -> None:
    """Checks that a model can be written.

    Names must be unique. Constants must have the shape and dtype of their tensors, and quantization
    parameters must fit the tensors. Each operand must be a model input, a constant, a variable or
    the output of an earlier operator. Each tensor must be defined once.

    Args:
        model: The model to check.

    Raises:
        LiteRTFormatError: at the first violation, naming the tensor or operator.

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor
        >>> from keras_qat.litert.writing.validation import validate
        >>> x, y = Tensor("x", (1, 8), "float32"), Tensor("y", (1, 8), "float32")
        >>> validate(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)))
    """
    _check_names(model_tensors(model))
    for tensor in model_tensors(model):
        _check_shape(tensor)
        _check_data(tensor)
        _check_quantization(tensor)
    _check_order(model)


def _check_names(tensors: list[Tensor]) -> None:
    seen: set[str] = set()
    for tensor in tensors:
        if not tensor.name or tensor.name in seen:
            raise LiteRTFormatError(
                "Two different tensors share a name, or a name is empty.",
                received=f"name={tensor.name!r}",
                fix="Give each tensor its own name.",
            )
        seen.add(tensor.name)


def _check_shape(tensor: Tensor) -> None:
    if tensor.dtype not in DTYPES:
        raise LiteRTFormatError(
            f"Tensor {tensor.name!r} has an unknown dtype.",
            expected=f"one of {', '.join(DTYPES)}",
            received=f"dtype={tensor.dtype!r}",
        )
    if any(size is not None and size < 0 for size in tensor.shape):
        raise LiteRTFormatError(
            f"Tensor {tensor.name!r} has a negative dimension.",
            received=f"shape={tensor.shape}",
            fix="Use None for a dynamic dimension.",
        )


def _check_data(tensor: Tensor) -> None:
    data = tensor.data
    if data is None:
        return
    if data.shape != tuple(tensor.shape) or data.dtype != np.dtype(tensor.dtype):
        raise LiteRTFormatError(
            f"The data of constant {tensor.name!r} does not have its shape and dtype.",
            expected=f"shape={tensor.shape}, dtype={tensor.dtype}",
            received=f"shape={data.shape}, dtype={data.dtype}",
        )


def _check_quantization(tensor: Tensor) -> None:
    q = tensor.quantization
    if q is None:
        return
    problem = _quantization_problem(q, tensor.shape)
    if problem:
        raise LiteRTFormatError(
            f"The quantization of tensor {tensor.name!r} is not valid: {problem}.",
            received=f"scale={q.scale} ({q.scale.dtype}), zero_point={q.zero_point} "
            f"({q.zero_point.dtype}), axis={q.axis}, shape={tensor.shape}",
        )


def _quantization_problem(q: Quantization, shape: tuple[int | None, ...]) -> str | None:
    if q.scale.dtype != np.float32 or q.zero_point.dtype != np.int64:
        return "scale must be float32 and zero_point int64"
    if q.scale.ndim != 1 or q.scale.shape != q.zero_point.shape:
        return "scale and zero_point must be vectors of one length"
    if not (np.isfinite(q.scale) & (q.scale > 0)).all():
        return "scales must be positive and finite"
    if q.scale.size == 1:
        return None
    if not 0 <= q.axis < len(shape) or shape[q.axis] != q.scale.size:
        return "the number of scales must be 1 or the size of dimension `axis`"
    return None


def _check_order(model: Model) -> None:
    defined: set[Tensor] = set()
    for name, tensor in model.inputs.items():
        _define(tensor, defined, f"model input {name!r}")
    for index, operator in enumerate(model.operators):
        _check_operator(index, operator, defined)
    for name, tensor in model.outputs.items():
        if tensor not in defined:
            raise LiteRTFormatError(
                f"Model output {name!r} is not defined.",
                expected="a model input or the output of an operator",
                received=f"tensor {tensor.name!r}",
            )


def _check_operator(index: int, operator: Operator, defined: set[Tensor]) -> None:
    where = f"operator {index} ({operator.code})"
    if operator.version < 1:
        raise LiteRTFormatError(
            f"The version of {where} is not valid.",
            expected="1 or more",
            received=f"version={operator.version}",
        )
    for tensor in operator.inputs:
        is_given = tensor is None or tensor.data is not None or tensor.is_variable
        if tensor is not None and not is_given and tensor not in defined:
            raise LiteRTFormatError(
                f"An input of {where} is not defined before it.",
                expected="a model input, a constant, a variable or the output of an earlier "
                "operator",
                received=f"tensor {tensor.name!r}",
            )
    for tensor in operator.outputs:
        _define(tensor, defined, f"output of {where}")


def _define(tensor: Tensor, defined: set[Tensor], where: str) -> None:
    """Marks a tensor as defined. Raises if it already has a value."""
    if tensor.data is not None or tensor in defined:
        raise LiteRTFormatError(
            f"Tensor {tensor.name!r} cannot be {where}: it is a constant, or defined already.",
            fix="Use a new Tensor for each value.",
        )
    defined.add(tensor)
