"""Measures how much `import keras_qat` adds to `import keras`, in new processes, in turns."""

from __future__ import annotations

import os
import subprocess
import sys

from common import parse, print_environment, print_table, save, verdict

GOAL = 0.2
PROGRAM = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import {modules}
print(time.process_time() - cpu, time.perf_counter() - wall)
"""


def seconds(modules: str) -> tuple[float, float]:
    """Returns CPU and wall seconds of an import statement in a new interpreter."""
    command = [sys.executable, "-c", PROGRAM.format(modules=modules)]
    # An installed package has bytecode, so a checkout has to write its bytecode first.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    cpu, wall = done.stdout.split()[-2:]
    return float(cpu), float(wall)


def main() -> None:
    args = parse(
        __doc__, lambda parser: parser.add_argument("--rounds", type=int, default=7, metavar="N")
    )
    print_environment()
    imports = ("keras", "keras, keras_qat")
    for modules in imports:  # writes the .pyc files and fills the disk cache
        seconds(modules)
    samples = {modules: [] for modules in imports}
    for i in range(args.rounds):
        for modules in imports[:: -1 if i % 2 else 1]:
            samples[modules].append(seconds(modules))
    best = {
        modules: [min(column) for column in zip(*samples[modules], strict=True)]
        for modules in imports
    }
    added = [ours - base for base, ours in zip(*best.values(), strict=True)]
    rows = [(f"import {m}", *(f"{s:.3f}" for s in best[m])) for m in imports]
    rows.append(("added", *(f"{s:.3f}" for s in added)))
    rows.append((f"goal: <= {GOAL} s", *(verdict(s, GOAL) for s in added)))
    headings = ("", "CPU s", "wall s")
    print_table(f"Minima of {args.rounds} fresh processes each", headings, rows)
    results = {"min_cpu_wall": best, "added_cpu_wall": added, "goal": GOAL, "samples": samples}
    save(args.json, results)


if __name__ == "__main__":
    main()
