"""Normalization by the statistics of each sample: contract cases, hand-computed numbers, errors."""

import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

import keras_qat
from keras_qat.errors import DefaultRangesWarning, UnsupportedLayerError
from keras_qat.layers import QNormalize
from tests.layers.cases import Case, branches, layer, together
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of, run_litert
from tests.models import called
from tests.quick import some_quick

GroupNormalization = keras.layers.GroupNormalization
LayerNormalization = keras.layers.LayerNormalization
RMSNormalization = keras.layers.RMSNormalization
UnitNormalization = keras.layers.UnitNormalization

CASES = [
    Case(
        "layer_normalization",
        (QNormalize,),
        together(
            branches(
                (3, 4, 6),
                [LayerNormalization],
                [layer(LayerNormalization, center=False, scale=False)],
                [layer(LayerNormalization, axis=[1, 2], scale=False)],
                [layer(LayerNormalization, axis=[1, 3])],
                [layer(LayerNormalization, axis=[1, 2, 3], center=False)],
                prefix="image",
            ),
            branches(
                (5, 40),
                [layer(LayerNormalization, epsilon=1e-6)],
                [layer(LayerNormalization, axis=1)],
                prefix="sequence",
            ),
            branches((16,), [layer(LayerNormalization, axis=1, center=False)], prefix="vector"),
        ),
        steps=2,  # one step of the normalized tensor, and one of its product with gamma
    ),
    Case(
        "group_normalization",
        (QNormalize,),
        together(
            branches(
                (3, 4, 6),
                [layer(GroupNormalization, groups=2)],
                [layer(GroupNormalization, groups=-1, center=False)],
                [layer(GroupNormalization, groups=1, scale=False)],
                [layer(GroupNormalization, groups=3, axis=1)],
                prefix="image",
            ),
            branches((5, 8), [layer(GroupNormalization, groups=4)], prefix="sequence"),
            branches((8,), [layer(GroupNormalization, groups=2)], prefix="vector"),
        ),
    ),
    Case(
        "rms_and_unit_normalization",
        (QNormalize,),
        together(
            branches(
                (3, 4, 6),
                [RMSNormalization],
                [layer(RMSNormalization, axis=[1, 2, 3])],
                [UnitNormalization],
                [layer(UnitNormalization, axis=[1, 3])],
                prefix="image",
            ),
            branches((5, 8), [layer(UnitNormalization, axis=1)], prefix="sequence"),
        ),
    ),
]


def test_layer_normalization_by_hand():
    x = keras.Input((4,), name="input")
    model = keras.Model(x, LayerNormalization(epsilon=0.0, center=False, scale=False, name="n")(x))
    quantized = quantized_with(model, input=(-64.0, 63.5), n=(-2.0, 1.984375))
    quantized.get_layer("n").centered_observer.widen(-64.0, 63.5)
    quantized.get_layer("n").reciprocal_observer.widen(0.0, 1.0)
    data = np.array([[1.0, 1.0, 3.0, 3.0], [0.0, 0.0, 0.0, 20.0], [7.5] * 4], "float32")
    # 1 / sqrt(75) is 29.4 steps of 1/255; 30 * 0.5 * 29 / 255 is 109.2 of 1/64, and -10 * 0.5 * 29
    # / 255 is -36.4. The reference kernel makes 4 * -36.4 = -146 first, and then -37.
    for target, low in (("litert", -36), ("reference", -37)):
        quantized.set_target(target)
        expected = np.array([[-1] * 2 + [1] * 2, [low / 64] * 3 + [109 / 64], [0] * 4])
        np.testing.assert_array_equal(called(quantized, data), expected)


def signal_to_noise(make, shape, spread):
    """Returns decibels of the quantized model's output, compared to the float model's."""
    rng, inputs = np.random.default_rng(0), keras.Input(shape)
    model = keras.Model(inputs, make()(inputs))
    for weight in model.weights:
        weight.assign(rng.normal(float(weight.name != "beta"), 0.3, weight.shape))
    data = rng.normal(size=(16, *shape)).astype("float32")
    if spread > 1:  # the variance differs between positions
        data *= spread ** rng.uniform(-0.5, 0, (16, *shape[:-1], 1)).astype("float32")
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    exact = np.array(model(data))
    noises = (called(quantized, data), np.array(quantized(data, training=True)))
    return [10 * np.log10(np.sum(exact**2) / np.sum((exact - y) ** 2)) for y in noises]


