"""Finds the first runtime that has each version of each operator, by loading files.

Each file has one operator. A runtime that does not register its version says so when it reads the
file. The arguments are Pythons that have tflite-runtime, tensorflow-cpu or ai-edge-litert. Writes
keras_qat/litert/format/releases.toml with --write.
"""

from __future__ import annotations

import base64
import json
import subprocess
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common import ROOT, parse, print_environment, print_table, save

from keras_qat.litert import Model, Operator, Tensor, to_bytes
from keras_qat.litert.format.custom_options import custom_name
from keras_qat.targets import get_target

TABLE = ROOT / "keras_qat" / "litert" / "format" / "releases.toml"
WORKER = Path(__file__).with_name("releases_worker.py")
MOST = 20  # The newest release has version 14 of one operator, and lower versions of all others.
HEADER = """\
# The versions of operators that each runtime adds to those of the runtimes before. Measured:
# `python benchmarks/operator_releases.py --write PYTHON ...` loaded a file with each version.
"""
Versions = Mapping[str, Sequence[int]]


def files() -> dict[str, list[str]]:
    """Returns a file for each built-in operator of LiteRT, and for each version, as text."""
    x, y = Tensor("x", (1, 2), "int8"), Tensor("y", (1, 2), "int8")

    def file(code: str, version: int) -> str:
        operator = Operator(code, (x,), (y,), version)
        return base64.b64encode(to_bytes(Model({"x": x}, {"y": y}, (operator,)))).decode()

    return {
        code: [file(code, version) for version in range(1, MOST + 1)]
        for code in get_target("litert").operators
        if custom_name(code) is None
    }


def measure(pythons: Iterable[Path]) -> dict[str, Versions]:
    """Returns the versions that each runtime registers, oldest runtime first."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(files(), file)
        file.flush()
        commands = [[python, WORKER, "versions", file.name] for python in pythons]
        runs = [
            subprocess.run(each, capture_output=True, text=True, check=True) for each in commands
        ]
    found = [json.loads(run.stdout.splitlines()[-1]) for run in runs]
    # TensorFlow Lite was renamed to LiteRT, whose first release has all versions of 2.18.
    found.sort(key=lambda each: (each["name"] == "LiteRT", _numbers(each["version"])))
    return {name_of(each["name"], each["version"]): each["registered"] for each in found}


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def name_of(runtime: str, version: str) -> str:
    """Returns the name of a release. Patches of TensorFlow Lite add no operators."""
    return f"{runtime} {version if runtime == 'LiteRT' else version.rpartition('.')[0]}"


def additions(registered: Mapping[str, Versions]) -> dict[str, dict[str, list[int]]]:
    """Returns the versions that each runtime and all newer ones have, but not the one before."""
    before: set[tuple[str, int]] = set()
    added: dict[str, dict[str, list[int]]] = {}
    everywhere = [
        {(code, version) for code, versions in each.items() for version in versions}
        for each in registered.values()
    ]
    for i, name in enumerate(registered):
        lasting = set.intersection(*everywhere[i:])
        for code, version in sorted(lasting - before):
            added.setdefault(name, {}).setdefault(code, []).append(version)
        before = lasting
    return added


def table(added: Mapping[str, Mapping[str, Sequence[int]]]) -> str:
    """Returns the content of releases.toml."""
    sections = [
        "\n".join([f'["{name}"]', *(f"{code} = {versions}" for code, versions in each.items())])
        for name, each in added.items()
    ]
    return "\n\n".join([HEADER.rstrip("\n"), *sections]) + "\n"


def arguments(parser) -> None:
    parser.add_argument("pythons", nargs="+", type=Path, metavar="PYTHON")
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.relative_to(ROOT)}")


def main() -> None:
    args = parse(__doc__, arguments)
    print_environment()
    registered = measure(args.pythons)
    added = additions(registered)
    rows = [
        (
            name,
            sum(map(len, registered[name].values())),
            sum(map(len, added.get(name, {}).values())),
        )
        for name in registered
    ]
    print_table("Versions of operators", ["runtime", "registered", "new"], rows)
    save(args.json, registered)
    if args.write:
        TABLE.write_text(table(added))
        print(f"Wrote {TABLE}")


if __name__ == "__main__":
    main()
