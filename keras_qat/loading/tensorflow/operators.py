"""`TensorFlowOpLayer`: single operators of a TensorFlow graph, as Keras 2.1 to 2.3 saved them."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from keras_qat.errors import InvalidFileError
from keras_qat.loading.tensorflow.operations import FUNCTIONS

Inputs = list[Any]
Attributes = Mapping[str, Any]


def _same(name: str) -> Callable[[Inputs, Attributes], Any]:
    """Returns a function that takes the inputs in order."""
    return lambda inputs, attributes: FUNCTIONS[name](*inputs)


def _reduced(name: str) -> Callable[[Inputs, Attributes], Any]:
    def reduce(inputs, attributes):
        axes = np.ravel(inputs[1]).tolist()
        return FUNCTIONS[name](inputs[0], axis=axes, keepdims=attributes.get("keep_dims", False))

    return reduce


def _concatenated(inputs, attributes):
    return FUNCTIONS["concat"](inputs[:-1], axis=int(inputs[-1]))


def _pooled(name: str) -> Callable[[Inputs, Attributes], Any]:
    def pool(inputs, attributes):
        return FUNCTIONS[name](
            inputs[0],
            ksize=attributes["ksize"],
            strides=attributes["strides"],
            padding=attributes["padding"],
            data_format=attributes.get("data_format", "NHWC"),
        )

    return pool


def _strided_slice(inputs, attributes):
    begin, end, strides = (np.ravel(part).tolist() for part in inputs[1:])
    masks = {key: attributes.get(f"{key}_mask", 0) for key in _MASKS}
    parts: list[Any] = []
    for i, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
        is_set = {key for key, mask in masks.items() if mask >> i & 1}
        if "ellipsis" in is_set:
            parts.append(Ellipsis)
        elif "new_axis" in is_set:
            parts.append(None)
        elif "shrink_axis" in is_set:
            parts.append(start)
        else:
            first = None if "begin" in is_set else start
            parts.append(slice(first, None if "end" in is_set else stop, step))
    return inputs[0][tuple(parts)]


_MASKS = ("begin", "ellipsis", "end", "new_axis", "shrink_axis")

# TensorFlow operators to functions of the inputs, including constants, and the attributes.
OPERATORS: dict[str, Callable[[Inputs, Attributes], Any]] = {
    "Abs": _same("math.abs"),
    "Add": _same("math.add"),
    "AddV2": _same("math.add"),
    "AddN": lambda inputs, attributes: FUNCTIONS["math.add_n"](inputs),
    "AvgPool": _pooled("nn.avg_pool2d"),
    "BiasAdd": _same("math.add"),
    "Cast": lambda inputs, attributes: FUNCTIONS["cast"](inputs[0], _dtype(attributes["DstT"])),
    "ConcatV2": _concatenated,
    "Elu": _same("nn.elu"),
    "Exp": _same("math.exp"),
    "ExpandDims": lambda inputs, attributes: FUNCTIONS["expand_dims"](inputs[0], int(inputs[1])),
    "Floor": _same("math.floor"),
    "Identity": _same("identity"),
    "LeakyRelu": lambda inputs, attributes: FUNCTIONS["nn.leaky_relu"](
        inputs[0], alpha=attributes.get("alpha", 0.2)
    ),
    "Log": _same("math.log"),
    "MatMul": lambda inputs, attributes: FUNCTIONS["linalg.matmul"](
        *inputs, attributes.get("transpose_a", False), attributes.get("transpose_b", False)
    ),
    "Max": _reduced("math.reduce_max"),
    "MaxPool": _pooled("nn.max_pool2d"),
    "Maximum": _same("math.maximum"),
    "Mean": _reduced("math.reduce_mean"),
    "Min": _reduced("math.reduce_min"),
    "Minimum": _same("math.minimum"),
    "Mul": _same("math.multiply"),
    "Neg": _same("math.negative"),
    "Pack": lambda inputs, attributes: FUNCTIONS["stack"](inputs, axis=attributes.get("axis", 0)),
    "Pad": lambda inputs, attributes: FUNCTIONS["pad"](inputs[0], np.array(inputs[1]).tolist()),
    "Pow": _same("math.pow"),
    "RealDiv": _same("math.truediv"),
    "Relu": _same("nn.relu"),
    "Relu6": _same("nn.relu6"),
    "Reshape": lambda inputs, attributes: FUNCTIONS["reshape"](
        inputs[0], np.ravel(inputs[1]).tolist()
    ),
    "Rsqrt": _same("math.rsqrt"),
    "Selu": _same("nn.selu"),
    "Sigmoid": _same("math.sigmoid"),
    "Softmax": _same("nn.softmax"),
    "Softplus": _same("math.softplus"),
    "Sqrt": _same("math.sqrt"),
    "Square": _same("math.square"),
    "SquaredDifference": _same("math.squared_difference"),
    "Squeeze": lambda inputs, attributes: FUNCTIONS["squeeze"](
        inputs[0], axis=attributes.get("squeeze_dims") or None
    ),
    "StridedSlice": _strided_slice,
    "Sub": _same("math.subtract"),
    "Sum": _reduced("math.reduce_sum"),
    "Tanh": _same("math.tanh"),
    "Tile": lambda inputs, attributes: FUNCTIONS["tile"](inputs[0], np.ravel(inputs[1]).tolist()),
    "Transpose": lambda inputs, attributes: FUNCTIONS["transpose"](
        inputs[0], np.ravel(inputs[1]).tolist()
    ),
}


def operator_function(config: Mapping[str, Any]) -> Callable[..., Any]:
    """Returns the function that a `TensorFlowOpLayer` computes.

    Args:
        config: The arguments of the layer: `node_def`, and `constants` by their positions among
            the inputs.

    Raises:
        InvalidFileError: If the operator is not supported.
    """
    node, name = config.get("node_def"), str(config.get("name"))
    if not isinstance(node, Mapping) or node.get("op") not in OPERATORS:
        raise InvalidFileError(
            "This TensorFlow operator is not supported.",
            layer=name,
            received=str(node.get("op") if isinstance(node, Mapping) else type(node).__name__),
            expected="one of those in docs/loading.md",
            fix="Build the model again with `keras.ops`, and load the weights by name.",
        )
    function = OPERATORS[node["op"]]
    attributes = {key: _attribute(value) for key, value in (node.get("attr") or {}).items()}
    constants = {int(key): value for key, value in (config.get("constants") or {}).items()}

    def compute(inputs: Any) -> Any:
        """Puts the constants in their places among the inputs, and computes the operator."""
        rest = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        for place in sorted(constants):
            rest.insert(place, constants[place])
        return function(rest, attributes)

    return compute


def _attribute(value: Any) -> Any:
    """Reads a NodeDef's value from JSON: 64-bit numbers are strings, and bytes are base64."""
    if not isinstance(value, Mapping) or len(value) != 1:
        return None
    ((kind, inner),) = value.items()
    if kind == "list":
        return [_attribute({key: item}) for key, items in inner.items() for item in items]
    if kind == "i":
        return int(inner)
    if kind == "s":
        return base64.b64decode(inner).decode("utf-8")
    return inner


def _dtype(name: str) -> str:
    """Converts a name such as `DT_FLOAT` to `float32`."""
    sizes = {"float": "float32", "half": "float16", "double": "float64"}
    short = re.sub("^DT_", "", name).lower()
    return sizes.get(short, short)
