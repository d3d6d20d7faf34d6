"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from keras_qat_cli.errors import UsageError

# The word of `overrides` for the first and the last layers with a kernel in int8.
ENDS_INT8 = "ends_int8"
DATA_HELP = (
    "a folder of images in class folders; an .npz with an array x (or one for each input, by "
    "name) and, where targets are needed, y; an .npy of inputs; or module:function, which returns "
    "inputs, a pair (inputs, targets), or an iterable of batches of these"
)


def count(text: str) -> int:
    """Reads a positive whole number."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def number(text: str) -> float:
    """Reads a number, or a fraction such as 1/127.5."""
    above, slash, below = text.partition("/")
    divisor = float(below) if slash else 1.0
    if divisor == 0 or not math.isfinite(float(above) / divisor):
        raise ValueError
    return float(above) / divisor


def part(text: str) -> float:
    """Reads a number from 0 to 1."""
    value = number(text)
    if not 0 <= value <= 1:
        raise ValueError
    return value


def override(text: str) -> tuple[str, str | None]:
    """Reads a layer and its scheme, such as head=float, or the word for the ends of a model."""
    if text == ENDS_INT8:
        return text, "int8"
    layer, _, scheme = text.rpartition("=")
    if not layer or not scheme:
        raise ValueError
    return layer, None if scheme == "float" else scheme


def input_stats(text: str) -> tuple[str, tuple[float | str, ...]]:
    """Reads an input with a mean and a standard deviation, such as image=0,255."""
    name, _, values = text.rpartition("=")
    mean, std, *dtype = values.split(",")
    if not name or len(dtype) > 1:
        raise ValueError
    return name, (number(mean), number(std), *dtype)


def rule(text: str) -> tuple[str, float | None]:
    """Reads a range rule, with its number if there is one, such as percentile=99.9."""
    name, has_number, value = text.partition("=")
    return name, number(value) if has_number else None


# argparse uses these names in messages about invalid values.
count.__name__, number.__name__ = "positive whole number", "number"
part.__name__, rule.__name__ = "number from 0 to 1", "rule or rule=number"
override.__name__, input_stats.__name__ = "layer=scheme", "input=mean,std"


def add_conversion(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `quantize_model` and `check` that control the conversion."""
    group = parser.add_argument_group("conversion")
    _add_schemes(group)
    _add_rewriting(group)
    group.add_argument(
        "--target",
        metavar="NAME",
        help="the device of the file: litert, litert-arm64, reference, tflite-micro, ethos-u or "
        "edgetpu (default: litert)",
    )
    group.add_argument(
        "--input-stats",
        action="append",
        type=input_stats,
        default=[],
        metavar="INPUT=MEAN,STD",
        help="mean and standard deviation of an input, such as image=0,255; may be repeated",
    )
    add_default_range(group)


def _add_schemes(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--scheme",
        default="int8",
        help="int8, int8_per_tensor, int4, int2, int16x8 or uint8 (default: int8)",
    )
    group.add_argument(
        "--storage",
        metavar="NAME",
        help="packed or int8: the storage of weights of less than 8 bits (default: as the target "
        "takes them)",
    )
    group.add_argument(
        "--override",
        action="append",
        type=override,
        default=[],
        metavar="LAYER=SCHEME",
        help="give a layer another scheme, or `float`; may be repeated. Or `ends_int8` alone: int8 "
        "for the first and the last layers with a kernel",
    )


def _add_rewriting(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--rewrites", nargs="*", metavar="NAME", help="apply only these rewrites (default: all)"
    )
    group.add_argument(
        "--skip-layer",
        action="append",
        default=[],
        metavar="LAYER",
        help="leave out a layer, which changes the function; may be repeated",
    )
    group.add_argument(
        "--activations",
        default="exact",
        help="exact, lookup, substitute or error (default: exact)",
    )


def add_default_range(parser: argparse._ActionsContainer) -> None:
    """Adds `--default-range`."""
    parser.add_argument(
        "--default-range",
        nargs=2,
        type=number,
        metavar=("MIN", "MAX"),
        help="a range for tensors that lack min/max data, to experiment with",
    )


