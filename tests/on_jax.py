"""Functions that `test_jax_distribution.py` runs on JAX with several devices, in processes.

The script takes a folder and the name of a function, and prints its result as JSON. With `RANK`
in the environment it is one of two processes.
"""

import json
import os
import sys

import jax  # pyright: ignore[reportMissingImports] (an optional backend)
import keras
import numpy as np

import keras_qat
from keras_qat.layers.models.observed_ranges import named_observers

SAMPLES, BATCH = 32, 8
X = np.random.default_rng(0).normal(size=(SAMPLES, 6, 6, 2)).astype("float32")
X[17] *= 3
Y = np.arange(SAMPLES) % 3


def quantized():
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(4, 3, name="conv"),
        keras.layers.BatchNormalization(momentum=0.5),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(4, name="head"),
    ]
    return keras_qat.quantize_model(keras.Sequential([keras.Input((6, 6, 2)), *layers]))


def trained(folder, distribution=None):
    """Trains without calibration, and exports. Returns the ranges."""
    keras.distribution.set_distribution(distribution)
    model = quantized()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss)
    model.fit(batches(), epochs=2, verbose=0)
    keras_qat.export_litert(model, os.path.join(folder, f"{os.environ.get('RANK', 0)}.tflite"))
    return {name: [*own.limits, int(own.updates.numpy())] for name, own in named_observers(model)}


def batches():
    """Returns the same global batches in each process; Keras gives each its part."""
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)


def single(folder):
    return trained(folder)


def data_parallel(folder):
    return trained(folder, keras.distribution.DataParallel())


def model_parallel(folder):
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((2, 2), ("batch", "model"), devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout["head.*kernel"] = (None, "model")
    return trained(
        folder, keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )


def loss_of(labels, logits):
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, logits)


def stateless_loss(model):
    """Returns a function of the values of all variables and of a batch."""

    def loss(trained, fixed, x, y):
        logits, fixed = model.stateless_call(trained, fixed, x, training=True)
        return loss_of(y, logits), fixed

    return loss


def optimizer_step(model):
    """Returns a step with `stateless_apply`, and the variables of its state."""
    optimizer = keras.optimizers.SGD(0.05, momentum=0.5)
    optimizer.build(model.trainable_variables)
    gradient = jax.grad(stateless_loss(model), has_aux=True)

    def step(trained, fixed, state, x, y):
        gradients, fixed = gradient(trained, fixed, x, y)
        trained, state = optimizer.stateless_apply(state, gradients, trained)
        return trained, fixed, state

    return step, optimizer.variables, keras.optimizers.SGD(0.05, momentum=0.5)


def descent_step(model):
    """Returns a step of gradient descent, written without an optimizer."""
    gradient = jax.grad(stateless_loss(model), has_aux=True)

    def step(trained, fixed, state, x, y):
        gradients, fixed = gradient(trained, fixed, x, y)
        return [w - 0.05 * g for w, g in zip(trained, gradients, strict=True)], fixed, state

    return step, [], keras.optimizers.SGD(0.05)


def loops(folder):
    """Trains in compiled loops of JAX. Returns the differences to `fit`, and exactness, of each."""
    return [loop(folder, make_step) for make_step in (optimizer_step, descent_step)]


def loop(folder, make_step):
    keras.distribution.set_distribution(None)
    model, other, path = quantized(), quantized(), os.path.join(folder, "loop.tflite")
    step, own, optimizer = make_step(model)
    variables = [model.trainable_variables, model.non_trainable_variables, own]
    values, compiled = [[each.value for each in some] for some in variables], jax.jit(step)
    for i in range(0, SAMPLES, BATCH):
        values = compiled(*values, X[i : i + BATCH], Y[i : i + BATCH])
    for variable, value in zip(sum(variables, []), sum(values, []), strict=True):
        variable.assign(value)
    other.compile(optimizer, loss_of)
    other.fit(X, Y, batch_size=BATCH, shuffle=False, verbose=0)
    pairs = zip(model.get_weights(), other.get_weights(), strict=True)
    keras_qat.export_litert(model, path)
    report = keras_qat.verify(model, path, X, kernels="default", verbose=0)
    return [max(float(np.abs(a - b).max()) for a, b in pairs), report.exact]


def two_processes(folder):
    address = f"127.0.0.1:{os.environ['PORT']}"
    keras.distribution.initialize(address, 2, int(os.environ["RANK"]))
    return trained(folder, keras.distribution.DataParallel())


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[2]](sys.argv[1])))
