"""Fixes the batch size of a model, so that no shape is unknown or computed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np

from keras_qat.litert.format.operators import declaration_of
from keras_qat.litert.format.types import Model, Operator, Tensor
from keras_qat.litert.writing.static_shapes import static_shape, unknown_sizes
from keras_qat.litert.writing.validation import model_tensors


def fix_batch(model: Model, batch_size: int) -> Model:
    """Fixes the batch size of a model.

    Args:
        model: A model whose unknown sizes all come from the batch.
        batch_size: The size of the batch.

    Returns:
        The model for batches of exactly that size. Every shape is known, including the shape
        operands of RESHAPEs, and `fold_shapes` has been applied.

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor
        >>> from keras_qat.litert.writing.fixed_batch import fix_batch
        >>> x, y = Tensor("x", (None, 8), "int8"), Tensor("y", (None, 8), "int8")
        >>> fixed = fix_batch(Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),)), 3)
        >>> fixed.outputs["y"].shape
        (3, 8)
    """
    sizes = unknown_sizes(model, batch_size)
    known = {
        tensor: dataclasses.replace(tensor, shape=tuple(static_shape(tensor, sizes)))
        for tensor in model_tensors(model)
        if None in tensor.shape
    }
    reshaped = _ConstantShapes(model)

    def fixed(operator: Operator) -> Operator:
        operator = _replaced(operator, known)
        has_shape = declaration_of(operator.code).place("new_shape") is not None
        return reshaped.operator(operator) if has_shape else operator

    return fold_shapes(_rebuilt(model, known, fixed))


def fold_shapes(model: Model) -> Model:
    """Replaces the operators that compute known shapes by constants.

    These are SHAPE of a tensor of known shape, and sums of the results.

    Args:
        model: Any model.

    Returns:
        The model with a constant instead of each of these operators.
    """
    folded: dict[Tensor, Tensor] = {}
    operators: list[Operator] = []
    for operator in model.operators:
        operator = _replaced(operator, folded)
        value = _shape_value(operator, set(folded.values()))
        if value is None:
            operators.append(operator)
        else:
            (output,) = operator.outputs
            folded[output] = dataclasses.replace(output, data=value)
    return dataclasses.replace(model, operators=tuple(operators)) if folded else model


def _shape_value(operator: Operator, folded: set[Tensor]) -> np.ndarray | None:
    """Returns the shape that an operator computes, or None if the shape is not known."""
    inputs = [x for x in operator.inputs if x is not None]
    if operator.code == "SHAPE" and None not in inputs[0].shape:
        return np.array(inputs[0].shape, operator.outputs[0].dtype)
    values = [x.data for x in inputs if x.data is not None]
    if operator.code == "ADD" and len(values) == len(inputs) and folded.intersection(inputs):
        return np.sum(values, axis=0, dtype=operator.outputs[0].dtype)
    return None


class _ConstantShapes:
    """Writes the shapes of RESHAPEs without -1."""

    def __init__(self, model: Model):
        self.names = {tensor.name for tensor in model_tensors(model)}
        self.made: dict[tuple[Tensor, tuple[int | None, ...]], Tensor] = {}

    def operator(self, operator: Operator) -> Operator:
        """Returns a RESHAPE with the shape of its output as a constant."""
        x, old = operator.inputs
        shape = operator.outputs[0].shape
        if old is None or old.data is None or -1 not in old.data:
            return operator
        if (old, shape) not in self.made:
            is_first = all(tensor is not old for tensor, _ in self.made)
            data = np.array(shape, old.dtype)
            name = old.name if is_first else self._unused(old.name)
            self.made[old, shape] = dataclasses.replace(old, name=name, data=data)
        new = self.made[old, shape]
        return dataclasses.replace(operator, inputs=(x, new), options={"newShape": new.data})

    def _unused(self, name: str) -> str:
        """Returns an unused name for a shape. Two shapes may have been one constant before."""
        names = (f"{name}_{i}" for i in itertools.count(1))
        name = next(name for name in names if name not in self.names)
        self.names.add(name)
        return name


def _replaced(operator: Operator, tensors: dict[Tensor, Tensor]) -> Operator:
    """Returns an operator with some of its tensors replaced."""
    inputs = tuple(x if x is None else tensors.get(x, x) for x in operator.inputs)
    outputs = tuple(tensors.get(x, x) for x in operator.outputs)
    return dataclasses.replace(operator, inputs=inputs, outputs=outputs)


def _rebuilt(
    model: Model, tensors: dict[Tensor, Tensor], change: Callable[[Operator], Operator]
) -> Model:
    """Returns a model with some tensors replaced and each operator changed."""
    return dataclasses.replace(
        model,
        inputs={name: tensors.get(x, x) for name, x in model.inputs.items()},
        outputs={name: tensors.get(x, x) for name, x in model.outputs.items()},
        operators=tuple(map(change, model.operators)),
    )
