"""Functions of TensorFlow that were called on Keras tensors, each as `keras.ops` computes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keras import ops

from keras_qat.errors import InvalidFileError
from keras_qat.legacy.image_operations import (
    depth_to_space,
    only,
    pooling,
    resize,
    space_to_depth,
)

Function = Callable[..., Any]


def _unary(function: Function) -> Function:
    return lambda x, name=None: function(x)


def _binary(function: Function) -> Function:
    return lambda x, y, name=None: function(x, y)


def _reduction(function: Function) -> Function:
    def reduce(input_tensor, axis=None, keepdims=False, name=None, keep_dims=None):
        return function(input_tensor, axis=_axes(axis), keepdims=bool(keepdims or keep_dims))

    return reduce


def _argument(function: Function) -> Function:
    def find(input, axis=None, output_type="int64", name=None, dimension=None):
        return ops.cast(function(input, axis=axis if axis is not None else dimension), output_type)

    return find


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _cast(x, dtype, name=None):
    return ops.cast(x, dtype)


def _clip(t, clip_value_min, clip_value_max, name=None):
    return ops.clip(t, clip_value_min, clip_value_max)


def _concat(values, axis, name="concat"):
    return ops.concatenate(values, axis=axis)


def _divide_no_nan(x, y, name=None):
    return ops.divide_no_nan(x, y)


def _elu(features, name=None):
    return ops.elu(features)


def _gelu(features, approximate=False, name=None):
    return ops.gelu(features, approximate=bool(approximate))


def _gather(params, indices, validate_indices=None, axis=None, batch_dims=0, name=None):
    only("batch_dims", batch_dims, 0)
    return ops.take(params, indices, axis=0 if axis is None else axis)


def _l2_normalize(x, axis=None, epsilon=1e-12, name=None, dim=None):
    axis = _axes(axis if axis is not None else dim)
    total = ops.sum(ops.square(x), axis=axis, keepdims=True)
    return x * ops.rsqrt(ops.maximum(total, epsilon))


def _leaky_relu(features, alpha=0.2, name=None):
    return ops.leaky_relu(features, negative_slope=alpha)


def _log_softmax(logits, axis=None, name=None):
    return ops.log_softmax(logits, axis=-1 if axis is None else axis)


def _softmax(logits, axis=None, name=None, dim=None):
    axis = axis if axis is not None else dim
    return ops.softmax(logits, axis=-1 if axis is None else axis)


def _matmul(a, b, transpose_a=False, transpose_b=False, name=None, **flags):
    for flag, value in flags.items():
        only(flag, value, None, False)
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0, name=None):
    value = constant_values if mode.upper() == "CONSTANT" else None
    return ops.pad(tensor, paddings, mode=mode.lower(), constant_values=value)


def _reshape(tensor, shape, name=None):
    """A size that is None is the batch's, see `_shape`."""
    return ops.reshape(tensor, [-1 if size is None else int(size) for size in shape])


def _shape(input, out_type=None, name=None, optimize=True):
    """The sizes as plain numbers, None for the batch's: they are used to reshape."""
    return list(input.shape)


def _getitem(x, slice_spec, **_):
    parts = [_slice(p) for p in (slice_spec if isinstance(slice_spec, list) else [slice_spec])]
    return x[parts[0]] if isinstance(x, list) else x[tuple(parts)]  # a list is a shape


def _slice(part: Any) -> Any:
    if isinstance(part, dict) and part.get("class_name") == "__ellipsis__":
        return Ellipsis
    if isinstance(part, dict):
        return slice(part["start"], part["stop"], part["step"])
    return part


def _slice_begin(input_, begin, size, name=None):
    ends = [
        None if length == -1 else start + length for start, length in zip(begin, size, strict=True)
    ]
    return input_[tuple(slice(start, end) for start, end in zip(begin, ends, strict=True))]


def _split(value, num_or_size_splits, axis=0, num=None, name="split"):
    if isinstance(num_or_size_splits, int):
        return ops.split(value, num_or_size_splits, axis=axis)
    ends = [sum(num_or_size_splits[: i + 1]) for i in range(len(num_or_size_splits) - 1)]
    return ops.split(value, ends, axis=axis)


def _squeeze(input, axis=None, name=None, squeeze_dims=None):
    axis = _axes(axis if axis is not None else squeeze_dims)
    return ops.squeeze(input, axis=axis[0] if isinstance(axis, tuple) and len(axis) == 1 else axis)


def _stack(values, axis=0, name="stack"):
    if all(value is None or isinstance(value, int) for value in values):
        return values  # a shape, made of sizes
    return ops.stack(values, axis=axis)


def _transpose(a, perm=None, conjugate=False, name=None):
    return ops.transpose(a, perm)


def _where(condition, x=None, y=None, name=None):
    return ops.where(condition, x, y)