@pytest.mark.parametrize(
    ("make", "shape"),
    some_quick(
        [
            (LayerNormalization, (4, 4, 96)),
            (LayerNormalization, (16, 768)),
            (layer(LayerNormalization, axis=[1, 2, 3]), (16, 16, 32)),
            (RMSNormalization, (4, 256)),
            (UnitNormalization, (16, 64)),
            (layer(GroupNormalization, 8), (16, 16, 32)),
        ],
        0,
        3,
    ),
)
def test_normalization_noise_is_that_of_int8_tensors(make, shape):
    """The integers between input and output add little noise to the rounding of these two."""
    integers, rounded = signal_to_noise(make, shape, 1)
    assert integers > 31
    assert integers > rounded - 1.3
    integers, rounded = signal_to_noise(make, shape, 100)
    assert integers > 27
    assert integers > rounded - 1.0


def test_normalization_noise_is_small_beside_a_few_flat_groups():
    """One of a hundred groups has a hundredth of the deviation of the others."""
    rng, inputs = np.random.default_rng(0), keras.Input((16, 96))
    model = keras.Model(inputs, LayerNormalization(epsilon=1e-6)(inputs))
    data = rng.normal(size=(64, 16, 96)).astype("float32")
    flat = rng.uniform(size=(64, 16)) < 0.01
    data[flat] *= 0.01
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    exact, y = np.array(model(data))[~flat], called(quantized, data)[~flat]
    assert 10 * np.log10(np.sum(exact**2) / np.sum((exact - y) ** 2)) > 30


def test_normalization_sums_large_groups_in_parts():
    """The sums of squares of the whole group do not fit an int32."""
    x = keras.Input((64, 64, 40))
    model = keras.Model(x, LayerNormalization(axis=[1, 2, 3], center=False, scale=False)(x))
    data = np.random.default_rng(0).normal(1, 1, (2, 64, 64, 40)).astype("float32")
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    y, content = called(quantized, data), exported(quantized)
    for kernels, steps in (("AUTO", 0), ("BUILTIN_REF", 1)):
        tensors, names = run_litert(content, [data], kernels)
        q, details = tensors[names[0]]
        scale, zero_point = details["quantization"]
        assert np.abs(np.rint(y / scale) + zero_point - q).max() <= steps
    assert np.abs(y - model(data)).max() < 2 * scale


def test_normalization_weights_keep_their_names():
    x = keras.Input((4, 6))
    y = LayerNormalization(axis=[1, 2], name="both")(LayerNormalization(name="last")(x))
    clone = keras_qat.clone_model(keras.Model(x, y))
    names = [weight.path.split("/") for weight in clone.trainable_weights]
    assert [(path[0], path[-1]) for path in names] == [
        ("last", "gamma"),
        ("last", "beta"),
        ("both_multiply", "gamma"),
        ("both", "beta"),
    ]


@pytest.mark.parametrize(
    ("make", "transposed"),
    [(LayerNormalization, 0), (layer(GroupNormalization, 1), 0), (layer(GroupNormalization, 2), 2)],
)
def test_normalization_has_few_operators_on_all_values(make, transposed):
    """Counts operators on 12 x 12 x 8 values. The others take one value per group."""
    x = keras.Input((12, 12, 8))
    data = np.random.default_rng(0).normal(size=(4, 12, 12, 8)).astype("float32")
    model = keras.Model(x, make(center=False, scale=False)(x))
    content = exported(keras_qat.quantize_model(model, calibration_data=data))
    graph = schema.ModelT.InitFromPackedBuf(content).subgraphs[0]
    sizes = [np.prod(np.abs(tensor.shape)) for tensor in graph.tensors]
    large = [
        max(sizes[i] for i in [*operator.inputs, *operator.outputs]) == 12 * 12 * 8
        for operator in graph.operators
    ]
    codes = [code for code, is_large in zip(operators_of(content), large, strict=True) if is_large]
    assert codes.count("TRANSPOSE") == transposed
    others = [code for code in codes if code not in ("RESHAPE", "TRANSPOSE")]
    assert others == ["BATCH_MATMUL", "BATCH_MATMUL", "SUB", "MUL", "SUB"]


