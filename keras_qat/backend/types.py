"""Differences of the backends in types and gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras


def read(variable: Any) -> Any:
    """Returns the value of a variable.

    The value that Keras gives on TensorFlow is a variable still. Each operation reads it again,
    and each read is traced.

    Args:
        variable: A Keras variable, or a tensor, which is returned.

    Example:
    >>> float(read(keras.Variable(2.0)))
    2.0
    """
    value = variable.value if isinstance(variable, keras.Variable) else variable
    if keras.backend.backend() != "tensorflow" or isinstance(value, keras.KerasTensor):
        return value
    import tensorflow as tf

    return tf.convert_to_tensor(value)


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
def full_precision() -> Iterator[None]:
    """Makes PyTorch and JAX compute products of float32 in float32.

    Inside `torch.autocast` PyTorch would round the operands to 16 bits. On GPUs JAX would round
    them to 11 bits. TensorFlow has only a setting for the whole process.

    Returns:
        A context manager. It works in eager code and while a function is traced.

    Example:
    >>> with full_precision():
    ...     print(keras.ops.matmul([[16777215.0]], [[1.0]]).numpy().item())
    16777215.0
    """
    if keras.backend.backend() == "jax":
        import jax

        with jax.default_matmul_precision("highest"):
            yield
    elif keras.backend.backend() == "torch":
        import torch  # pyright: ignore[reportMissingImports] (an optional backend)

        has_gpu = torch.cuda.is_available()
        on_gpu = torch.autocast("cuda", enabled=False) if has_gpu else contextlib.nullcontext()
        with torch.autocast("cpu", enabled=False), on_gpu:
            yield
    else:
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
