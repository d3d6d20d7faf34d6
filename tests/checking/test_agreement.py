"""check against quantize_model on refused models: equal verdicts and texts, and no hang."""

import contextlib
import dataclasses
import inspect
import re

import keras
import pytest
import tensorflow as tf
from keras import layers, ops

import keras_qat
from keras_qat import errors
from keras_qat.layers.core import registry
from keras_qat.passes import make_layers, open_layers, running
from keras_qat.passes.config import Config
from keras_qat.passes.rewriting_stages import REWRITING
from keras_qat.passes.stages import Stage, Step
from tests.checking.refused_models import REFUSED, TAKEN, blocks, plain
from tests.own_layers import Own, weight
from tests.quick import some_quick


def refusal_of(model, **options):
    """Returns the error of quantize_model, or None."""
    try:
        keras_qat.quantize_model(model, **options)
    except errors.KerasQatError as error:
        return error
    return None


def assert_agreement(model, **options):
    refusal = refusal_of(model, **options)
    report = keras_qat.check(model, **options)
    assert bool(report.errors) == (refusal is not None)
    assert report.ok == (refusal is None)
    if refusal is not None:
        first = report.errors[0]
        assert first.layer == refusal.layer
        assert f"{first.message} To fix it: {first.fix}" == str(refusal)
    return report


@pytest.mark.parametrize("name", REFUSED)
def test_check_refuses_what_quantize_model_refuses_in_the_same_words(name):
    report = assert_agreement(REFUSED[name]())
    assert not report.ok and str(report)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", TAKEN)
def test_check_takes_what_quantize_model_takes(name):
    assert assert_agreement(TAKEN[name]()).ok


def matmul_model():
    a, b = keras.Input((4, 5)), keras.Input((5, 3))
    return keras.Model([a, b], ops.matmul(a, b))


def dense_model():
    return plain((4,), lambda x: layers.Dense(3, activation="softplus", name="dense")(x))


def cropped_model():
    chain = [
        layers.RandomCrop(6, 4, name="crop"),
        layers.Dense(3, name="dense"),
        layers.Activation("softplus", name="softplus"),
    ]
    return keras.Sequential([keras.Input((6, 4, 3), name="x"), *chain])


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (matmul_model, {"scheme": "uint8"}),
        (matmul_model, {"scheme": "uint8", "overrides": {"matmul.*": None}}),
        (TAKEN["softplus"], {"activations": "error"}),
        (TAKEN["softplus"], {"activations": "substitute"}),
        (TAKEN["softplus"], {"activations": "error", "overrides": {"softplus.*": None}}),
        (dense_model, {"rewrites": []}),
        (dense_model, {"rewrites": [*keras_qat.DEFAULT_REWRITES, "drop_bias"]}),
        (dense_model, {"quantized_input_stats": {"x": (0, 255)}}),
        (REFUSED["lstm"], {"overrides": {"lstm": None}}),
        (cropped_model, {}),
        (cropped_model, {"skip_layers": ["crop", "softplus"], "activations": "error"}),
        (cropped_model, {"skip_layers": ["crop"], "activations": "error"}),
        (dense_model, {"skip_layers": []}),
        (dense_model, {"quant_delay": 5, "default_ranges_stats": (0, 6)}),
        (REFUSED["sort"], {"quant_delay": 5, "default_ranges_stats": (-1, 1)}),
    ],
)
def test_check_agrees_with_quantize_model_under_options(make, options):
    assert_agreement(make(), **options)


def options_of(function):
    parameters = inspect.signature(function).parameters.values()
    return {each.name: each.default for each in parameters if each.name != "model"}


def test_check_and_clone_model_take_the_options_of_quantize_model():
    ours = options_of(keras_qat.quantize_model)
    # How ranges and widths are found does not change what can be quantized.
    found = {"budget", "range_rule", "weight_range_rule"}
    shared = {name: ours[name] for name in ours.keys() - found}
    assert options_of(keras_qat.check) == {**shared, "target": None}
    rest = {field.name for field in dataclasses.fields(Config)}
    assert ours.keys() == rest | {"calibration_data", "budget"}
    clone = options_of(keras_qat.clone_model)
    assert clone.keys() - {"input_tensors"} <= ours.keys()
    assert rest - clone.keys() == found - {"budget"} | {
        *("scheme", "storage", "quant_delay", "default_ranges_stats", "quantized_input_stats")
    }


def test_check_agrees_with_quantize_model_on_a_registered_function_that_is_wrong():
    class Tripled(layers.Layer):
        def call(self, x):
            return 3.0 * x

    with wrong_function(Tripled):
        model = plain((4,), lambda x: layers.Dense(2)(Tripled(name="tripled")(x)))
        report = assert_agreement(model)
    assert report.errors[0].layer == "tripled"


@contextlib.contextmanager
def wrong_function(kind):
    """Registers a function for a class of layers that computes something else."""
    keras_qat.register(kind)(lambda layer, x: 2.0 * x)
    try:
        yield
    finally:
        registry._CALLS.pop(kind)


