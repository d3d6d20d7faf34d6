"""The contract of every rule, run on the cases that the tests of each family declare."""

import importlib
import itertools
import pathlib

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

import keras_qat
from keras_qat.layers import QuantizedLayer
from tests.gradients import gradients_of
from tests.layers.cases import Case, first_of_each
from tests.layers.contract import Prepared, as_arrays, assert_equals_litert, layer_outputs
from tests.layers.litert_files import (
    computed_tensors,
    counterparts_of,
    exported,
    integers_of,
    operators_of,
    run_litert,
)
from tests.memory import free_memory
from tests.processes import run_program
from tests.quantizers.modes import on_tensorflow
from tests.quick import some_quick

FAMILIES = sorted(path.stem for path in pathlib.Path(__file__).parent.glob("test_*.py"))
MODULES = [
    importlib.import_module(f"tests.layers.{family}")
    for family in FAMILIES
    if family != pathlib.Path(__file__).stem
]
CASES: tuple[Case, ...] = tuple(
    case for module in MODULES for case in vars(module).get("CASES", ())
)
BUILTIN = {value: name for name, value in vars(schema.BuiltinOperator).items() if name.isupper()}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def prepared(request):
    yield Prepared(request.param)
    free_memory()


def test_case_has_the_layers_it_covers(prepared):
    made = {type(layer) for layer in prepared.quantized.layers}
    assert set(prepared.case.covers) <= made


# The cases whose float models Keras itself does not compute on a backend.
KERAS_CANNOT = {
    "torch": {
        "encoded_ids": "ops.one_hot takes no int32 ids",
        "gather": "ops.repeat takes no list of numbers",
        "layer_normalization": "LayerNormalization takes only the last axis",
        "mirror_pad": "ops.pad reflects at most three axes, and none of the batch",
        "strided_slice": "slices have no negative steps",
    }
}


@pytest.mark.parametrize("prepared", first_of_each(CASES, QuantizedLayer), indirect=True)
def test_float_clone_equals_keras(prepared):
    """At inference, in the forward of a training step, and in the statistics that it leaves."""
    reason = KERAS_CANNOT.get(keras.backend.backend(), {}).get(prepared.case.name)
    if reason is not None:
        pytest.skip(f"Keras on {keras.backend.backend()}: {reason}")
    model = keras.models.clone_model(prepared.keras_model)
    model.set_weights(prepared.keras_model.get_weights())
    clone = prepared.clone
    assert_near(clone(prepared.x, training=False), model(prepared.x, training=False), 1e-4)
    if prepared.case.steps is None:
        return  # training draws random numbers
    assert_near(clone(prepared.x, training=True), model(prepared.x, training=True), 1e-5)
    statistics, carried = moving_statistics(model), moving_statistics(clone)
    # A factor and an offset have constants in the place of statistics.
    assert set(statistics) <= set(carried)
    for name, values in statistics.items():
        np.testing.assert_allclose(carried[name], values, rtol=1e-5, atol=1e-6, err_msg=name)


def assert_near(outputs, expected, tolerance):
    for ours, exact in zip(as_arrays(outputs), as_arrays(expected), strict=True):
        ours, exact = ours.astype("float64"), exact.astype("float64")  # booleans, too
        assert np.max(np.abs(ours - exact)) <= tolerance * max(np.max(np.abs(exact)), 1e-30)


def moving_statistics(model):
    """Returns statistics by branch and kind. A clone names a chain after its first layer."""
    return {
        (w.path.partition("_")[0], w.path.rpartition("/")[2]): w.numpy()
        for w in model.weights
        if "moving_" in w.path
    }


def test_every_tensor_equals_litert(prepared):
    assert_equals_litert(prepared)


@pytest.mark.parametrize("prepared", first_of_each(CASES), indirect=True)
@pytest.mark.parametrize(("seed", "scale"), some_quick([(1, 1e-3), (2, 1e3)], 0))
def test_every_tensor_equals_litert_at_scale(prepared, seed, scale):
    other = Prepared(prepared.case, seed, scale)
    assert_equals_litert(other)
    assert_equals_litert(other, "reference")


@pytest.mark.grappler
@pytest.mark.parametrize("prepared", first_of_each(CASES), indirect=True)
def test_predict_equals_litert(prepared):
    tensors, outputs = run_litert(prepared.content, prepared.arrays)
    for values, name in zip(prepared.predicted, outputs, strict=True):
        q, details = tensors[name]
        np.testing.assert_array_equal(integers_of(values, details), q)


def verified(prepared, folder, count, **options):
    """Returns the report of `verify` on the first samples."""
    path = folder / "model.tflite"
    path.write_bytes(prepared.content)
    data = tuple(x[:count] for x in prepared.arrays)
    return keras_qat.verify(prepared.quantized, path, data, verbose=0, **options)


@pytest.mark.slow
def test_verify_finds_no_difference(prepared, tmp_path):
    report = verified(prepared, tmp_path, None)
    assert report.exact, str(report)
    assert report.samples == len(prepared.arrays[0])


