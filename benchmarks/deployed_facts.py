"""Facts about a file for `deployed.py`: size, operators, arena, operators left by vela.

    python benchmarks/deployed_facts.py arena FILE
    python benchmarks/deployed_facts.py vela FILE

These two run in separate processes: TensorFlow Lite Micro may abort its process, and allocates its
arena there. The results are stored beside the file, and are valid while its content is equal.
"""

from __future__ import annotations

import collections
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import common  # noqa: F401 (finds the tests' modules)

ARENA_SIZE = 256_000_000
PROBES = ("arena", "vela")


def facts(path: Path, probes: Collection[str] = PROBES) -> dict[str, Any]:
    """Returns all facts about a file but its times.

    Args:
        path: The file.
        probes: `"arena"`, TensorFlow Lite Micro's memory; `"vela"`, operators left to the CPU.

    Returns:
        `bytes`; `undelegated`, operators that XNNPACK does not take, by name; `partitions`, the
            number of partitions that it takes; `operators`; and the result of each probe, None
            if the file does not run.
    """
    content = path.read_bytes()
    kept, digest = path.with_suffix(".json"), hashlib.sha256(content).hexdigest()
    known = json.loads(kept.read_text()) if kept.exists() else {}
    if known.get("sha256") != digest:
        known = {"sha256": digest, "bytes": len(content), **plan(content)}
    for probe in probes:
        if probe not in known:
            known[probe] = _in_a_process(probe, path)
    kept.write_text(json.dumps(known, indent=1) + "\n")
    return known


def plan(content: bytes) -> dict[str, Any]:
    """Returns the operators that LiteRT's default runtime does not give to XNNPACK."""
    from tests.delegates import undelegated

    left, partitions = undelegated(content)
    return {
        "operators": len(operators_of(content)),
        "partitions": partitions,
        "undelegated": counted(code for _, code in left),
    }


def counted(codes: Iterable[str]) -> dict[str, int]:
    """Counts each operator, the most frequent first."""
    return dict(collections.Counter(codes).most_common())


def operators_of(content: bytes) -> list[str]:
    """Returns the names of a file's operators."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    codes = [names[code.builtinCode] for code in model.operatorCodes]
    return [codes[operator.opcodeIndex] for operator in model.subgraphs[0].operators]


def _in_a_process(probe: str, path: Path) -> Any:
    command = [sys.executable, __file__, probe, str(path)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        print(f"  {probe} of {path}: {child.stderr.strip()[-200:]}", flush=True)
        return None
    return json.loads(child.stdout.splitlines()[-1])


def arena(path: Path) -> int:
    """Returns the bytes of arena that TensorFlow Lite Micro used."""
    script = (
        "import sys; from tflite_micro.python.tflite_micro import runtime\n"
        f"i = runtime.Interpreter.from_file(sys.argv[1], arena_size={ARENA_SIZE})\n"
        "i.invoke(); i.print_allocations()"
    )
    command = [sys.executable, "-c", script, str(path)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Arena allocation total (\d+)", child.stderr)
    if child.returncode or found is None:
        raise SystemExit(child.stderr[-300:])
    return int(found[1])


def left_by_vela(path: Path) -> dict[str, int]:
    """Returns the operators, by name, that vela leaves to the CPU for an Ethos-U55."""
    from tests.vela import compiled_by_vela

    operators = operators_of(compiled_by_vela(path.read_bytes()))
    return counted(code for code in operators if code != "CUSTOM")


if __name__ == "__main__":
    print(json.dumps({"arena": arena, "vela": left_by_vela}[sys.argv[1]](Path(sys.argv[2]))))
