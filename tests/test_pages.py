"""The code of the pages runs, and prints the text below it."""

import ast
import pathlib
import re
import sys

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat import scheme
from keras_qat.layers.core import registry
from keras_qat.layers.elementwise import maximum as extremes
from keras_qat.layers.models.observed_ranges import observed_layers
from keras_qat.layers.pooling import windows as pooling
from keras_qat.quantizers.range_rules import RANGE_RULES
from tests.models import images, labels, linear, network, quantized_network

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = (
    "quick-start",
    "calibrating",
    "post-training",
    "pruning",
    "ranges",
    "training",
    "pixels",
    "mixed-precision",
    "bits",
    "widths",
    "recurrent",
    "detection",
    "from-tfmot",
    "errors",
)
# The code of these pages starts with models and data of the reader.
OWN = ("README.md", "docs/inspecting.md", "docs/loading.md", "docs/targets.md")
# These pages have separate tests, here and in other files.
OTHERS = (
    "CONTRIBUTING.md",
    "docs/custom-layers.md",
    "docs/from-tensorflow-1.md",
    "docs/layers.md",
)
# Packages of extras that a reader may lack, and that `make test` does not install.
OPTIONAL = ("ethosu", "tensorboard", "tflite_micro", "torch")
BAR = re.compile("━|\x08")
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.DOTALL | re.MULTILINE)


def blocks(path):
    """Returns each code block of a page with the output that the page has below it."""
    text = path.read_text()
    found = BLOCK.findall(text)
    assert len(found) == text.count("```python\n") and len(found) > 0
    assert sum(bool(printed) for _, printed in found) == text.count("```text\n")
    return found


@pytest.fixture
def without_extras(monkeypatch):
    for name in OPTIONAL:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("without_extras")
