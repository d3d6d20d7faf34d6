"""Compares Keras with TensorFlow Lite Micro and with LiteRT on an emulated ARM64 processor.

Makes every contract case for each target that is measured, exports it, and compares all its tensors
with the kernels of the target, integer by integer. For ARM64 each operator also runs alone in
LiteRT's default kernels of this processor, on the inputs that it has on ARM64. `--model` adds a
Keras model, on random images of coarse blocks. Writes the key "targets" of docs/runtimes.json, and
docs/runtimes.md from it.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import itertools
import json
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, parse, print_environment, print_table, save
from runtimes import Difference, contract_cases, cut_out, input_integers, run_alone
from runtimes_page import page

import keras_qat
from keras_qat.litert import Model, Runner, Tensor, read, to_bytes
from keras_qat.litert.reading.file_operators import file_operators
from keras_qat.litert.running.separate_process import arm64_folder
from keras_qat.lowering import lower_model
from keras_qat.targets import get_target, violations
from tests.layers.cases import Case
from tests.layers.contract import Prepared

TARGETS = ("tflite-micro", "litert-arm64")
ALL_TARGETS = ("litert", "reference", *TARGETS)
SEED, SAMPLES = 1, 16
# Of models: images to calibrate with, and to compare.
CALIBRATION, IMAGES = 64, 16


def count_rows(report: Any, kernels: str, path: Path, counts: dict[str, Difference]) -> None:
    """Adds each computed tensor of a report to the difference of its operator."""
    codes = {x.name: each.code for each in file_operators(read(path)) for x in each.outputs}
    for row in report.layers[kernels].values():
        if row.name in codes:
            found = counts.setdefault(codes[row.name], Difference())
            found.elements += row.elements
            found.differing += row.mismatches
            found.largest = max(found.largest, int(row.largest_difference))


def compare_case(case: Case, target: str, folder: Path, counts: dict[str, Difference]) -> Any:
    """Compares a case. Returns its model for the target and its data, or None if refused there."""
    prepared = Prepared(case, SEED, batch=SAMPLES)
    quantized = keras_qat.quantize_model(prepared.quantized, target=target)
    model, profile = lower_model(quantized), get_target(target)
    if violations(model, profile):
        return None
    path = folder / f"{case.name}_{target}.tflite"
    keras_qat.export_litert(quantized, path)
    kernels, data = profile.interpreter, tuple(prepared.arrays)
    report = keras_qat.verify(quantized, path, data, kernels=kernels, verbose=0)
    count_rows(report, kernels, path, counts)
    return model, prepared.arrays


def compare_processors(made: dict[str, tuple[Model, list[np.ndarray]]]) -> dict[str, Difference]:
    """Runs each operator alone on this processor, on the inputs that it has on ARM64.

    One file has the models of all cases, so that the emulator starts once.
    """
    models = {case: renamed(model, f"{case}:") for case, (model, _) in made.items()}
    arrays = [array for _, arrays in made.values() for array in arrays]
    runner = Runner(to_bytes(joined(models.values())), kernels="arm64", expose_all=True)
    runner.run(input_integers(runner, arrays))
    tensors, counts = runner.tensors(), {}
    for model in models.values():
        for operator in model.operators:
            part, name = cut_out(model, operator), operator.outputs[0].name
            found = run_alone(part, [tensors[each] for each in part.inputs], "default")
            counts.setdefault(operator.code, Difference()).add(tensors[name], found)
    return counts


def renamed(model: Model, prefix: str) -> Model:
    """Returns the model with a prefix before the name of each tensor."""
    new: dict[Tensor | None, Any] = {None: None}
    ends = (*model.inputs.values(), *model.outputs.values())
    for tensor in (*ends, *(x for op in model.operators for x in (*op.inputs, *op.outputs))):
        if tensor not in new:
            new[tensor] = dataclasses.replace(tensor, name=prefix + tensor.name)
    operators = tuple(
        dataclasses.replace(
            each,
            inputs=tuple(new[x] for x in each.inputs),
            outputs=tuple(new[x] for x in each.outputs),
        )
        for each in model.operators
    )
    inputs, outputs = (
        {f"{prefix}{name}": new[x] for name, x in end.items()} for end in ends_of(model)
    )
    return Model(inputs, outputs, operators)


def ends_of(model: Model) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    return dict(model.inputs), dict(model.outputs)


def joined(models: Iterable[Model]) -> Model:
    """Returns one model of several, side by side."""
    parts = list(models)
    inputs, outputs = ({k: x for m in parts for k, x in ends_of(m)[i].items()} for i in (0, 1))
    return Model(inputs, outputs, tuple(each for model in parts for each in model.operators))


def measure_cases(cases: list[Case], target: str) -> dict[str, Any]:
    """Returns the differences by operator, and the cases that the target does not run."""
    keras: dict[str, Difference] = {}
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            print(f"  {target}: {case.name}", flush=True)
            made[case.name] = compare_case(case, target, Path(folder), keras)
    run = {name: found for name, found in made.items() if found is not None}
    default = compare_processors(run) if target == "litert-arm64" else {}
    return {
        "runtime": version_of(target),
        "cases": len(run),
        "all_cases": len(contract_cases()),
        "refused": [name for name in made if name not in run],
        **{
            by: {code: vars(each) for code, each in sorted(counts.items())}
            for by, counts in (("keras", keras), ("default", default))
        },
    }


def blocks(shape: tuple[int, ...], low: float, high: float, count: int) -> np.ndarray:
    """Returns random images of 6 x 6 blocks and noise, rounded to 256 values."""
    rng = np.random.default_rng(SEED)
    coarse = rng.uniform(0, 1, (count, 6, 6, shape[-1]))
    images = np.kron(coarse, np.ones((1, -(-shape[0] // 6), -(-shape[1] // 6), 1)))
    images = images[:, : shape[0], : shape[1]] + rng.normal(0, 0.1, (count, *shape))
    pixels = np.round(np.clip(images, 0, 1) * 255) / 255
    return (low + pixels * (high - low)).astype("float32")


def measure_model(file: str, low: float, high: float, target: str) -> dict[str, Any]:
    """Returns the differences of a Keras model from the kernels of each runtime."""
    model = keras_qat.load_model(file)
    images = blocks(model.input_shape[1:], low, high, CALIBRATION + IMAGES)
    quantized = keras_qat.quantize_model(model, target=target)
    keras_qat.calibrate(quantized, images[:CALIBRATION], verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.tflite")
        keras_qat.export_litert(quantized, path)
        report = keras_qat.verify(quantized, path, images[CALIBRATION:], verbose=0)
        operators = len(file_operators(read(path)))
    rows = report.layers[report.kernels].values()
    return {
        "model": Path(file).stem,
        "target": target,
        "kernels": report.kernels,
        "calibration": CALIBRATION,
        "images": report.samples,
        "operators": operators,
        "tensors": len(rows),
        "elements": sum(row.elements for row in rows),
        "mismatches": {kernels: report.mismatches(kernels) for kernels in report.layers},
    }


def version_of(target: str) -> str:
    """Returns the version of the runtime of a target, and of the emulator."""
    if target == "tflite-micro":
        return f"tflite-micro {importlib.metadata.version('tflite-micro')}"
    code = "from importlib.metadata import version; print(version('ai-edge-litert'))"
    litert, qemu = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        for command in ([arm64_folder() / "python", "-c", code], ["qemu-aarch64", "--version"])
    )
    return f"ai-edge-litert {litert[0]} on a Cortex-A76 under QEMU {qemu[2]}"


def show(results: dict[str, Any]) -> None:
    headings = ["operator", "elements", "differing", "largest"]
    for target, found in results["operators"].items():
        for by in ("keras", "default"):
            rows = [[code, *map(str, each.values())] for code, each in found[by].items()]
            print_table(f"{target} against {by}", headings, rows)
    for found in results["models"]:
        print(found)


def arguments(parser) -> None:
    parser.add_argument(
        "--targets", nargs="*", default=TARGETS, choices=TARGETS, help="of the contract cases"
    )
    parser.add_argument("--only", nargs="*", metavar="CASE", help="only these cases")
    parser.add_argument(
        "--model",
        nargs=3,
        action="append",
        default=[],
        metavar=("FILE", "LOW", "HIGH"),
        help="compare this Keras model of images too, whose pixels have this range",
    )


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    numbers = ROOT / "docs" / "runtimes.json"
    results = json.loads(numbers.read_text())
    found = results.setdefault("targets", {"samples": SAMPLES, "operators": {}, "models": []})
    cases = [case for case in contract_cases() if args.only is None or case.name in args.only]
    for target in args.targets:
        found["operators"][target] = measure_cases(cases, target)
        save(args.json, found)
    if args.model:
        models = itertools.product(args.model, ALL_TARGETS)
        found["models"] = [
            measure_model(file, float(low), float(high), target)
            for (file, low, high), target in models
        ]
        save(args.json, found)
    show(found)
    if args.only is None:
        numbers.write_text(json.dumps(results, indent=1) + "\n")
        numbers.with_suffix(".md").write_text(page(results))
        print(f"Wrote {numbers} and {numbers.with_suffix('.md')}")


if __name__ == "__main__":
    main()
