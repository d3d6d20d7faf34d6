"""Which of our operators vela, Arm's compiler for Ethos-U NPUs, leaves to the CPU.

Compiles the file of each contract case and writes docs/ethos_u.json, which docs/supported.md
quotes. Needs ethos-u-vela.
"""

from __future__ import annotations

import argparse
import collections
import importlib.metadata
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from common import print_table
from runtimes import contract_cases, owners  # first: it makes the tests importable

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ai_edge_litert import schema_py_generated as schema  # noqa: E402

from keras_qat.litert import to_bytes  # noqa: E402
from keras_qat.lowering import lower_model  # noqa: E402
from tests.layers.contract import Prepared  # noqa: E402
from tests.vela import compiled_by_vela  # noqa: E402

ACCELERATOR = "ethos-u55-128"


def left_to_cpu(compiled: bytes) -> set[str]:
    """The names of the outputs of the operators that are not the NPU's."""
    model = schema.ModelT.InitFromPackedBuf(compiled)
    graph, custom = model.subgraphs[0], schema.BuiltinOperator.CUSTOM
    left = [
        op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode != custom
    ]
    return {graph.tensors[i].name.decode() for op in left for i in op.outputs}


def count_case(case) -> Iterator[tuple[str, str, bool]]:
    """The layer and the code of each operator, and whether it is left to the CPU."""
    quantized = Prepared(case).quantize()
    model = lower_model(quantized)
    on_cpu = left_to_cpu(compiled_by_vela(to_bytes(model), ACCELERATOR))
    for layer, operator in owners(quantized, model):
        yield layer, operator.code, operator.outputs[0].name in on_cpu


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    counts: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
    for case in contract_cases():
        print(f"  {case.name}", flush=True)
        for layer, code, on_cpu in count_case(case):
            counts[layer, code][0] += 1
            counts[layer, code][1] += on_cpu
    records = [
        {"layer": layer, "operator": code, "occurrences": total, "on_cpu": on_cpu}
        for (layer, code), (total, on_cpu) in sorted(counts.items())
    ]
    rows = [list(record.values()) for record in records]
    print_table(f"Left to the CPU by {ACCELERATOR}", ["layer", "operator", "all", "on CPU"], rows)
    version = importlib.metadata.version("ethos-u-vela")
    results = {"vela": version, "accelerator": ACCELERATOR, "operators": records}
    path = ROOT / "docs" / "ethos_u.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