@pytest.mark.one_in(2)
@pytest.mark.parametrize("prepared", first_of_each(CASES, QuantizedLayer), indirect=True)
def test_verify_compares_every_computed_tensor(prepared, tmp_path):
    """The slow test covers files without tensors inside layers."""
    computed = computed_tensors(prepared.content)
    if set(computed) <= prepared.tensors.keys():
        return
    report = verified(prepared, tmp_path, 3, kernels="default")
    rows = report.layers["default"]
    inputs = {tensor.name for tensor in prepared.quantized.inputs}
    assert sorted(name for name in rows if name not in inputs) == sorted(computed)
    assert report.exact and not report.not_compared, str(report)


def test_file_is_all_integers_and_builtin(prepared):
    model = schema.ModelT.InitFromPackedBuf(prepared.content)
    types = {tensor.type for tensor in model.subgraphs[0].tensors}
    names = ("INT8", "INT16", "INT32", "BOOL")
    assert types <= {getattr(schema.TensorType, name) for name in names}
    assert all(code.builtinCode in BUILTIN for code in model.operatorCodes)
    assert "CUSTOM" not in {BUILTIN[code.builtinCode] for code in model.operatorCodes}


def test_file_states_the_shapes_of_one_sample(prepared):
    """Compilers for accelerators need known sizes."""
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(
        model_content=prepared.content, experimental_op_resolver_type=resolver
    )
    stated = {d["name"]: d["shape"].tolist() for d in interpreter.get_tensor_details()}
    interpreter.allocate_tensors()
    for details in interpreter.get_tensor_details():
        if details["name"] in stated:
            assert details["shape"].tolist() == stated[details["name"]], details["name"]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("prepared", first_of_each(CASES, QuantizedLayer), indirect=True)
def test_every_tensor_equals_the_reference_kernels(prepared):
    assert_equals_litert(prepared, "reference")


def test_file_has_declared_operators_only(prepared):
    declared = {code for each in prepared.quantized.layers for code in operators_declared(each)}
    undeclared = sorted(set(operators_of(prepared.content)) - declared)
    layers = sorted(cls.__name__ for cls in prepared.case.covers)
    assert not undeclared, (
        f"add to the class attribute `operators` of one of {layers}: {undeclared}"
    )


def operators_declared(each):
    return () if isinstance(each, keras.layers.InputLayer) else type(each).operators


@pytest.mark.parametrize("prepared", first_of_each(CASES, QuantizedLayer), indirect=True)
def test_saving_and_loading_keeps_everything(prepared, tmp_path):
    path = tmp_path / "model.keras"
    prepared.quantized.save(path)
    loaded = keras.models.load_model(path)
    for name, values in layer_outputs(loaded, prepared.arrays, training=False).items():
        np.testing.assert_array_equal(values, prepared.tensors[name], err_msg=name)
    assert exported(loaded) == prepared.content
    prepared.quantized.save_weights(tmp_path / "model.weights.h5")
    for variable in loaded.variables:
        variable.assign(np.ones(variable.shape))
    loaded.load_weights(tmp_path / "model.weights.h5")
    for variable, kept in zip(loaded.variables, prepared.quantized.variables, strict=True):
        np.testing.assert_array_equal(variable, kept, err_msg=kept.path)


def gradients(model, x):
    """Returns the gradient of a random projection: the sum of a softmax is constant."""
    rng = np.random.default_rng(0)
    weights = model.trainable_weights

    def loss():
        outputs = keras.tree.flatten(model(x, training=True))
        dtypes = [keras.backend.standardize_dtype(y.dtype) for y in outputs]
        real = [y for y, dtype in zip(outputs, dtypes, strict=True) if "float" in dtype]
        projections = [keras.ops.convert_to_tensor(rng.normal(size=y.shape), y.dtype) for y in real]
        return sum(keras.ops.sum(y * r) for y, r in zip(real, projections, strict=True))

    found = gradients_of(loss, weights)
    missing = [w.path for w, g in zip(weights, found, strict=True) if g is None]
    assert not missing, f"without a gradient: {missing}"
    return {w.path: g for w, g in zip(weights, found, strict=True)}


@pytest.mark.parametrize("prepared", first_of_each(CASES, QuantizedLayer), indirect=True)
def test_gradients_reach_every_weight(prepared):
    """No gradient is missing or zero. Each has the direction and size of the float model's."""
    # Rounding the zero point may clip the largest value. Many samples make its share small.
    arrays = prepared.samples(128)
    many = arrays if len(arrays) > 1 else arrays[0]
    # Without calibration the batch sets the ranges, so few other values are clipped.
    quantized = gradients(prepared.quantize_uncalibrated(), many)
    exact = gradients(prepared.float_twin, many)
    assert set(quantized) == set(exact)
    for path, gradient in quantized.items():
        if path.endswith(prepared.case.no_gradient or ("no such weight",)):
            continue
        assert np.any(gradient), path
        if prepared.case.steps is None:
            continue  # the gradient depends on the random numbers
        ours, theirs = gradient.ravel(), exact[path].ravel()
        sizes = np.linalg.norm(ours), np.linalg.norm(theirs)
        cosine = ours @ theirs / np.prod(sizes)
        assert cosine > 0.9, f"{path}: {cosine}"
        ratio = sizes[0] / sizes[1]
        assert max(ratio, 1 / ratio) < 1.3, f"{path}: {sizes}"


