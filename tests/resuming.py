"""Trains a quantized model that is stopped after some steps. As a script it kills itself then.

Usage: python -m tests.resuming FOLDER KILL_AT, where KILL_AT is the number of training steps after
which the process gets a SIGKILL.
"""

import os
import pathlib
import signal
import sys

import keras
import numpy as np

import keras_qat
from tests.models import labels, small_images, small_network

BATCHES, EPOCHS = 6, 4


class Stop(keras.callbacks.Callback):
    """Calls a function after a number of training steps of this run."""

    def __init__(self, at, act):
        super().__init__()
        self.at, self.act, self.steps = at, act, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self.steps == self.at:
            self.act()


def made():
    """Makes a compiled model with random layers that starts to quantize in the second epoch."""
    keras.utils.set_random_seed(3)
    image = keras.Input((4, 4, 3))
    x = keras.layers.Dropout(0.1)(keras.layers.RandomFlip()(image))
    float_model = keras.Model(image, small_network()(x))
    model = keras_qat.quantize_model(float_model, quant_delay=BATCHES + 2)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    return model


def train(model, callbacks=(), **arguments):
    x, y = small_images(BATCHES * 8), labels(BATCHES * 8)
    model.fit(
        x, y, batch_size=8, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=list(callbacks),
        **arguments,
    )  # fmt: skip
    return model


def state(model):
    """Returns all variables: weights, ranges, counters, random states, those of the optimizer."""
    variables = [*model.variables, *model.optimizer.variables]
    return {f"{i}/{v.path.rpartition('/')[2]}": np.array(v) for i, v in enumerate(variables)}


def backed_up(folder):
    return keras.callbacks.BackupAndRestore(folder / "backup")


if __name__ == "__main__":
    folder, at = pathlib.Path(sys.argv[1]), int(sys.argv[2])
    kill = Stop(at, lambda: os.kill(os.getpid(), signal.SIGKILL))
    train(made(), [backed_up(folder), kill])
