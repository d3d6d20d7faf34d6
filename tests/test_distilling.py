"""Distiller and reestimate_batch_norm, by formulas in NumPy and the statistics of data."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidTrainingError, MissingRangeError, NotQuantizedError
from keras_qat.layers.core.distillation import soft_divergence
from tests import seeds
from tests.layers.litert_files import exported

RNG = np.random.default_rng(0)
DATA = RNG.normal(size=(64, 6)).astype("float32")
LABELS = np.arange(64) % 3


def network(activation: str | None = "softmax", seed=0):
    seeds.seed(seed)
    steps = [layers.Dense(8, name="first"), layers.BatchNormalization(name="norm"), layers.ReLU()]
    head = layers.Dense(3, activation, name="head")
    return keras.Sequential([keras.Input((6,), name="x"), *steps, head])


def quantized(model, **options):
    qat = keras_qat.quantize_model(model, **options)
    keras_qat.calibrate(qat, DATA, verbose=0)
    return qat


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def divergence(a, b, temperature):
    p, q = softmax(a / temperature), softmax(b / temperature)
    return (p * np.log(p / q)).sum(axis=-1) * temperature**2


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_divergence_is_that_of_the_softened_probabilities(temperature):
    a, b = RNG.normal(size=(2, 5, 4))
    found = soft_divergence(a, b, temperature=temperature, from_logits=True)
    np.testing.assert_allclose(found, divergence(a, b, temperature), rtol=1e-5)
    found = soft_divergence(softmax(a), softmax(b), temperature=temperature, from_logits=False)
    np.testing.assert_allclose(found, divergence(a, b, temperature), rtol=1e-4)


def fit(distiller, *data, epochs=1, **compiled):
    distiller.compile(keras.optimizers.Adam(0.01), **compiled)
    history = distiller.fit(*data, epochs=epochs, batch_size=64, shuffle=False, verbose=0)
    return history.history["loss"]


def test_distiller_weights_both_losses():
    teacher, other = network(seed=1), network(seed=2)
    losses = {}
    for weight in (0.0, 0.25, 1.0):
        student = quantized(other)
        distiller = keras_qat.Distiller(student, teacher, distillation_weight=weight)
        loss = "sparse_categorical_crossentropy"
        losses[weight] = fit(distiller, DATA, LABELS, loss=loss)[0]
    assert losses[0.25] == pytest.approx(0.75 * losses[0.0] + 0.25 * losses[1.0], rel=1e-4)
    own = np.asarray(quantized(other)(DATA, training=True))
    wanted = np.asarray(teacher(DATA))
    by_hand = divergence(np.log(wanted), np.log(np.maximum(own, 1 / 512)), 2.0).mean()
    assert losses[1.0] == pytest.approx(by_hand, rel=1e-3)


def test_distiller_without_labels_trains_only_the_student(tmp_path):
    teacher = network(seed=1)
    before = [np.array(v) for v in teacher.variables]
    student = quantized(network(seed=2), range_rule="lsq", weight_range_rule="lsq")
    distiller = keras_qat.Distiller(student, teacher)
    losses = fit(distiller, DATA, epochs=20)
    assert losses[-1] < 0.5 * losses[0]
    assert all(np.array_equal(a, b) for a, b in zip(before, teacher.variables, strict=True))
    assert all(each.trainable for each in teacher.layers)
    np.testing.assert_array_equal(
        distiller.predict(DATA, verbose=0), student.predict(DATA, verbose=0)
    )
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.saving.load_model(tmp_path / "distiller.keras")
    assert loaded.temperature == 2.0 and exported(loaded.student) == exported(student)
    keras_qat.export_litert(loaded.student, tmp_path / "model.tflite")
    report = keras_qat.verify(loaded.student, tmp_path / "model.tflite", DATA, verbose=0)
    assert report.exact, str(report)
    again = loaded.evaluate(DATA, verbose=0)
    assert again == pytest.approx(distiller.evaluate(DATA, verbose=0), rel=1e-5)


def test_distiller_of_a_regression_by_mean_squared_errors():
    teacher, other = network(None, 1), network(None, 2)
    student = quantized(other)
    distiller = keras_qat.Distiller(student, teacher, distillation_loss="mse")
    own, wanted = np.asarray(quantized(other)(DATA, training=True)), np.asarray(teacher(DATA))
    assert fit(distiller, DATA)[0] == pytest.approx(np.square(own - wanted).mean(), rel=1e-4)


def test_distiller_refuses_other_outputs_and_arguments():
    student = keras_qat.quantize_model(network())
    other = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    with pytest.raises(InvalidTrainingError, match="different outputs.*To fix it"):
        keras_qat.Distiller(student, other)
    wrong: list[Any] = [{"temperature": 0}, {"distillation_weight": 1.5}]
    for options in wrong:
        with pytest.raises(InvalidTrainingError, match="out of its limits.*To fix it"):
            keras_qat.Distiller(student, network(), **options)
    distiller = keras_qat.Distiller(student, network())
    with pytest.raises(MissingRangeError):
        distiller.predict(DATA, verbose=0)


def test_reestimate_batch_norm_computes_the_statistics_of_the_quantized_sums():
    qat = quantized(network(), scheme="int4")
    first = qat.get_layer("first")
    integers, step = (np.asarray(each, "float64") for each in first.kernel_integers())
    scale, zero_point = qat.layers[1].output_grid()
    x = np.clip(np.rint(DATA / np.float32(scale)) + int(zero_point), -128, 127)
    sums = (x - int(zero_point)) * np.float64(scale) @ (integers * step) + np.asarray(first.bias)
    norm = first.batch_normalization
    others = [v for v in qat.variables if v is not norm.moving_mean and "variance" not in v.path]
    before = [np.array(v) for v in others]
    keras_qat.freeze_batch_norm(qat)
    keras_qat.reestimate_batch_norm(qat, [DATA[:40], DATA[40:]])
    np.testing.assert_allclose(norm.moving_mean, sums.mean(0), atol=1e-4)
    np.testing.assert_allclose(norm.moving_variance, sums.var(0), rtol=1e-3)
    assert all(np.array_equal(a, b) for a, b in zip(before, others, strict=True))
    assert norm.momentum == 0.99 and not norm.trainable


def test_reestimate_batch_norm_of_unfused_normalizations():
    x = keras.Input((6,), name="x")
    y = layers.BatchNormalization(name="norm")(x)
    qat = quantized(keras.Model(x, [layers.Dense(2)(y), layers.ReLU()(y)]))
    keras_qat.reestimate_batch_norm(qat, DATA)
    found = [v for v in qat.variables if v.path.endswith("moving_mean")]
    np.testing.assert_allclose(found[0], DATA.mean(0), atol=0.02)


def test_reestimate_batch_norm_refuses_models_without_normalization_or_ranges():
    bare = keras.Sequential([keras.Input((6,)), layers.Dense(4)])
    with pytest.raises(NotQuantizedError, match="no batch normalization"):
        keras_qat.reestimate_batch_norm(quantized(bare), DATA)
    with pytest.raises(MissingRangeError):
        keras_qat.reestimate_batch_norm(keras_qat.quantize_model(network()), DATA)
