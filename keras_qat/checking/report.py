"""What `check` finds, as a table, as numbers and as a verdict."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

from keras_qat.checking.findings import ERROR, WARNING, Finding
from keras_qat.passes import Rewrite


@dataclasses.dataclass(frozen=True)
class MadeLayer:
    """A layer of the quantized model.

    Attributes:
        name: Its name.
        kind: Its class.
        operators: The LiteRT operators that it becomes, or some of them, depending on its
            arguments.
    """

    name: str
    kind: str
    operators: tuple[str, ...]

    def __str__(self):
        return f"{self.name} ({self.kind})"


@dataclasses.dataclass(frozen=True)
class CheckedLayer:
    """What a layer of the model becomes.

    Attributes:
        name: Its name.
        kind: Its class, or the name of the `keras.ops` function.
        becomes: The layers that it becomes, or is fused into; none if it is left out or refused.
        rewrites: Names of the passes that rewrote it.
        refused: Whether it has no integer form; a finding says why.
    """

    name: str
    kind: str
    becomes: tuple[MadeLayer, ...]
    rewrites: tuple[str, ...]
    refused: bool


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
        model: Name of the model.
        scheme: Name of the scheme.
        layers: A row for each layer and operation of the model, those of nested models too.
        findings: What stands in the way, the errors first, and what costs speed or accuracy.
        rewrites: What the passes rewrite, as in the `rewrite_log` of a quantized model.
    """

    model: str
    scheme: str
    layers: tuple[CheckedLayer, ...]
    findings: tuple[Finding, ...]
    rewrites: tuple[Rewrite, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings for which the model cannot be quantized as it is."""
        return tuple(finding for finding in self.findings if finding.level == ERROR)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that cost speed or accuracy."""
        return tuple(finding for finding in self.findings if finding.level == WARNING)

    @property
    def ok(self) -> bool:
        """Whether the model can be quantized."""
        return not self.errors

    @property
    def verdict(self) -> str:
        """One line."""
        made = {layer.name for row in self.layers for layer in row.becomes}
        counts = [
            _counted(len(found), level)
            for found, level in ((self.errors, ERROR), (self.warnings, WARNING))
            if found
        ]
        found = f" {' and '.join(counts)}, see above." if counts else ""
        if self.ok:
            return f"OK: {len(self.layers)} layers become {len(made)} in {self.scheme}.{found}"
        return f"NOT OK:{found}"

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as plain Python values, for programs."""
        return {**dataclasses.asdict(self), "ok": self.ok}

    def __str__(self):
        from rich.console import Console
        from rich.table import Table

        console = Console(file=io.StringIO(), width=120)
        table = Table(title=f"{self.model} in {self.scheme}")
        for heading in ("layer", "class", "becomes", "LiteRT operators", "rewritten by"):
            table.add_column(heading, overflow="fold")
        for row in self.layers:
            operators = dict.fromkeys(name for made in row.becomes for name in made.operators)
            nothing = "no integer form" if row.refused else "nothing"
            becomes = ", ".join(map(str, row.becomes)) or nothing
            table.add_row(
                row.name, row.kind, becomes, ", ".join(operators), ", ".join(row.rewrites)
            )
        console.print(table, markup=False)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue() + "\n".join([*map(str, self.findings), self.verdict])


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
