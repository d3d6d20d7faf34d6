"""Quantizing, training, exporting and verifying on JAX, in a separate process."""

import importlib.util

import pytest

from tests.processes import run_python

SCRIPT = """
import json, sys
import keras, keras_qat
import numpy as np
from keras import layers
keras.utils.set_random_seed(0)
image = keras.Input((4, 4, 2), name="image")
x = layers.Conv2D(3, 3, padding="same", use_bias=False, name="conv")(image)
x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
x = layers.MaxPooling2D(name="pool")(layers.Add(name="add")([x, y]))
x = layers.GlobalAveragePooling2D(name="mean")(x)
model = keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x))
data, labels = np.random.default_rng(0).random((8, 4, 4, 2), "float32"), np.arange(8) % 3
qat = keras_qat.quantize_model(model, calibration_data=data)
qat.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
before = [np.array(v) for v in qat.trainable_variables]
loss = qat.fit(data, labels, batch_size=8, verbose=0).history["loss"][0]
moved = [bool((a != np.array(b)).any()) for a, b in zip(before, qat.trainable_variables)]
predicted = qat.predict(data, verbose=0)
path = sys.argv[1]
keras_qat.export_litert(qat, path)
report = keras_qat.verify(qat, path, data, kernels="default", verbose=0)
steps = predicted * 256

def error_of(function):
    try:
        return function()
    except keras_qat.errors.KerasQatError as error:
        return type(error).__name__

fresh = keras_qat.quantize_model(model)
state = fresh.trainable_variables, fresh.non_trainable_variables
image = keras.Input((4, 4, 2))
wrapped = keras.Model(image, fresh(image))

class Twice(layers.Layer):
    def call(self, x):
        return 2.0 * x

@keras_qat.register(Twice)
def thrice(layer, inputs):
    return 3.0 * inputs

wrong = keras.Model(image, layers.Dense(2)(Twice()(image)))
print(json.dumps({
    "backend": keras.backend.backend(),
    "loss is finite": bool(np.isfinite(loss)),
    "moved": sum(moved) >= len(moved) - 1,
    "outputs are on the grid": bool((steps == np.round(steps)).all()),
    "exact": report.exact,
    "tensors": len(report.layers["default"]),
    "stateless_call without ranges": error_of(lambda: fresh.stateless_call(*state, data)),
    "call of a wrapped model without ranges": error_of(lambda: wrapped(data)),
    "compiled without ranges": bool(np.isnan(wrapped.predict(data, verbose=0)).all()),
    "proof": [error_of(lambda: each(wrong)) for each in (
        keras_qat.quantize_model, keras_qat.clone_model
    )],
}))
"""

FREEZING = """
import json
import keras, keras_qat
import numpy as np
from keras import layers, ops
from keras_qat.callbacks import FreezeBatchNorm, FreezeOscillations, FreezeRanges

x = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
y = x[:, :2] ** 2
keras.utils.set_random_seed(0)
dense, norm = layers.Dense(5, name="first"), layers.BatchNormalization()
model = keras.Sequential([keras.Input((6,)), dense, norm, layers.Dense(2, name="head")])
qat = keras_qat.quantize_model(model, "int4", range_rule="lsq", calibration_data=x)
first, head = qat.get_layer("first"), qat.get_layer("head")

class Seen(keras.callbacks.Callback):
    def __init__(self, variables):
        super().__init__()
        self.variables, self.values = variables, []

    def on_train_batch_end(self, batch, logs=None):
        self.model.jax_state_sync()
        self.values.append([ops.convert_to_numpy(each) for each in self.variables])

    def changed(self):
        pairs = zip(self.values, self.values[1:])
        return [any((a != b).any() for a, b in zip(*pair)) for pair in pairs]

def fit(*callbacks, epochs):
    given = {"batch_size": 16, "epochs": epochs, "shuffle": False, "verbose": 0}
    qat.fit(x, y, callbacks=callbacks, **given)

norms, kernel = Seen(first.batch_normalization.variables), Seen([head.kernel])
ranges, again = Seen([*qat.learned_ranges, head.weight_range.step]), Seen(norms.variables)
qat.compile(keras.optimizers.AdamW(0.3), "mse")
fit(FreezeBatchNorm(epoch=1), FreezeRanges(step=3), norms, ranges, kernel, epochs=3)
fit(again, epochs=1)
held = FreezeOscillations(threshold=0.05, momentum=0.5)
fit(held, epochs=3)
seen = norms, ranges, kernel, again
print(json.dumps([*(each.changed() for each in seen), held.frozen_share > 0]))
"""

SELECTIONS = """
import json, sys
import keras, keras_qat
import numpy as np
from keras import layers, ops
x, steps = keras.Input((9,), name="x"), keras.Input((6, 4), name="steps")
padded = layers.GlobalAveragePooling1D()(layers.Dense(3)(layers.Masking(-1.0)(steps)))
place = ops.argmax(x, axis=-1)
selected = ops.where(ops.any(x > 0.7, axis=-1, keepdims=True), x, 0.0)
outputs = [padded, place // 3, place % 3, *ops.top_k(x, 4), ops.one_hot(place, 9), selected]
model = keras.Model([x, steps], [*outputs, x // 0.3, x + ops.ones_like(x)])
rng = np.random.default_rng(0)
data = (rng.integers(-3, 4, (64, 9)) / 2).astype("float32"), rng.normal(size=(64, 6, 4))
data[1][:, 3:] = -1.0
qat = keras_qat.quantize_model(model, calibration_data=data)
keras_qat.export_litert(qat, sys.argv[1])
report = keras_qat.verify(qat, sys.argv[1], data, kernels="default", verbose=0)
print(json.dumps([report.exact, list(report.not_compared)]))
"""

needs_jax = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)


@needs_jax
@pytest.mark.slow
def test_selections_are_exact_on_jax(tmp_path):
    assert run_python(SELECTIONS, tmp_path / "model.tflite", backend="jax") == [True, []]


@needs_jax
def test_quantize_train_export_and_verify_on_jax(tmp_path):
    assert run_python(SCRIPT, tmp_path / "model.tflite", backend="jax") == {
        "backend": "jax",
        "loss is finite": True,
        "moved": True,
        "outputs are on the grid": True,
        "exact": True,
        "tensors": 8,
        "stateless_call without ranges": "MissingRangeError",
        "call of a wrapped model without ranges": "MissingRangeError",
        "compiled without ranges": True,  # compiled code cannot raise an error, so outputs are NaN
        "proof": ["RewriteError", "RewriteError"],
    }


@needs_jax
@pytest.mark.slow
def test_callbacks_freeze_in_fit_on_jax():
    norms, ranges, kernel, again, is_held = run_python(FREEZING, backend="jax")
    assert norms == [True, False, False, False, False]
    assert ranges == [True, True, False, False, False]
    assert all(kernel) and again == [False] and is_held
