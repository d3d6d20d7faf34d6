"""Functions of all benchmarks: arguments, environment, interleaved timing, data, tables, JSON."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

# Some benchmarks use the cases of the tests.
sys.path.append(str(Path(__file__).parents[1]))
# This has to be set before TensorFlow is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
PACKAGES = ("keras", "tensorflow", "jax", "torch", "ai-edge-litert", "numpy")


@dataclasses.dataclass(frozen=True)
class Timing:
    """The seconds of every round, as CPU time of the process (all threads) and as wall time."""

    cpu: tuple[float, ...]
    wall: tuple[float, ...]

    def to_dict(self) -> dict[str, float]:
        return {
            "cpu_min": min(self.cpu),
            "cpu_median": statistics.median(self.cpu),
            "wall_min": min(self.wall),
            "wall_median": statistics.median(self.wall),
            "rounds": len(self.cpu),
        }


def parse(
    description: str | None, configure: Callable[[argparse.ArgumentParser], object] | None = None
) -> argparse.Namespace:
    """Parses the command line. `configure` adds arguments to `--json`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="save the results here, too")
    if configure is not None:
        configure(parser)
    return parser.parse_args()


def cpu_count() -> int:
    """Returns the number of CPUs that this process may use."""
    # Not every system has this function. Python 3.13 has os.process_cpu_count.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment() -> dict[str, Any]:
    """Returns the versions of packages and the machine, without importing the packages."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "python": platform.python_version(),
        **versions,
        "keras_backend": os.environ.get("KERAS_BACKEND", "default"),
        "cpus": cpu_count(),
        "machine": platform.machine(),
        "load": round(os.getloadavg()[0], 2),
    }


def print_environment() -> None:
    print(", ".join(f"{key} {value}" for key, value in environment().items()), flush=True)


def interleave(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Timing]:
    """Times callables in turns, so that a change of the machine's load affects all of them.

    Each is called once before without timing. Every other round reverses the order.
    """
    for call in calls.values():
        call()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for i in range(rounds):
        for name in list(calls)[:: -1 if i % 2 else 1]:
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            calls[name]()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            seconds[name].append((cpu, wall))
    return {name: Timing(*zip(*values, strict=True)) for name, values in seconds.items()}


class Stages:
    """Wall seconds of named stages in their order."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def run(self, name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Calls a function and records its time."""
        print(f"  {name} ...", end="", flush=True)
        start = time.perf_counter()
        result = call(*args, **kwargs)
        self.seconds[name] = round(time.perf_counter() - start, 3)
        print(f" {self.seconds[name]:.1f} s", flush=True)
        return result


def peak_rss_mib() -> float:
    """Returns the peak memory of this process in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def print_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Prints a table. The first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place else "left", overflow="fold")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    # A pipe has no width, and 80 columns would cut the cells.
    console = Console() if sys.stdout.isatty() else Console(width=140)
    console.print(table)


def verdict(value: float, goal: float) -> str:
    return "reached" if value <= goal else "NOT reached"


def save(path: Path | None, results: Any) -> None:
    """Writes results and environment as JSON if a path is given."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"environment": environment(), "command": sys.argv, "results": results}
    path.write_text(json.dumps(content, indent=1, default=_plain) + "\n")
    print(f"Saved {path}")


def _plain(value: Any) -> Any:
    return value.to_dict() if isinstance(value, Timing) else value.item()


def chunks(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(array), size):
        yield array[start : start + size]


def file_outputs(path: Path, kernels: str, images: np.ndarray, batch_size: int = 250) -> np.ndarray:
    """Runs a file of one input and one output on images in the type of its input."""
    from keras_qat.litert import Runner

    runner = Runner(path, kernels=kernels, num_threads=cpu_count())
    dtype = runner.inputs[0].dtype
    # The interpreter plans memory again for each batch size, so only the last batch may differ.
    parts = [runner.run([part.astype(dtype)])[0] for part in chunks(images, batch_size)]
    return np.concatenate(parts)


def float_tensors(path: Path) -> list[str]:
    """Returns the names of all float tensors of a file, including constants."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate, since its tensors would be listed, too. The reference resolver lacks
    # operators of packed weights.
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
    details = interpreter.get_tensor_details()
    return [d["name"] for d in details if np.issubdtype(d["dtype"], np.floating)]
