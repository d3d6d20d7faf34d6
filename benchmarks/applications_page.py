"""Writes the documentation page of `applications_exact.py`, and the columns of its table."""

from __future__ import annotations

from pathlib import Path

from common import environment

CLONE_COLUMNS = {
    "clone differs": lambda name, r: f"{r['clone_difference']:.0e}",
    "nudged input": lambda name, r: f"{r['nudged_difference']:.0e}",
}
COLUMNS = {
    "model": lambda name, r: name,
    **CLONE_COLUMNS,
    "input": lambda name, r: r["size"],
    "parameters, M": lambda name, r: f"{r['parameters'] / 1e6:.1f}",
    "elements compared": lambda name, r: f"{_first(r)['elements']:,}",
    "mismatches, litert": lambda name, r: _mismatches(r, "litert"),
    "mismatches, reference": lambda name, r: _mismatches(r, "reference"),
    "float tensors": lambda name, r: sum(len(x["float_tensors"]) for x in r["targets"].values()),
    "variables trained": lambda name, r: _trained(r),
    "other kernels differ": lambda name, r: _other_kernels(r, "mismatches", "elements"),
    "their outputs differ": lambda name, r: _other_kernels(
        r, "output_mismatches", "output_elements"
    ),
    "seconds": lambda name, r: f"{sum(r['seconds'].values()):.0f}",
    "peak, GiB": lambda name, r: f"{r['peak_rss_mib'] / 1024:.1f}",
    "file, MiB": lambda name, r: f"{_first(r)['file_mib']:.1f}",
}


# Of each model and target in the section about other runtimes.
OTHER_COLUMNS = {
    "model": lambda name, r, target: name,
    "input": lambda name, r, target: r["size"],
    "target": lambda name, r, target: f"`{target}`",
    "images": lambda name, r, target: r["targets"][target]["samples"],
    "tensors": lambda name, r, target: r["targets"][target]["tensors"],
    "elements compared": lambda name, r, target: f"{r['targets'][target]['elements']:,}",
    "mismatches": lambda name, r, target: _mismatches(r, target),
    "reference kernels differ": lambda name, r, target: _share(r["targets"][target], "reference"),
    "default kernels differ": lambda name, r, target: _share(r["targets"][target], "default"),
}
SECTION = "## Microcontrollers and ARM64"


def _first(result: dict) -> dict:
    return next(iter(result["targets"].values()))


def _trained(result: dict) -> str:
    """Returns how many of the trainable variables the step of training changed."""
    if "one step" not in result["seconds"]:
        return "not trained"
    return f"{result['trained_variables']}/{result['trainable_variables']}"


def _mismatches(result: dict, target: str) -> str:
    """Returns how many elements differ from the kernels of a target."""
    compared = result["targets"].get(target)
    return "not run" if compared is None else str(compared["mismatches"][compared["kernels"]])


def _other_kernels(result: dict, wrong: str, total: str) -> str:
    """Returns the share that differs between Keras for `litert` and the reference kernels."""
    compared = _first(result)
    other = next(count for name, count in compared[wrong].items() if name != compared["kernels"])
    return f"{100 * other / compared[total]:.2f} %"


def _share(compared: dict, kernels: str) -> str:
    """Returns the share of elements of a target that differ from the kernels of another one."""
    return f"{100 * compared['mismatches'][kernels] / compared['elements']:.2f} %"


def is_exact(result: dict) -> bool:
    """Returns whether no element differs on any target, and no tensor is float."""
    return not any(
        compared["mismatches"][compared["kernels"]] or compared["float_tensors"]
        for compared in result["targets"].values()
    )


def rows_of(results: dict[str, dict], columns: dict = COLUMNS) -> list[list[str]]:
    """Returns a row for each model, also for those that were not measured."""
    return [
        [name, *["not measured"] * (len(columns) - 1)]
        if "failed" in result
        else [str(cell(name, result)) for cell in columns.values()]
        for name, result in results.items()
    ]


def other_rows(results: dict[str, dict]) -> list[list[str]]:
    """Returns a row for each model and target."""
    return [
        [str(cell(name, result, target)) for cell in OTHER_COLUMNS.values()]
        for target in dict.fromkeys(t for r in results.values() for t in r.get("targets", ()))
        for name, result in results.items()
        if target in result.get("targets", ())
    ]


