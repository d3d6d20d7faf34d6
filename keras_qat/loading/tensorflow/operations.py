"""TensorFlow functions that were called on Keras tensors, written with `keras.ops`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from keras import ops

from keras_qat.errors import InvalidFileError
from keras_qat.loading.tensorflow.elementwise import ELEMENTWISE, Function, as_tensors
from keras_qat.loading.tensorflow.image_operations import (
    depth_to_space,
    only,
    pooling,
    resize,
    space_to_depth,
)


def _reduction(function: Function) -> Function:
    def reduce(input_tensor, axis=None, keepdims=False, name=None, keep_dims=None):
        return function(input_tensor, axis=_axes(axis), keepdims=bool(keepdims or keep_dims))

    return reduce


def _argument(function: Function) -> Function:
    def find(input, axis=None, output_type="int64", name=None, dimension=None):
        axis = dimension if axis is None else axis
        return ops.cast(function(input, axis=0 if axis is None else axis), output_type)

    return find


def _axes(axis: Any) -> Any:
    return tuple(axis) if isinstance(axis, list) else axis


def _bias_add(value, bias, data_format=None, name=None):
    only("data_format", data_format, None, "NHWC", "N...C")
    return ops.add(*as_tensors(value, bias))


def _cast(x, dtype, name=None):
    return ops.cast(x, dtype)


def _concat(values, axis, name="concat"):
    if all(isinstance(value, list) for value in values):
        return sum(values, start=[])  # a shape, joined from parts of shapes
    return ops.concatenate(as_tensors(*values), axis=axis)


def _cumsum(x, axis=0, exclusive=False, reverse=False, name=None):
    only("exclusive", exclusive, False)
    only("reverse", reverse, False)
    return ops.cumsum(x, axis=axis)


def _elu(features, name=None):
    return ops.elu(features)


def _gelu(features, approximate=False, name=None):
    return ops.gelu(features, approximate=bool(approximate))


def _gather(params, indices, validate_indices=None, axis=None, batch_dims=0, name=None):
    axis = batch_dims if axis is None else axis
    rank = len(indices.shape) if hasattr(indices, "shape") else np.ndim(indices)
    if batch_dims in (0, -rank):
        return ops.take(params, indices, axis=axis)
    only("axis", axis, batch_dims)
    only("rank of the indices", rank, batch_dims + 1)
    only("rank of the values", len(params.shape), batch_dims + 1)
    return ops.take_along_axis(params, indices, axis=axis)


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
    a, b = as_tensors(a, b)
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    return ops.matmul(a, ops.swapaxes(b, -1, -2) if transpose_b else b)


def _norm(tensor, ord="euclidean", axis=None, keepdims=None, name=None):
    only("ord", ord, "euclidean", 2)
    total = ops.sum(ops.square(tensor), axis=_axes(axis), keepdims=bool(keepdims))
    return ops.sqrt(total)


def _one_hot(indices, depth, on_value=None, off_value=None, axis=None, dtype=None, name=None):
    only("on_value", on_value, None, 1)
    only("off_value", off_value, None, 0)
    return ops.one_hot(indices, depth, axis=-1 if axis is None else axis, dtype=dtype or "float32")


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0, name=None):
    value = constant_values if mode.upper() == "CONSTANT" else None
    return ops.pad(tensor, paddings, mode=mode.lower(), constant_values=value)


def _reshape(tensor, shape, name=None):
    """Reshapes a tensor. None is the batch size from `_shape`: -1, and another -1 is the rest."""
    sizes = [-1 if size is None else int(size) for size in shape]
    if sizes.count(-1) == 2 and any(size is None for size in shape):
        known = math.prod(size for size in sizes if size != -1)
        rest = math.prod(tensor.shape[1:]) // known
        sizes = [rest if size == -1 else new for size, new in zip(shape, sizes, strict=True)]
    return ops.reshape(tensor, sizes)


def _shape(input, out_type=None, name=None, optimize=True):
    """Returns the sizes as plain numbers for a later reshape. The batch size is None."""
    return list(input.shape)


def _getitem(x, slice_spec, **_):
    parts = [_slice(p) for p in (slice_spec if isinstance(slice_spec, list) else [slice_spec])]
    return x[parts[0]] if isinstance(x, list) else x[tuple(parts)]  # a list is a shape


def _slice(part: Any) -> Any:
    if isinstance(part, dict) and part.get("class_name") == "__ellipsis__":
        return Ellipsis
    if isinstance(part, dict):
        return slice(*(_bound(part[key]) for key in ("start", "stop", "step")))
    return part


def _bound(value: Any) -> int | None:
    """Returns a number that may have been computed from the sizes of a shape."""
    return None if value is None else int(value)


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
        return values  # a shape, joined from sizes
    return ops.stack(values, axis=axis)


def _transpose(a, perm=None, conjugate=False, name=None):
    return ops.transpose(a, perm)


def _unstack(value, num=None, axis=0, name="unstack"):
    return value if isinstance(value, list) else ops.unstack(value, num, axis)  # a list is a shape


# Names in the file, without `compat.v1.`, to functions. Parameters have TensorFlow's names.
FUNCTIONS: dict[str, Function] = {
    **ELEMENTWISE,
    "__operators__.getitem": _getitem,
    "cast": _cast,
    "convert_to_tensor": lambda value, dtype=None, *_, **__: value,
    "concat": _concat,
    "expand_dims": lambda input, axis, name=None: ops.expand_dims(input, axis),
    "gather": _gather,
    "identity": lambda input, name=None: input,
    "image.flip_left_right": lambda image: ops.flip(image, axis=-2),
    "image.flip_up_down": lambda image: ops.flip(image, axis=-3),
    "image.resize": resize,
    "linalg.l2_normalize": _l2_normalize,
    "linalg.matmul": _matmul,
    "math.add_n": lambda inputs, name=None: sum(inputs[1:], start=inputs[0]),
    "math.argmax": _argument(ops.argmax),
    "math.argmin": _argument(ops.argmin),
    "math.cumsum": _cumsum,
    "math.reduce_all": _reduction(ops.all),
    "math.reduce_any": _reduction(ops.any),
    "math.reduce_logsumexp": _reduction(ops.logsumexp),
    "math.reduce_max": _reduction(ops.max),
    "math.reduce_mean": _reduction(ops.mean),
    "math.reduce_min": _reduction(ops.min),
    "math.reduce_prod": _reduction(ops.prod),
    "math.reduce_std": _reduction(ops.std),
    "math.reduce_sum": _reduction(ops.sum),
    "math.reduce_variance": _reduction(ops.var),
    "math.softplus": lambda features, name=None: ops.softplus(features),
    "nn.avg_pool": pooling("average", None),
    "nn.avg_pool2d": pooling("average", 2),
    "nn.bias_add": _bias_add,
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
    "norm": _norm,
    "one_hot": _one_hot,
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
    "unstack": _unstack,
    "zeros_like": lambda input, dtype=None, **_: ops.zeros_like(input, dtype=dtype),
}
# Aliases of these names.
ALIASES = {
    "floor_div": "math.floordiv",
    "math.add_v2": "math.add",
    "math.argmax_v2": "math.argmax",
    "math.mod": "math.floormod",
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
    """Returns the `keras.ops` form of a TensorFlow function.

    Args:
        name: The function's name, such as `"math.reduce_mean"` or `"compat.v1.squeeze"`.
        layer: Name of the layer that calls it.

    Raises:
        InvalidFileError: If the function is not supported.

    Example:
    >>> function_named("math.squared_difference", "layer")(3.0, 1.0)
    <tf.Tensor: shape=(), dtype=float32, numpy=4.0>
    """
    short = str(name).removeprefix("compat.v1.")
    found = FUNCTIONS.get(ALIASES.get(short, short))
    if found is None:
        raise InvalidFileError(
            "This TensorFlow function is not supported.",
            layer=layer,
            received=f"tf.{name}",
            fix="Build the model again with `keras.ops`, and load the weights by name.",
        )
    return found
