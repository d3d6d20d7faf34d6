"""Writes Fourier transforms as products with constant matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_qat.errors import UnsupportedLayerError
from keras_qat.graph import Edge, Graph, Node, operation_named
from keras_qat.graph.graph import Shape
from keras_qat.layers.elementwise.binary import value_of
from keras_qat.passes.canonical.edits import without_unused
from keras_qat.passes.rewriting import rewrite_nodes

_TRANSFORM = operation_named("FFT", "FFT2", "IFFT2", "RFFT", "IRFFT")
_ZEROS = operation_named("ZerosLike")


def write_fourier_transforms(graph: Graph) -> Graph:
    """Writes `ops.fft2((x, zeros))[0]` as two products with matrices of cosines and sines.

    Matches: `ops.fft`, `ops.fft2`, `ops.ifft2`, `ops.rfft` and `ops.irfft` of known lengths.
    Builds: a product with a constant matrix for each transformed axis. The matrix has columns only
    for the parts, real or imaginary, that something takes, and rows for the imaginary part only if
    that is not 0.
    Why: a transform of a known length is a linear function, which LiteRT computes as a
    FULLY_CONNECTED with constant weights.

    Args:
        graph: The graph.

    Returns:
        A graph without these operations.

    Raises:
        UnsupportedLayerError: If the length of a transformed axis is unknown.
    """
    used = {*graph.consumers(), *graph.output_edges}

    def write(node: Node) -> Callable[..., Any] | None:
        if node.is_input or not _TRANSFORM(node.head):
            return None
        is_real = type(node.head).__name__ == "RFFT" or _is_zero(graph, _operands(node)[1])
        wanted = [Edge(node.name, part) in used for part in range(len(node.shapes))]

        def function(*args: Any, **kwargs: Any) -> Any:
            (x,) = (*args, *kwargs.values())
            parts = (x,) if type(node.head).__name__ == "RFFT" else x
            _check(node, parts[0].shape)
            return _transformed(node.head, parts[:1] if is_real else parts, wanted)

        return function

    written = rewrite_nodes(graph, write)
    return written if written is graph else without_unused(written)


def _operands(node: Node) -> Sequence[Any]:
    """Returns the real and the imaginary part that a node takes."""
    args, kwargs = node.arguments
    (x,) = (*args, *kwargs.values())
    return x


def _is_zero(graph: Graph, leaf: Any) -> bool:
    """Returns whether an operand is always 0."""
    if isinstance(leaf, Edge):
        maker = graph.nodes.get(leaf.node)  # None for a tensor of another transform
        return maker is not None and not maker.is_input and _ZEROS(maker.head)
    return not value_of(leaf).any()


def _transformed(head: Any, parts: Sequence[Any], wanted: Sequence[bool]) -> Any:
    """Applies a transform.

    Args:
        head: The operation.
        parts: The real part, and the imaginary part unless that is 0.
        wanted: Whether something takes each part of the result.

    Returns:
        The parts of the result. One that nothing takes is another part.
    """
    x = ops.stack(list(parts), axis=-2) if len(parts) > 1 else ops.expand_dims(parts[0], -2)
    kind, rank = type(head).__name__, len(parts[0].shape)
    letters = "abcdefgh"[:rank]
    axes = f"{letters[:-1]}p{letters[-1]}"  # `p` numbers the parts
    if kind.endswith("FFT2"):
        matrix = _matrix(head, x.shape[-1], x.shape[-1])[: len(parts)]
        x = ops.einsum(f"{axes},p{letters[-1]}qz->{axes[:-2]}qz", x, matrix)
        matrix = _matrix(head, x.shape[-3], x.shape[-3])
        equation = f"{axes},p{letters[-2]}z->{letters[:-2]}z{letters[-1]}"
    else:
        matrix = _matrix(head, x.shape[-1], head.fft_length if kind != "FFT" else None)
        matrix = matrix[: len(parts)]
        equation = f"{axes},p{letters[-1]}z->{letters[:-1]}z"
    made = {
        part: ops.einsum(equation, x, matrix[:, :, part])
        for part, is_used in enumerate(wanted)
        if is_used
    }
    first = next(iter(made.values()))
    return tuple(made.get(part, first) for part in range(len(wanted))) if len(wanted) > 1 else first


def _matrix(head: Any, size: int, length: int | None) -> np.ndarray:
    """Returns the real matrix of a transform along one axis.

    Args:
        head: The operation.
        size: The number of values.
        length: The length of the transform, or None for that of the values.

    Returns:
        float32 array `(2, size, 2, outputs)`: the parts and places of the values, then those of the
        results.
    """
    kind = type(head).__name__
    if kind == "IRFFT":
        length = length or 2 * (size - 1)
        places, outputs, sign = np.arange(size), np.arange(length), 1
        weights = np.where((places == 0) | (2 * places == length), 1, 2) / length
        weights = weights * (2 * places <= length)
    else:
        length = length or size
        places, sign = np.arange(size), 1 if kind == "IFFT2" else -1
        outputs = np.arange(length // 2 + 1 if kind == "RFFT" else length)
        weights = (places < length) / (length if kind == "IFFT2" else 1)
    turns = np.outer(places, outputs) % length / length
    waves = weights[:, None] * np.exp(sign * 2j * np.pi * turns)
    rows = [[waves.real, waves.imag], [-waves.imag, waves.real]]
    return np.array(rows, "float32").transpose(0, 2, 1, 3)


def _check(node: Node, shape: Shape) -> None:
    """Raises if a transformed axis has no known length, or is the batch."""
    axes = 2 if type(node.head).__name__.endswith("FFT2") else 1
    if None in shape[-axes:] or len(shape) <= axes:
        raise UnsupportedLayerError(
            "A Fourier transform is a product with a matrix, whose size has to be known.",
            layer=node.name,
            received=f"a tensor of shape {shape}",
            expected="a known length of each transformed axis, and a batch before these",
            fix="Give the model's input a fixed shape.",
        )
