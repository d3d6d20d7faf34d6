"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import math

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


# What argparse says of a text that is none.
count.__name__, number.__name__ = "positive whole number", "number"
part.__name__ = "number from 0 to 1"


def add_data(
    parser: argparse.ArgumentParser, help: str, *, required: bool, samples: int | None
) -> None:
    """Adds `--data` and what tells how to read it.

    Args:
        parser: Parser of a command.
        help: What the data is for.
        required: Whether the command needs data.
        samples: How many samples are used by default; None for all.
    """
    group = parser.add_argument_group("data")
    group.add_argument("--data", metavar="DATA", required=required, help=f"{help}: {DATA_HELP}")
    group.add_argument(
        "--samples",
        type=count,
        default=samples,
        metavar="N",
        help=f"how many samples of it to use (default: {samples or 'all'})",
    )
    group.add_argument("--batch-size", type=count, default=32, metavar="N", help="(default: 32)")
    group.add_argument(
        "--scale",
        type=number,
        default=None,
        metavar="S",
        help="multiply images and arrays by this, such as 1/255, if the model does not itself",
    )
    group.add_argument(
        "--offset", type=number, default=None, metavar="O", help="and then add this, such as -1"
    )


def add_kernels(parser: argparse.ArgumentParser, default: str, choices: tuple[str, ...]) -> None:
    """Adds `--kernels`."""
    parser.add_argument(
        "--kernels",
        choices=choices,
        default=default,
        help="LiteRT's reference kernels, or the default ones of phones and PCs "
        f"(default: {default})",
    )
