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
    "elements compared": lambda name, r: f"{r['elements']:,}",
    "mismatches": lambda name, r: r["mismatches"],
    "float tensors": lambda name, r: len(r["float_tensors"]),
    "variables trained": lambda name, r: f"{r['trained_variables']}/{r['trainable_variables']}",
    "XNNPACK differs": lambda name, r: f"{100 * r['default_mismatches'] / r['elements']:.2f} %",
    "its outputs differ": lambda name, r: (
        f"{100 * r['default_output_mismatches'] / r['output_elements']:.2f} %"
    ),
    "seconds": lambda name, r: f"{sum(r['seconds'].values()):.0f}",
    "peak, GiB": lambda name, r: f"{r['peak_rss_mib'] / 1024:.1f}",
    "file, MiB": lambda name, r: f"{r['file_mib']:.1f}",
}


def is_exact(result: dict) -> bool:
    return not (result["mismatches"] or result["float_tensors"])


def rows_of(results: dict[str, dict], columns: dict = COLUMNS) -> list[list[str]]:
    return [
        [str(cell(name, result)) for cell in columns.values()]
        for name, result in results.items()
        if "failed" not in result
    ]


def renew_columns(path: Path, results: dict[str, dict]) -> None:
    """Puts the differences of the clones into the existing table of the page."""
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| model |"))
    headings = _cells(lines[first])
    kept = [i for i, heading in enumerate(headings) if heading not in CLONE_COLUMNS]
    for i in range(first, len(lines)):
        if not lines[i].startswith("|"):
            break
        cells = _cells(lines[i])
        added = {first: list(CLONE_COLUMNS), first + 1: ["---:"] * len(CLONE_COLUMNS)}.get(i)
        if added is None:
            result = results.get(cells[0], {"failed": ""})
            rows = rows_of({cells[0]: result}, CLONE_COLUMNS)
            added = rows[0] if rows else ["not measured"] * len(CLONE_COLUMNS)
        name, *others = (cells[place] for place in kept)
        lines[i] = "| " + " | ".join([name, *added, *others]) + " |"
    path.write_text("\n".join(lines) + "\n")


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def write_page(path: Path, results: dict[str, dict]) -> None:
    """Writes the table of the documentation."""
    found = environment()
    exact = sum("failed" not in result and is_exact(result) for result in results.values())
    table = [list(COLUMNS), ["---"] + ["---:"] * (len(COLUMNS) - 1), *rows_of(results)]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    versions = ", ".join(f"{key} {found[key]}" for key in ("python", "keras", "tensorflow"))
    path.write_text(
        PAGE.format(
            table="\n".join(lines),
            exact=exact,
            count=len(results),
            versions=f"{versions}, ai-edge-litert {found['ai-edge-litert']}",
            cpus=f"{found['cpus']} {found['machine']} cores",
        )
    )


PAGE = """# keras.applications

Written by `benchmarks/applications_exact.py --markdown docs/applications.md`; do not edit.

Every function of `keras.applications` that builds a model, unmodified, `weights=None` with random
weights and statistics, at the smallest input that the family takes: rewritten, calibrated on 16
images, trained for one step, exported with int8 input and output, and run on other images in
LiteRT. **{exact} of {count}** have no mismatch with the reference kernels in any element of any
layer, no float tensor, and run with XNNPACK.

{table}

- *clone differs*: the largest difference between the probabilities of the model and of its clone,
  which is the same function rewritten in float, relative to the largest probability; *nudged
  input* likewise between the model and itself on pixels that are a millionth larger. Random weights
  make some deep networks amplify what is rounded, without bounds: the first says little where the
  second is large.
- *mismatches*: elements of all layers, the outputs too, that differ between Keras and the
  reference kernels.
- *variables trained*: how many of the trainable variables one step of training changed; a bias
  before a batch normalization, whose gradient is 0, does not count.
- *XNNPACK differs*: the share of elements of all layers that differ between Keras and LiteRT's
  default kernels: a step here and there, which a deep random network amplifies; *its outputs
  differ* likewise for the model's outputs.
- *seconds* is the time on the wall for everything from building the model to verifying the file,
  *peak* the most memory that the process held.

{versions}, {cpus}.
"""
