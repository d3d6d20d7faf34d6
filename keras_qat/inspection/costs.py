"""Multiply-accumulate operations of an operator, from the shapes of its tensors.

The products are those of operators.toml.
"""

import math
from collections.abc import Sequence

from keras_qat.litert import Record
from keras_qat.litert.format.operators import declaration_of, is_foreign

Shape = tuple[int, ...]


def operator_macs(
    name: str, inputs: Sequence[Shape | None], output: Shape, options: Record | None
) -> int | None:
    """Counts the multiply-accumulate operations of one run of an operator.

    Padding is counted as if it were multiplied, as is usual. Operators other than convolutions and
    matrix products have 0. A subgraph that an operator runs is counted separately.

    Args:
        name: Name of the operator.
        inputs: Shape of each input; `None` for an absent one.
        output: Shape of the first output.
        options: The table of its options.

    Returns:
        The number, or `None` if it is unknown: for custom operators, for operators newer than the
        schema, and if the file does not state the shapes.

    Example:
        >>> from keras_qat.inspection.costs import operator_macs
        >>> operator_macs("CONV_2D", [(1, 8, 8, 3), (16, 3, 3, 3), (16,)], (1, 4, 4, 16), None)
        6912
    """
    declaration = declaration_of(name)
    product = declaration.macs
    for option, other in declaration.macs_if.items():
        product = other if options is not None and options[option] else product
    if is_foreign(name) or product == "unknown":
        return None
    if not product:
        return 0
    shapes = [("output", output), *zip(declaration.operands, inputs, strict=False)]
    try:
        return math.prod(_factor(factor, shapes) for factor in product.split())
    except (KeyError, TypeError, ValueError):  # the operator does not take these shapes
        return None


def _factor(factor: str, shapes: Sequence[tuple[str, Shape | None]]) -> int:
    """Returns a factor of a product, see `keras_qat.litert.format.operators.Declaration.macs`."""
    if factor == "matrices":
        matrices = [shape for role, shape in shapes if role == "weights" and shape is not None]
        return sum(map(math.prod, matrices))
    first = dict(reversed(shapes))
    if factor == "steps":
        return math.prod(_known(first["data"])[:-1])
    role, _, axes = factor.rstrip(")").partition("(")
    shape = _known(first[role])
    if not axes:
        return math.prod(shape)
    letters = axes.lstrip("*")
    if axes.startswith("*"):
        shape = shape[len(shape) - len(letters) :]
    return math.prod(n for n, letter in zip(shape, letters, strict=True) if letter != ".")


def _known(shape: Shape | None) -> Shape:
    """Returns a shape. Raises a TypeError if the shape is not known."""
    if shape is None:
        raise TypeError
    return shape
