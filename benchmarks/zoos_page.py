"""Writes the documentation page of `zoos.py`."""

from __future__ import annotations

from pathlib import Path

from common import environment
from zoos_environment import versions
from zoos_models import ZooModel
from zoos_more_models import MODELS

COLUMNS = {
    "model": lambda zoo, r: f"`{zoo.build.rpartition('.')[2]}`",
    "package": lambda zoo, r: zoo.package,
    "family": lambda zoo, r: zoo.family,
    "inputs": lambda zoo, r: _inputs(r),
    "verdict": lambda zoo, r: r["verdict"],
    "seconds": lambda zoo, r: f"{r['seconds']:.0f}",
    "operators": lambda zoo, r: sum(r["operators"].values()) if "operators" in r else "",
    "elements compared": lambda zoo, r: f"{r['elements']:,}" if "elements" in r else "",
}
GOAL = 0.95


def short(result: dict, length: int = 300) -> str:
    """Returns the beginning of the cause on one line."""
    text = " ".join(result.get("cause", "").split())
    return text if len(text) <= length else f"{text[:length]} ..."


def _inputs(result: dict) -> str:
    return ", ".join("x".join(map(str, shape)) for shape in result.get("inputs", ()))


def summary(results: dict[str, dict]) -> str:
    """Returns the counts of models and families in a sentence."""
    built = {name: r for name, r in results.items() if r["verdict"] != "not built"}
    exact = [name for name, r in built.items() if r["verdict"] == "exact"]
    families = {zoo.name: zoo.family for zoo in MODELS}
    share = len(exact) / len(built) if built else 0.0
    counts = {
        verdict: sum(r["verdict"] == verdict for r in results.values())
        for verdict in ("refused", "fault", "not built")
    }
    return (
        f"{len(exact)} of {len(built)} models are exact and fully integer ({share:.0%}), "
        f"{len({families[name] for name in exact})} of "
        f"{len({families[name] for name in built})} families. "
        f"{counts['refused']} are refused, {counts['fault']} have a fault, and "
        f"{counts['not built']} could not be built. {len(MODELS) - len(results)} of the list were "
        f"not run. The goal is {GOAL:.0%}."
    )


def write_page(path: Path, results: dict[str, dict]) -> None:
    """Writes the page from the results of the models that were measured."""
    pairs = [(zoo, results[zoo.name]) for zoo in MODELS if zoo.name in results]
    built = [(zoo, result) for zoo, result in pairs if result["verdict"] != "not built"]
    installed = environment()
    path.write_text(
        PAGE.format(
            summary=summary(results),
            packages=", ".join(
                f"{name} {version}"
                for name, version in versions().items()
                if name in {zoo.package for zoo, _ in pairs}
            ),
            environment=", ".join(
                f"{name} {installed[name]}"
                for name in ("keras", "tensorflow", "ai-edge-litert")
                if name in installed
            ),
            table=_table(list(COLUMNS), [_row(*pair) for pair in built]),
            causes=_causes([pair for pair in pairs if pair[1]["verdict"] != "exact"]),
        )
    )


def _row(zoo: ZooModel, result: dict) -> list[str]:
    return [str(cell(zoo, result)) for cell in COLUMNS.values()]


def _causes(pairs: list[tuple[ZooModel, dict]]) -> str:
    lines = [
        f"- `{zoo.name}`, {result['verdict']}: {_escaped(short(result))}" for zoo, result in pairs
    ]
    return "\n".join(lines) if lines else "None."


def _escaped(text: str) -> str:
    """Returns a message as it is shown by Markdown without its backticks and brackets."""
    return "`` " + text.replace("`", "'") + " ``"


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * 5 + ["---:"] * (len(headings) - 5), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


PAGE = """# Models of published packages

`python benchmarks/zoos.py --markdown docs/zoos.md` measures this page. It installs Keras 3 packages
from the package registry into an environment of its own, and builds a small variant of each
architecture with random weights. Each model is quantized, calibrated, exported and verified in a
separate process. "exact" means that no element of any tensor of the file differs between Keras and
LiteRT's default kernels, and that the file has no float tensor.

{summary}

Packages: {packages}. Measured with {environment}, on two x86-64 cores with other programs running.
Models that were exact were not measured again when the others were (`--refused`). kecam was run on
Keras 3 with its `keras_core` backend, models of keras-hub with a fixed length of 12 tokens.
"inputs" are the shapes of one sample. "seconds" includes building the model.

{table}

## Models that are not exact

{causes}
"""