@pytest.mark.parametrize("prepared", first_of_each(CASES), indirect=True)
def test_training_forward_is_near_the_integers(prepared):
    if prepared.case.steps is None:
        pytest.skip("training draws random numbers")
    model = prepared.quantize()
    for layer in model.layers:
        norm = (
            layer if hasattr(layer, "moving_mean") else getattr(layer, "batch_normalization", None)
        )
        if norm is not None:
            norm.trainable = False  # use the moving statistics, not those of the batch
    trained = layer_outputs(model, prepared.arrays, training=True)
    # Inference comes second, since training moves the ranges before it uses them.
    inferred = layer_outputs(model, prepared.arrays, training=False)
    content, scales = exported(model), {}
    for name, (_, details) in run_litert(content, prepared.arrays)[0].items():
        scales[counterparts_of(content, model).get(name)] = details["quantization"][0]
    compared = set(scales) & set(trained)
    assert compared
    for name in compared:
        if trained[name].dtype.kind in "bi":
            continue  # a value next to a limit, or to an equal value, may be on either side of it
        away = np.max(np.abs(trained[name] - inferred[name])) / scales[name]
        assert away <= prepared.case.steps + 1e-3, f"{name}: {away} steps"


@on_tensorflow
@pytest.mark.slow
def test_compilers_change_no_bit(prepared):
    quantized = prepared.quantized  # make the model outside of the function
    import tensorflow as tf

    compiled = tf.function(lambda x: quantized(x), jit_compile=True)
    xla = as_arrays(compiled(keras.tree.map_structure(tf.constant, prepared.x)))
    eager = as_arrays(prepared.quantized(prepared.x))
    for graph, one, other in zip(prepared.predicted, eager, xla, strict=True):
        np.testing.assert_array_equal(graph, one)
        np.testing.assert_array_equal(graph, other)


IN_A_FRESH_PROCESS = """
import keras_qat
import keras
import numpy as np
model = keras.models.load_model("model.keras")
for i, values in enumerate(model.predict(np.load("x.npy"), verbose=0)):
    np.save(f"y{i}.npy", values)
keras_qat.export_litert(model, "fresh.tflite")
"""


def many_rules():
    layers = keras.layers
    inputs = keras.Input((9, 9, 3))
    x = layers.Conv2D(4, 3, strides=2, use_bias=False)(layers.ZeroPadding2D(1)(inputs))
    x = layers.ReLU(6.0)(layers.BatchNormalization()(x))
    x = layers.BatchNormalization()(layers.MaxPooling2D(2, strides=1)(x))
    y = layers.DepthwiseConv2D(3, padding="same")(layers.SpatialDropout2D(0.2)(x))
    y = layers.AveragePooling2D(2, strides=1, padding="same")(layers.BatchNormalization()(y))
    x = layers.ReLU()(layers.ReLU()(layers.Add()([x, y])))
    y = layers.GlobalAveragePooling2D()(x)
    x = layers.Dense(4, activation="relu")(layers.Reshape((4, 16))(layers.Flatten()(x)))
    x = layers.Dense(6)(layers.Dropout(0.2)(layers.Flatten()(x)))
    return keras.Model(inputs, [layers.Softmax()(x), y])


def test_fresh_process_needs_one_import(tmp_path):
    prepared = Prepared(Case("many_rules", (), many_rules))
    prepared.quantized.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", prepared.x)
    run_program("-c", IN_A_FRESH_PROCESS, cwd=tmp_path).check_returncode()
    for i, values in enumerate(prepared.predicted):
        np.testing.assert_array_equal(np.load(tmp_path / f"y{i}.npy"), values)
    assert (tmp_path / "fresh.tflite").read_bytes() == prepared.content


SWEEP = list(itertools.product(range(10, 14), (1e-5, 1e-2, 1.0, 30.0, 1e5)))


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_sweep_equals_litert(case):
    """Compares at least 1e5 integers of each case over seeds and scales of the data."""
    per_sample = sum(int(np.prod(y.shape[1:])) for y in case.build().outputs)
    batch = max(8, -(-100_000 // (per_sample * len(SWEEP))))
    compared = 0
    for seed, scale in SWEEP:
        prepared = Prepared(case, seed, scale, batch)
        compared += assert_equals_litert(prepared)
        assert_equals_litert(prepared, "reference")
    assert compared >= 100_000
