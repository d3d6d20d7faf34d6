"""The only file that touches a Keras backend: compilation of fused arithmetic, and dtypes.

Everything else in `keras_qat` is written with `keras.ops`. Backends are imported inside the
functions, so that importing this file costs nothing and pulls in none of them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras


def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes TensorFlow compile a function with XLA, wherever it is called from.

    Integer arithmetic is dozens of tiny element-wise operations, which TensorFlow would run
    one by one over memory; XLA fuses them into one loop. The other backends compile whole
    programs, so there (and for symbolic `KerasTensor`s, and where XLA does not work)
    the function is simply called. It is for inference: no gradient should flow through it.

    Args:
        fn: A function of tensors, written with `keras.ops`, that creates no variables. Its
            positional arguments are tensors (or what converts to one), its keyword
            arguments are static, hashable Python options.

    Returns:
        The function with the same signature and the same values. On TensorFlow each
        combination of options and of input shapes is traced once; an unknown batch size is
        one shape.

    Example:
    >>> @compiled
    ... def scaled(x, *, by):
    ...     return x * by
    >>> scaled(keras.ops.array([1, 2], "int32"), by=3).numpy()
    array([3, 6], dtype=int32)
    """

    @functools.wraps(fn)
    def wrapper(*tensors: Any, **options: Any) -> Any:
        symbolic = any(isinstance(tensor, keras.KerasTensor) for tensor in tensors)
        if symbolic or keras.backend.backend() != "tensorflow" or not _xla_works():
            return fn(*tensors, **options)
        inputs = [keras.ops.convert_to_tensor(_value(tensor)) for tensor in tensors]
        return _tf_function(fn, tuple(sorted(options.items())))(*inputs)

    return wrapper


def _value(tensor: Any) -> Any:
    """A variable's value: `convert_to_tensor` would return the variable itself."""
    return tensor.value if isinstance(tensor, keras.Variable) else tensor


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Makes PyTorch keep nothing for a backward pass; the other backends do not in eager code.

    Returns:
        A context manager.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    import torch  # pyright: ignore[reportMissingImports] (an optional backend)

    with torch.no_grad():
        yield


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Makes `keras.ops.cast(x, "float64")` give real float64 on every backend.

    JAX has no 64-bit types unless asked; TensorFlow and PyTorch always have them. Cast the
    result to a 32-bit type before leaving the context.

    Returns:
        A context manager. It works in eager code and while a function is traced.

    Example:
    >>> with float64():
    ...     print(keras.ops.cast([1.0], "float64").dtype.name)
    float64
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def maximum(a: Any, b: Any) -> Any:
    """Returns the larger of two values, element by element, in the type that they have.

    On PyTorch `keras.ops.maximum` computes in float32 where it is given float64; so do `minimum`,
    `floor`, `ceil`, `floor_divide`, `prod`, `cumsum`, `matmul`, `dot` and `tensordot`.

    Args:
        a: float64 tensor; its NaN are kept.
        b: float64 tensor that broadcasts with `a`, or a number.

    Returns:
        float64 tensor.

    Example:
    >>> with float64():
    ...     print(maximum(keras.ops.cast([0.5, 2.0], "float64"), 1.0).numpy())
    [1. 2.]
    """
    return keras.ops.where(a < b, b, a)


@functools.cache
def _tf_function(
    fn: Callable[..., Any], options: tuple[tuple[str, Any], ...]
) -> Callable[..., Any]:
    """One `tf.function` for each function and combination of its options."""
    import tensorflow as tf

    # Not reduce_retracing: it would forget static shapes, which the layers that follow need.
    return tf.function(functools.partial(fn, **dict(options)), jit_compile=True, autograph=False)


@functools.cache
def _xla_works() -> bool:
    """Whether TensorFlow can compile for the default device; tried once."""
    import tensorflow as tf

    probe = tf.function(lambda x: x + 1, jit_compile=True, autograph=False)
    with tf.init_scope():  # out of any graph that is being traced
        try:
            return int(probe(tf.constant(1))) == 2
        except tf.errors.OpError:
            return False
