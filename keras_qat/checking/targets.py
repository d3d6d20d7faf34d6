"""What would not run on the target that a file is for."""

from __future__ import annotations

from keras_qat.checking.findings import Finding
from keras_qat.graph import Graph
from keras_qat.lowering import lower_graph
from keras_qat.targets import Target, violations


def target_findings(graph: Graph, target: Target) -> list[Finding]:
    """Lowers linked layers in memory, and looks for operators that a target does not run.

    Args:
        graph: Each node but the inputs is a call of a layer that is built and linked.
        target: The target.

    Returns:
        One finding for each layer, operator and limit: an error if the file would not run there, a
        warning if the operator would run on the CPU.
    """
    found: dict[tuple[str, ...], Finding] = {}
    for each in violations(lower_graph(graph), target):
        key = each.layer, each.operator, each.expected
        finding = Finding(each.level, each.code, each.layer, each.tensor, each.what, each.action)
        found.setdefault(key, finding)
    return list(found.values())
