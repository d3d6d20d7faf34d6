"""Compares LiteRT's reference kernels and its default kernels, operator by operator.

Every operator of every contract case becomes a separate file. Both runtimes run it on the inputs
that it has in the case's model, so that differences do not accumulate. Writes docs/runtimes.json,
and docs/runtimes.md from it. docs/supported.md quotes the JSON file.
"""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import json
import math
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from applications_exact import build, random_images
from common import ROOT, environment, parse, print_environment, print_table, save
from runtime_forms import measure_choices
from runtimes_page import page

import keras_qat
from keras_qat.graph import read_model
from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
from keras_qat.lowering import lower_model
from tests.layers.cases import Case
from tests.layers.contract import Prepared

SEEDS, SCALES = (1, 2, 3), (1e-2, 1.0, 30.0)
ELEMENTS = 100_000
NETWORK_SEED = 11


@dataclasses.dataclass
class Difference:
    """The number of compared elements, the number of differences, and the largest difference."""

    elements: int = 0
    differing: int = 0
    largest: int = 0

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        away = np.abs(one.astype("int64") - other.astype("int64"))
        self.elements += away.size
        self.differing += int(np.count_nonzero(away))
        self.largest = max(self.largest, int(away.max(initial=0)))


def contract_cases() -> list[Case]:
    """Returns all cases of the tests of layers."""
    paths = sorted((ROOT / "tests" / "layers").glob("test_*.py"))
    modules = [importlib.import_module(f"tests.layers.{path.stem}") for path in paths]
    return list({case.name: case for m in modules for case in vars(m).get("CASES", ())}.values())


def cut_out(model: Model, operator: Operator) -> Model:
    """Makes a model of one operator, and of those that compute a shape or set a state for it."""
    producers = {out: each for each in model.operators for out in each.outputs}
    kept: dict[Operator, None] = {}

    def keep(each: Operator) -> None:
        for tensor in each.inputs:
            if tensor in producers and (tensor.quantization is None or tensor.is_variable):
                keep(producers[tensor])
        kept[each] = None

    keep(operator)
    made = {out for each in kept for out in each.outputs}
    fed = {t.name: t for each in kept for t in each.inputs if is_fed(t) and t not in made}
    return Model(fed, {out.name: out for out in operator.outputs}, tuple(kept))


