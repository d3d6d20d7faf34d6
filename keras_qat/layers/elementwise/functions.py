"""Element-wise functions of one variable: their names, and their computation."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import keras
from keras import ops

from keras_qat.graph.patterns import Matcher
from keras_qat.layers.core.activation_names import ACTIVATION_LAYERS, function_name, is_relu
from keras_qat.layers.elementwise.constant_operand import ConstantOperand, floor_divide, mod

# Operations of `keras.ops` by the name of their class, with the attributes that matter.
_OPERATIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "Absolute": ("abs", ()),
    "Arccosh": ("arccosh", ()),
    "Arcsin": ("arcsin", ()),
    "Arcsinh": ("arcsinh", ()),
    "Arctan": ("arctan", ()),
    "Arctanh": ("arctanh", ()),
    "Cbrt": ("cbrt", ()),
    "Ceil": ("ceil", ()),
    "Celu": ("celu", ("alpha",)),
    "Clip": ("clip", ("x_min", "x_max")),
    "Cos": ("cos", ()),
    "Cosh": ("cosh", ()),
    "Elu": ("elu", ("alpha",)),
    "Erf": ("erf", ()),
    "Exp": ("exp", ()),
    "Exp2": ("exp2", ()),
    "Expm1": ("expm1", ()),
    "Floor": ("floor", ()),
    "Gelu": ("gelu", ("approximate",)),
    "HardShrink": ("hard_shrink", ("threshold",)),
    "HardSigmoid": ("hard_sigmoid", ()),
    "HardSilu": ("hard_silu", ()),
    "HardTanh": ("hard_tanh", ()),
    "LeakyRelu": ("leaky_relu", ("negative_slope",)),
    "Log": ("log", ()),
    "Log10": ("log10", ()),
    "Log1p": ("log1p", ()),
    "Log2": ("log2", ()),
    "LogSigmoid": ("log_sigmoid", ()),
    "Negative": ("negative", ()),
    "Reciprocal": ("reciprocal", ()),
    "Round": ("round", ("decimals",)),
    "Rsqrt": ("rsqrt", ()),
    "Selu": ("selu", ()),
    "Sigmoid": ("sigmoid", ()),
    "Sign": ("sign", ()),
    "Silu": ("silu", ()),
    "Sin": ("sin", ()),
    "Sinh": ("sinh", ()),
    "SoftShrink": ("soft_shrink", ("threshold",)),
    "Softplus": ("softplus", ()),
    "Softsign": ("softsign", ()),
    "SparsePlus": ("sparse_plus", ()),
    "SparseSigmoid": ("sparse_sigmoid", ()),
    "Sqrt": ("sqrt", ()),
    "Square": ("square", ()),
    "Squareplus": ("squareplus", ("b",)),
    "Tan": ("tan", ()),
    "Tanh": ("tanh", ()),
    "TanhShrink": ("tanh_shrink", ()),
    "Threshold": ("threshold", ("threshold", "default_value")),
    "Trunc": ("trunc", ()),
}
# Functions of `keras.activations`, by name, without functions of several values.
_ACTIVATIONS = {
    "celu",
    "elu",
    "exponential",
    "gelu",
    "hard_shrink",
    "hard_sigmoid",
    "hard_silu",
    "hard_tanh",
    "leaky_relu",
    "log_sigmoid",
    "mish",
    "selu",
    "sigmoid",
    "silu",
    "soft_shrink",
    "softplus",
    "softsign",
    "sparse_plus",
    "sparse_sigmoid",
    "squareplus",
    "tanh",
    "tanh_shrink",
}
# Defaults of `keras.activations`, where those of `keras.ops` differ.
_DEFAULTS = {
    "gelu": (("approximate", False),),
    "leaky_relu": (("negative_slope", 0.2),),
}


@dataclasses.dataclass(frozen=True)
class Function:
    """An element-wise function.

    Attributes:
        name: Name in `keras.activations` or `keras.ops`.
        options: Keyword arguments of the function, as pairs.

    Example:
    >>> float(Function("leaky_relu", (("negative_slope", 0.5),))(ops.array(-4.0)))
    -2.0
    """

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __call__(self, x):
        """Computes the function of a float tensor, in its own precision."""
        computed = _OWN.get(self.name) or getattr(ops, self.name)
        return computed(x, **dict(self.options))


# Functions that `keras.ops` lacks, always computes in float32, or divides by a reciprocal.
_OWN = {
    "exp2": lambda x: ops.exp(x * math.log(2.0)),
    "exponential": ops.exp,
    "floor_divide": floor_divide,
    "mish": lambda x: x * ops.tanh(ops.softplus(x)),
    "mod": mod,
    "parametrized_relu": keras.activations.relu,
}


def function_of(operation: Any) -> Function | None:
    """Returns the element-wise function that a Keras layer or operation computes.

    Args:
        operation: A Keras layer or `keras.ops` operation.

    Returns:
        The `Function`, or None for any other computation.

    Example:
    >>> function_of(keras.layers.Activation("swish")).name
    'silu'
    """
    if type(operation) in ACTIVATION_LAYERS:
        name = function_name(operation.activation)
        return Function(name, _DEFAULTS.get(name, ())) if name in _ACTIVATIONS else None
    read = _relu if is_relu(operation) else _LAYERS.get(type(operation))
    if read is not None:
        return read(operation)
    if not type(operation).__module__.startswith("keras.src."):
        return None
    name, attributes = _OPERATIONS.get(type(operation).__name__, ("", ()))
    if not name or isinstance(operation, keras.layers.Layer):
        return None
    return _function(name, operation, attributes)


def _function(name: str, source: Any, attributes: tuple[str, ...]) -> Function | None:
    options = tuple((attribute, getattr(source, attribute)) for attribute in attributes)
    if all(isinstance(value, int | float | bool) for _, value in options):
        return Function(name, options)
    return None


def _relu(layer: Any) -> Function:
    options = (
        ("negative_slope", float(layer.negative_slope)),
        ("max_value", None if layer.max_value is None else float(layer.max_value)),
        ("threshold", float(layer.threshold)),
    )
    return Function("parametrized_relu", options)


_LAYERS = {
    ConstantOperand: lambda layer: Function(layer.function, (("x2", layer.number),)),
    keras.layers.ELU: lambda layer: Function("elu", (("alpha", float(layer.alpha)),)),
    keras.layers.LeakyReLU: lambda layer: Function(
        "leaky_relu", (("negative_slope", float(layer.negative_slope)),)
    ),
}

# Functions that LiteRT has an integer operator for.
_WITH_OPERATOR = {
    "celu",
    "elu",
    "gelu",
    "hard_sigmoid",
    "hard_silu",
    "leaky_relu",
    "sigmoid",
    "tanh",
}


def function_named(*names: str) -> Matcher:
    """Matches operations that compute one of these functions, by the names of `Function`.

    Example:
    >>> function_named("sigmoid")(keras.layers.Activation("sigmoid"))
    True
    """

    def test(operation: Any) -> bool:
        function = function_of(operation)
        return function is not None and function.name in names

    return Matcher(" or ".join(names), test)


def _is_looked_up(operation: Any) -> bool:
    function = function_of(operation)
    return function is not None and function.name not in _WITH_OPERATOR


ELEMENTWISE = Matcher("any element-wise function", _is_looked_up)


def looked_up() -> tuple[str, ...]:
    """Returns the names of the functions that are looked up in a table.

    Example:
    >>> "mish" in looked_up(), "sigmoid" in looked_up()
    (True, False)
    """
    operations = {name for name, _ in _OPERATIONS.values()}
    return tuple(sorted((operations | _ACTIVATIONS) - _WITH_OPERATOR))
