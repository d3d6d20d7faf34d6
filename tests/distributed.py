"""Functions that `test_distribute.py` runs in a separate process with two logical CPUs.

The script takes a folder and the names of functions. It prints the results as JSON, by name.
"""

import contextlib
import functools
import json
import os
import sys

import keras
import numpy as np
import tensorflow as tf
from keras import layers

import keras_qat
from keras_qat.layers.models.observed_ranges import named_observers

# Five batches of 8 and one of 3. Of the last batch the replicas get 2 samples and 1 sample.
SAMPLES, BATCH = 43, 8


def images():
    """Returns multiples of 1/8, so that sums are exact in any order. One sample is an outlier."""
    x = np.random.default_rng(0).integers(-8, 9, (SAMPLES, 6, 6, 1)) / 8
    x[16:] *= 2
    x[21] *= 32
    return x.astype("float32")


LABELS = np.arange(SAMPLES) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def exact_network(has_convolution=True):
    """Makes a network that computes without rounding."""
    keras.utils.set_random_seed(1)
    convolution = [layers.Conv2D(4, 3, activation="relu")] if has_convolution else []
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), *convolution, layers.Flatten(), layers.Dense(3)]
    )
    for weight in model.weights:
        weight.assign(keras.ops.round(weight * 8) / 8)
    return model


def network():
    """Makes a network with normalizations and a range inside a layer, which all have variables."""
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.Conv2D(4, 3),
            layers.BatchNormalization(momentum=0.5, synchronized=True),
            layers.ReLU(),
            layers.Flatten(),
            layers.LayerNormalization(),
            layers.Dense(3),
        ]
    )


def compiled(model, rate=0.0):
    model.compile(keras.optimizers.SGD(rate), LOSS)
    return model


def ranges(model):
    """Returns the minimum, the maximum, the range of training and the counters of each range."""
    return [
        [
            variable.numpy().tolist()
            for variable in (own.minimum, own.maximum, own.seen, own.updates, own.held, own.unfit)
        ]
        for _, own in named_observers(model)
    ]


def trained_ranges(strategy, calibrated=False, samples=SAMPLES, convolution=True, **options):
    """Returns the ranges after training with a learning rate of 0, so weights are exact."""
    with strategy.scope() if strategy else contextlib.nullcontext():
        model = compiled(keras_qat.quantize_model(exact_network(convolution), **options))
    if calibrated:
        keras_qat.calibrate(model, images()[:16], verbose=0)
    x, y = images()[:samples], LABELS[:samples]
    model.fit(x, y, batch_size=BATCH, epochs=2, shuffle=False, verbose=0)
    return ranges(model)


def uses(model, folder):
    """Returns all functions that use ranges, by name."""
    x, file = images(), os.path.join(folder, "model.tflite")
    saved = os.path.join(folder, "model.keras")

    def verify(verified):
        report = keras_qat.verify(verified, file, x[:8], verbose=0)
        return report.exact

    return {
        "calibrate": lambda: keras_qat.calibrate(model, x, verbose=0),
        "fit": lambda: model.fit(x, LABELS, BATCH, validation_data=(x, LABELS), verbose=0),
        "evaluate": lambda: model.evaluate(x, LABELS, verbose=0),
        "predict": lambda: np.array_equal(model.predict(x, verbose=0), model(x)),
        "default_ranges": lambda: keras_qat.suggest_default_ranges(model, x, verbose=0),
        "check": lambda: keras_qat.check(model, calibration_data=x).ok,
        "export": lambda: keras_qat.export_litert(model, file),
        "verify": lambda: verify(model),
        "save": lambda: model.save(saved),
        "load": lambda: verify(keras.saving.load_model(saved)),
        "saved_model": lambda: model.export(os.path.join(folder, "saved"), verbose=False),
        "strip": lambda: keras_qat.strip_quantization(model).count_params() > 0,
    }


def outcomes(strategy, folder, scope):
    """Returns the result of each use within `scope` for a model made in the strategy's scope."""
    with strategy.scope():
        model = compiled(keras_qat.quantize_model(network(), calibration_data=images()), 0.01)
    found = {}
    for name, use in uses(model, folder).items():
        with scope():
            result = use()
        found[name] = result if isinstance(result, bool | int) else None
    return found


