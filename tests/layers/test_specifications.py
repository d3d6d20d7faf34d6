"""Each tensor has the parameters of its specification, and one module makes all observers."""

import ast
import pathlib

import keras
import numpy as np

import keras_qat
from keras_qat.graph import read_model
from keras_qat.layers import QNormalize
from keras_qat.layers.core.base import QuantizedLayer
from keras_qat.layers.core.registry import registered_rules
from keras_qat.layers.elementwise.activations import QSoftmax
from keras_qat.layers.elementwise.comparisons import QNumber
from keras_qat.layers.elementwise.logistic import QSigmoid
from keras_qat.layers.elementwise.tanh import QTanh
from keras_qat.layers.models.range_groups import output_specification
from keras_qat.quantizers import Derived, Fixed, Free, Shared
from tests.models import quantized
from tests.passes.random_models import build, data_for
from tests.passes.test_random_models import try_models

PACKAGE = pathlib.Path(keras_qat.__file__).parent
MAKER = PACKAGE / "quantizers" / "observers.py"


def makes_observer(node):
    """Returns whether a statement calls `RangeObserver`, or inherits from it."""
    names = [node.func] if isinstance(node, ast.Call) else getattr(node, "bases", ())
    return "RangeObserver" in {getattr(each, "attr", getattr(each, "id", None)) for each in names}


def test_one_module_makes_all_observers():
    found = {
        path
        for path in PACKAGE.rglob("*.py")
        if any(map(makes_observer, ast.walk(ast.parse(path.read_text("utf-8")))))
    }
    assert found == {MAKER}


def test_specifications_fix_what_litert_prescribes():
    """LiteRT's quantization specification: SOFTMAX, LOGISTIC, and TANH, in int8; and numbers."""
    found = {
        rule.layer: vars(rule.layer).get("output_specification") for rule in registered_rules()
    }
    fixed = {cls: (own.scale, own.zero_point) for cls, own in found.items() if type(own) is Fixed}
    assert fixed == {
        QSoftmax: (1 / 256, -128),
        QSigmoid: (1 / 256, -128),
        QTanh: (1 / 128, 0),
        QNumber: (1, 0),
    }


def grid_of(parameters):
    return tuple(float(each) for each in parameters.grid())


def covers(parameters, low, high):
    """Whether integers stand for all values of a range, but for the rounding of its ends."""
    scale, zero_point = grid_of(parameters)
    ends = (-128 - zero_point) * scale, (127 - zero_point) * scale
    return ends[0] - scale <= low and high <= ends[1] + scale


def check_parameters(node):
    """Compares the parameters around a layer with its specification."""
    own, neighbours, layer = output_specification(node), node.head.neighbours, node.head
    if own is None:
        return neighbours.output is None
    found = grid_of(neighbours.output)
    if isinstance(own, Shared) and own.observed is None:
        assert layer.observer is None
        return all(grid_of(each) == found for each in neighbours.inputs)
    if isinstance(own, Fixed):
        return found == (np.float32(own.scale), own.zero_point)
    if isinstance(own, Derived):
        table = keras.ops.convert_to_numpy(getattr(layer, own.source))
        return covers(neighbours.output, table.min(), table.max())
    return covers(neighbours.output, *layer.observer.limits)


def check_model(model, data):
    graph = read_model(quantized(model, data))
    nodes = [node for node in graph.nodes.values() if not node.is_input]
    wrong = [node for node in nodes if not check_parameters(node)]
    assert not wrong, [(node.name, output_specification(node)) for node in wrong]
    return {type(output_specification(node)) for node in nodes}


def test_specifications_of_each_kind_are_the_parameters_of_the_outputs():
    ids = keras.Input((6,), dtype="int32")
    x = keras.layers.ZeroPadding1D()(keras.layers.Embedding(9, 4)(ids))
    x = keras.layers.Dense(4, "sigmoid")(x)
    x = keras.ops.pad(x, ((0, 0), (0, 0), (1, 0)), constant_values=3.0)
    x = keras.layers.Dense(3, "softmax")(keras.ops.maximum(x, 0.25))
    data = np.random.default_rng(0).integers(0, 9, (8, 6)).astype("int32")
    assert check_model(keras.Model(ids, x), data) == {Derived, Fixed, Free, Shared}


def test_specifications_of_random_models_are_the_parameters_of_the_outputs():
    def check(program):
        model = build(program)
        check_model(model, data_for(model))

    assert len(try_models(check, 3, seed=0)) == 3


def test_specifications_of_a_layer_in_float_make_no_observer():
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, name="dense")])
    qat = keras_qat.quantize_model(model, overrides={"dense": None})
    assert qat.get_layer("dense").observers() == {}


def test_specifications_name_the_attributes_of_saved_ranges():
    """Files have the attributes as paths: other names could not load ranges saved earlier."""
    layer = QNormalize((-1, 4), (1,), "layer", 1e-3, scheme="int8")
    layer.build((None, 4))
    assert list(layer.observers()) == ["output", "centered", "reciprocal"]
    expected = [layer.observer, layer.centered_observer, layer.reciprocal_observer]
    assert all(map(lambda a, b: a is b, layer.observers().values(), expected))


def _subclasses(kind):
    return {kind}.union(*map(_subclasses, kind.__subclasses__()))


def test_no_class_attribute_hides_an_observer():
    """On PyTorch an attribute of the class comes before a layer that is set on the object."""
    hidden = {
        f"{kind.__name__}.{name}"
        for kind in _subclasses(QuantizedLayer)
        for name in vars(kind)
        if name.endswith("observer")
    }
    assert not hidden
