"""The properties of each LiteRT operator, from the table in operators.toml.

The writer, the checks of files, `verify`, the targets and the versions of operators read this
table.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from keras_qat.litert.format.schema_enums import names

ANY = 2**31


@dataclass(frozen=True)
class Apart:
    """A measured difference between LiteRT's reference kernel of an operator and its default one.

    docs/runtimes.md has the measurements. The table has differences of 2 % of the elements or more.

    Attributes:
        share: The share of the elements of 8 bits that differ, and by how many steps.
        case: The operators of that name that differ, as text after the name; empty for all of them.
        when: Conditions on quantities of the operator, see `keras_qat.targets.quantities`. The
            first entry of an operator whose conditions are met applies.
    """

    share: str
    case: str = ""
    when: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Lower:
    """A way to give an operator a lower version, which older runtimes have.

    Attributes:
        condition: The condition of the operator's version that can be avoided.
        has: The property of the operator that needs the version, as a noun phrase.
        without: The conditions that do not hold after the change.
        fix: The argument or the call that makes the change, to be pasted.
    """

    condition: str
    has: str
    without: frozenset[str]
    fix: str


@dataclass(frozen=True)
class Fault:
    """Releases that load an operator and compute wrong values, as docs/runtimes.md measured.

    Attributes:
        output: The type of the output for which they do.
        runtimes: The releases, as text that ends a sentence.
    """

    output: str
    runtimes: str


@dataclass(frozen=True)
class Declaration:
    """The properties of one LiteRT operator.

    Attributes:
        operands: The role of each operand, in the kernel's order: `"data"`, `"weights"`, `"bias"`,
            `"ids"`, or the meaning of the numbers of a constant, such as `"axes"`. In the table `?`
            marks an operand that may be left out at the end, `-` an operand that may be absent
            before others, and `*` any number of operands.
        absent: The places of the operands that may be absent before others.
        inputs: The smallest and the largest number of inputs.
        outputs: The smallest and the largest number of outputs. In the table this is `results`,
            which is left out if both are 1.
        options: Name of the options table in the schema, or `None`. operators.toml has only the
            names that do not follow from the operator's name.
        numbers: Names of the options of a custom operator, which has no options table.
        computes: The rule for the result of plain numbers: a kind of rule and the name of a
            function, for `keras_qat.verification.kernels`. Empty if `verify` does not recompute the
            result.
        integer: Name of the rule in `keras_qat.arithmetic.rules` by which kernels compute 8-bit
            integers with scales, by the name of the kernels: `"reference"`, `"xnnpack"` and
            `"optimized"` (LiteRT's default ones, where XNNPACK takes the operator and where not),
            and `"tflite-micro"`. `"reference_uint8"` is the rule for one type, and
            `"xnnpack_arm64"` that for one processor. Kernels that are left out have the rule of the
            reference kernel.
        macs: Number of multiply-accumulates, as a product of factors. `"output"` and `"data"` are
            numbers of elements. `"weights(.hwi)"` is the product of some sizes of the weights: each
            character is an axis, and only axes with a letter count. A `*` is any number of leading
            axes. `"steps"` is the number of elements of the data without the last axis.
            `"matrices"` is the number of elements of all weights. `"unknown"` if they are not
            counted, empty if there are none.
        macs_if: The product to use instead if an option is set, by the name of the option.
        channel_axis: The axis of the weights that has the output's channels.
        scale_limit: The limit for scales of 8-bit tensors, beyond which the kernel aborts. `"sum"`:
            the output's scale must be above 2^-19 times each input's scale. `"logits"`: the scale
            of the data, times beta, must be above 2^-26.
        largest_int16_scale: The largest scale of int16 data, times beta. Above it the 32-bit
            integers of the kernel overflow, and its results are wrong.
        traits: `"elementwise"`: the output has the shape of the input. `"keeps_type"`: the kernel
            copies values, and needs one type for input and output. `"commutes"`: an element-wise
            function that preserves order may be applied before it instead of after it.
            `"windows"`: the output has an element for each window of an image.
            `"reads_more"`: its time grows with its input, not with its output.
            `"packs_weights"`: its kernels take tensors of narrow weights, several in a byte.
            `"no_reference_kernel"`: only LiteRT's default kernels have it.
        narrow_weights: Widths below 8 bits that its weights may have.
        versions: The condition of each version: its name in
            `keras_qat.litert.format.operator_versions`, or the name of an option that has to be
            set.
        reference_version: The highest version that LiteRT's reference resolver registers, if the
            kernel also runs files of higher versions.
        releases: The first runtime releases that have versions 1, 2, 3, ...; empty if not known.
        apart: Measured differences between the reference kernel and the default one.
        lower: A way to give the operator a lower version, if one is known.
        faults: Releases that compute wrong values.
    """

    operands: tuple[str, ...]
    absent: frozenset[int] = frozenset()
    inputs: tuple[int, int] = (0, ANY)
    outputs: tuple[int, int] = (0, ANY)
    options: str | None = None
    numbers: tuple[str, ...] = ()
    computes: str = ""
    integer: Mapping[str, str] = field(default_factory=dict[str, str])
    macs: str = ""
    macs_if: Mapping[str, str] = field(default_factory=dict[str, str])
    channel_axis: int = 0
    scale_limit: str = ""
    largest_int16_scale: float = math.inf
    traits: frozenset[str] = frozenset()
    narrow_weights: tuple[int, ...] = ()
    versions: Mapping[int, str] = field(default_factory=dict[int, str])
    reference_version: int = ANY
    releases: tuple[str, ...] = ()
    apart: tuple[Apart, ...] = ()
    lower: Lower | None = None
    faults: tuple[Fault, ...] = ()

    def place(self, *roles: str) -> int | None:
        """Returns the place of the first operand that has one of the roles, or None.

        Example:
            >>> declaration_of("TRANSPOSE_CONV").place("data")
            2
        """
        return next((i for i, role in enumerate(self.operands) if role in roles), None)

    @property
    def packs_weights(self) -> bool:
        """Whether its kernels take tensors of narrow weights, several in a byte."""
        return "packs_weights" in self.traits

    def version_of(self, weight_type: str) -> int:
        """Returns the version that packed weights of a type need.

        Example:
            >>> declaration_of("CONV_2D").version_of("int4")
            7
        """
        return max(n for n, name in self.versions.items() if name == f"{weight_type}_weights")

    def rule(self, kernels: str, dtype: str = "int8") -> str:
        """Returns the name of the rule by which kernels compute 8-bit integers, or `""`.

        Args:
            kernels: Name of the kernels, such as `"xnnpack"`.
            dtype: Type of the data.

        Example:
            >>> declaration_of("FULLY_CONNECTED").rule("reference")
            'requantize_float64'
        """
        fallbacks = kernels, kernels.removesuffix("_arm64"), "reference"
        names = (name for each in fallbacks for name in (f"{each}_{dtype}", each))
        return next((self.integer[name] for name in names if name in self.integer), "")


_UNKNOWN = Declaration(("data",))


@cache
def declarations() -> Mapping[str, Declaration]:
    """Returns the declarations of all operators, by name.

    Example:
        >>> declarations()["CONV_2D"].options, declarations()["CONV_2D"].operands
        ('Conv2DOptions', ('data', 'weights', 'bias'))
    """
    content = (resources.files("keras_qat.litert.format") / "operators.toml").read_text()
    tables = {name.lower(): name for name in names("BuiltinOptions").values()}
    return {
        code: _declaration(code, entry, tables) for code, entry in tomllib.loads(content).items()
    }


def declaration_of(code: str) -> Declaration:
    """Returns the declaration of an operator, or an empty declaration for an unknown operator.

    Example:
        >>> declaration_of("RELU").inputs, declaration_of("IF").options
        ((1, 1), None)
    """
    return declarations().get(code, _UNKNOWN)


def is_foreign(code: str) -> bool:
    """Returns whether an operator is a custom one of another tool, or newer than the schema.

    Args:
        code: Name of an operator of a file.

    Example:
        >>> is_foreign("CUSTOM(Mine)"), is_foreign("CUSTOM(TFLite_Detection_PostProcess)")
        (True, False)
    """
    return code.startswith(("CUSTOM(", "UNKNOWN(")) and code not in declarations()


def with_trait(trait: str) -> frozenset[str]:
    """Returns the names of the operators that have a trait.

    Example:
        >>> sorted(with_trait("no_reference_kernel"))
        ['CEIL', 'ELU', 'ROUND']
    """
    return frozenset(code for code, each in declarations().items() if trait in each.traits)


def _declaration(code: str, entry: Mapping[str, Any], tables: Mapping[str, str]) -> Declaration:
    """Makes a declaration from an entry of operators.toml."""
    operands = entry["operands"].split()
    least = max((i + 1 for i, role in enumerate(operands) if role[-1] not in "?-*"), default=0)
    counts = [ANY if count == "*" else int(count) for count in entry.get("results", "1 1").split()]
    usual = tables.get(f"{code.replace('_', '')}options".lower())
    return Declaration(
        operands=tuple(role.rstrip("?-*") for role in operands),
        absent=frozenset(i for i, role in enumerate(operands) if role[-1] == "-"),
        inputs=(least, ANY if operands[-1].endswith("*") else len(operands)),
        outputs=(counts[0], counts[1]),
        options=entry.get("options", usual),
        numbers=tuple(entry.get("numbers", "").split()),
        computes=entry.get("computes", ""),
        integer=entry.get("integer", {}),
        macs=entry.get("macs", ""),
        macs_if=entry.get("macs_if", {}),
        channel_axis=entry.get("channel_axis", 0),
        scale_limit=entry.get("scale_limit", ""),
        largest_int16_scale=entry.get("largest_int16_scale", math.inf),
        traits=frozenset(entry.get("traits", "").split()),
        narrow_weights=tuple(entry.get("narrow_weights", ())),
        versions={int(number): name for number, name in entry.get("versions", {}).items()},
        reference_version=entry.get("reference_version", ANY),
        releases=tuple(entry.get("releases", "").split()),
        apart=tuple(Apart(**each) for each in entry.get("apart", ())),
        lower=_lower(**entry["lower"]) if "lower" in entry else None,
        faults=tuple(Fault(**each) for each in entry.get("faults", ())),
    )


def _lower(condition: str, has: str, without: str, fix: str) -> Lower:
    """Makes the way to a lower version from an entry of operators.toml."""
    return Lower(condition, has, frozenset(without.split()), fix)
