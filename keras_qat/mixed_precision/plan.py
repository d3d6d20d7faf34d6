"""The choice of schemes within a budget, with its alternatives, as a table and a picture."""

from __future__ import annotations

import collections
import dataclasses
import io
from collections.abc import Mapping
from typing import Any

from keras_qat.mixed_precision.budget import Budget
from keras_qat.mixed_precision.plan_plot import plot_alternatives

_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Alternative:
    """The least noise at one size.

    Attributes:
        weights_bytes: Expected bytes of constants in the file.
        flash_kib: Expected KiB of flash. None if the budget has no limit of flash.
        decibels: Expected signal-to-noise ratio of the outputs in dB.
        schemes: The scheme of each layer that has several to choose from.
        is_chosen: Whether the model has these schemes.
    """

    weights_bytes: int
    flash_kib: float | None
    decibels: float
    schemes: Mapping[str, str]
    is_chosen: bool


@dataclasses.dataclass(frozen=True)
class BudgetPlan:
    """The schemes that layers got within a budget.

    Attributes:
        model: Name of the model.
        budget: The budget.
        overrides: The scheme of each layer that has several to choose from, as `overrides`.
        weights_bytes: Bytes of constants in the file, measured.
        flash_kib: KiB of flash, measured. None if the budget has no limit of flash.
        decibels: Signal-to-noise ratio of the outputs in dB, measured before training.
        alternatives: The best choices at other sizes, the smallest one first: a Pareto front.
        is_by_vela: Whether the flash is what vela measures.
    """

    model: str
    budget: Budget
    overrides: Mapping[str, str]
    weights_bytes: int
    flash_kib: float | None
    decibels: float
    alternatives: tuple[Alternative, ...]
    is_by_vela: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Returns the plan as plain Python values, for programs."""
        return dataclasses.asdict(self)

    def plot(self) -> Any:
        """Draws the expected signal-to-noise ratio of each alternative over its size.

        The extra `[plots]` installs Matplotlib, which is required.

        Returns:
            A `matplotlib.figure.Figure`: `figure.savefig("budget.png")` writes it.

        Raises:
            MissingPackageError: If matplotlib is not installed.
        """
        has_flash = self.flash_kib is not None
        limit = self.budget.flash_kib if has_flash else self.budget.weights_bytes
        sizes = [each.flash_kib if has_flash else each.weights_bytes for each in self.alternatives]
        return plot_alternatives(
            f"{self.model} within a budget",
            "flash, KiB" if has_flash else "weights, bytes",
            [size or 0 for size in sizes],
            [each.decibels for each in self.alternatives],
            [each.is_chosen for each in self.alternatives],
            limit or 0,
        )

    def __str__(self):
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        console = Console(file=io.StringIO(), width=_WIDTH)
        table = Table(title=Text(f"{self.model} within a budget"))
        headings = ["weights, bytes", "dB", "layers", ""]
        if self.flash_kib is not None:
            headings.insert(1, "flash, KiB")
        for heading in headings:
            is_text = heading in ("layers", "")
            table.add_column(heading, justify="left" if is_text else "right", overflow="fold")
        for each in self.alternatives:
            flash = [] if each.flash_kib is None else [f"{each.flash_kib:.1f}"]
            counts = collections.Counter(each.schemes.values())
            layers = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
            cells = f"{each.weights_bytes:,}", *flash, f"{each.decibels:.1f}", layers
            table.add_row(*map(Text, (*cells, "chosen" if each.is_chosen else "")))
        console.print(table)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue() + "\n".join([*self._layers(), self._total()])

    def _layers(self) -> list[str]:
        """Returns a line for each scheme, with its layers."""
        by_scheme: dict[str, list[str]] = {}
        for layer, scheme in self.overrides.items():
            by_scheme.setdefault(scheme, []).append(layer)
        return [f"{scheme}: {', '.join(layers)}" for scheme, layers in by_scheme.items()]

    def _total(self) -> str:
        """Returns the line about the measured file."""
        noise = f"{self.decibels:.1f} dB before training"
        text = f"{noise}. The file has {self.weights_bytes:,} bytes of weights"
        if self.flash_kib is None:
            return f"{text}."
        place = "of flash on the Ethos-U by vela" if self.is_by_vela else "as a whole"
        return f"{text}, and {self.flash_kib:.1f} KiB {place}."
