"""How LiteRT's reference kernels and its default ones differ, operator by operator.

Every operator of every contract case is cut out into a file of its own and run by both runtimes
on the inputs that it has in the case's model, so that differences do not add up. Writes
docs/runtimes.json, and docs/runtimes.md from it; docs/supported.md quotes the former.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import itertools
import json
import math
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, environment, print_environment, print_table
from runtime_forms import measure_choices
from runtimes_page import page

from keras_qat.graph import read_model
from keras_qat.litert import Model, Operator, Runner, Tensor, to_bytes
from keras_qat.lowering import lower_model
from tests.layers.contract import Case, Prepared

SEEDS, SCALES = (1, 2, 3), (1e-2, 1.0, 30.0)
ELEMENTS = 100_000


@dataclasses.dataclass
class Difference:
    """How many elements were compared, how many of them differ, and by how much at most."""

    elements: int = 0
    differing: int = 0
    largest: int = 0

    def add(self, one: np.ndarray, other: np.ndarray) -> None:
        away = np.abs(one.astype("int64") - other.astype("int64"))
        self.elements += away.size
        self.differing += int(np.count_nonzero(away))
        self.largest = max(self.largest, int(away.max(initial=0)))


def contract_cases() -> list[Case]:
    """All cases of the tests of layers."""
    paths = sorted((ROOT / "tests" / "layers").glob("test_*.py"))
    modules = [importlib.import_module(f"tests.layers.{path.stem}") for path in paths]
    return list({case.name: case for m in modules for case in vars(m).get("CASES", ())}.values())


def cut_out(model: Model, operator: Operator) -> Model:
    """A model of one operator, and of those that compute plain integers (a shape) for it."""
    producers = {out: each for each in model.operators for out in each.outputs}
    kept: dict[Operator, None] = {}

    def keep(each: Operator) -> None:
        for tensor in each.inputs:
            if tensor in producers and tensor.quantization is None:
                keep(producers[tensor])
        kept[each] = None

    keep(operator)
    made = {out for each in kept for out in each.outputs}
    fed = {t.name: t for each in kept for t in each.inputs if is_fed(t) and t not in made}
    return Model(fed, {out.name: out for out in operator.outputs}, tuple(kept))


def is_fed(tensor: Tensor | None) -> bool:
    return tensor is not None and tensor.data is None


def owners(quantized: Any, model: Model) -> Iterator[tuple[str, Operator]]:
    """Each operator with the name of the class of its layer."""
    nodes = read_model(quantized).nodes
    for operator in model.operators:
        name = operator.outputs[0].name
        while name not in nodes:
            name = name.rpartition("/")[0]
        yield type(nodes[name].head).__name__, operator


def input_integers(runner: Runner, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """What the file takes for real values, or for ids."""

    def convert(details, x):
        if details.dtype != np.int8:
            return x.astype(details.dtype)
        return np.clip(np.rint(x / details.scale) + details.zero_point, -128, 127).astype("int8")

    return [convert(*pair) for pair in zip(runner.inputs, arrays, strict=True)]


def samples_for(model: Model) -> list[int]:
    """How many samples of each operator's output give its share of all elements."""
    share = -(-ELEMENTS // (len(SEEDS) * len(SCALES)))
    outputs = [operator.outputs[0] for operator in model.operators]
    # A shape has as many elements whatever the number of samples.
    return [-(-share // math.prod(t.shape[1:])) if len(t.shape) > 1 else 16 for t in outputs]


def compare_case(case: Case, add: Callable[..., None]) -> None:
    """Compares each operator of a case, over seeds and scales."""
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
            # Some operators have more than samples along their first axis.
            if all(len(values) == batch for values in fed):
                fed = [values[:few] for values in fed]
            add(layer, operator, *both(one, fed))


def both(model: Model, fed: list[np.ndarray]) -> list[np.ndarray]:
    """The output of a model of one operator in each runtime."""
    content = to_bytes(model)
    runners = [Runner(content, kernels=kernels) for kernels in ("reference", "default")]
    return [runner.run(fed)[0] for runner in runners]


def measure_operators(cases: list[Case]) -> list[dict[str, Any]]:
    """One record for each layer and operator that occur."""
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


def processor() -> str:
    """What the processor is called."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def show(records: list[dict[str, Any]]) -> None:
    headings = ["layer", "operator", "type", "elements", "differing", "largest"]
    rows = [[record[heading] for heading in headings] for record in records]
    print_table("Reference against default kernels", headings, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", metavar="CASE", help="only these; nothing is written")
    parser.add_argument("--page", action="store_true", help="only write docs/runtimes.md anew")
    arguments = parser.parse_args()
    numbers = ROOT / "docs" / "runtimes.json"
    if not arguments.page:
        print_environment()
        cases = [c for c in contract_cases() if arguments.only is None or c.name in arguments.only]
        results = {
            "environment": environment(),
            "cpu": processor(),
            "seeds": SEEDS,
            "scales": SCALES,
            "operators": measure_operators(cases),
        }
        show(results["operators"])
        if arguments.only is not None:
            return
        results["choices"] = measure_choices()
        numbers.write_text(json.dumps(results, indent=1) + "\n")
    numbers.with_suffix(".md").write_text(page(json.loads(numbers.read_text())))
    print(f"Wrote {numbers} and {numbers.with_suffix('.md')}")


if __name__ == "__main__":
    main()
