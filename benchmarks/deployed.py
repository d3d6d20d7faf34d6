"""Compares our files with the converter's post-training int8 files of the same Keras models.

For each network: milliseconds of an invocation with 1 and 2 threads (in turns, the minimum), size
of the file, arena in TensorFlow Lite Micro, and operators that vela leaves to the CPU. The files
stay in the folder, so that times can be measured again without building them. `--rebuild` writes
our files again. `--markdown docs/performance.md` renews the table there.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import ROOT, interleave, parse, print_environment, print_table, save, verdict
from deployed_facts import PROBES, facts

NETWORKS = (
    "EfficientNetB0",
    "EfficientNetV2B0",
    "MobileNetV2",
    "MobileNetV3Small",
    "ConvNeXtTiny",
    "DenseNet121",
    "NASNetMobile",
    "Xception",
    "YOLO-tiny",
    "MLP-Mixer",
)
SIDES, THREADS = ("ours", "converter"), (1, 2)
TIME_GOAL, SIZE_GOAL, ARENA_GOAL = 1.05, 1.02, 1.05
START, END = "<!-- Written by benchmarks/deployed.py: networks -->", "<!-- End of networks -->"
HEADINGS = ("network", "ms, 1 thread", "ms, 2 threads", "kB", "arena, kB", "vela", "not delegated")

Row = dict[str, Any]


def built(name: str, size: int, folder: Path, rebuild: bool) -> dict[str, Path]:
    """Returns the two files of a network. Writes missing files."""
    place = folder / f"{name}-{size}"
    paths = {side: place / f"{side}.tflite" for side in SIDES}
    if rebuild or not all(path.exists() for path in paths.values()):
        script = Path(__file__).with_name("deployed_files.py")
        command = [sys.executable, str(script), name, str(size), str(place)]
        child = subprocess.run(command, capture_output=True, text=True, check=False)
        if child.returncode:  # the converter prints pages of logs
            raise RuntimeError(child.stderr.strip().splitlines()[-1])
    return paths


def milliseconds(paths: dict[str, Path], threads: int, rounds: int) -> dict[str, float]:
    """Returns the smallest time of an invocation of each file."""
    calls = {side: _interpreter(path, threads).invoke for side, path in paths.items()}
    timings = interleave(calls, rounds)
    return {side: 1e3 * min(timing.wall) for side, timing in timings.items()}


def _interpreter(path: Path, threads: int) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def measure(paths: dict[str, Path], rounds: int, probes: list[str]) -> Row:
    """Returns all figures of the files of one network."""
    known = {side: facts(path, probes) for side, path in paths.items()}
    times = {threads: milliseconds(paths, threads, rounds) for threads in THREADS}
    goals = {f"ms_{threads}": (times[threads], TIME_GOAL) for threads in THREADS}
    goals["bytes"] = ({side: known[side]["bytes"] for side in SIDES}, SIZE_GOAL)
    if "arena" in probes:
        goals["arena"] = ({side: known[side]["arena"] for side in SIDES}, ARENA_GOAL)
    compared = {key: against(*values) for key, values in goals.items()}
    return {"files": known, "compared": compared}


def against(values: Mapping[str, float | None], goal: float) -> Row:
    """Returns both values, their ratio and whether the goal was reached. The ratio may be None."""
    if values["ours"] is None or values["converter"] is None:
        return {**values, "ratio": None, "goal": goal, "verdict": ""}
    ratio = values["ours"] / values["converter"]
    return {**values, "ratio": ratio, "goal": goal, "verdict": verdict(ratio, goal)}


def cells(name: str, row: Row) -> list[str]:
    """Returns a line of the table."""
    if "failed" in row:
        return [name, row["failed"], *[""] * (len(HEADINGS) - 2)]
    compared, files = row["compared"], row["files"]
    times = [_cell(compared[f"ms_{threads}"], 1, 2) for threads in THREADS]
    sizes = [_cell(compared.get(key), 1e-3, 0) for key in ("bytes", "arena")]
    vela = " / ".join(_count(files[side].get("vela")) for side in SIDES)
    left = "; ".join(_listed(files[side]) for side in SIDES)
    return [name, *times, *sizes, vela, left]


def _cell(compared: Row | None, factor: float, digits: int) -> str:
    if compared is None:
        return ""
    values = (compared[side] for side in SIDES)
    text = " / ".join("-" if v is None else f"{v * factor:,.{digits}f}" for v in values)
    if compared["ratio"] is None:
        return text
    return f"{text} = {compared['ratio']:.2f}, {compared['verdict']}"


def _count(left: dict[str, int] | None) -> str:
    return "-" if left is None else str(sum(left.values()))


def _listed(known: Row) -> str:
    left = ", ".join(f"{count} {code}" for code, count in known["undelegated"].items())
    return f"{left or 'none'} of {known['operators']} in {known['partitions']}"


def markdown(results: dict[str, Row]) -> str:
    """Returns the table of docs/performance.md."""
    rows = [HEADINGS, ["---"] * len(HEADINGS), *(cells(*item) for item in results.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def renew(path: Path, results: dict[str, Row]) -> None:
    """Replaces the table between the two marker comments of a page."""
    text, table = path.read_text(), f"{START}\n\n{markdown(results)}\n\n{END}"
    pattern = f"{re.escape(START)}.*?{re.escape(END)}"
    path.write_text(re.sub(pattern, lambda _: table, text, count=1, flags=re.DOTALL))


def arguments(parser) -> None:
    parser.add_argument("--names", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--size", type=int, default=96, help="height and width of the images")
    parser.add_argument(
        "--rounds", type=int, default=50, help="invocations, of which the fastest counts"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "deployed")
    parser.add_argument("--rebuild", action="store_true", help="write our files again")
    parser.add_argument("--without", nargs="+", choices=PROBES, default=(), help="leave these out")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="renew the table here, too")


def main() -> int:
    args = parse(__doc__, arguments)
    print_environment()
    probes = [probe for probe in PROBES if probe not in args.without]
    results: dict[str, Row] = {}
    for name in args.names:
        print(name, flush=True)
        try:
            paths = built(name, args.size, args.folder, args.rebuild)
            results[name] = measure(paths, args.rounds, probes)
        except (RuntimeError, ValueError) as error:
            results[name] = {"failed": f"{type(error).__name__}: {error}"}
        save(args.json, results)
    rows = [cells(*item) for item in results.items()]
    print_table("ours / converter = ratio; operators outside of XNNPACK", HEADINGS, rows)
    if args.markdown is not None:
        renew(args.markdown, results)
    return 1 if any("failed" in row for row in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
