"""What `deployed.py` finds out about a file: its size, its operators, its arena, what vela leaves.

    python benchmarks/deployed_facts.py arena FILE
    python benchmarks/deployed_facts.py vela FILE

These two run in processes of their own: TensorFlow Lite Micro may stop its process, and takes its
arena from it. What was found is kept beside the file for as long as that has the same content.
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
    """Says what a file is, beside how long it takes.

    Args:
        path: The file.
        probes: `"arena"`, TensorFlow Lite Micro's memory; `"vela"`, operators left to the CPU.

    Returns:
        `bytes`; `undelegated`, operators that XNNPACK does not take, by name; `partitions` of those
        that it takes; `operators`; and of each probe what it found, None if it does not run.
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
    """What LiteRT's default runtime gives to XNNPACK."""
    from tests.delegates import undelegated

    left, partitions = undelegated(content)
    return {
        "operators": len(operators_of(content)),
        "partitions": partitions,
        "undelegated": counted(code for _, code in left),
    }


def counted(codes: Iterable[str]) -> dict[str, int]:
    """How often each operator occurs, the most frequent first."""
    return dict(collections.Counter(codes).most_common())


def operators_of(content: bytes) -> list[str]:
    """The names of a file's operators."""
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
    """Bytes of the arena that TensorFlow Lite Micro used."""
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
    """The operators that stay for the CPU, by name, when vela compiles for an Ethos-U55."""
    from tests.vela import compiled_by_vela

    operators = operators_of(compiled_by_vela(path.read_bytes()))
    return counted(code for code in operators if code != "CUSTOM")


if __name__ == "__main__":
    print(json.dumps({"arena": arena, "vela": left_by_vela}[sys.argv[1]](Path(sys.argv[2]))))
