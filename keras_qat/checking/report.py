"""What `check` finds, as a table, as numbers and as a verdict."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

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
class Finding:
    """Something that stands in the way.

    Attributes:
        level: `"error"`: the model cannot be quantized as it is.
        layer: Name of the layer, input or weight.
        message: What is wrong.
        fix: What to do about it.
    """

    level: str
    layer: str | None
    message: str
    fix: str | None

    def __str__(self):
        where = f" '{self.layer}'" if self.layer else ""
        fix = f" To fix it: {self.fix}" if self.fix else ""
        return f"{self.level}{where}: {self.message}{fix}"


@dataclasses.dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
        model: Name of the model.
        scheme: Name of the scheme.
        layers: A row for each layer and operation of the model, those of nested models too.
        findings: What stands in the way.
        rewrites: What the passes rewrite, as in the `rewrite_log` of a quantized model.
    """

    model: str
    scheme: str
    layers: tuple[CheckedLayer, ...]
    findings: tuple[Finding, ...]
    rewrites: tuple[Rewrite, ...]

    @property
    def ok(self) -> bool:
        """Whether the model can be quantized."""
        return not any(finding.level == "error" for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line."""
        made = {layer.name for row in self.layers for layer in row.becomes}
        if self.ok:
            return f"OK: {len(self.layers)} layers become {len(made)} in {self.scheme}."
        return f"NOT OK: {len(self.findings)} finding(s), see above."

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
