"""Quantization schemes: widths, symmetry, and the integer limits that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from keras_qat.errors import InvalidSchemeError


@dataclasses.dataclass(frozen=True)
class Scheme:
    """How weights and activations are represented as integers.

    Activations are asymmetric per tensor, except those of `"int16x8"`: these have 16 bits and the
    zero point 0. Weights have a narrow range: the smallest integer of
    the type is not used. Weights of `"int8"` are symmetric per channel, as required by the LiteRT
    8-bit quantization specification
    (https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec).
    Weights of `"int8_per_tensor"` are symmetric with one scale for the whole tensor, for targets
    without per-channel weights. Weights of `"int4"` have 4 bits, and weights of `"int2"` have 2 in
    dense layers and 4 in convolutions. Both are symmetric per channel.
    Weights of `"uint8"` are asymmetric per tensor, as TensorFlow 1 trained and converted them.

    Attributes:
        name: The name users pass, such as `"int8"`.
        activation_bits: Width of an activation, in bits.
        weight_bits: Width of a weight, in bits.
        accumulator_bits: Width of the sum of products and the bias, in bits.
        activation_symmetric: Whether the zero point of activations is 0.
        weight_per_channel: Whether each output channel has its own weight scale.
        weight_symmetric: Whether the zero point of weights lies in the middle of their range.
        is_signed: Whether integers are signed.
        missing_operators: LiteRT operators whose kernels do not support the type.
        storage: How files store weights of less than 8 bits: `"packed"`, several in a byte;
            `"int8"`, one in a byte; None for packed weights where the kernels of the target take
            them, else one in a byte. Kernels of the two round differently.

    Example:
    >>> get_scheme("int8").activation_low, get_scheme("int8").weight_high
    (-128, 127)
    >>> get_scheme("int4").weight_low, get_scheme("int4").weight_dtype
    (-7, 'int4')
    >>> get_scheme("int16x8").activation_high, get_scheme("int16x8").weight_high
    (32767, 127)
    >>> get_scheme("uint8").activation_low, get_scheme("uint8").weight_low
    (0, 1)
    """

    name: str
    activation_bits: int = 8
    weight_bits: int = 8
    accumulator_bits: int = 32
    activation_symmetric: bool = False
    weight_per_channel: bool = True
    weight_symmetric: bool = True
    is_signed: bool = True
    missing_operators: frozenset[str] = frozenset()
    storage: str | None = None

    @property
    def dtype(self) -> str:
        """Type of activations, such as `"int8"`."""
        return f"{'' if self.is_signed else 'u'}int{self.activation_bits}"

    @property
    def weight_dtype(self) -> str:
        """Type of weights, such as `"int4"`."""
        return f"{'' if self.is_signed else 'u'}int{self.weight_bits}"

    @property
    def has_narrow_weights(self) -> bool:
        """Whether weights have less than 8 bits."""
        return self.weight_bits < BYTE

    def with_storage(self, storage: str | None) -> Scheme:
        """Returns the scheme with a storage, if it has narrow weights and no storage yet.

        Args:
            storage: One of `STORAGES`, or None.

        Raises:
            InvalidSchemeError: If there is no storage of that name.

        Example:
        >>> get_scheme("int4").with_storage("int8").storage
        'int8'
        """
        if storage is not None and storage not in STORAGES:
            raise InvalidSchemeError(
                "Unknown storage of weights.",
                received=f"storage={storage!r}",
                expected=f"one of {list(STORAGES)}, or None",
                fix='Pass storage="int8" for one weight in a byte, which all runtimes take.',
            )
        is_set = self.storage is not None or not self.has_narrow_weights
        return self if is_set else dataclasses.replace(self, storage=storage)

    def with_weights(self, widths: Collection[int]) -> Scheme:
        """Returns the scheme with the least of some widths of weights that is wide enough.

        Args:
            widths: Widths of weights that a layer has below 8 bits. Weights have 8 bits if none
                of them is wide enough.

        Example:
        >>> get_scheme("int2").with_weights([4]).weight_bits
        4
        """
        bits = min((bits for bits in widths if bits >= self.weight_bits), default=BYTE)
        if bits == self.weight_bits:
            return self
        storage = self.storage if bits < BYTE else None
        return dataclasses.replace(self, weight_bits=bits, storage=storage)

    def for_constants(self) -> Scheme:
        """Returns the scheme of constant operands, which have the type of activations."""
        is_wide = self.weight_bits == self.activation_bits
        return self if is_wide else dataclasses.replace(self, weight_bits=self.activation_bits)

    @property
    def activation_low(self) -> int:
        """Smallest integer of an activation."""
        return -(2 ** (self.activation_bits - 1)) if self.is_signed else 0

    @property
    def activation_high(self) -> int:
        """Largest integer of an activation."""
        return self.activation_low + 2**self.activation_bits - 1

    @property
    def largest_activation(self) -> int:
        """Largest magnitude of an activation's integer, minus the zero point."""
        is_symmetric = self.activation_symmetric
        return -self.activation_low if is_symmetric else self.activation_high - self.activation_low

    @property
    def largest_summand(self) -> int:
        """Largest magnitude of a product in a sum of float32: of a byte of an activation."""
        return min(self.largest_activation, 2**BYTE) * self.largest_weight

    @property
    def weight_low(self) -> int:
        """Smallest integer of a weight."""
        return 1 - 2 ** (self.weight_bits - 1) if self.is_signed else 1

    @property
    def weight_high(self) -> int:
        """Largest integer of a weight."""
        return self.weight_low + self.weight_steps

    @property
    def weight_steps(self) -> int:
        """Number of steps from the smallest to the largest integer of a weight."""
        return 2**self.weight_bits - 2

    @property
    def largest_weight(self) -> int:
        """Largest magnitude of a weight's integer, minus the zero point."""
        return self.weight_steps // 2 if self.weight_symmetric else self.weight_steps

    @property
    def largest_product(self) -> int:
        """Largest magnitude of an activation times a weight, both minus their zero points."""
        return self.largest_activation * self.largest_weight

    @property
    def largest_sum(self) -> int:
        """Bound of a sum of products: half of an accumulator's range. The bias has the rest."""
        return 2 ** (self.accumulator_bits - 2)

    @property
    def largest_bias(self) -> int:
        """Bound of a bias, which has 32 bits in every scheme."""
        return min(self.largest_sum, 2**30)


