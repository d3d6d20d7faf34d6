"""What pyproject.toml claims is what is tested, and the package has its data."""

import pathlib
import re
import tomllib

import keras_qat

ROOT = pathlib.Path(__file__).parents[1]
FILE = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, SETUPTOOLS = FILE["project"], FILE["tool"]["setuptools"]
EXTRAS = PROJECT["optional-dependencies"]


def numbers(version):
    """A version as numbers, without zeros at the end."""
    return re.sub(r"(\.0)+$", "", version)


def bounds(requirements):
    found = (re.match(r"([\w-]+)(?:\[.*\])?>=([\w.]+)", line) for line in requirements)
    return {match[1].lower(): numbers(match[2]) for match in found if match}


def test_the_oldest_versions_are_the_ones_that_are_claimed():
    lines = (ROOT / "requirements-min.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name: numbers(version) for name, version in pinned.items()}
    claimed = bounds(PROJECT["dependencies"])
    assert len(claimed) == len(PROJECT["dependencies"])  # each has a lower bound
    tests = {name: version for name, version in bounds(EXTRAS["test"]).items() if name != "jax"}
    assert pinned == claimed | tests


def test_no_extra_is_empty():
    assert all(EXTRAS.values())


def test_each_python_from_the_oldest_on_is_a_classifier():
    named = [x for x in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", x)]
    assert named == [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)]
    assert PROJECT["requires-python"] == ">=3.11"


def test_a_wheel_has_every_data_file():
    patterns = SETUPTOOLS["package-data"]["keras_qat"]
    folder = pathlib.Path(keras_qat.__file__).parent
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    data = [x for x in files if x.suffix not in (".py", ".pyc")]
    assert pathlib.Path("py.typed") in data and pathlib.Path("targets/litert.toml") in data
    assert [str(x) for x in data if not any(x.match(pattern) for pattern in patterns)] == []