def is_fed(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.data is None


def owners(quantized: Any, model: Model) -> Iterator[tuple[str, Operator]]:
    """Yields each operator with the name of the class of its layer."""
    nodes = read_model(quantized).nodes
    for operator in model.operators:
        name = operator.outputs[0].name
        while name not in nodes:
            name = name.rpartition("/")[0]
        yield type(nodes[name].head).__name__, operator


def input_integers(runner: Runner, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the file's integers for real values or ids."""

    def convert(details, x):
        if not details.scale.size:
            return x.astype(details.dtype)
        limits = np.iinfo(details.dtype)
        q = np.rint(x / details.scale) + details.zero_point
        return np.clip(q, limits.min, limits.max).astype(details.dtype)

    return [convert(*pair) for pair in zip(runner.inputs, arrays, strict=True)]


def samples_for(model: Model) -> list[int]:
    """Returns the number of samples per operator that give its share of all elements."""
    share = -(-ELEMENTS // (len(SEEDS) * len(SCALES)))
    outputs = [operator.outputs[0] for operator in model.operators]
    # The size of a shape does not depend on the number of samples.
    return [-(-share // math.prod(t.shape[1:])) if len(t.shape) > 1 else 16 for t in outputs]


def compare_case(case: Case, add: Callable[..., None]) -> None:
    """Compares each operator of a case over seeds and scales."""
    samples = samples_for(lower_model(Prepared(case).quantize()))
    batch = max(16, *samples, 0)
    for seed, scale in itertools.product(SEEDS, SCALES):
        prepared = Prepared(case, seed, scale, batch)
        quantized = prepared.quantize()
        model = lower_model(quantized)
        whole = Runner(to_bytes(model), expose_all=True)
        whole.run(input_integers(whole, prepared.arrays))
        tensors = whole.tensors()
        for few, (layer, operator) in zip(samples, owners(quantized, model), strict=True):
            one = cut_out(model, operator)
            fed = [tensors[name] for name in one.inputs]
            # The first axis of some operators is not only that of samples.
            if all(len(values) == batch for values in fed):
                fed = [values[:few] for values in fed]
            add(layer, operator, *both(one, fed))


def both(model: Model, fed: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the output of a model of one operator in each runtime."""
    return [run_alone(model, fed, kernels) for kernels in ("reference", "default")]


def run_alone(model: Model, fed: list[np.ndarray], kernels: str) -> np.ndarray:
    """Returns the output of a model of one operator."""
    if model.operators[-1].code == "RESHAPE":  # the operator may merge the samples
        model = with_samples(model, fed)
    return Runner(to_bytes(model), kernels=kernels).run(fed)[0]


def with_samples(model: Model, fed: list[np.ndarray]) -> Model:
    """Returns the model for the exact number of samples in the inputs."""
    given = {
        tensor: dataclasses.replace(tensor, shape=values.shape)
        for tensor, values in zip(model.inputs.values(), fed, strict=True)
    }
    operators = (
        dataclasses.replace(each, inputs=tuple(given.get(t, t) for t in each.inputs))
        for each in model.operators
    )
    return Model({t.name: t for t in given.values()}, model.outputs, tuple(operators))


def measure_operators(cases: list[Case]) -> list[dict[str, Any]]:
    """Returns one record for each occurring pair of layer and operator."""
    found: dict[tuple[str, str, str], Difference] = {}

    def add(layer: str, operator: Operator, one: np.ndarray, other: np.ndarray) -> None:
        key = layer, operator.code, operator.outputs[0].dtype
        found.setdefault(key, Difference()).add(one, other)

    for case in cases:
        print(f"  {case.name}", flush=True)
        compare_case(case, add)
    return [
        {"layer": layer, "operator": code, "type": dtype, **dataclasses.asdict(difference)}
        for (layer, code, dtype), difference in sorted(found.items())
    ]


def measure_networks() -> dict[str, Any]:
    """Measures the accumulated differences in a MobileNet with random weights, in both schemes."""
    return {
        "cpu": processor(),
        "schemes": {scheme: measure_network(scheme) for scheme in ("int8", "uint8")},
    }


def measure_network(scheme: str) -> list[dict[str, Any]]:
    """Returns one record for each operator alone, and one for all of them in sequence."""
    keras.utils.set_random_seed(NETWORK_SEED)
    rng = np.random.default_rng(NETWORK_SEED)
    network = build("MobileNet", rng, size=64)
    quantized = keras_qat.quantize_model(network, scheme)
    keras_qat.calibrate(quantized, random_images(network, rng, 16), verbose=0)
    model, images = lower_model(quantized), random_images(network, rng, 8)
    one, other = (run_all(model, images, kernels) for kernels in ("reference", "default"))
    found: dict[str, Difference] = {}
    whole = Difference()
    for operator in model.operators:
        name, part = operator.outputs[0].name, cut_out(model, operator)
        difference = found.setdefault(operator.code, Difference())
        difference.add(*both(part, [one[each] for each in part.inputs]))
        whole.add(one[name], other[name])
    found["all in sequence"] = whole
    return [{"operator": code, **dataclasses.asdict(each)} for code, each in found.items()]


def run_all(model: Model, images: np.ndarray, kernels: str) -> dict[str, np.ndarray]:
    """Returns every tensor that a runtime computes for some images."""
    runner = Runner(to_bytes(model), expose_all=True, kernels=kernels)
    runner.run(input_integers(runner, [images]))
    return runner.tensors()


def processor() -> str:
    """Returns the name of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def show(records: list[dict[str, Any]]) -> None:
    headings = ["layer", "operator", "type", "elements", "differing", "largest"]
    rows = [[record[heading] for heading in headings] for record in records]
    print_table("Reference against default kernels", headings, rows)


def measure(only: list[str] | None) -> dict[str, Any]:
    """Measures operators, and their forms unless only some cases are given."""
    cases = [case for case in contract_cases() if only is None or case.name in only]
    results = {
        "environment": environment(),
        "cpu": processor(),
        "seeds": SEEDS,
        "scales": SCALES,
        "operators": measure_operators(cases),
    }
    show(results["operators"])
    return results if only is not None else {**results, "choices": measure_choices()}


def arguments(parser) -> None:
    parser.add_argument(
        "--only", nargs="*", metavar="CASE", help="only these cases; nothing is written"
    )
    parser.add_argument("--networks", action="store_true", help="measure only the networks again")
    parser.add_argument("--page", action="store_true", help="only write docs/runtimes.md again")


def main() -> None:
    args = parse(__doc__, arguments)
    numbers = ROOT / "docs" / "runtimes.json"
    if not args.page:
        print_environment()
        saved = json.loads(numbers.read_text())
        results = saved if args.networks else measure(args.only)
        if args.only is not None:
            save(args.json, results)
            return
        results["targets"] = saved["targets"]  # runtime_targets.py measures these
        results["networks"] = measure_networks()
        numbers.write_text(json.dumps(results, indent=1) + "\n")
        save(args.json, results)
    numbers.with_suffix(".md").write_text(page(json.loads(numbers.read_text())))
    print(f"Wrote {numbers} and {numbers.with_suffix('.md')}")


if __name__ == "__main__":
    main()
