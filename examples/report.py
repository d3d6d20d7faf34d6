"""What the examples share: the table at their end, and the proof that file and model are equal."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

import keras
from rich import box
from rich.console import Console
from rich.table import Table

import keras_qat

console = Console(width=100, highlight=False)


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table in Markdown; the first column is text, floats get four digits."""
    table = Table(title=title, title_justify="left", box=box.MARKDOWN)
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left")
    for row in rows:
        table.add_row(*(f"{cell:.4f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)


def prove(model: keras.Model, path: pathlib.Path, data: Any) -> None:
    """Compares every integer of every layer with the file's; ends the example if one differs."""
    report = keras_qat.verify(model, path, data, verbose=0)
    elements = sum(row.elements for row in report.layers["reference"].values())
    console.print(f"Integers that differ: {report.mismatches()} of {elements:,}")
    console.print(f"The file: {path}, {path.stat().st_size / 1000:.1f} kB", soft_wrap=True)
    if report.mismatches():
        sys.exit("Keras and the file differ: please report it.")
