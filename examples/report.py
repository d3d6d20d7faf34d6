"""Functions of all examples: users' data, the table of results, the proof of equality."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

import keras_qat

console = Console(width=100, highlight=False)


def positive(text: str) -> int:
    """Reads a positive whole number, as a `type` of argparse, which shows the error."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def load_arrays(path: pathlib.Path, names: Sequence[str]) -> list[np.ndarray]:
    """Returns arrays of an `.npz` file by name. Ends the example if it lacks one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            lacking = [name for name in names if name not in file]
            arrays = [] if lacking else [file[name] for name in names]
    except Exception as error:  # numpy and zipfile can raise any error
        sys.exit(f"{path} cannot be read as an .npz file ({error}).")
    if lacking:
        sys.exit(f"{path} has no array named {' or '.join(map(repr, lacking))}.")
    for name, array in zip(names, arrays, strict=True):
        if not np.issubdtype(array.dtype, np.number) or not np.all(np.isfinite(array)):
            sys.exit(f"{path}: the array {name!r} has values that are not finite numbers.")
    return arrays


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table in Markdown. The first column is text, floats have four digits."""
    console.print(title)  # rich would wrap a title to the width of the table
    table = Table(box=box.MARKDOWN)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)


def prove(model: keras.Model, path: pathlib.Path, data: Any) -> None:
    """Compares every integer of every layer with the file. Ends the example if one differs."""
    report = keras_qat.verify(model, path, data, verbose=0)
    elements = sum(row.elements for row in report.layers["default"].values())
    console.print(f"Integers that differ: {report.mismatches()} of {elements:,}")
    console.print(f"The file: {path}, {path.stat().st_size / 1000:.1f} kB", soft_wrap=True)
    if report.mismatches():
        sys.exit("Keras and the file differ: please report it.")
