"""The error for tensors without a range."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from keras_qat.errors import MissingRangeError
from keras_qat.graph import Graph

# The number of tensors without a range whose consumers an error names.
_MOST = 4


def missing_ranges(lacking: Sequence[str], uses: Mapping[str, Sequence[str]]) -> MissingRangeError:
    """Makes the error for tensors that lack min/max data.

    Args:
        lacking: Names of the tensors.
        uses: What takes each tensor, as text.
    """
    shown = (f"'{name}' is {' and '.join(uses[name])}" for name in lacking[:_MOST] if uses[name])
    return MissingRangeError(
        f"{len(lacking)} tensor(s) lack min/max data, which is necessary for quantization: "
        f"{listing(lacking, len(lacking))}. {'; '.join(shown)}.",
        tensors=lacking,
        layer=lacking[0].partition("/")[0],
        fix="Calibrate (`keras_qat.calibrate(model, data)`, or `calibration_data` of "
        "`quantize_model`), or train the model. If accuracy does not matter, pass "
        "`default_ranges_stats=(min, max)` to `export_litert` or `quantize_model`; "
        "`keras_qat.suggest_default_ranges(model, data)` finds a range that covers all values.",
    )


def uses_of(graph: Graph) -> Mapping[str, Sequence[str]]:
    """The layers that take each tensor."""
    uses: dict[str, list[str]] = defaultdict(list)
    for node in graph.nodes.values():
        for edge in node.inputs:
            kind = type(node.head).__name__
            uses[graph.nodes[edge.node].head.name].append(
                f"an input to the layer '{node.name}' ({kind})"
            )
    for edge in graph.output_edges:
        uses[graph.nodes[edge.node].head.name].append("an output of the model")
    return uses


def listing(names: Iterable[str], most: int = 8) -> str:
    """Returns names as text, only the first names of a long list."""
    names = list(names)
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
