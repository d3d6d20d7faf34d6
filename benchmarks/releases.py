"""Compares Keras with the default kernels of several releases of LiteRT, integer by integer.

The contract cases are quantized for the target "litert" and exported once, with inputs and the
integers that Keras computes for the output of every layer. Each release gets a virtual environment
and runs the same files, as they are and with all tensors as outputs. Writes docs/releases.json, and
from it a table of docs/runtimes.md.
"""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from common import ROOT, environment, parse, print_environment, print_table, save
from runtimes import contract_cases, processor
from runtimes_page import SCHEMES

import keras_qat
from keras_qat.errors import KerasQatError
from keras_qat.litert import expose_tensors
from tests.layers.cases import Case
from tests.layers.contract import Prepared, layer_outputs, loosen
from tests.layers.litert_files import counterparts_of, exported, integers_of

# The oldest and the newest release, and those between before and after a change of results.
RELEASES = ("1.0.1", "1.2.0", "1.3.0", "1.4.0", "2.0.2", "2.1.2", "2.1.3", "2.2.0", "2.3.0")
RUNTIMES = ("tflite-runtime==2.14.0", *(f"ai-edge-litert=={each}" for each in RELEASES))
# The packages that the interpreters import. Those before LiteRT 1.1 do not run with numpy 2.
NEEDED = ("flatbuffers", "numpy==1.26.4", "typing-extensions", "backports.strenum", "protobuf")
SEEDS = (0, 1)
WORKER = Path(__file__).with_name("releases_worker.py")


def write_cases(folder: Path, scheme: str, cases: list[Case]) -> list[Path]:
    """Exports the cases that a scheme supports, for each seed. Returns the paths of the files."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for case in cases:
        for seed in SEEDS:
            path = folder / f"{case.name}-{seed}.npz"
            if not path.exists() and not write_case(path, case, scheme, seed):
                break
            paths.append(path)
    return paths


def write_case(path: Path, case: Case, scheme: str, seed: int) -> bool:
    """Exports a case with its inputs and expected integers. Returns False if it is refused."""
    prepared = Prepared(case, seed)
    try:
        model = keras_qat.quantize_model(
            prepared.keras_model, scheme, activations=case.activations, target="litert"
        )
    except KerasQatError:
        return False
    keras_qat.calibrate(model, tuple(prepared.arrays), verbose=0)
    if seed:
        loosen(model, np.random.default_rng(seed))
    content = exported(model)
    exposed = expose_tensors(content)
    tensors = layer_outputs(model, prepared.arrays, training=False)
    inputs, expected = integers(exposed, prepared.arrays, counterparts_of(content, model), tensors)
    arrays: dict[str, Any] = {"makers": json.dumps(makers_of(content))}
    arrays |= {f"input:{name}": array for name, array in inputs.items()}
    arrays |= {f"expected:{name}": array for name, array in expected.items()}
    files = {"plain": np.frombuffer(content, "uint8"), "exposed": np.frombuffer(exposed, "uint8")}
    np.savez_compressed(path, **files, **arrays)
    return True


def integers(
    exposed: bytes,
    arrays: list[np.ndarray],
    counterparts: dict[str, str],
    tensors: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the integers of the inputs and of the other tensors that have a layer, by name."""
    interpreter = Interpreter(model_content=exposed)
    inputs, expected = {}, {}
    for details, array in zip(interpreter.get_input_details(), arrays, strict=True):
        name, dtype = details["name"], details["dtype"]
        is_quantized = np.issubdtype(dtype, np.integer) and counterparts[name] in tensors
        values = integers_of(tensors[counterparts[name]], details) if is_quantized else array
        inputs[name] = values.astype(dtype)
    for details in interpreter.get_output_details():
        layer = counterparts.get(details["name"])
        if layer in tensors:
            expected[details["name"]] = integers_of(tensors[layer], details)
    return inputs, expected


def makers_of(content: bytes) -> dict[str, str]:
    """Returns the operator of each computed tensor, in the order of execution."""
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    return {
        graph.tensors[i].name.decode(): names[model.operatorCodes[each.opcodeIndex].builtinCode]
        for each in graph.operators
        for i in each.outputs
    }


def python_of(runtime: str, folder: Path) -> Path:
    """Returns the Python of a runtime: the given path, or that of a new environment."""
    if "==" not in runtime:
        return Path(runtime)
    python = folder / runtime / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / runtime], check=True)
        packages = (runtime, *NEEDED)
        install = [python, "-m", "pip", "install", "--quiet", "--no-deps", *packages]
        subprocess.run(install, check=True)
    return python


def run_cases(python: Path, paths: list[Path]) -> Iterator[dict[str, Any]]:
    """Yields the result of each case. A case that ends the process gets the error "stopped"."""
    left = list(paths)
    while left:
        done = subprocess.run([python, WORKER, "cases", *left], capture_output=True, text=True)
        results = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        yield from results
        left = left[len(results) :]
        if left:
            yield {"error": f"stopped: {(done.stderr.strip().splitlines() or [''])[-1]}"}
            left = left[1:]


def summary(paths: list[Path], results: list[dict[str, Any]]) -> dict[str, Any]:
    """Adds up the results of all cases of a scheme."""
    ran = [each for each in results if "error" not in each]
    refused = collections.Counter(each["error"] for each in results if "error" in each)
    return {
        "files": len(paths),
        "refused": len(paths) - len(ran),
        "errors": {error.splitlines()[0]: count for error, count in refused.most_common()},
        "elements": sum(each["elements"] for each in ran),
        "differing": sum(each["differing"] for each in ran),
        "largest": max((each["largest"] for each in ran), default=0),
        "operators": sorted({each["first"] for each in ran if each["first"]}),
    }


def arguments(parser) -> None:
    parser.add_argument(
        "runtimes",
        nargs="*",
        metavar="RUNTIME",
        help="package==version, or the path of a Python that has a runtime; nothing is written",
    )
    parser.add_argument("--only", nargs="*", metavar="CASE", help="only these; nothing is written")
    parser.add_argument("--schemes", nargs="*", default=SCHEMES, metavar="SCHEME")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "releases")


def measure(args) -> dict[str, Any]:
    cases = [case for case in contract_cases() if args.only is None or case.name in args.only]
    measured: list[dict[str, Any]] = []
    for scheme in args.schemes:
        paths = write_cases(args.folder / scheme, scheme, cases)
        for runtime in args.runtimes or RUNTIMES:
            results = list(run_cases(python_of(runtime, args.folder), paths))
            measured.append({"runtime": runtime, "scheme": scheme, **summary(paths, results)})
            print(f"  {measured[-1]}", flush=True)
    return {"environment": environment(), "cpu": processor(), "seeds": SEEDS, "runs": measured}


def show(runs: list[dict[str, Any]]) -> None:
    headings = ["runtime", "scheme", "files", "refused", "elements", "differing", "largest"]
    rows = [[run[heading] for heading in headings] for run in runs]
    print_table("Keras against the default kernels of each release", headings, rows)


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    results = measure(args)
    show(results["runs"])
    save(args.json, results)
    if not args.runtimes and args.only is None and tuple(args.schemes) == SCHEMES:
        numbers = ROOT / "docs" / "releases.json"
        numbers.write_text(json.dumps(results, indent=1) + "\n")
        print(f"Wrote {numbers}. Run `python benchmarks/runtimes.py --page`.")


if __name__ == "__main__":
    main()
