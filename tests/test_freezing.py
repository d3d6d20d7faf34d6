"""freeze_batch_norm: batch normalizations stay unchanged in training, and the file is exact."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import NotQuantizedError
from tests.models import images, labels, quantized, small_network

DATA = images(16, shape=(4, 4, 3))


def trained(model):
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(DATA, labels(16), verbose=0)
    norms = (getattr(layer, "batch_normalization", None) for layer in model.layers)
    variables = [v for norm in norms if norm is not None for v in norm.variables]
    return [keras.ops.convert_to_numpy(v).copy() for v in variables]


def is_same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_freeze_batch_norm_keeps_statistics_and_is_exact(tmp_path):
    qat = quantized(small_network(), DATA)
    before = trained(qat)
    keras_qat.freeze_batch_norm(qat)
    assert len(before) == 4 and is_same(trained(qat), before)
    qat.save(tmp_path / "model.keras")
    assert is_same(trained(keras.saving.load_model(tmp_path / "model.keras")), before)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", DATA, verbose=0).exact
    keras_qat.unfreeze_batch_norm(keras.Sequential([qat]))
    assert not is_same(trained(qat), before)


def test_freeze_batch_norm_refuses_a_model_without_batch_norms():
    with pytest.raises(NotQuantizedError, match="no batch normalization"):
        keras_qat.freeze_batch_norm(small_network())


def test_frozen_layers_without_weights_hold_their_ranges():
    x = keras.Input((4,))
    both = [keras.layers.Dense(3, name=name)(x) for name in ("left", "right")]
    y = keras.layers.MaxPooling1D()(
        keras.layers.Reshape((3, 1))(keras.layers.Add(name="sum")(both))
    )
    model = keras.Model(x, keras.layers.Flatten()(y))
    model.get_layer("sum").trainable = False
    data = images(16, shape=(4,))
    qat = quantized(model, data)
    qat.compile(keras.optimizers.SGD(0.0), "mse")

    def ends(name):
        return qat.get_layer(name).observer.limits

    before = {name: ends(name) for name in ("left", "sum")}
    for name in ("left", "right"):
        qat.get_layer(name).kernel.assign(50 * qat.get_layer(name).kernel)
    for _ in range(12):  # ranges that fit none of 64 samples are replaced, one after the other
        qat.train_on_batch(data, np.zeros((16, 1)))
    assert ends("sum") == before["sum"] and ends("left") != before["left"]


def base_model():
    x = keras.Input((4, 4, 3))
    y = keras.layers.Conv2D(4, 3, use_bias=False, name="conv")(x)
    y = keras.layers.ReLU()(keras.layers.BatchNormalization(name="folded")(y))
    base = keras.Model(x, keras.layers.BatchNormalization(name="alone")(y), name="base")
    for name in ("folded", "alone"):  # other statistics than those of the data
        base.get_layer(name).moving_mean.assign([0.5, -0.5, 0.25, 0.0])
        base.get_layer(name).moving_variance.assign([0.5, 2.0, 1.5, 3.0])
    return base


def transferred():
    """Calls a base model as Keras's guide to transfer learning does."""
    x = keras.Input((4, 4, 3))
    y = keras.layers.GlobalAveragePooling2D()(base_model()(x, training=False))
    y = keras.layers.BatchNormalization(name="direct")(y, training=False)
    return keras.Model(x, keras.layers.Dense(5, activation="softmax", name="head")(y))


def test_batch_norms_called_with_training_false_stay_in_inference_mode(tmp_path):
    new = keras_qat.quantize_model(transferred(), calibration_data=DATA)
    before = trained(new)
    new.save(tmp_path / "model.keras")
    new = keras.saving.load_model(tmp_path / "model.keras")
    assert len(before) == 12 and is_same(trained(new), before)


def test_batch_norm_that_is_also_called_in_training_mode_trains():
    x, norm = keras.Input((4,)), keras.layers.BatchNormalization(name="norm")
    model = keras.Model(x, keras.layers.Add()([norm(x, training=False), norm(x)]))
    new = keras_qat.clone_model(model)
    before = [keras.ops.convert_to_numpy(v).copy() for v in new.variables]
    new(np.ones((8, 4), "float32"), training=True)
    after = [keras.ops.convert_to_numpy(v) for v in new.variables]
    assert not is_same(after, before)


class Block(keras.layers.Layer):
    """Passes on its argument `training`, whose default is False."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norm = keras.layers.BatchNormalization(name="norm")

    def call(self, x, training=False):
        return self.norm(x, training=training)


def test_batch_norm_of_a_layer_that_passes_on_training_trains():
    x = keras.Input((4,))
    model = keras.Model(x, Block()(x))
    data = np.random.default_rng(0).normal(2.0, 3.0, (16, 4)).astype("float32")
    expected = model(data, training=True)
    np.testing.assert_allclose(
        keras_qat.clone_model(model)(data, training=True), expected, atol=1e-5
    )
