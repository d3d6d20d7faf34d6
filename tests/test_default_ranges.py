"""Tensors that lack min/max data: the error that names them, and default ranges."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import DefaultRangesWarning, InvalidDefaultRangeError, MissingRangeError
from keras_qat.layers import UnfusedBatchNormalization
from tests.layers.litert_files import run_litert
from tests.models import called, images, linear, network, quantized, small_images, small_network

RANGE = (-6.0, 6.0)


def lacking(*names):
    """Makes a calibrated network without the min/max data of some tensors."""
    model = quantized(network(), images())
    for name in names:
        model.get_layer(name).observer.reset()
    return model


def export(model, path, **arguments):
    keras_qat.export_litert(model, path, **arguments)
    return path.read_bytes()


def test_missing_range_error_of_export_names_tensors_operators_and_fixes(tmp_path):
    with pytest.raises(MissingRangeError) as caught:
        export(lacking("add", "mean"), tmp_path / "model.tflite")
    assert str(caught.value) == (
        "2 tensor(s) lack min/max data, which is necessary for quantization: 'add', 'mean'. "
        "'add' is an input to the MAX_POOL_2D operator producing 'pool'; "
        "'mean' is an input to the FULLY_CONNECTED operator producing 'head'. "
        "Layer: 'add'. To fix it: Calibrate (`keras_qat.calibrate(model, data)`, or "
        "`calibration_data` of `quantize_model`), or train the model. If accuracy does not matter, "
        "pass `default_ranges_stats=(min, max)` to `export_litert` or `quantize_model`; "
        "`keras_qat.suggest_default_ranges(model, data)` finds a range that covers all values."
    )
    assert caught.value.tensors == ("add", "mean")
    assert not (tmp_path / "model.tflite").exists()


def test_missing_range_error_names_all_tensors_and_consumers_of_the_first(tmp_path):
    x = inputs = keras.Input((3,), name="x")
    for i in range(20):
        x = keras.layers.Dense(3, name=f"dense{i}")(x)
    model = keras_qat.quantize_model(keras.Model(inputs, [x, keras.layers.Add(name="sum")([x, x])]))
    with pytest.raises(MissingRangeError, match="^22 tensor") as caught:
        export(model, tmp_path / "model.tflite")
    text = str(caught.value)
    assert all(f"'dense{i}'" in text for i in range(20)) and "'sum'" in text
    assert text.count(" is an input to the ") == 4
    assert "'x_quantize' is an input to the FULLY_CONNECTED operator producing 'dense0';" in text


def test_missing_range_error_of_inference_names_the_consumers():
    model = lacking("conv", "mean")
    message = "'conv' is an input to the layer 'depthwise' .QDepthwiseConv2D. and an input to the "
    with pytest.raises(MissingRangeError, match=message):
        called(model, images())


def test_missing_range_error_names_a_tensor_inside_a_layer(tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 3)), UnfusedBatchNormalization(name="norm")])
    data = small_images()
    made = quantized(model, data)
    made.get_layer("norm").product_observer.reset()
    message = "'norm/product' is an input to the ADD operator producing 'norm'. Layer: 'norm'"
    with pytest.raises(MissingRangeError, match=message):
        export(made, tmp_path / "model.tflite")
    with pytest.warns(DefaultRangesWarning, match=r"1 tensor.*'norm/product' \(-2.0, 2.0\)"):
        export(made, tmp_path / "model.tflite", default_ranges_stats=(-2, 2))
    assert keras_qat.verify(made, tmp_path / "model.tflite", data, verbose=0).exact


def test_default_ranges_apply_to_lacking_tensors_only(tmp_path):
    data, path, model = images(), tmp_path / "model.tflite", lacking("conv", "add")
    own = quantized(network(), data)
    with pytest.warns(DefaultRangesWarning, match="2 tensor.*'conv'.*'add'"):
        content = export(model, path, default_ranges_stats=RANGE)
    assert model.default_ranges == {"conv": RANGE, "add": RANGE}
    tensors, _ = run_litert(content, [data])
    theirs, _ = run_litert(export(own, tmp_path / "own.tflite"), [data])
    for name, (_, details) in tensors.items():
        if name in ("conv", "add", "pool"):  # -6 is 127.5 steps below 0
            assert details["quantization"][0] == np.float32(12) * np.float32(1 / 255)
        elif name in ("image", "depthwise", "mean"):
            assert details["quantization"] == theirs[name][1]["quantization"]
    report = keras_qat.verify(model, path, data, verbose=0)
    assert report.exact
    values, details = tensors["head"]
    scale, zero_point = details["quantization"]
    expected = (values.astype("float32") - zero_point) * np.float32(scale)
    np.testing.assert_array_equal(called(model, data), expected)


def test_verify_names_default_ranges_and_their_noise(tmp_path):
    data, path, sqnr = images(), tmp_path / "model.tflite", {}
    model = lacking("conv")
    model.set_target("reference")  # LiteRT's default kernels overflow with the wide range
    suggested = keras_qat.suggest_default_ranges(model, data, verbose=0)
    assert suggested is not None
    for ends in (suggested, (-500.0, 500.0), (0.0, 0.01)):
        with pytest.warns(DefaultRangesWarning):
            export(model, path, default_ranges_stats=ends)
        report = keras_qat.verify(model, path, data, verbose=0)
        assert report.exact
        assert report.to_dict()["default_ranges"] == {"conv": pytest.approx(ends)}
        sqnr[ends] = report.layers["reference"]["conv"].sqnr
        assert f"1 tensor(s) have a default range: 'conv' {ends[0]:g} to" in report.verdict
    assert sqnr[suggested] > 30 > 10 > max(sqnr[-500.0, 500.0], sqnr[0.0, 0.01])
    keras_qat.calibrate(model, data, verbose=0)
    export(model, path)
    assert "default range" not in keras_qat.verify(model, path, data, verbose=0).verdict


def test_suggest_default_ranges_covers_all_lacking_tensors():
    one = keras.layers.Dense(1, kernel_initializer="ones", name="sum")
    model = keras_qat.quantize_model(keras.Sequential([keras.Input((2,), name="x"), one]))
    data = np.array([[3, 4], [-2, -1], [0, 1]], "float32")
    assert keras_qat.suggest_default_ranges(model, data, verbose=0) == (-3, 7)
    assert model.lacking_ranges == ("x_quantize", "sum")
    model.get_layer("sum").observer.widen(-3, 7)
    assert keras_qat.suggest_default_ranges(model, data, verbose=0) == (-2, 4)
    model.get_layer("x_quantize").observer.widen(-2, 4)
    assert keras_qat.suggest_default_ranges(model, data, verbose=0) is None


def test_default_ranges_last_until_training(tmp_path):
    model = keras_qat.quantize_model(small_network(), default_ranges_stats=(1, 5))
    data = small_images()
    names = {"image_quantize", "conv", "head"}
    assert model.default_ranges == dict.fromkeys(names, (0, 5))  # each range includes 0
    before = called(model, data)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.default_ranges == model.default_ranges
    np.testing.assert_array_equal(called(loaded, data), before)
    with pytest.warns(DefaultRangesWarning, match="3 tensor"):
        export(loaded, tmp_path / "model.tflite")
    assert keras_qat.verify(loaded, tmp_path / "model.tflite", data, verbose=0).exact
    untouched = keras_qat.quantize_model(small_network())
    for each in (loaded, untouched):
        each(data, training=True)
    assert loaded.default_ranges == {} and loaded.lacking_ranges == ()
    for name in names:
        mine, theirs = (each.get_layer(name).observer for each in (loaded, untouched))
        assert float(mine.minimum) == float(theirs.minimum)
        assert (int(mine.updates), float(mine.maximum)) == (1, float(theirs.maximum))


def test_default_ranges_ignore_calibrated_tensors(tmp_path):
    data = small_images()
    model = keras_qat.quantize_model(
        small_network(), calibration_data=data, default_ranges_stats=RANGE
    )
    assert model.default_ranges == {}
    export(model, tmp_path / "model.tflite", default_ranges_stats=RANGE)  # raises no warning


@pytest.mark.parametrize(
    "value",
    [(1, -1), (0, float("inf")), (float("nan"), 1), (-3e38, 3e38), (1e300, 1e301), (1,), 5, "ab"]
    + [(1, 2, 3), ((1, 2), 3), {"a": 1}, (None, 1), (10**400, 1)],
    ids=lambda value: str(value)[:20],
)
def test_default_ranges_refuse_invalid_values(value, tmp_path):
    model = keras_qat.quantize_model(linear())
    lacked = model.lacking_ranges
    with pytest.raises(InvalidDefaultRangeError, match="default_ranges_stats=.* To fix it: "):
        export(model, tmp_path / "model.tflite", default_ranges_stats=value)
    with pytest.raises(InvalidDefaultRangeError):
        keras_qat.quantize_model(linear(), default_ranges_stats=value)
    assert lacked and model.lacking_ranges == lacked
