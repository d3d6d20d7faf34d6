"""quantize_model(weight_range_rule=...): the file, training and saving, by LiteRT's interpreter."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qat
from keras_qat.errors import InvalidRangeRuleError
from keras_qat.quantizers.least_error import least_error_step
from keras_qat.quantizers.range_rules import Lsq, MinMax, Mse
from tests.layers.litert_files import constants_of, exported
from tests.models import images, labels, network, small_images, small_network

SCHEME = "int4"


def quantized(scheme=SCHEME, rule=None, model=None, data=None):
    qat = keras_qat.quantize_model(model or small_network(), scheme, weight_range_rule=rule)
    keras_qat.calibrate(qat, small_images() if data is None else data, verbose=0)
    return qat


def trained(qat, data=None, epochs=2, optimizer=None):
    qat.compile(optimizer or keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    data = small_images() if data is None else data
    qat.fit(data, labels(len(data)), batch_size=8, epochs=epochs, verbose=0)
    return qat


@pytest.mark.parametrize(
    ("scheme", "rule"),
    [(SCHEME, "lsq"), ("uint8", "mse")]
    + [
        pytest.param(scheme, rule, marks=pytest.mark.slow)
        for scheme in ("int8_per_tensor", "uint8", SCHEME)
        for rule in ("mse", "lsq", "percentile", "moving_average")
        if (scheme, rule) not in ((SCHEME, "lsq"), ("uint8", "mse"))
    ],
)
def test_weight_rule_is_exact_to_litert_after_training(scheme, rule, tmp_path):
    qat = trained(quantized(scheme, rule, network(), images()), images())
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    data = images(32, seed=1)
    report = keras_qat.verify(qat, tmp_path / "model.tflite", data, kernels="default", verbose=0)
    assert report.exact, str(report)


def test_weight_rule_mse_writes_the_clipped_weights_of_least_error():
    qat = quantized(rule="mse")
    q, scale = constants_of(exported(qat))["head/kernel"]
    kernel = keras.ops.convert_to_numpy(qat.get_layer("head").kernel)
    step = np.asarray(least_error_step(kernel, 0, qat.get_layer("head").scheme))
    np.testing.assert_allclose(np.max(scale), np.max(step), rtol=1e-6)
    clipped = np.abs(kernel / step) > 7.5
    assert clipped.any() and np.abs(q).max() == 7


def test_weight_rule_mse_follows_the_folded_batch_normalization():
    qat = quantized(rule="mse")
    conv = qat.get_layer("conv")
    steps = keras.ops.convert_to_numpy(conv.folded_weights().step)
    conv.batch_normalization.moving_variance.assign(
        conv.batch_normalization.moving_variance * 4 + 3 * conv.batch_normalization.epsilon
    )
    np.testing.assert_allclose(conv.folded_weights().step, steps / 2, rtol=1e-5)


def test_training_forward_has_the_weights_of_the_file():
    for rule in ("mse", "lsq"):
        inputs = keras.Input((64,))
        model = keras.Model(inputs, keras.layers.Dense(1, use_bias=False, name="dense")(inputs))
        values = np.random.default_rng(0).normal(size=(64, 1)).astype("float32")
        model.get_layer("dense").kernel.assign(values)
        qat = quantized(rule=rule, model=model, data=np.eye(64, dtype="float32"))
        y = np.asarray(qat(np.eye(64, dtype="float32"), training=True))
        step = np.asarray(qat.get_layer("dense").weight_range.current(1.0))
        expected = np.clip(np.rint(values / step), -7, 7) * step
        # The output is rounded to 255 steps.
        np.testing.assert_allclose(y, expected, atol=values.max() / 100)


def test_weight_rule_default_depends_on_the_width_of_each_layer():
    qat = keras_qat.quantize_model(small_network(), SCHEME, overrides={"head": "int8"})
    assert qat.get_layer("conv").weight_range_rule == Mse()
    assert qat.get_layer("head").weight_range_rule == MinMax()
    assert qat.get_layer("head").weight_range is None


@pytest.mark.parametrize("rule", [pytest.param("mse", marks=pytest.mark.slow), Lsq(0.5)])
def test_weight_rule_is_saved_with_the_model(rule, tmp_path):
    qat = trained(quantized("int8", rule), epochs=1)
    qat.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("conv").weight_range_rule == qat.get_layer("conv").weight_range_rule
    assert exported(loaded) == exported(qat)
    other = keras_qat.quantize_model(qat, target="reference")
    assert constants_of(exported(other))["conv/kernel"][0].tolist() == (
        constants_of(exported(qat))["conv/kernel"][0].tolist()
    )


def test_weight_rule_lsq_learns_steps_unless_layers_are_frozen():
    for rule, count in (("mse", 0), ("lsq", 2)):
        qat = quantized(rule=rule)
        factors = [v for v in qat.trainable_variables if v.path.endswith("factor")]
        assert len(factors) == count
    qat.get_layer("head").trainable = False
    trained(qat, epochs=1)
    assert np.any(np.asarray(factors[0]) != 1)
    assert np.all(np.asarray(qat.get_layer("head").weight_range.factor) == 1)


def test_weight_rule_mse_moves_steps_with_the_weights_unless_frozen():
    qat = quantized(rule="mse")
    conv = qat.get_layer("conv")
    qat.get_layer("head").trainable = False
    frozen = keras.ops.convert_to_numpy(qat.get_layer("head").weight_range.step)
    qat.get_layer("head").kernel.assign(qat.get_layer("head").kernel * 2)
    before = keras.ops.convert_to_numpy(conv.weight_range.step)
    conv.kernel.assign(conv.kernel * 2)
    with tf.GradientTape():
        for _ in range(6):
            qat(small_images(), training=True)
    moved = keras.ops.convert_to_numpy(conv.weight_range.step)
    np.testing.assert_allclose(moved, 2 * before, rtol=0.15)
    assert np.array_equal(qat.get_layer("head").weight_range.step, frozen)
    conv.kernel.assign(conv.kernel / 2)
    keras_qat.calibrate(qat, small_images(), verbose=0)
    np.testing.assert_allclose(conv.weight_range.step, before, rtol=1e-5)


def test_weight_rule_minmax_of_4_bits_covers_all_weights():
    qat = quantized(rule="minmax")
    _, scale = constants_of(exported(qat))["head/kernel"]
    kernel = keras.ops.convert_to_numpy(qat.get_layer("head").kernel)
    np.testing.assert_allclose(scale, np.abs(kernel).max(0) / 7, rtol=1e-6)


def test_quantize_model_refuses_unknown_weight_rules():
    with pytest.raises(InvalidRangeRuleError, match="Unknown range rule"):
        keras_qat.quantize_model(small_network(), weight_range_rule="best")
