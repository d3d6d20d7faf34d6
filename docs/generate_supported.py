"""Writes docs/supported.md from the registry of rules, the passes and the measurements.

Run it with `make docs-supported`. The measurements are docs/runtimes.json and docs/ethos_u.json.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras_qat  # noqa: F401, all rules are registered
from keras_qat.graph import Matcher
from keras_qat.layers.core.registry import (
    layers_written_in_ops,
    registered_refusals,
    registered_rules,
)
from keras_qat.layers.elementwise.functions import looked_up
from keras_qat.litert.format.operators import Declaration, declarations
from keras_qat.passes.pipeline import PIPELINE

FOLDER = Path(__file__).parent
PAGE = FOLDER / "supported.md"

INTRODUCTION = """\
# What is supported

Written by `make docs-supported` from the registry of rules, the passes and the measurements: do
not edit.

A model is first rewritten ([below](#rewritten-first)) until it consists of the layers and
operations of this table. Each row is a rule: the layer or operation that it takes, the layers that
it absorbs, and its LiteRT operators, or some of them, depending on the arguments. Other layers,
also your own, are opened: they are supported if the operations of their `call` are. `ops` is
`keras.ops`. A function without a prefix may be an activation, a layer or an operation.

Every rule is exact to the kernels of the target: all integers are equal. "Default kernels" is the
share of elements of its operators that differ between LiteRT's reference kernels and its default
ones (XNNPACK, optimized kernels), for each operator alone, over all contract cases
([explanation](runtimes.md)). "exact" means that no element differs. "Ethos-U55" lists the
operators that vela {vela} leaves to the CPU in the files of the contract cases. "some" means that
it takes the operator with other arguments, "refused" means that it cannot read the file.
"""


def page() -> str:
    """Returns the whole page."""
    ethos_u = _measured("ethos_u.json")
    return "\n".join(
        [
            INTRODUCTION.format(vela=ethos_u["vela"]),
            "## Layers and operations\n",
            *_rules(_measured("runtimes.json")["operators"], ethos_u),
            "\n## Element-wise functions\n",
            *_functions(),
            "\n## LiteRT operators\n",
            *_operators(),
            "\n## Rewritten first\n",
            *_passes(),
            "\n## Refused\n",
            *_refusals(),
        ]
    )


def _measured(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / name).read_text())


def _rules(differences: list[dict], placed: dict[str, Any]) -> Iterable[str]:
    rows = [
        (
            names(entry.head),
            ", ".join(names(follower) for follower in entry.followers),
            ", ".join(entry.layer.operators) or "none",
            _default_kernels(entry.layer, differences) if entry.layer.operators else "",
            _ethos_u(entry.layer, placed) if entry.layer.operators else "",
            summary(entry.layer),
        )
        for entry in registered_rules()
    ]
    headings = ("takes", "absorbs", "LiteRT operators", "default kernels", "Ethos-U55", "notes")
    return table(headings, sorted(rows))


def names(matcher: Matcher) -> str:
    """Returns the names that a matcher takes, as code in backticks."""
    return ", ".join(_code(name) for name in matcher.label.split(" or "))


def _code(name: str) -> str:
    return name if " " in name else f"`{name}`"


def summary(cls: Any) -> str:
    """Returns the first line of a docstring."""
    return (inspect.getdoc(cls) or "").partition("\n")[0]


def _default_kernels(layer: type, records: list[dict]) -> str:
    own = [record for record in records if record["layer"] == layer.__name__]
    if {record["operator"] for record in own} < set(layer.operators):
        return "not measured"
    kinds = sorted({(record["operator"], record["type"]) for record in own})
    # An operator rounds alike in all layers, but the data of some layers does not show it.
    found = [_difference(*kind, records) for kind in kinds]
    return ", ".join(filter(None, found)) or "exact"


def _difference(operator: str, dtype: str, records: list[dict]) -> str:
    same = [each for each in records if (each["operator"], each["type"]) == (operator, dtype)]
    differing, elements = (sum(each[key] for each in same) for key in ("differing", "elements"))
    share, largest = 100 * differing / elements, max(each["largest"] for each in same)
    return f"{operator}: {share:.2g} %, by {largest}" if differing else ""


def _ethos_u(layer: type, measured: dict[str, Any]) -> str:
    if layer.__name__ in measured["refused"]:
        return "refused"
    records = measured["operators"]
    own = [record for record in records if record["layer"] == layer.__name__]
    if {record["operator"] for record in own} < set(layer.operators):
        return "not measured"
    on_cpu = [_on_cpu(record) for record in own if record["on_cpu"]]
    return f"CPU: {', '.join(on_cpu)}" if on_cpu else "NPU"


def _on_cpu(record: dict) -> str:
    return "some " * (record["on_cpu"] < record["occurrences"]) + record["operator"]


def _functions() -> Iterable[str]:
    yield "Each becomes a lookup of 256 entries, which is exact in both runtimes:"
    yield ", ".join(f"`{name}`" for name in looked_up())
    yield "and a `ReLU` with a slope, a threshold or a maximum other than 6.\n"
    yield "These become separate operators:\n"
    rows = [
        (f"`{name}`", ", ".join(_operators_for(name, entry.layer)))
        for entry in registered_rules()
        for name in entry.head.label.split(" or ")
        if name.isidentifier() and name.islower()
    ]
    yield from table(("function", "LiteRT operators"), sorted(rows))


def _operators() -> Iterable[str]:
    yield "An operator has the highest version whose condition holds, and older runtimes refuse the"
    yield "file. In parentheses is the first release of TensorFlow Lite or LiteRT with it.\n"
    written = {code for entry in registered_rules() for code in entry.layer.operators}
    rows = [
        (code, ", ".join(each.operands), _versions(each))
        for code, each in declarations().items()
        if code in written
    ]
    yield from table(("operator", "operands", "versions"), rows)


def _versions(declaration: Declaration) -> str:
    conditions = {1: "", **declaration.versions}
    return ", ".join(
        f"{number}{condition and f' if {condition}'} ({declaration.releases[number - 1]})"
        for number, condition in conditions.items()
    )


def _operators_for(function: str, layer: Any) -> Sequence[str]:
    own = function.upper()
    return (own,) if own in layer.operators else layer.operators


def _passes() -> Iterable[str]:
    yield "The passes in their order. Another page has [an example of each](rewrites.md).\n"
    for rewrite in PIPELINE:
        yield f"- [`{rewrite.__name__}`](rewrites.md#{rewrite.__name__}): {summary(rewrite)}"
    known = [cls for cls in layers_written_in_ops() if cls.__module__.startswith("keras.src.")]
    written = ", ".join(f"`keras.layers.{cls.__name__}`" for cls in known)
    yield f"\n`open_layers` has separate rules to write these in operations: {written}."


def _refusals() -> Iterable[str]:
    yield "LiteRT has no integer operator for these, and no pass rewrites them.\n"
    rows = [(names(each.matcher), each.reason, each.fix) for each in registered_refusals()]
    yield from table(("refused", "reason", "what to do"), sorted(rows))
    yield ""


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Yields the lines of a Markdown table."""
    yield f"| {' | '.join(headings)} |"
    yield "|" + "---|" * len(headings)
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |"


if __name__ == "__main__":
    PAGE.write_text(page())
