"""Magnitude pruning. The oracles are numbers by hand, and the integers of the file."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.callbacks import MagnitudePruning
from keras_qat.errors import InvalidPruningError, NotQuantizedError
from tests import seeds
from tests.models import linear

SHAPE = (6, 6, 8)


def network():
    seeds.seed(0)
    return keras.Sequential(
        [
            keras.Input(SHAPE, name="image"),
            layers.Conv2D(8, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.DepthwiseConv2D(3, name="depthwise"),
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(4, name="head"),
        ]
    )


def data(count=24):
    rng = np.random.default_rng(0)
    return rng.random((count, *SHAPE), "float32"), rng.random((count, 4), "float32")


def trained(pruning, scheme="int8", steps=6, model=None):
    """Trains six steps of four samples."""
    x, y = data(4 * steps)
    qat = model or keras_qat.quantize_model(network(), scheme=scheme)
    if model is None:
        qat.compile(keras.optimizers.Adam(0.01), "mse")
    qat.fit(x, y, batch_size=4, shuffle=False, callbacks=[pruning], verbose=0)
    return qat


def kernel(model, name):
    return ops.convert_to_numpy(model.get_layer(name).kernel)


def share(values):
    return np.mean(values == 0)


@pytest.mark.parametrize(
    "scheme", ["int4", *(pytest.param(each, marks=pytest.mark.slow) for each in ("int8", "uint8"))]
)
def test_magnitude_pruning_zeros_are_in_the_file(scheme, tmp_path):
    qat = trained(MagnitudePruning(0.75, exclude=["depthwise"]), scheme)
    weights = keras_qat.integer_weights(qat)
    for name, axes in {"conv": (3, 0, 1, 2), "head": (1, 0)}.items():
        assert share(kernel(qat, name)) == 0.75
        stored = weights[f"{name}/kernel"]
        zero_points = stored.zero_point.reshape(-1, *(1,) * (stored.values.ndim - 1))
        is_zero = kernel(qat, name).transpose(axes) == 0
        assert np.all((stored.values == zero_points)[is_zero])
    assert share(kernel(qat, "depthwise")) == 0
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(qat, path)
    assert keras_qat.verify(qat, path, data(4)[0]).exact


def test_magnitude_pruning_removes_the_smallest_weights():
    qat = keras_qat.quantize_model(linear(4, 2))
    qat.get_layer("dense").kernel.assign([[4.0, -0.1], [0.2, 3.0], [-5.0, 0.3], [2.0, -6.0]])
    qat.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = np.ones((2, 4), "float32"), np.ones((2, 2), "float32")
    qat.fit(x, y, callbacks=[MagnitudePruning(0.5)], verbose=0)
    expected = [[4.0, 0.0], [0.0, 3.0], [-5.0, 0.0], [0.0, -6.0]]
    assert kernel(qat, "dense").tolist() == expected


def test_magnitude_pruning_of_two_of_four_holds_in_the_layout_of_the_file():
    qat = trained(MagnitudePruning((2, 4)))
    stored = keras_qat.integer_weights(qat)
    for name in ("conv/kernel", "head/kernel"):
        blocks = stored[name].values.reshape(-1, 4)
        assert np.all((blocks != 0).sum(axis=1) <= 2) and np.any(blocks)
    assert share(kernel(qat, "conv")) == share(kernel(qat, "head")) == 0.5


class Shares(keras.callbacks.Callback):
    """Notes the share of zeros after each batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        del batch, logs
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        self.seen.append(float(share(kernel(self.model, "conv"))))


def test_magnitude_pruning_follows_its_schedule():
    shares, (x, y) = Shares(), data()
    qat = keras_qat.quantize_model(network())
    qat.compile(keras.optimizers.Adam(0.01), "mse")
    pruning = MagnitudePruning(0.5, begin_step=1, end_step=5, frequency=2)
    callbacks = [pruning, shares]
    qat.fit(x, y, batch_size=4, callbacks=callbacks, verbose=0)
    # At steps 1, 3 and 5 of the schedule 0.5 * (1 - (1 - t) ** 3), with t = 0, 1/2 and 1.
    assert shares.seen == [0.0, 0.0, 0.4375, 0.4375, 0.5, 0.5]