BYTE = 8  # bits
STORAGES = ("packed", "int8")

SCHEMES = {
    "int8": Scheme("int8"),
    "int8_per_tensor": Scheme("int8_per_tensor", weight_per_channel=False),
    # XNNPACK's kernels for weights of 4 bits hold 16 times the sum in 32 bits.
    "int4": Scheme("int4", weight_bits=4, accumulator_bits=28),
    "int2": Scheme("int2", weight_bits=2, accumulator_bits=28),
    # The sums over the high bytes of activations have 32 bits.
    "int16x8": Scheme(
        "int16x8", activation_bits=16, accumulator_bits=40, activation_symmetric=True
    ),
    "uint8": Scheme(
        "uint8",
        weight_per_channel=False,
        weight_symmetric=False,
        is_signed=False,
        missing_operators=frozenset({"BATCH_MATMUL", "ELU"}),
    ),
}

# The names that earlier releases had for schemes.
ALIASES = {"int4_weights": "int4"}

_FIX = f"Pass one of these names, such as scheme={next(iter(SCHEMES))!r}."


def get_scheme(scheme: str | Scheme) -> Scheme:
    """Returns the scheme with a given name.

    Args:
        scheme: The name of one of `SCHEMES`, or one of these with any `storage`, which is returned
            as it is.

    Returns:
        The `Scheme`.

    Raises:
        InvalidSchemeError: If no scheme has that name, or the layers have no kernels for the
            widths of a `Scheme`.

    Example:
    >>> get_scheme("int8").name
    'int8'
    """
    if isinstance(scheme, Scheme):
        if SCHEMES.get(scheme.name) == dataclasses.replace(scheme, storage=None):
            return scheme
        raise InvalidSchemeError(
            "There are no kernels for this quantization scheme.",
            received=f"{scheme}",
            expected=f"one of {list(SCHEMES.values())}",
            fix=_FIX,
        )
    return _by_name(scheme)


def _by_name(name: object) -> Scheme:
    name = ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(name, str) or name not in SCHEMES:
        raise InvalidSchemeError(
            "Unknown quantization scheme.",
            received=repr(name),
            expected=f"one of {sorted(SCHEMES)}",
            fix=_FIX,
        )
    return SCHEMES[name]
