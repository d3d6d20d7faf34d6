"""What a quantization scheme means: widths, symmetry, and the integer limits they give."""

from __future__ import annotations

import dataclasses

from keras_qat.errors import InvalidSchemeError


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How weights and activations are represented as integers.

    Activations are asymmetric per tensor; weights are symmetric with a narrow range (the
    most negative integer is not used), as the LiteRT 8-bit quantization specification asks:
    https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec

    Attributes:
        name: The name users pass, such as `"int8"`.
        activation_bits: Width of an activation, in bits.
        weight_bits: Width of a weight, in bits.
        weight_per_channel: Whether each output channel has a weight scale of its own.

    Example:
    >>> get_scheme("int8").activation_low, get_scheme("int8").weight_high
    (-128, 127)
    """

    name: str
    activation_bits: int = 8
    weight_bits: int = 8
    weight_per_channel: bool = True

    @property
    def activation_low(self) -> int:
        """Smallest integer of an activation."""
        return -(2 ** (self.activation_bits - 1))

    @property
    def activation_high(self) -> int:
        """Largest integer of an activation."""
        return 2 ** (self.activation_bits - 1) - 1

    @property
    def weight_high(self) -> int:
        """Largest integer of a weight; the smallest is its negative."""
        return 2 ** (self.weight_bits - 1) - 1


SCHEMES = {"int8": Scheme("int8")}


def get_scheme(scheme: str | Scheme) -> Scheme:
    """Returns the scheme with a given name.

    Args:
        scheme: A name (`"int8"`), or one of `SCHEMES`, which is returned as it is.

    Returns:
        The `Scheme`.

    Raises:
        InvalidSchemeError: If no scheme has that name, or the layers have no kernels for what a
            `Scheme` says.

    Example:
    >>> get_scheme("int8").name
    'int8'
    """
    if isinstance(scheme, Scheme):
        if SCHEMES.get(scheme.name) == scheme:
            return scheme
        raise InvalidSchemeError(
            "There are no kernels for this quantization scheme.",
            received=f"{scheme}",
            expected=f"one of {list(SCHEMES.values())}",
            fix='Pass scheme="int8".',
        )
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        raise InvalidSchemeError(
            "Unknown quantization scheme.",
            received=repr(scheme),
            expected=f"one of {sorted(SCHEMES)}",
            fix='Pass scheme="int8".',
        )
    return SCHEMES[scheme]
