"""Findings about operators that LiteRT's two sets of kernels round differently."""

from __future__ import annotations

from collections.abc import Iterator

from keras_qat.checking.findings import WARNING, Finding, listing
from keras_qat.graph import Graph, Node
from keras_qat.litert import Model
from keras_qat.litert.format.operators import Apart, declaration_of
from keras_qat.targets.judging import measured_operators
from keras_qat.targets.limits import meets
from keras_qat.targets.measured import Measured
from keras_qat.targets.quantities import measure

_EIGHT_BITS = ("int8", "uint8")
_DIFFERING = (
    "rounds differently in LiteRT's reference kernels, which the target is, and in its default "
    "ones (XNNPACK), which PCs and phones run: measured, up to"
)
_FIX = 'For PCs pass target="litert", for phones "litert-arm64": Keras then equals their kernels.'


def differing_runtimes(graph: Graph, lowered: Model) -> Iterator[Finding]:
    """Finds operators whose elements differ by 2 % or more between LiteRT's two sets of kernels.

    The percentages in operators.toml are of each operator alone, as in docs/runtimes.md.
    Operators that differ less often occur in every model, and seldom change a result.

    Args:
        graph: The layers of the model.
        lowered: The operators of the layers.

    Yields:
        One finding for each type of operator.
    """
    found: dict[str, tuple[Apart, list[Node]]] = {}
    for operator in measured_operators(lowered):
        difference = _difference(operator)
        if difference is not None:
            name = f"{operator.code} {difference.case}".rstrip()
            found.setdefault(name, (difference, []))[1].append(_node(graph, operator))
    for name, (difference, nodes) in found.items():
        layers = tuple(dict.fromkeys(node.head.name for node in nodes))
        message = f"{name} {_DIFFERING} {difference.share}: {listing(layers)}."
        code = "runtimes-differ"
        yield Finding(WARNING, code, layers[0], nodes[0].name, message, _FIX, layers)


def _difference(operator: Measured) -> Apart | None:
    """Returns the first entry of the table that applies to an operator."""
    if operator.data.dtype not in _EIGHT_BITS:
        return None
    for entry in declaration_of(operator.code).apart:
        if all(meets(measure(operator, name), each) for name, each in entry.when.items()):
            return entry
    return None


def _node(graph: Graph, operator: Measured) -> Node:
    """Returns the node that an operator belongs to, by the name of the operator's output."""
    name = operator.output.name
    while name not in graph.nodes:
        name = name.rpartition("/")[0]
    return graph.nodes[name]
