"""Compares the forms of an activation after a 1x1 convolution of 56x56x64.

For each form: milliseconds of XNNPACK with 1 and 2 threads (interleaved, the minimum), the arena of
TensorFlow Lite Micro, and the operators that vela leaves to the CPU. Needs tflite-micro and
ethos-u-vela. `--page` writes the table of docs/performance.md.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from typing import Any

import numpy as np
from activation_chains import SHAPE, convolution
from activation_writers import FORMS
from common import ROOT, parse, print_environment, print_table, save
from ethos_u import ACCELERATOR, left_to_cpu

from keras_qat.litert import to_bytes
from tests.vela import compiled_by_vela

ROUNDS = 50
PAGE = ROOT / "docs" / "performance.md"

_MICRO = """
import pickle, sys
from tflite_micro.python.tflite_micro import runtime
content, x = pickle.load(sys.stdin.buffer)
interpreter = runtime.Interpreter.from_bytes(content, arena_size=64_000_000)
interpreter.set_input(x, 0)
interpreter.invoke()
interpreter.print_allocations()
"""


def arena(content: bytes, x: np.ndarray) -> str:
    """Returns the bytes of arena in TensorFlow Lite Micro, or "-" if it does not run the file."""
    import pickle

    child = subprocess.run(
        [sys.executable, "-c", _MICRO], input=pickle.dumps((content, x)), capture_output=True
    )
    text = (child.stdout + child.stderr).decode(errors="replace")
    found = re.search(r"Arena allocation total (\d+)", text)
    return found.group(1) if found and child.returncode == 0 else "-"


def interpreters(content: bytes, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_content=content, num_threads=threads)
    runner.resize_tensor_input(runner.get_input_details()[0]["index"], [1, *SHAPE])
    runner.allocate_tensors()
    return runner


def milliseconds(files: dict[Any, bytes], threads: int) -> dict[Any, float]:
    runners = {key: interpreters(content, threads) for key, content in files.items()}
    best = dict.fromkeys(runners, np.inf)
    for _ in range(ROUNDS):
        for key, runner in runners.items():
            start = time.perf_counter()
            runner.invoke()
            best[key] = min(best[key], time.perf_counter() - start)
    return {key: 1e3 * seconds for key, seconds in best.items()}


def measure() -> list[dict[str, Any]]:
    files = {}
    for function, forms in FORMS.items():
        for form, write in forms.items():
            content = to_bytes(write(convolution()).model())
            try:
                interpreters(content, 1).invoke()
            except (RuntimeError, ValueError) as error:
                print(f"{function}: {form}: {str(error)[:100]}")
                continue
            files[function, form] = content
    one_thread, two_threads = (milliseconds(files, threads) for threads in (1, 2))
    x = np.random.default_rng(1).integers(-128, 128, (1, *SHAPE)).astype("int8")
    records = []
    for key, content in files.items():
        try:
            left = sorted(left_to_cpu(compiled_by_vela(content, ACCELERATOR)))
        except AssertionError:
            left = ["refused"]
        records.append(
            {
                "function": key[0],
                "form": key[1],
                "ms_1": round(one_thread[key], 3),
                "ms_2": round(two_threads[key], 3),
                "arena": arena(content, x),
                "cpu": len(left) if left != ["refused"] else "refused",
            }
        )
    return records


def table_of(records: list[dict[str, Any]]) -> str:
    """Returns the table of docs/performance.md."""
    lines = ["| function | form | ms, 1 thread | ms, 2 threads | arena, kB | on the CPU |"]
    lines.append("|---|---|---|---|---|---|")
    for each in records:
        kilobytes = "-" if each["arena"] == "-" else f"{int(each['arena']) / 1000:.0f}"
        cells = each["function"], each["form"], f"{each['ms_1']:.3f}", f"{each['ms_2']:.3f}"
        lines.append(f"| {' | '.join((*cells, kilobytes, str(each['cpu'])))} |")
    return "\n".join(lines)


def write_page(records: list[dict[str, Any]]) -> None:
    before, after = "<!-- forms -->\n", "\n<!-- end of forms -->"
    text = PAGE.read_text()
    head, tail = text.partition(before)[0], text.partition(after)[2]
    PAGE.write_text(f"{head}{before}{table_of(records)}{after}{tail}")


def main() -> None:
    args = parse(__doc__, lambda p: p.add_argument("--page", action="store_true", help=str(PAGE)))
    print_environment()
    records = measure()
    print_table("", list(records[0]), [list(each.values()) for each in records])
    save(args.json, records)
    if args.page:
        write_page(records)


if __name__ == "__main__":
    main()