def test_normalization_saved_without_inner_ranges_loads(tmp_path):
    """Earlier versions saved no inner ranges. The loaded model takes the widest useful ranges."""
    x = keras.Input((16, 64))
    data = np.random.default_rng(0).normal(size=(16, 16, 64)).astype("float32")
    model = keras.Model(x, LayerNormalization(name="norm")(x))
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    quantized.save(tmp_path / "new.keras")
    with zipfile.ZipFile(tmp_path / "new.keras") as new:
        parts = {name: new.read(name) for name in new.namelist()}
    weights = tmp_path / "weights.h5"
    weights.write_bytes(parts["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        found: list[str] = []
        file.visit(found.append)
        inner = [name for name in found if name.endswith(("_observer", "_observer/vars"))]
        inner = [name for name in inner if "centered" in name or "reciprocal" in name]
        for name in sorted(inner, reverse=True):
            del file[name]
    assert inner
    parts["model.weights.h5"] = weights.read_bytes()
    with zipfile.ZipFile(tmp_path / "old.keras", "w") as old:
        for name, content in parts.items():
            old.writestr(name, content)
    loaded = keras_qat.load_model(tmp_path / "old.keras")
    advice = r"'norm_normalized/centered', 'norm_normalized/reciprocal'.*keras_qat.calibrate\("
    with pytest.warns(DefaultRangesWarning, match=advice):
        exact, y = np.array(model(data)), called(loaded, data)
    assert 10 * np.log10(np.sum(exact**2) / np.sum((exact - y) ** 2)) > 27
    findings = [each for each in keras_qat.check(loaded).findings if "not-saved" in each.code]
    assert [each.layer for each in findings] == ["norm_normalized"]
    with pytest.warns(DefaultRangesWarning, match="reciprocal"):
        keras_qat.export_litert(loaded, tmp_path / "old.tflite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DefaultRangesWarning)
        assert keras_qat.verify(loaded, tmp_path / "old.tflite", data[:2], verbose=0).exact
    keras_qat.calibrate(loaded, data, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DefaultRangesWarning)
        np.testing.assert_array_equal(loaded(data), quantized(data))
    assert all(each.code != "range-not-saved" for each in keras_qat.check(loaded).findings)


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling:UserWarning")
@pytest.mark.parametrize(
    ("make", "shape", "message"),
    [
        (layer(LayerNormalization, axis=[0, 1]), (4,), "batch axis"),
        (layer(LayerNormalization, axis=[1, 3, 5]), (2, 2, 2, 2, 2), "do not fit"),
        (layer(LayerNormalization, axis=[1, 2]), (2048, 1024), "do not fit"),
        (layer(LayerNormalization), (2**17 - 1,), "do not fit"),
        (layer(LayerNormalization, rms_scaling=True), (4,), "RMSNormalization"),
    ],
)
def test_normalization_refuses_these_arguments(make, shape, message):
    x = keras.Input(shape, batch_size=2)
    with pytest.raises(UnsupportedLayerError, match=f"(?s){message}.*norm|norm.*{message}"):
        keras_qat.clone_model(keras.Model(x, make(name="norm")(x)))


@pytest.mark.parametrize(("kind", "epsilon"), [("layer", 1e-3), ("rms", 1e-6), ("unit", 1e-12)])
def test_normalize_gradient_of_a_group_of_zeros_is_finite(kind, epsilon):
    layer, x = QNormalize((-1, 4), (1,), kind, epsilon), tf.zeros((2, 4))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    assert np.all(np.isfinite(keras.ops.convert_to_numpy(tape.gradient(y, x))))
    assert np.all(y.numpy() == 0)


@pytest.mark.parametrize(
    "make",
    some_quick(  # all are one layer, which the first has with factors and offsets
        [
            keras.layers.LayerNormalization,
            keras.layers.RMSNormalization,
            keras.layers.UnitNormalization,
            lambda: keras.layers.GroupNormalization(2),
        ],
        0,
    ),
)
def test_normalization_clone_is_quantized_like_the_model(make):
    model = keras.Sequential([keras.Input((6, 4)), make(), keras.layers.Dense(3)])
    x = np.random.default_rng(0).normal(size=(16, 6, 4)).astype("float32")
    clone = keras_qat.clone_model(model)
    assert keras_qat.check(clone).ok
    quantized = [keras_qat.quantize_model(each, calibration_data=x) for each in (model, clone)]
    expected, result = (called(each, x) for each in quantized)
    np.testing.assert_array_equal(result, expected)