def add_range_rules(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `quantize_model` that say how ranges are found."""
    group = parser.add_argument_group("ranges")
    names = "robust, minmax, moving_average, percentile, mse or lsq"
    group.add_argument(
        "--range-rule",
        type=rule,
        default=("robust", None),
        metavar="RULE",
        help=f"of activations: {names}; some take a number, such as percentile=99.9 or lsq=0.5 "
        "(default: robust)",
    )
    group.add_argument(
        "--weight-range-rule",
        type=rule,
        metavar="RULE",
        help="of weights, likewise (default: minmax for weights of 8 bits, mse for fewer)",
    )


def range_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `add_range_rules` as arguments of `quantize_model`.

    Args:
        options: The arguments of the command.

    Raises:
        UsageError: If a rule that has no number gets one.
        InvalidRangeRuleError: If a rule is unknown, or its number is out of its limits.
    """
    own = options.weight_range_rule
    return {
        "range_rule": _made_rule(*options.range_rule),
        "weight_range_rule": None if own is None else _made_rule(*own),
    }


def _made_rule(name: str, value: float | None) -> Any:
    """Returns a range rule with its number, or the name of one."""
    import dataclasses

    from keras_qat.quantizers import get_range_rule

    if value is None:
        return name
    kind: Any = type(get_range_rule(name))
    if not dataclasses.fields(kind):
        raise UsageError(
            "This range rule takes no number.",
            received=f"{name}={value:g}",
            fix=f"Write {name} alone.",
        )
    return kind(value)


def conversion_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `add_conversion` as arguments of `quantize_model` and `check`.

    Args:
        options: The arguments of the command.
    """
    return {
        "scheme": options.scheme,
        "rewrites": options.rewrites,
        "skip_layers": options.skip_layer,
        "activations": options.activations,
        "overrides": _overrides(options.override),
        "storage": options.storage,
        "target": options.target,
        "default_ranges_stats": options.default_range and tuple(options.default_range),
        "quantized_input_stats": dict(options.input_stats) or None,
    }


def _overrides(given: Sequence[tuple[str, str | None]]) -> Any:
    """Returns the argument `overrides`: a dict, or the word for the ends of a model."""
    overrides = dict(given)
    if ENDS_INT8 not in overrides:
        return overrides
    if len(given) > 1:
        raise UsageError(
            f"--override {ENDS_INT8} stands alone.",
            received=f"{len(given)} overrides",
            fix="Name the first and the last layers: --override LAYER=int8.",
        )
    return ENDS_INT8


def add_data(
    parser: argparse.ArgumentParser, help: str, *, required: bool, samples: int | None
) -> None:
    """Adds `--data` and the options for reading it.

    Args:
        parser: Parser of a command.
        help: The purpose of the data.
        required: Whether the command needs data.
        samples: The number of samples to use by default. None for all.
    """
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="DATA", required=required, help=f"{help}: {DATA_HELP}")
    group.add_argument(
        "--samples",
        type=count,
        default=samples,
        metavar="N",
        help=f"number of samples to use (default: {samples or 'all'})",
    )
    group.add_argument("--batch-size", type=count, default=32, metavar="N", help="(default: 32)")
    group.add_argument(
        "--scale",
        type=number,
        default=None,
        metavar="S",
        help="multiply images and arrays by this, such as 1/255, if the model does not scale them",
    )
    group.add_argument(
        "--offset",
        type=number,
        default=None,
        metavar="O",
        help="add this after scaling, such as -1",
    )


def add_kernels(parser: argparse.ArgumentParser, default: str | None) -> None:
    """Adds `--kernels`. Without a default, the kernels depend on the model's target."""
    meaning = default or "reference, default, and those of the model's target"
    parser.add_argument(
        "--kernels",
        choices=("arm64", "default", "reference", "tflite-micro"),
        default=default,
        help="LiteRT's reference kernels, the default ones of phones and PCs, TensorFlow Lite "
        "Micro (needs the extra `micro`), or the default kernels on an emulated ARM64 processor "
        f"(needs `make arm64`) (default: {meaning})",
    )
