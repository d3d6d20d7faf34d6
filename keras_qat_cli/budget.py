"""The budget of `quantize`: the size that a file may have."""

from __future__ import annotations

import argparse
from typing import Any

from keras_qat_cli.arguments import count, number
from keras_qat_cli.errors import UsageError

# Arguments of `keras_qat.Budget`. Its target is `--target`.
_ARGUMENTS = ("weights_bytes", "flash_kib", "schemes", "samples")


def add_budget(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `keras_qat.Budget`, and that of its picture."""
    group = parser.add_argument_group("budget: choose the scheme of each layer for a size")
    group.add_argument(
        "--budget-weights-bytes", type=count, metavar="N", help="most bytes of constants"
    )
    group.add_argument(
        "--budget-flash-kib",
        type=number,
        metavar="N",
        help="most KiB of the file, or of what vela makes of it for --target ethos-u",
    )
    group.add_argument(
        "--budget-schemes",
        nargs="+",
        metavar="NAME",
        help="schemes that layers may get besides --scheme (default: int4 int2)",
    )
    group.add_argument(
        "--budget-samples",
        type=count,
        metavar="N",
        help="most samples that measure the noise (default: 256)",
    )
    group.add_argument(
        "--budget-plot",
        metavar="FILE",
        help="draw the alternatives into this .png, .svg or .pdf file",
    )


def budget_of(options: argparse.Namespace) -> Any:
    """Returns the budget, or None without one.

    Args:
        options: The arguments of the command.

    Raises:
        UsageError: If there is no size, but another argument of a budget.
        InvalidBudgetError: If an argument is not valid.
    """
    import keras_qat

    given = {name: getattr(options, f"budget_{name}") for name in (*_ARGUMENTS, "plot")}
    given = {name: value for name, value in given.items() if value is not None}
    if given.keys().isdisjoint({"weights_bytes", "flash_kib"}):
        if given:
            first = next(iter(given))
            raise UsageError(
                "A budget needs a size.",
                received=f"--budget-{first} alone",
                fix="Add --budget-weights-bytes 100000.",
            )
        return None
    given.pop("plot", None)
    return keras_qat.Budget(**given)