# Name in the file, without `compat.v1.`: what computes it. The parameters have TensorFlow's names.
FUNCTIONS: dict[str, Function] = {
    "__operators__.add": _binary(ops.add),
    "__operators__.getitem": _getitem,
    "cast": _cast,
    "clip_by_value": _clip,
    "concat": _concat,
    "einsum": lambda equation, *inputs, **_: ops.einsum(equation, *inputs),
    "expand_dims": lambda input, axis, name=None: ops.expand_dims(input, axis),
    "gather": _gather,
    "identity": lambda input, name=None: input,
    "image.resize": resize,
    "linalg.l2_normalize": _l2_normalize,
    "linalg.matmul": _matmul,
    "math.abs": _unary(ops.absolute),
    "math.add": _binary(ops.add),
    "math.add_n": lambda inputs, name=None: sum(inputs[1:], start=inputs[0]),
    "math.argmax": _argument(ops.argmax),
    "math.argmin": _argument(ops.argmin),
    "math.ceil": _unary(ops.ceil),
    "math.cos": _unary(ops.cos),
    "math.divide": _binary(ops.divide),
    "math.divide_no_nan": _divide_no_nan,
    "math.equal": _binary(ops.equal),
    "math.erf": _unary(ops.erf),
    "math.exp": _unary(ops.exp),
    "math.floor": _unary(ops.floor),
    "math.greater": _binary(ops.greater),
    "math.greater_equal": _binary(ops.greater_equal),
    "math.less": _binary(ops.less),
    "math.less_equal": _binary(ops.less_equal),
    "math.log": _unary(ops.log),
    "math.log1p": _unary(ops.log1p),
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "math.multiply": _binary(ops.multiply),
    "math.negative": _unary(ops.negative),
    "math.pow": _binary(ops.power),
    "math.reciprocal": _unary(ops.reciprocal),
    "math.reduce_max": _reduction(ops.max),
    "math.reduce_mean": _reduction(ops.mean),
    "math.reduce_min": _reduction(ops.min),
    "math.reduce_prod": _reduction(ops.prod),
    "math.reduce_std": _reduction(ops.std),
    "math.reduce_sum": _reduction(ops.sum),
    "math.reduce_variance": _reduction(ops.var),
    "math.round": _unary(ops.round),
    "math.rsqrt": _unary(ops.rsqrt),
    "math.sigmoid": _unary(ops.sigmoid),
    "math.sign": _unary(ops.sign),
    "math.sin": _unary(ops.sin),
    "math.softplus": lambda features, name=None: ops.softplus(features),
    "math.sqrt": _unary(ops.sqrt),
    "math.square": _unary(ops.square),
    "math.squared_difference": lambda x, y, name=None: ops.square(ops.subtract(x, y)),
    "math.subtract": _binary(ops.subtract),
    "math.tanh": _unary(ops.tanh),
    "math.truediv": _binary(ops.true_divide),
    "nn.avg_pool": pooling("average", None),
    "nn.avg_pool2d": pooling("average", 2),
    "nn.depth_to_space": depth_to_space,
    "nn.elu": _elu,
    "nn.gelu": _gelu,
    "nn.leaky_relu": _leaky_relu,
    "nn.log_softmax": _log_softmax,
    "nn.max_pool": pooling("max", None),
    "nn.max_pool2d": pooling("max", 2),
    "nn.relu": lambda features, name=None: ops.relu(features),
    "nn.relu6": lambda features, name=None: ops.relu6(features),
    "nn.selu": lambda features, name=None: ops.selu(features),
    "nn.silu": lambda features, beta=1.0, name=None: (
        ops.silu(features) if beta == 1.0 else features * ops.sigmoid(features * beta)
    ),
    "nn.softmax": _softmax,
    "nn.softsign": lambda features, name=None: ops.softsign(features),
    "nn.space_to_depth": space_to_depth,
    "ones_like": lambda input, dtype=None, **_: ops.ones_like(input, dtype=dtype),
    "pad": _pad,
    "repeat": lambda input, repeats, axis=None, name=None: ops.repeat(input, repeats, axis=axis),
    "reshape": _reshape,
    "reverse": lambda tensor, axis, name=None: ops.flip(tensor, axis=_axes(axis)),
    "roll": lambda input, shift, axis, name=None: ops.roll(input, _axes(shift), _axes(axis)),
    "shape": _shape,
    "slice": _slice_begin,
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "stop_gradient": lambda input, name=None: ops.stop_gradient(input),
    "tile": lambda input, multiples, name=None: ops.tile(input, multiples),
    "transpose": _transpose,
    "unstack": lambda value, num=None, axis=0, name="unstack": ops.unstack(value, num, axis),
    "where": _where,
    "zeros_like": lambda input, dtype=None, **_: ops.zeros_like(input, dtype=dtype),
}
# Other names of these.
_ALIASES = {
    "math.add_v2": "math.add",
    "math.argmax_v2": "math.argmax",
    "math.reduce_mean_v1": "math.reduce_mean",
    "math.l2_normalize": "linalg.l2_normalize",
    "matmul": "linalg.matmul",
    "nn.l2_normalize": "linalg.l2_normalize",
    "nn.sigmoid": "math.sigmoid",
    "nn.softplus": "math.softplus",
    "nn.swish": "nn.silu",
    "nn.tanh": "math.tanh",
    "transpose_v2": "transpose",
    "where_v2": "where",
}


def function_named(name: Any, layer: str) -> Function:
    """Returns what computes a function of TensorFlow.

    Args:
        name: Its name, such as `"math.reduce_mean"` or `"compat.v1.squeeze"`.
        layer: Name of the layer that calls it.

    Raises:
        InvalidFileError: If there is none.

    Example:
    >>> function_named("math.squared_difference", "layer")(3.0, 1.0)
    <tf.Tensor: shape=(), dtype=float32, numpy=4.0>
    """
    short = str(name).removeprefix("compat.v1.")
    found = FUNCTIONS.get(_ALIASES.get(short, short))
    if found is None:
        raise InvalidFileError(
            "This function of TensorFlow is not known here as one of `keras.ops`.",
            layer=layer,
            received=f"tf.{name}",
            fix="Build the model anew with `keras.ops`, and load the weights by name.",
        )
    return found