def renew_section(path: Path, results: dict[str, dict]) -> None:
    """Puts models and targets into the section of the page, in place of older measurements."""
    above, _, below = path.read_text().partition(f"{SECTION}\n")
    lines = (_cells(line) for line in below.splitlines() if line.startswith("|"))
    headings, kept = list(OTHER_COLUMNS), {}
    for cells in [*list(lines)[2:], *other_rows(results)]:
        kept[cells[headings.index("model")], cells[headings.index("target")]] = cells
    text = OTHER_PAGE.format(section=SECTION, table=_table(headings, list(kept.values())))
    path.write_text(f"{above.rstrip()}\n\n{text}")


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines)


def renew_columns(path: Path, results: dict[str, dict]) -> None:
    """Puts the differences of the clones into the existing table of the page."""
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| model |"))
    headings, columns = _cells(lines[first]), {"model": COLUMNS["model"], **CLONE_COLUMNS}
    kept = [i for i, heading in enumerate(headings) if heading not in CLONE_COLUMNS]
    for i in range(first, len(lines)):
        if not lines[i].startswith("|"):
            break
        cells = _cells(lines[i])
        added = {first: list(CLONE_COLUMNS), first + 1: ["---:"] * len(CLONE_COLUMNS)}.get(i)
        if added is None:
            result = results.get(cells[0], {"failed": ""})
            _, *added = rows_of({cells[0]: result}, columns)[0]
        name, *others = (cells[place] for place in kept)
        lines[i] = "| " + " | ".join([name, *added, *others]) + " |"
    path.write_text("\n".join(lines) + "\n")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def write_page(path: Path, results: dict[str, dict]) -> None:
    """Writes the page. Keeps the rows of other models, and the section about other runtimes."""
    found = environment()
    above, heading, section = (path.read_text() if path.exists() else "").partition(SECTION)
    old = [_cells(line) for line in above.splitlines() if line.startswith("|")][2:]
    rows = {cells[0]: cells for cells in (*old, *rows_of(results))}
    ordered = [rows[name] for name in sorted(rows)]
    versions = ", ".join(f"{key} {found[key]}" for key in ("python", "keras", "tensorflow"))
    path.write_text(
        PAGE.format(
            table=_table(list(COLUMNS), ordered),
            exact=sum(map(_is_exact_row, ordered)),
            count=len(ordered),
            versions=f"{versions}, ai-edge-litert {found['ai-edge-litert']}",
            cpus=f"{found['cpus']} {found['machine']} cores",
        )
        + (f"\n{heading}{section}" if heading else "")
    )


def _is_exact_row(cells: list[str]) -> bool:
    row = dict(zip(COLUMNS, cells, strict=True))
    counts = ("mismatches, litert", "mismatches, reference", "float tensors")
    return all(row[name] == "0" for name in counts)


PAGE = """# keras.applications

Written by `benchmarks/applications_exact.py --markdown docs/applications.md`; do not edit.

Every function of `keras.applications` that builds a model, unmodified, `weights=None` with random
weights and statistics, at the smallest input that the family takes: rewritten, calibrated on 16
images, trained for one step where the table says so, made for two targets, exported with int8
input and output, and run on other images in LiteRT. **{exact} of {count}** have no float tensor
and no mismatch in any element of any layer: for the target `litert` with LiteRT's default kernels,
which phones and PCs run, and for `reference` with the reference kernels.

{table}

- *clone differs*: the largest difference between the probabilities of the model and of its clone,
  which is the same function rewritten in float, relative to the largest probability; *nudged
  input* likewise between the model and itself on pixels that are a millionth larger. Random weights
  make some deep networks amplify what is rounded, without bounds: the first says little where the
  second is large.
- *mismatches*: elements of all layers, the outputs too, that differ between Keras and the kernels
  of the target.
- *variables trained*: how many of the trainable variables one step of training changed; a bias
  before a batch normalization, whose gradient is 0, does not count.
- *other kernels differ*: the share of elements of all layers that differ between Keras for the
  target `litert` and LiteRT's reference kernels: a step here and there, which a deep random network
  amplifies; *their outputs differ* likewise for the model's outputs.
- *seconds* is the time on the wall for everything from building the model to verifying the files,
  with other programs running, *peak* the most memory that the process held.

{versions}, {cpus}.
"""

OTHER_PAGE = """{section}

The same models for other targets: `tflite-micro`, in TensorFlow Lite Micro, and `litert-arm64`, in
LiteRT's default kernels on an emulated Cortex-A76. Models for `litert` were compared with the
default kernels of this machine. *Mismatches* are elements of all tensors that differ between Keras
and the kernels of the target. The last columns have the shares that differ between Keras for this
target and LiteRT's two sets of kernels on x86-64.

{table}
"""