@functools.cache  # collective operations of two strategies would get equal keys
def mirrored():
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def on_one_and_two_devices(**cases):
    """Returns the ranges after training on one device and on two devices, for each case."""
    return {
        name: [trained_ranges(strategy, **options) for strategy in (None, mirrored())]
        for name, options in cases.items()
    }


def training(folder):
    """Trains with ranges that move, and that calibration holds."""
    del folder
    cases = {
        "calibrated": {"calibrated": True},
        # TensorFlow has no gradient of a convolution of no samples.
        "a replica without samples": {"samples": 41, "convolution": False},
    }
    return on_one_and_two_devices(**cases)


def convolution(folder):
    """Trains a convolution with ranges that move, and that are delayed."""
    del folder
    return on_one_and_two_devices(moving={}, delayed={"quant_delay": 3})


def calibration(folder):
    """Returns the calibrated ranges inside the scope and without a strategy."""
    del folder
    found = []
    for scope in (mirrored().scope, contextlib.nullcontext):
        with scope():
            found.append(
                ranges(keras_qat.quantize_model(exact_network(), calibration_data=images()))
            )
    return found


def restart(folder):
    """Trains on two devices without an interruption, and with one.

    Returns all variables at the end, and the number of steps of the second process.
    """
    uninterrupted, _ = restarted(os.path.join(folder, "uninterrupted"), None)
    with contextlib.suppress(StoppedError):
        restarted(os.path.join(folder, "backup"), 8)
    return [uninterrupted, *restarted(os.path.join(folder, "backup"), None)]


class StoppedError(Exception):
    """Interrupts a training."""


def restarted(backup, stopped_at):
    """Trains on the batches of 8, with a backup after each epoch."""
    with mirrored().scope():
        model = keras_qat.quantize_model(exact_network(), calibration_data=images()[:8])
        keras_qat.calibrate(model, images()[:8], range_rule="moving_average", verbose=0)
        model.compile(keras.optimizers.Adam(0.01), LOSS)
    counter = Counter(stopped_at)
    model.fit(
        images()[:40], LABELS[:40], BATCH, 3, 0,
        [keras.callbacks.BackupAndRestore(backup), counter], shuffle=False,
    )  # fmt: skip
    variables = [*model.variables, *model.optimizer.variables]
    return [keras.ops.convert_to_numpy(each).tolist() for each in variables], counter.steps


class Counter(keras.callbacks.Callback):
    """Counts the steps of training, and stops after some."""

    def __init__(self, stopped_at):
        super().__init__()
        self.stopped_at, self.steps = stopped_at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.stopped_at:
            raise StoppedError


def accumulation(folder):
    """Returns the weights before a step, and after it on two devices and on one.

    Each of two devices adds the gradients of two parts of 8 samples. A single device takes the
    step of all 32 samples.
    """
    del folder
    with mirrored().scope():
        model, optimizer = accumulated(), keras.optimizers.SGD(0.05)
        optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        sums = [tf.zeros_like(each) for each in model.trainable_variables]
        for part in (slice(0, 8), slice(8, 16)):
            with tf.GradientTape() as tape:
                loss = (
                    LOSS(y[part], model(x[part], training=True)) / 2
                )  # Keras halves it for two replicas
            gradients = tape.gradient(loss, model.trainable_variables)
            sums = [a + b for a, b in zip(sums, gradients, strict=True)]
        optimizer.apply(sums, model.trainable_variables)  # adds those of the replicas

    (batch,) = mirrored().experimental_distribute_dataset(accumulated_batch())
    mirrored().run(step, batch)
    single = compiled(accumulated(), 0.05)
    single.fit(accumulated_batch(), verbose=0)
    return [
        [each.numpy().tolist() for each in own.trainable_variables]
        for own in (accumulated(), model, single)
    ]


def accumulated():
    return keras_qat.quantize_model(exact_network(), calibration_data=images()[:32])


def accumulated_batch():
    return tf.data.Dataset.from_tensor_slices((images()[:32], LABELS[:32])).batch(32)


def inside(folder):
    return outcomes(mirrored(), folder, mirrored().scope)


def outside(folder):
    return outcomes(mirrored(), folder, contextlib.nullcontext)


def one_worker(folder):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    return outcomes(strategy, folder, strategy.scope)


if __name__ == "__main__":
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    # Optimizing the graphs of small models takes longer than running them.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    print(json.dumps({name: globals()[name](sys.argv[1]) for name in sys.argv[2:]}))
