"""Element-wise functions in float32: the LiteRT operators that compute each of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras_qat.layers.elementwise.functions import Function
from keras_qat.layers.elementwise.terms import Term, combined

_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def float_term(function: Function, x: Any) -> Term:
    """Returns the operators that compute a function of a tensor.

    Args:
        function: The function.
        x: LiteRT tensor, float32.

    Returns:
        A `Term`.

    Example:
    >>> from keras_qat.litert import Tensor
    >>> float_term(Function("exponential"), Tensor("x", (None, 4), "float32")).code
    'EXP'
    """
    if function.name in _OPERATORS:
        return Term(_OPERATORS[function.name], (x,))
    return _TERMS[function.name](x, **dict(function.options))


# Functions that LiteRT has an operator for, except CEIL, ELU and ROUND, which reference kernels
# lack.
_OPERATORS = {
    "abs": "ABS",
    "cos": "COS",
    "exp": "EXP",
    "exponential": "EXP",
    "floor": "FLOOR",
    "hard_tanh": "RELU_N1_TO_1",
    "log": "LOG",
    "negative": "NEG",
    "rsqrt": "RSQRT",
    "sign": "SIGN",
    "sin": "SIN",
    "sqrt": "SQRT",
    "square": "SQUARE",
    "tanh": "TANH",
}


def _of(code: str, *operands: Any) -> Term:
    return combined(code, *operands) if len(operands) == 2 else Term(code, operands)


def _exp(x):
    return _of("EXP", x)


def _log(x):
    return _of("LOG", x)


def _relu(x):
    return _of("RELU", x)


def _times(x, y):
    return _of("MUL", x, y)


def _plus(x, y):
    return _of("ADD", x, y)


def _clipped(x, low, high):
    return _of("MINIMUM", _of("MAXIMUM", x, low), high)


def _elu(x, alpha=1.0, width=1.0):
    return _relu(x) + alpha * (_exp(_of("MINIMUM", x, 0.0) * (1.0 / width)) - 1.0)


def _where(code: str, x, limit):
    """Returns 1 where a comparison holds, else 0."""
    found = Term(code, (x, limit), dtype="bool")
    types = {"inDataType": "BOOL", "outDataType": "FLOAT32"}
    return Term("CAST", (found,), types)


def _softplus(x):
    # The exponential of a number that is not positive cannot overflow.
    return _relu(x) + _log(_exp(-_of("ABS", x)) + 1.0)


def _gelu(x, approximate=True):
    return Term("GELU", (x,), {"approximate": bool(approximate)})


def _erf(x):
    # LiteRT has no erf; this is `2 * gelu(z) / z - 1`, of a z that is not 0.
    z = _times(x, math.sqrt(2.0))
    z = z + 2e-12 * _where("LESS", _of("ABS", z), 1e-12)
    return 2.0 * (_gelu(z, approximate=False) / z) - 1.0


def _signed(x, size: Term):
    """Returns a size, a function of the absolute value, with the sign of `x`."""
    return _of("SIGN", x) * size


def _arcsinh(x):
    size = _of("ABS", x)
    return _signed(x, _log(size + _of("SQRT", size * size + 1.0)))


def _threshold(x, threshold, default_value):
    above = _where("GREATER", x, threshold)
    return _times(x, above) + default_value * (1.0 - above)


def _parametrized_relu(x, negative_slope=0.0, max_value=None, threshold=0.0):
    positive = _relu(x)
    if threshold:
        positive = _times(x, _where("GREATER_EQUAL", x, threshold))
    if max_value is not None:
        positive = _of("MINIMUM", positive, max_value)
    if not negative_slope:
        return positive
    return positive + negative_slope * _of("MINIMUM", _of("SUB", x, threshold), 0.0)


def _round(x, decimals=0):
    # Halves are rounded to the even number.
    if decimals:
        return _round(_times(x, 10.0**decimals)) * 10.0**-decimals
    floor = _of("FLOOR", x)
    rest, is_odd = _of("SUB", x, floor), floor - 2.0 * _of("FLOOR", 0.5 * floor)
    return floor + _where("GREATER", rest, 0.5) + _where("EQUAL", rest, 0.5) * is_odd


_TERMS: dict[str, Callable[..., Term]] = {
    "arccosh": lambda x: _log(_plus(x, _of("SQRT", _times(x, x) - 1.0))),
    "arcsin": lambda x: _of("ATAN2", x, _of("SQRT", 1.0 - _times(x, x))),
    "arcsinh": _arcsinh,
    "arctan": lambda x: _of("ATAN2", x, 1.0 + _times(x, 0.0)),
    "arctanh": lambda x: 0.5 * _log(_plus(x, 1.0) / _of("SUB", 1.0, x)),
    "cbrt": lambda x: _signed(x, _of("POW", _of("ABS", x), 1.0 / 3.0)),
    "ceil": lambda x: -_of("FLOOR", _of("NEG", x)),
    "celu": lambda x, alpha=1.0: _elu(x, alpha, alpha),
    "clip": lambda x, x_min, x_max: _clipped(x, x_min, x_max),
    "cosh": lambda x: 0.5 * _exp(x) + 0.5 * _exp(_of("NEG", x)),
    "elu": _elu,
    "erf": _erf,
    "exp2": lambda x: _exp(_times(x, math.log(2.0))),
    "expm1": lambda x: _exp(x) - 1.0,
    "floor_divide": lambda x, x2: _of("FLOOR", _of("DIV", x, x2)),
    "gelu": _gelu,
    "hard_shrink": lambda x, threshold=0.5: _times(x, _where("GREATER", _of("ABS", x), threshold)),
    "hard_sigmoid": lambda x: _of("RELU6", _plus(x, 3.0)) * (1.0 / 6.0),
    "log10": lambda x: _log(x) * (1.0 / math.log(10.0)),
    "log1p": lambda x: _log(_plus(x, 1.0)),
    "log2": lambda x: _log(x) * (1.0 / math.log(2.0)),
    "log_sigmoid": lambda x: -_softplus(_of("NEG", x)),
    "mod": lambda x, x2: _of("FLOOR_MOD", x, x2),
    "mish": lambda x: _times(x, _of("TANH", _softplus(x))),
    "parametrized_relu": _parametrized_relu,
    "power": lambda x, x2: _of("POW", x, x2),
    "reciprocal": lambda x: _of("DIV", 1.0, x),
    "round": _round,
    "selu": lambda x: _SELU_SCALE * _elu(x, _SELU_ALPHA),
    "silu": lambda x: _times(x, _of("LOGISTIC", x)),
    "sinh": lambda x: 0.5 * _exp(x) - 0.5 * _exp(_of("NEG", x)),
    "soft_shrink": lambda x, threshold=0.5: _of("SUB", x, _clipped(x, -threshold, threshold)),
    "softplus": _softplus,
    "softsign": lambda x: _of("DIV", x, 1.0 + _of("ABS", x)),
    "sparse_plus": lambda x: (
        _relu(_of("SUB", x, 1.0)) + 0.25 * _of("SQUARE", 1.0 + _of("RELU_N1_TO_1", x))
    ),
    "sparse_sigmoid": lambda x: 0.5 + 0.5 * _of("RELU_N1_TO_1", x),
    "squareplus": lambda x, b=4.0: 0.5 * _plus(x, _of("SQRT", _times(x, x) + b)),
    "tan": lambda x: _of("DIV", _of("SIN", x), _of("COS", x)),
    "tanh_shrink": lambda x: _of("SUB", x, _of("TANH", x)),
    "threshold": _threshold,
    "trunc": lambda x: _signed(x, _of("FLOOR", _of("ABS", x))),
}
