"""Computes the output shapes of kernels, to compare them with the shapes that a file states.

A damaged constant could make a kernel allocate any amount of memory. XNNPACK reads a constant by
the stated shape of the tensor that is computed from it.
"""

from collections.abc import Callable, Sequence

import numpy as np

from keras_qat.litert.format.flatbuffer import Record
from keras_qat.litert.format.operators import Declaration, declaration_of
from keras_qat.litert.format.schema_enums import name_of

Shape = list[int]  # -1 for a dynamic dimension
# Arguments: shapes of the inputs, values of the constant that states a shape, options.
Rule = Callable[[Sequence[Shape], np.ndarray, Record], Shape]


def _padded(shapes: Sequence[Shape], constant: np.ndarray, options: Record) -> Shape:
    before_and_after = constant.reshape(-1, 2).sum(axis=1).tolist()
    pairs = zip(shapes[0], before_and_after, strict=True)
    return [n + more if n >= 0 else n for n, more in pairs]


def _tiled(shapes: Sequence[Shape], constant: np.ndarray, options: Record) -> Shape:
    pairs = zip(shapes[0], constant.tolist(), strict=True)
    return [n * times if n >= 0 else n for n, times in pairs]


def _resized(shapes: Sequence[Shape], constant: np.ndarray, options: Record) -> Shape:
    batch, _, _, channels = shapes[0]
    return [batch, *constant.tolist(), channels]


def _given(shapes: Sequence[Shape], constant: np.ndarray, options: Record) -> Shape:
    return constant.tolist()


def _unchanged(shapes: Sequence[Shape], constant: np.ndarray, options: Record) -> Shape:
    return shapes[0]


def _windowed(declaration: Declaration, shapes: Sequence[Shape], options: Record) -> Shape:
    """Returns the shape of the output of a convolution or a pooling."""
    batch, height, width, channels = shapes[0]
    weights = declaration.place("weights")
    if weights is None:
        kernel = [options["filter_height"], options["filter_width"]]
        return [batch, *_windows([height, width], kernel, options), channels]
    _, *kernel, _ = shapes[weights]
    windows = _windows([height, width], kernel, options)
    return [batch, *windows, shapes[weights][declaration.channel_axis]]


def _rule_of_windows(declaration: Declaration) -> Rule:
    return lambda shapes, constant, options: _windowed(declaration, shapes, options)


def _windows(image: Shape, kernel: Shape, options: Record) -> Shape:
    """Returns the number of windows along each axis (`ComputeOutSize` in `kernels/padding.h`)."""
    result: Shape = []
    for axis, size, window in zip("hw", image, kernel, strict=True):
        reach = (window - 1) * options.get(f"dilation_{axis}_factor", 1)
        if name_of("Padding", options["padding"]) == "SAME":
            reach = 0
        result.append(-(-(size - reach) // options[f"stride_{axis}"]) if size >= 0 else -1)
    return result


# The key is the role of the constant that states a shape.
_BY_ROLE: dict[str, Rule] = {
    "pads": _padded,
    "shape": _given,
    "size": _resized,
    "times": _tiled,
}


def computed_shape(
    name: str,
    inputs: Sequence[Record | None],
    constants: Sequence[np.ndarray | None],
    options: Record | None,
) -> Shape | None:
    """Returns the shape that a kernel computes for its output.

    Args:
        name: Name of the operator.
        inputs: The tables of its inputs.
        constants: Values of the inputs that are int32 constants.
        options: The table of its options.

    Returns:
        The shape, with -1 for a dynamic dimension. `None` if the shape is not known before the
        operator runs, or if the operands do not fit each other and the kernel will refuse them.
    """
    declaration = declaration_of(name)
    at = declaration.place(*_BY_ROLE)
    values = None if at is None else constants[at]
    rule = None if at is None else _BY_ROLE[declaration.operands[at]]
    if "elementwise" in declaration.traits:
        rule = _unchanged
    elif "windows" in declaration.traits:
        rule = _rule_of_windows(declaration)
    if rule is None or (at is not None and values is None):
        return None
    shapes = [[] if tensor is None else _sizes(tensor) for tensor in inputs]
    try:
        return rule(
            shapes,
            np.zeros(0) if values is None else values.astype(np.int64),
            Record("none") if options is None else options,
        )
    except ValueError:
        return None


def contradicts(stated: Record, computed: list[int]) -> bool:
    """Returns whether a shape differs from a tensor's stated shape, except in dynamic dimensions.

    Args:
        stated: The table of the tensor.
        computed: The computed shape.
    """
    sizes = _sizes(stated)
    if not sizes or not computed:  # the shape of a scalar may be unknown
        return False
    if len(sizes) != len(computed):
        return True
    return any(min(a, b) >= 0 and a != b for a, b in zip(sizes, computed, strict=True))


def _sizes(tensor: Record) -> list[int]:
    """Returns the dimensions of a tensor, -1 for a dynamic dimension."""
    for name in ("shape_signature", "shape"):
        if tensor[name] is not None and tensor[name].size:
            return tensor[name].tolist()
    return []
