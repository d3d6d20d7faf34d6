"""Names for the tensors of a file. Inputs and outputs are named first."""

from __future__ import annotations

import dataclasses

from keras_qat.graph.graph import unique_name
from keras_qat.litert import Model, Operator, Tensor
from keras_qat.litert.writing.validation import model_tensors


def tensor_names(model: Model) -> dict[Tensor, str]:
    """Chooses a unique name for each tensor of a model.

    An input or output has the name that the signature gives it. A tensor that is several inputs or
    outputs has the first of its names. An inner tensor keeps its name. If an input or output has
    the same name, the type of the inner tensor is appended.

    Args:
        model: A model whose inner tensors are named after layers.

    Returns:
        The names.

    Example:
    >>> h, x = Tensor("head", (1, 8), "int8"), Tensor("x", (1, 8), "int8")
    >>> y = Tensor("head_float32", (1, 8), "float32")
    >>> operators = Operator("RELU", (x,), (h,)), Operator("DEQUANTIZE", (h,), (y,))
    >>> list(tensor_names(Model({"x": x}, {"head": y}, operators)).values())
    ['x', 'head', 'head_int8']
    """
    names: dict[Tensor, str] = {}
    for name, tensor in (*model.inputs.items(), *model.outputs.items()):
        if tensor not in names:
            names[tensor] = unique_name(name or tensor.name, names.values())
    inner = [tensor for tensor in model_tensors(model) if tensor not in names]
    used = set(names.values())
    wanted = {tensor.name for tensor in inner}
    for tensor in inner:
        name = tensor.name
        if name in used:
            name = unique_name(f"{name}_{tensor.dtype}", used | wanted)
        used.add(name)
        names[tensor] = name
    return names


def name_tensors(model: Model) -> Model:
    """Gives each tensor of a model its name in the file.

    Args:
        model: A model whose inner tensors are named after layers.

    Returns:
        The model with the names of `tensor_names`.
    """
    names = tensor_names(model)
    new = {
        tensor: tensor if tensor.name == name else dataclasses.replace(tensor, name=name)
        for tensor, name in names.items()
    }

    def renamed(operator: Operator) -> Operator:
        inputs = tuple(None if tensor is None else new[tensor] for tensor in operator.inputs)
        outputs = tuple(new[tensor] for tensor in operator.outputs)
        return dataclasses.replace(operator, inputs=inputs, outputs=outputs)

    return dataclasses.replace(
        model,
        inputs={name: new[tensor] for name, tensor in model.inputs.items()},
        outputs={name: new[tensor] for name, tensor in model.outputs.items()},
        operators=tuple(map(renamed, model.operators)),
    )
