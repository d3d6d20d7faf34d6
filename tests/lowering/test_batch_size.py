"""Files of one batch size: constant shapes, and the same results."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers

import keras_qat
from keras_qat.errors import ExportError, TargetError
from tests import seeds
from tests.layers.litert_files import exported, operators_of
from tests.models import called, images, quantized, randomized


def decoder(batch_size=None):
    """Makes transposed convolutions, and axes that are merged with the batch and split again."""
    keras.utils.clear_session()
    seeds.seed(3)
    image = keras.Input((4, 4, 3), batch_size=batch_size, name="image")
    x = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(image)
    x = layers.TimeDistributed(layers.Dense(4))(layers.Reshape((8, 32))(x))
    x = layers.Conv1DTranspose(3, 2, strides=2)(x)
    return randomized(keras.Model(image, layers.Dense(5)(layers.Flatten()(x)), name="decoder"))


@pytest.fixture(scope="module")
def dynamic():
    return quantized(decoder(), images(16, shape=(4, 4, 3)))


def tensors_of(content):
    return schema.ModelT.InitFromPackedBuf(content).subgraphs[0].tensors


@pytest.mark.parametrize("size", [1, 3])
def test_export_with_a_batch_size_equals_that_of_a_model_with_one(dynamic, size, tmp_path):
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(dynamic, path, batch_size=size)
    model = keras_qat.quantize_model(decoder(size))
    # Calibration in other batches may round the ranges differently, depending on the CPU.
    model.set_weights(dynamic.get_weights())
    assert path.read_bytes() == exported(model)


def test_export_with_a_batch_size_writes_constant_shapes(dynamic):
    content = exported(dynamic, batch_size=2)
    assert not {"SHAPE", "ADD"} & set(operators_of(content))
    assert {"SHAPE", "ADD"} < set(operators_of(exported(dynamic)))
    assert [t.name for t in tensors_of(content) if t.shapeSignature is not None] == []
    assert tensors_of(content)[0].shape.tolist() == [2, 4, 4, 3]


def test_file_with_a_batch_size_computes_what_keras_does(dynamic, tmp_path):
    path, data = tmp_path / "model.tflite", images(7, seed=1, shape=(4, 4, 3))
    keras_qat.export_litert(dynamic, path, batch_size=3)
    report = keras_qat.verify(dynamic, path, data, verbose=0)
    assert report.exact and report.samples == 7
    expected = called(dynamic, data)
    deployed = keras_qat.LiteRTModel(path, kernels="default")
    assert (deployed.predict(data, verbose=0) == expected).all()
    assert (deployed.predict(data, batch_size=2, verbose=0) == expected).all()


def test_inference_equals_the_kernels_of_the_last_file(dynamic, tmp_path):
    """XNNPACK takes a transposed convolution only if the batch is fixed, and rounds differently."""
    data, results = images(64, seed=1, shape=(4, 4, 3)), {}
    for size in (None, 1):
        path = tmp_path / f"{size}.tflite"
        keras_qat.export_litert(dynamic, path, batch_size=size)
        results[size] = called(dynamic, data)
        assert (keras_qat.LiteRTModel(path).predict(data, verbose=0) == results[size]).all()
    assert np.count_nonzero(results[None] != results[1])
    dynamic.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert (called(loaded, data) == results[1]).all()
    # The report is about the file, whatever was exported last.
    report = keras_qat.verify(dynamic, tmp_path / "None.tflite", data, kernels="default", verbose=0)
    assert report.exact
    assert (called(dynamic, data) == results[1]).all()


def test_model_with_a_batch_size_takes_a_remainder(tmp_path):
    """Verifies 7 samples in batches of 4. Keras's `predict` takes them, too."""
    data, path = images(7, shape=(4, 4, 3)), tmp_path / "model.tflite"
    model = decoder(4)
    qat = keras_qat.quantize_model(model, calibration_data=data)
    keras_qat.calibrate(qat, [data], verbose=0)
    keras_qat.export_litert(qat, path)
    report = keras_qat.verify(qat, path, data, verbose=0)
    assert report.exact and report.samples == 7
    assert max(row.elements for row in report.layers["default"].values()) == 7 * 8 * 8 * 4
    assert keras_qat.check(model, calibration_data=data).errors == ()


@pytest.mark.parametrize("size", [0, -1, True, 1.0, "1", 10**9])
def test_export_refuses_an_invalid_batch_size(dynamic, size, tmp_path):
    with pytest.raises(ExportError, match="must be a positive integer"):
        keras_qat.export_litert(dynamic, tmp_path / "model.tflite", batch_size=size)
    assert list(tmp_path.iterdir()) == []


def test_export_refuses_another_batch_size_than_the_model_has(tmp_path):
    qat = quantized(decoder(2), images(2, shape=(4, 4, 3)))
    with pytest.raises(ExportError, match=r"'image'.*batch_size=2.*Received: batch_size=1"):
        keras_qat.export_litert(qat, tmp_path / "model.tflite", batch_size=1)
    assert len(exported(qat, batch_size=2)) == len(exported(qat))


def test_edge_tpu_takes_a_transposed_convolution_of_a_fixed_batch(tmp_path):
    x = keras.Input((4, 4, 3))
    y = layers.Conv2DTranspose(4, 3, strides=2, padding="same", name="up")(x)
    qat, path = quantized(keras.Model(x, y), images(shape=(4, 4, 3))), tmp_path / "model.tflite"
    with pytest.raises(TargetError, match=r"'up'.*batch_size=1"):
        keras_qat.export_litert(qat, path, target="edgetpu")
    keras_qat.export_litert(qat, path, target="edgetpu", batch_size=1)
    assert operators_of(path.read_bytes()) == ["TRANSPOSE_CONV"]
