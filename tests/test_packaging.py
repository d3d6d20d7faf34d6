"""The claims of pyproject.toml are tested, and the archives are complete."""

import email
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile

import pytest

import keras_qat

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def numbers(version):
    """Returns a version as numbers, without zeros at the end."""
    return re.sub(r"(\.0)+$", "", version)


def bounds(requirements):
    found = (re.match(r"([\w-]+)(?:\[.*\])?>=([\w.]+)", line) for line in requirements)
    return {match[1].lower(): numbers(match[2]) for match in found if match}


def test_oldest_tested_versions_are_the_claimed_ones():
    lines = (ROOT / "requirements-min.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pinned = {name: numbers(version) for name, version in pinned.items()}
    claimed = bounds(PROJECT["dependencies"])
    assert len(claimed) == len(PROJECT["dependencies"])  # each dependency has a lower bound
    tests = {name: version for name, version in bounds(EXTRAS["test"]).items() if name != "jax"}
    assert pinned == claimed | tests


def test_extras_are_not_empty():
    assert all(EXTRAS.values())


def test_classifiers_list_each_supported_python():
    named = [x for x in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", x)]
    assert named == [f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)]
    assert PROJECT["requires-python"] == ">=3.11"


# The folders and the files that belong into the source archive.
FOLDERS = [
    "benchmarks",
    "docs",
    "examples",
    "keras_qat",
    "keras_qat_cli",
    "tests",
    "tools",
    "typings",
]
BESIDE = [
    *["CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md"],
    *["mkdocs.yml", "pyproject.toml", "requirements-min.txt", "setup.py"],
]
# Builds the wheel from the unpacked source archive, as `python -m build` does.
BUILD = """
import os, pathlib, sys, tarfile
from setuptools import build_meta
folder = pathlib.Path(sys.argv[1])
archive = build_meta.build_sdist(folder)
with tarfile.open(folder / archive) as file:
    file.extractall(folder, filter="data")
os.chdir(folder / archive.removesuffix(".tar.gz"))
build_meta.build_wheel(folder)
"""


def files_below(folder):
    found = (path.relative_to(ROOT) for path in (ROOT / folder).rglob("*") if path.is_file())
    return {x.as_posix() for x in found if "__pycache__" not in x.parts}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Returns the folder with both archives, and the output of the build."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name)
    for name in BESIDE:
        shutil.copy(ROOT / name, source)
    environment = {key: x for key, x in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", BUILD, str(folder)],
        cwd=source,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return folder, result.stdout + result.stderr


@pytest.fixture(scope="module")
def wheel(built):
    (path,) = built[0].glob("keras_qat-*-py3-none-any.whl")
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.fixture(scope="module")
def metadata(wheel):
    (name,) = (name for name in wheel if name.endswith(".dist-info/METADATA"))
    return email.message_from_bytes(wheel[name])


def test_build_has_no_warning(built):
    """Setuptools logs its warnings. Warnings of Python were errors before."""
    assert [line for line in built[1].splitlines() if line.startswith("warning:")] == []


def test_wheel_has_exactly_both_packages_with_their_data(wheel):
    files = {name for name in wheel if ".dist-info/" not in name}
    assert files == files_below("keras_qat") | files_below("keras_qat_cli")
    assert {"keras_qat/py.typed", "keras_qat/targets/litert.toml"} <= files


def test_wheel_has_the_command_and_the_licence(wheel):
    files = {name.partition(".dist-info/")[2]: text for name, text in wheel.items()}
    entries = files["entry_points.txt"].decode().split("\n")
    assert entries[:2] == ["[console_scripts]", "keras-qat = keras_qat_cli.main:run"]
    assert files["licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()


def test_wheel_names_version_pythons_and_extras(metadata):
    assert metadata["Name"] == "keras-qat" and metadata["Version"] == keras_qat.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert {"cli", "plots", "test", "docs"} <= set(metadata.get_all("Provides-Extra"))
    readme = metadata.get_payload(decode=True)  # bytes: the text is not only ASCII
    assert readme == (ROOT / "README.md").read_bytes()


def test_wheel_requires_the_claimed_dependencies(metadata):
    needed = [x.replace(" ", "") for x in metadata.get_all("Requires-Dist")]
    assert sorted(x for x in needed if ";" not in x) == sorted(PROJECT["dependencies"])
    assert [x for x in needed if x.startswith("scikit-learn") and "extra==" not in x] == []


def test_source_archive_has_tests_documentation_and_examples(built):
    (path,) = built[0].glob("keras_qat-*.tar.gz")
    with tarfile.open(path) as file:
        names = {x.name.partition("/")[2] for x in file.getmembers() if x.isfile()}
    made = {name for name in names if name.startswith("keras_qat.egg-info/")}
    expected = set(BESIDE).union(*map(files_below, FOLDERS))
    assert names - made - {"PKG-INFO", "setup.cfg"} == expected


def test_extras_named_in_texts_exist():
    texts = [*map(ROOT.joinpath, BESIDE), *(ROOT / "docs").glob("*.md")]
    texts += [*(ROOT / "keras_qat").rglob("*.py"), *(ROOT / "keras_qat_cli").rglob("*.py")]
    pattern = re.compile(r"(?:keras-qat|'\.)\[([\w,]+)\]")
    named = {
        name for x in texts for found in pattern.findall(x.read_text()) for name in found.split(",")
    }
    assert {"cli", "lint", "vela"} <= named <= set(EXTRAS)