@pytest.mark.parametrize("page", PAGES)
def test_page_code_prints_the_text_below_it(page, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {"__name__": "examples"}
    for code, printed in blocks(DOCS / f"{page}.md"):
        exec(code, names)
        lines = capsys.readouterr().out.splitlines()
        # Other lines are progress bars.
        assert [line for line in lines if line and not BAR.search(line)] == printed.splitlines(), (
            code
        )


@pytest.fixture(scope="module")
def belongings(tmp_path_factory):
    """Makes a folder with the files of a reader, and the variables of a reader."""
    folder = tmp_path_factory.mktemp("reader")
    model, qat = network(), quantized_network()
    model.save(folder / "model.keras")
    model.save(folder / "mobilenet_of_2019.h5")
    model.save(folder / "driving.h5")
    model.save(folder / "weights.h5")
    keras_qat.export_litert(qat, folder / "model.tflite")
    data = images(64), labels(64)
    names = dict(zip(("train_images", "train_labels"), data, strict=True))
    names |= dict(zip(("test_images", "test_labels"), data, strict=True))
    return folder, {**names, "images": data[0], "model": model, "qat": qat}


@pytest.mark.usefixtures("without_extras")
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5:UserWarning")
@pytest.mark.parametrize("page", OWN)
def test_page_code_runs(page, belongings, monkeypatch, capsys):
    folder, names = belongings
    monkeypatch.chdir(folder)
    names = {"__name__": "examples", "keras": keras, "keras_qat": keras_qat, **names}
    for code, printed in blocks(ROOT / page):
        assert not printed
        exec(code, names)
    assert capsys.readouterr().out


def test_pages_with_code_are_all_tested():
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")]
    with_code = {p.relative_to(ROOT).as_posix() for p in pages if "```python" in p.read_text()}
    assert with_code == {*OWN, *OTHERS, *(f"docs/{page}.md" for page in PAGES)}


def test_contributing_rule_is_exact(monkeypatch, tmp_path):
    (code, _), *_ = blocks(ROOT / "CONTRIBUTING.md")
    existing = registry.registered_rules()
    monkeypatch.setattr(registry, "_RULES", [])
    names = {"__name__": "examples", **vars(pooling), **vars(registry)}
    objects = keras.saving.get_custom_objects()
    name = "keras_qat>QGlobalMaxPooling2D"
    monkeypatch.setitem(objects, name, objects[name])  # the code registers a new rule
    exec(code, names)
    monkeypatch.setattr(registry, "_RULES", [*registry.registered_rules(), *existing])
    x = keras.Input((6, 5, 3), name="x")
    model = keras.Model(x, keras.layers.GlobalMaxPooling2D(name="largest")(x))
    qat = keras_qat.quantize_model(model)
    data = np.random.default_rng(0).normal(size=(8, 6, 5, 3)).astype("float32")
    keras_qat.calibrate(qat, data, verbose=0)
    assert type(qat.get_layer("largest")) is names["QGlobalMaxPooling2D"]
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact


def test_contributing_operation_is_exact(monkeypatch, tmp_path):
    code = next(code for code, _ in blocks(ROOT / "CONTRIBUTING.md") if "SELECT_V2" in code)
    existing = registry.registered_rules()
    monkeypatch.setattr(registry, "_RULES", [])
    names = {**vars(extremes), "__name__": "examples"}
    objects = keras.saving.get_custom_objects()
    monkeypatch.setitem(objects, "keras_qat>QWhere", objects["keras_qat>QWhere"])
    exec(code, names)
    monkeypatch.setattr(registry, "_RULES", [*registry.registered_rules(), *existing])
    x = keras.Input((6, 3), name="x")
    mask = np.random.default_rng(1).random((6, 3)) > 0.5
    qat = keras_qat.quantize_model(keras.Model(x, keras.ops.where(mask, x, 0.5)))
    data = np.random.default_rng(0).normal(size=(8, 6, 3)).astype("float32")
    keras_qat.calibrate(qat, data, verbose=0)
    assert type(qat.layers[-1]) is names["QWhere"]
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact


def test_contributing_scheme_is_exact(monkeypatch, tmp_path):
    code = next(code for code, _ in blocks(ROOT / "CONTRIBUTING.md") if "SCHEMES" in code)
    assert len(code.splitlines()) == 1
    schemes = dict(scheme.SCHEMES)
    monkeypatch.setattr(scheme, "SCHEMES", schemes)
    exec(code, {"SCHEMES": schemes, "Scheme": scheme.Scheme})
    qat = keras_qat.quantize_model(network(), "int4_per_tensor")
    keras_qat.calibrate(qat, images(64), verbose=0)
    weights = [each for name, each in keras_qat.integer_weights(qat).items() if "kernel" in name]
    assert {each.values.dtype.name for each in weights} == {"int4"}
    assert {each.scale.size for each in weights} == {1}
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", images(64), verbose=0).exact


def files_with(*words):
    """Returns the source files with one of the words, outside of docstrings and comments."""
    found = set()
    for path in ROOT.glob("keras_qat/**/*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                node.value.value = ""
        if any(word in ast.unparse(tree) for word in words):
            found.add(path.relative_to(ROOT / "keras_qat").as_posix())
    return found


def test_contributing_operation_takes_two_source_files():
    assert files_with("QWhere") == {
        "layers/__init__.py",
        "layers/elementwise/maximum.py",
    }


def test_contributing_scheme_takes_one_source_file():
    assert files_with("int8_per_tensor") == {"scheme.py"}


def test_contributing_range_rule_takes_two_source_files():
    assert files_with("Percentile") == {"quantizers/percentile.py", "quantizers/range_rules.py"}


def test_contributing_range_rule_calibrates(monkeypatch, tmp_path):
    code = next(code for code, _ in blocks(ROOT / "CONTRIBUTING.md") if "RangeRule" in code)
    names: dict = {"__name__": "examples"}
    exec(code, names)
    rule = names["MeanMinMax"]
    monkeypatch.setitem(RANGE_RULES, rule.name, rule)
    qat = keras_qat.quantize_model(linear())
    data = np.array([[-1, 2, 0, 0], [-3, 6, 0, 1]], "float32")  # the rows sum to 1 and 4
    for given, factor in (("mean_minmax", 1), (rule(factor=0.5), 0.5)):
        keras_qat.calibrate(qat, data, range_rule=given, verbose=0)
        limits = [layer.observer.limits for layer in observed_layers(qat)]
        assert limits == [(-2 * factor, 4 * factor), (2.5 * factor, 2.5 * factor)]
    qat.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.range_rule == rule(factor=0.5)


def test_api_page_has_every_public_name():
    listed = re.findall(
        r"^::: keras_qat\.(\w+)$", (DOCS / "api.md").read_text(), flags=re.MULTILINE
    )
    # It lists the layers that users write. `quantize_model` makes the others.
    assert set(keras_qat.__all__) - set(listed) == {"__version__", "layers"}
