"""Counts our operators that vela, Arm's compiler for Ethos-U NPUs, leaves to the CPU.

Compiles the file of each contract case and writes docs/ethos_u.json, which docs/supported.md
quotes. Needs ethos-u-vela.
"""

from __future__ import annotations

import collections
import importlib.metadata
import json
from collections.abc import Iterator

from ai_edge_litert import schema_py_generated as schema
from common import ROOT, parse, print_environment, print_table, save
from runtimes import contract_cases, owners

from keras_qat.litert import to_bytes
from keras_qat.lowering import lower_model
from tests.layers.contract import Prepared
from tests.vela import compiled_by_vela

ACCELERATOR = "ethos-u55-128"


def left_to_cpu(compiled: bytes) -> set[str]:
    """Returns the outputs of the operators that the NPU does not run."""
    model = schema.ModelT.InitFromPackedBuf(compiled)
    graph, custom = model.subgraphs[0], schema.BuiltinOperator.CUSTOM
    left = [
        op for op in graph.operators if model.operatorCodes[op.opcodeIndex].builtinCode != custom
    ]
    return {graph.tensors[i].name.decode() for op in left for i in op.outputs}


def count_case(case) -> Iterator[tuple[str, str, bool]]:
    """Yields the layer and the code of each operator, and whether it is left to the CPU."""
    quantized = Prepared(case).quantize()
    model = lower_model(quantized)
    on_cpu = left_to_cpu(compiled_by_vela(to_bytes(model), ACCELERATOR))
    for layer, operator in owners(quantized, model):
        yield layer, operator.code, operator.outputs[0].name in on_cpu


def main() -> None:
    args = parse(__doc__)
    print_environment()
    counts: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0, 0])
    refused: set[str] = set()
    for case in contract_cases():
        print(f"  {case.name}", flush=True)
        try:
            counted = list(count_case(case))
        except AssertionError as error:
            print(f"  refused: {error}")
            refused |= {cls.__name__ for cls in case.covers}
            continue
        for layer, code, on_cpu in counted:
            counts[layer, code][0] += 1
            counts[layer, code][1] += on_cpu
    records = [
        {"layer": layer, "operator": code, "occurrences": total, "on_cpu": on_cpu}
        for (layer, code), (total, on_cpu) in sorted(counts.items())
    ]
    rows = [list(record.values()) for record in records]
    print_table(f"Left to the CPU by {ACCELERATOR}", ["layer", "operator", "all", "on CPU"], rows)
    results = {
        "vela": importlib.metadata.version("ethos-u-vela"),
        "accelerator": ACCELERATOR,
        "operators": records,
        # Layers of which no file was compiled.
        "refused": sorted(refused - {layer for layer, _ in counts}),
    }
    path = ROOT / "docs" / "ethos_u.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"Wrote {path}")
    save(args.json, results)


if __name__ == "__main__":
    main()
