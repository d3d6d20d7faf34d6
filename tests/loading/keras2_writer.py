"""Writes files with `tf_keras`, which is Keras 2, and its predictions. Runs in its own process.

python -m tests.loading.keras2_writer FOLDER: makes FOLDER/NAME.h5, FOLDER/NAME_weights.h5 and
FOLDER/NAME.npz for each model of `keras2_models` and `keras2_structures`, and FOLDER/classes.json,
the classes of the layers in each. With names of `keras.applications` after FOLDER, it writes
these models instead.
"""

import json
import pathlib
import sys

import numpy as np
import tensorflow as tf
import tf_keras as keras
from tf_keras.src.layers.rnn import gru_lstm_utils

from tests.loading import keras2_masks, keras2_structures  # noqa: F401, add their models
from tests.loading.keras2_models import MODELS, L

# Recurrent layers register kernels for GPUs, which would take most of the time of this process.
gru_lstm_utils.function_register = lambda *arguments, **options: None


def inputs_of(built, seed):
    generator = np.random.default_rng(seed)
    made = {}
    for tensor in tf.nest.flatten(built.inputs):
        shape = (3, *(size or 5 for size in tensor.shape[1:]))
        if tensor.dtype == tf.string:
            values = generator.choice(["a", "b", "c", "d"], (3, 1))
            made[tensor.name] = values
            continue
        if tensor.dtype.is_integer:
            values = generator.integers(0, 9, shape)
        else:
            values = generator.normal(0.0, 1.0, shape)
        made[tensor.name] = values.astype(tensor.dtype.as_numpy_dtype)
    return made


def randomize(built, seed):
    """Sets different weights in all layers, and statistics other than the initial ones."""
    generator = np.random.default_rng(seed)
    for weight in built.weights:
        if weight.dtype.is_integer or weight.name in ("mean:0", "variance:0"):
            continue  # weights of a Normalization, which has used them already
        # Signals keep their size through a hundred layers, so that float32 stays accurate.
        inputs = np.prod(weight.shape[:-1]) if len(weight.shape) > 1 else 4.0
        values = generator.normal(0.0, 1.0 / np.sqrt(inputs), weight.shape)
        is_positive = "variance" in weight.name or "gamma" in weight.name
        weight.assign(np.abs(values) + 0.5 if is_positive else values)


def all_layers(built):
    for layer in built._flatten_layers(include_self=False):
        yield type(layer).__name__


def application(name):
    """Makes an application for 64x64 pixels without downloaded weights."""
    return lambda: getattr(keras.applications, name)(
        weights=None, input_shape=(64, 64, 3), classes=7
    )


def main(folder, *applications):
    classes = {}
    models = {name: application(name) for name in applications} or MODELS
    for number, (name, function) in enumerate(models.items()):
        keras.backend.clear_session()
        keras.utils.set_random_seed(number)
        built = function()
        randomize(built, number)
        inputs = inputs_of(built, number)
        arrays = list(inputs.values())
        single = arrays[0] if len(arrays) == 1 else tf.nest.pack_sequence_as(built.input, arrays)
        outputs = built(single, training=False)
        saved: dict = {f"input_{i}": value for i, value in enumerate(arrays)}
        saved |= {f"output_{i}": np.array(y) for i, y in enumerate(tf.nest.flatten(outputs))}
        np.savez(folder / f"{name}.npz", **saved)
        built.save(folder / f"{name}.h5", save_format="h5")
        built.save_weights(folder / f"{name}_weights.h5")
        classes[name] = sorted(set(all_layers(built)))
    members = [getattr(L, name) for name in dir(L)]
    public = {member.__name__ for member in members if isinstance(member, type)}
    result = {"models": classes, "public": sorted(public)}
    (folder / "classes.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), *sys.argv[2:])
