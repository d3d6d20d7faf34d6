"""Runs the benchmarks in sequence, each in a separate process: `make bench`.

Each saves its numbers as NAME.json in the folder, which is build/bench by default. If one fails,
the others still run, and the exit status is 1. Benchmarks that need data run if the data is given.
Otherwise the output names the missing data.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import ROOT, parse, print_environment, print_table, save

SCRIPTS = Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """A script and its arguments.

    Attributes:
        name: The name of the file without its suffix.
        arguments: The arguments of each run.
        needs: The required options, without dashes.
        takes: The options that are passed on if they are given.
        by_itself: The reason why it is not run here. Empty if it is run.
    """

    name: str
    arguments: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    by_itself: str = ""


BENCHMARKS = (
    Benchmark("import_time"),
    Benchmark("clone_cost"),
    Benchmark("speed"),
    Benchmark("training_cost", ("--sizes", "3")),
    Benchmark("deployed", ("--names", "MobileNetV2", "--without", "arena", "vela")),
    Benchmark("applications_exact", ("--names", "MobileNet", "MobileNetV3Small", "ResNet50")),
    Benchmark("backends_exact", ("--names", "MobileNetV2", "--images", "8")),
    Benchmark("tfmot", takes=("data", "model")),
    Benchmark("cifar10_resnet8", needs=("data", "model")),
    Benchmark("resnet_v1_three_ways", needs=("data",)),
    Benchmark("audio", ("--seeds", "1")),
    Benchmark("accuracy", by_itself="takes a day"),
    Benchmark("runtimes", by_itself="writes docs/runtimes.md"),
    Benchmark("runtime_targets", by_itself="writes docs/runtimes.md"),
    Benchmark("releases", by_itself="needs the network"),
    Benchmark("zoos", by_itself="needs the network"),
    Benchmark("operator_releases", by_itself="needs Pythons with other releases"),
    Benchmark("activation_forms", by_itself="writes docs/performance.md"),
    Benchmark("normalization_forms"),
    Benchmark("slow_operators"),
    Benchmark("ranges", ("--seeds", "2")),
    Benchmark("wide_ranges", ("--names", "MobileNetV2", "ResNet50"), takes=("data",)),
    Benchmark("wide_ranges_trained", ("--seeds", "1")),
    Benchmark("recurrent", ("--seeds", "1")),
    Benchmark("recurrent_forms"),
    Benchmark("ethos_u", by_itself="writes docs/ethos_u.json"),
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The outcome of a benchmark: "passed" or a reason, and the seconds if it was run."""

    result: str
    seconds: float | None = None
    failed: bool = False


def skipped(benchmark: Benchmark, given: Mapping[str, object]) -> str:
    """Returns the reason why a benchmark is not run, or an empty text."""
    missing = [f"--{name}" for name in benchmark.needs if given.get(name) is None]
    return benchmark.by_itself or (f"needs {' and '.join(missing)}" if missing else "")


def run(benchmark: Benchmark, given: Mapping[str, object], folder: Path, scripts: Path) -> Outcome:
    """Runs one benchmark and shows its output at once."""
    if reason := skipped(benchmark, given):
        return Outcome(f"skipped: {reason}")
    command = [sys.executable, str(scripts / f"{benchmark.name}.py"), *benchmark.arguments]
    for name in (*benchmark.needs, *benchmark.takes):
        if given.get(name) is not None:
            command += [f"--{name}", str(given[name])]
    path = folder / f"{benchmark.name}.json"
    path.unlink(missing_ok=True)  # an old file would look like a result of this run
    print(f"\n== {benchmark.name}", flush=True)
    start = time.perf_counter()
    status = subprocess.run([*command, "--json", str(path)]).returncode
    seconds = round(time.perf_counter() - start, 1)
    if status:
        return Outcome(f"FAILED, exit status {status}", seconds, True)
    if not path.exists():
        return Outcome("FAILED, no results were saved", seconds, True)
    return Outcome("passed", seconds)


def run_all(
    benchmarks: Sequence[Benchmark],
    given: Mapping[str, object],
    folder: Path,
    scripts: Path = SCRIPTS,
) -> dict[str, Outcome]:
    """Runs all benchmarks, also after a failure. Returns the outcomes by name."""
    folder.mkdir(parents=True, exist_ok=True)
    return {each.name: run(each, given, folder, scripts) for each in benchmarks}


def show(outcomes: Mapping[str, Outcome], folder: Path) -> None:
    rows = [(name, each.result, each.seconds or "") for name, each in outcomes.items()]
    print_table(f"Benchmarks; numbers in {folder}", ("benchmark", "result", "seconds"), rows)


def arguments(parser) -> None:
    names = [each.name for each in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench")
    parser.add_argument("--data", type=Path, help="folder with CIFAR-10, see README.md")
    parser.add_argument("--model", type=Path, help="MLPerf Tiny's ResNet-8, an .h5 file")


def main() -> int:
    args = parse(__doc__, arguments)
    print_environment()
    chosen = [each for each in BENCHMARKS if each.name in args.only]
    outcomes = run_all(chosen, {"data": args.data, "model": args.model}, args.folder)
    show(outcomes, args.folder)
    save(args.json, {name: dataclasses.asdict(each) for name, each in outcomes.items()})
    return 1 if any(each.failed for each in outcomes.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