# The quick tests take every other model with an option, and the rest with a float layer.
PLACED = list(enumerate([*REFUSED, *TAKEN]))
# Options that refuse some models and take others.
OPTIONS = [
    {"scheme": "uint8"},
    {"activations": "error"},
    {"activations": "lookup"},
    {"activations": "substitute", "scheme": "uint8"},
    {"overrides": {".*": None}},
    {"rewrites": ["inline_models", "open_layers"]},
    {"default_ranges_stats": (-1, 6), "quant_delay": 3},
    {"rewrites": [name for name in keras_qat.DEFAULT_REWRITES if name != "write_kernels"]},
]


@pytest.mark.parametrize(("place", "name"), some_quick(PLACED, *range(0, len(PLACED), 2)))
def test_check_agrees_with_quantize_model_on_every_model_with_one_option(place, name):
    assert_agreement({**REFUSED, **TAKEN}[name](), **OPTIONS[place % len(OPTIONS)])


@pytest.mark.parametrize("name", some_quick([*REFUSED, *TAKEN], *range(1, len(PLACED), 2)))
def test_check_agrees_with_quantize_model_if_one_layer_stays_in_float(name):
    model = {**REFUSED, **TAKEN}[name]()
    assert_agreement(model, overrides={re.escape(model.operations[-1].name): None})


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"rewrites": ["melt"]}, errors.InvalidRewriteError),
        ({"activations": "melt"}, errors.InvalidRewriteError),
        ({"overrides": {"melt": None}}, errors.InvalidOverrideError),
        ({"quantized_input_stats": {"melt": (0, 255)}}, errors.InvalidInputStatsError),
        ({"skip_layers": ["melt"]}, errors.InvalidModelError),
        ({"skip_layers": ["dense"]}, errors.InvalidModelError),
        ({"quant_delay": -1}, errors.InvalidDelayError),
        ({"default_ranges_stats": (6, 0)}, errors.InvalidDefaultRangeError),
    ],
)
def test_check_raises_for_wrong_arguments_as_quantize_model_does(options, kind):
    model = dense_model()
    for function in (keras_qat.check, keras_qat.quantize_model):
        with pytest.raises(kind):
            function(model, **options)


def count(monkeypatch, run):
    """Counts the traced layers, the made layers and the passes."""
    calls = dict.fromkeys(("trace_layer", "make_layer", "run_pass"), 0)

    def counted(module, name):
        function = getattr(module, name)

        def wrapper(*args, **kwargs):
            calls[name] += 1
            return function(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapper)

    with monkeypatch.context() as monkeypatch:
        counted(open_layers, "trace_layer")
        counted(make_layers, "make_layer")
        counted(running, "run_pass")
        run()
    return calls


@pytest.mark.parametrize("size", [4, 16])
def test_check_traces_few_more_layers_than_quantize_model(monkeypatch, size):
    model = blocks(size)
    own = count(monkeypatch, lambda: refusal_of(model))
    calls = count(monkeypatch, lambda: keras_qat.check(model))
    assert own["trace_layer"] == 3  # the first block, its inner layer, and both as one
    assert calls["trace_layer"] <= 3 * size
    assert calls["trace_layer"] + calls["make_layer"] <= 4 * (size + 2)


def test_check_does_not_open_a_whole_model_after_an_early_error(monkeypatch):
    def cut(layer, x):
        return x + tf.math.sinh(layer.table)

    x = keras.Input((6, 8), name="x")
    y = blocks(16, good=True)(Own(cut, weight(6, 8), name="cut")(x))
    model = keras.Model(x, y)
    calls = count(monkeypatch, lambda: keras_qat.check(model))
    assert calls["trace_layer"] <= 12 and calls["make_layer"] == 0
    report = keras_qat.check(model)
    assert [error.layer for error in report.errors] == ["cut"] and not report.is_complete
    assert report.verdict.endswith("More may appear once these are fixed: check again.")
    assert [row.name for row in report.layers if row.refused] == ["cut"]


def test_check_lists_errors_of_one_kind_up_to_a_limit():
    few, many = keras_qat.check(blocks(3)), keras_qat.check(blocks(16))
    assert [error.layer for error in few.errors] == ["inner"] * 3 and few.is_complete
    assert 3 <= len(many.errors) < 16 and not many.is_complete


def test_quantize_model_raises_a_typed_error_if_a_stage_fails(monkeypatch):
    def fails(graph):
        raise AssertionError("never said")

    stage = Stage("last", "", (Step(fails, "", "fixed"),), ())
    monkeypatch.setattr("keras_qat.compiler.REWRITING", (*REWRITING, stage))
    report = assert_agreement(dense_model())
    assert report.errors[0].code == "invalid-graph"
    assert "'fails'" in report.errors[0].message and "AssertionError" in report.errors[0].message
    assert not report.is_complete


def test_quantize_model_raises_a_typed_error_if_a_layer_cannot_be_built(monkeypatch):
    def fails(self, input_shape):
        raise TypeError("no such size")

    monkeypatch.setattr("keras_qat.layers.QDense.build", fails)
    report = assert_agreement(dense_model())
    assert report.errors[0].layer == "dense" and "TypeError: no such size" in str(report)


def test_quantize_model_raises_a_typed_error_if_a_layer_cannot_be_made(monkeypatch):
    def fails(*args):
        raise KeyError("units")

    monkeypatch.setattr("keras_qat.layers.QDense.from_match", fails)
    report = assert_agreement(dense_model())
    assert report.errors[0].layer == "dense" and "KeyError was raised: 'units'" in str(report)
