"""Quantizes, exports and verifies small models of published Keras 3 packages.

The packages are installed into `build/zoos`. Each model has random weights and a process of its
own with a time limit. The results are added to a file of JSON lines, `build/bench/zoos.jsonl`,
so that an interrupted run goes on where it stopped. `--only NAME` measures some models again, and
`--refused` those that were not exact. `--markdown docs/zoos.md` writes the page.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from common import ROOT, parse, print_environment, print_table, save
from tfmot_environment import read_answer
from zoos_environment import make_environment
from zoos_models import ZooModel
from zoos_more_models import MODELS
from zoos_page import short, summary, write_page

WORKER = Path(__file__).with_name("zoos_worker.py")
RESULTS = ROOT / "build" / "bench" / "zoos.jsonl"
SECONDS = 180.0


def measure(zoo: ZooModel, python: Path, seconds: float) -> dict:
    """Returns the result of a model. A process that ends without one is a fault."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [python, WORKER, zoo.name],
            capture_output=True,
            text=True,
            timeout=seconds,
            env=variables,
        )
    except subprocess.TimeoutExpired:
        answer = {"failed": f"no result within {seconds:g} s"}
    else:
        answer = read_answer(done.returncode, done.stdout, done.stderr)
    if "failed" in answer:
        answer = {"verdict": "fault", "cause": answer["failed"]}
        answer["seconds"] = round(time.perf_counter() - start, 1)
    return answer


def read(path: Path) -> dict[str, dict]:
    """Returns the last result of each model that is still in the list."""
    lines = path.read_text().splitlines() if path.exists() else []
    found = {result["name"]: result for result in map(json.loads, lines)}
    return {zoo.name: found[zoo.name] for zoo in MODELS if zoo.name in found}


def chosen(args, results: dict[str, dict]) -> Sequence[ZooModel]:
    """Returns the models to measure: those without a result, or those that were asked for."""
    if args.only:
        unknown = set(args.only) - {zoo.name for zoo in MODELS}
        if unknown:
            raise SystemExit(f"Unknown models: {', '.join(sorted(unknown))}")
        return [zoo for zoo in MODELS if zoo.name in args.only]
    if args.refused:
        return [zoo for zoo in MODELS if results.get(zoo.name, {}).get("verdict") != "exact"]
    return [zoo for zoo in MODELS if zoo.name not in results]


def arguments(parser) -> None:
    names = ", ".join(zoo.name for zoo in MODELS)
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"these models: {names}")
    parser.add_argument("--refused", action="store_true", help="those that were not exact")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="PATH")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="limit for a model")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the page here")
    parser.add_argument("--page-only", action="store_true", help="measure nothing")


def main() -> int:
    args = parse(__doc__, arguments)
    results = read(args.results)
    if not args.page_only:
        print_environment()
        python = make_environment()
        args.results.parent.mkdir(parents=True, exist_ok=True)
        for zoo in chosen(args, results):
            result = {"name": zoo.name, **measure(zoo, python, args.seconds)}
            with args.results.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(f"{zoo.name}: {result['verdict']}, {result['seconds']} s", flush=True)
            if "cause" in result:
                print(f"  {short(result)}", flush=True)
    results = read(args.results)
    rows = [(name, r["verdict"], r["seconds"]) for name, r in results.items()]
    print_table("Published packages", ["model", "verdict", "seconds"], rows)
    print(summary(results))
    save(args.json, results)
    if args.markdown is not None:
        write_page(args.markdown, results)
    return 0 if all(result["verdict"] == "exact" for result in results.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