def test_magnitude_pruning_at_step_0_prunes_before_the_first_step():
    seen, (x, y) = [], data()
    qat = keras_qat.quantize_model(network())
    qat.compile("adam", "mse")
    noting = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(share(kernel(qat, "conv")))
    )
    callbacks = [MagnitudePruning(0.5, begin_step=0, end_step=0), noting]
    qat.fit(x[:4], y[:4], batch_size=4, callbacks=callbacks, verbose=0)
    assert seen == [0.5]


def test_magnitude_pruning_continues_after_loading(tmp_path):
    pruning = MagnitudePruning(0.5, end_step=8, frequency=1)
    trained(pruning, steps=4).save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert share(kernel(loaded, "conv")) == pytest.approx(0.4375, abs=1e-3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(pruning))
    assert share(kernel(trained(again, steps=4, model=loaded), "conv")) == 0.5


def test_magnitude_pruning_without_a_share_keeps_the_zeros_of_the_float_model():
    model = network()
    source = kernel(model, "conv")
    source[..., ::2, :] = 0
    model.get_layer("conv").kernel.assign(source)
    qat = keras_qat.quantize_model(model)
    qat.compile(keras.optimizers.Adam(0.01), "mse")
    trained(MagnitudePruning(None), model=qat)
    found = kernel(qat, "conv")
    assert np.array_equal(found == 0, source == 0) and not np.array_equal(found, source)


def test_magnitude_pruning_of_averaged_weights_ends_with_zeros():
    qat = keras_qat.quantize_model(network())
    qat.compile(keras.optimizers.Adam(0.01, use_ema=True), "mse")
    trained(MagnitudePruning(0.5, begin_step=3), model=qat)
    assert share(kernel(qat, "conv")) >= 0.5


BAD = [
    {"sparsity": 1.5},
    {"sparsity": "half"},
    {"sparsity": (4, 2)},
    {"sparsity": (1, 2, 3)},
    {"sparsity": True},
    {"begin_step": -1},
    {"end_step": 0.5},
    {"frequency": 0},
]


@pytest.mark.parametrize("arguments", BAD, ids=str)
def test_magnitude_pruning_refuses_bad_arguments(arguments):
    with pytest.raises(InvalidPruningError):
        MagnitudePruning(**arguments)


def test_magnitude_pruning_names_unknown_layers():
    with pytest.raises(InvalidPruningError, match="hed"):
        trained(MagnitudePruning(exclude=["hed"]))


def test_magnitude_pruning_refuses_a_plain_keras_model():
    model = linear()
    model.compile("sgd", "mse")
    with pytest.raises(NotQuantizedError, match="MagnitudePruning|prune"):
        model.fit(np.ones((1, 4)), np.ones((1, 2)), callbacks=[MagnitudePruning()], verbose=0)


def test_inspect_litert_reports_the_compressed_size_of_each_operator(tmp_path):
    qat, sizes = keras_qat.quantize_model(network(), calibration_data=data(4)[0]), []
    for factor in (1, 0):
        layer = qat.get_layer("conv")
        layer.kernel.assign(kernel(qat, "conv") * np.where(np.arange(8) < 7, factor, 1))
        keras_qat.export_litert(qat, tmp_path / "model.tflite")
        report = keras_qat.inspect_litert(tmp_path / "model.tflite")
        conv = next(each for each in report.operators if each.name == "CONV_2D")
        assert conv.weight_bytes == 8 * 3 * 3 * 8 + 4 * 8
        sizes.append((conv.compressed_bytes, report.compressed_bytes))
        assert f"{conv.compressed_bytes:,}" in str(report) and "after gzip" in str(report)
    assert sizes[1][0] < 0.5 * sizes[0][0] and sizes[1][1] < sizes[0][1]
