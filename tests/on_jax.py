"""Functions that `test_jax_distribution.py` runs on JAX with several devices, in processes.

The script takes a folder and the name of a function, and prints its result as JSON. With `RANK`
in the environment it is one of two processes.
"""

import json
import os
import sys

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


def two_processes(folder):
    address = f"127.0.0.1:{os.environ['PORT']}"
    keras.distribution.initialize(address, 2, int(os.environ["RANK"]))
    return trained(folder, keras.distribution.DataParallel())


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[2]](sys.argv[1])))
