import importlib
import pathlib
import sys

import pytest

FOLDER = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch):
    """Imports a script of `benchmarks/`. Afterwards removes the modules of that folder again."""

    def load(name):
        return importlib.import_module(name)

    monkeypatch.syspath_prepend(FOLDER)
    names = {path.stem for path in FOLDER.glob("*.py")}
    before = {name: sys.modules.pop(name) for name in names & set(sys.modules)}
    yield load
    for name in names & set(sys.modules):
        del sys.modules[name]
    sys.modules.update(before)
