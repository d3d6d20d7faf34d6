"""The state of the process that a library could change."""

import logging
import os
import sys
import warnings

import keras
from keras import layers
from tensorflow.python.util import dispatch


def process_state():
    """Returns the state by the names of its parts."""
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "recursion limit": sys.getrecursionlimit(),
        "warning filters": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "log levels": {
            name: logging.getLogger(name).level for name in ("", "tensorflow", "absl", "jax")
        },
        "layer class": {k: v for k, v in vars(layers.Layer).items() if callable(v)},
        "variable class": {k: v for k, v in vars(keras.Variable).items() if callable(v)},
        "custom objects": dict(keras.saving.get_custom_objects()),
        "float type": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "data format": keras.config.image_data_format(),
        "dispatchers": list(dispatch._GLOBAL_DISPATCHERS),
    }


def changed(before, after):
    """Returns the parts of the state that differ, as they are after a change."""
    return {
        name: {key: after[name].get(key) for key in value if after[name].get(key) != value[key]}
        if isinstance(value, dict)
        else after[name]
        for name, value in before.items()
        if after[name] != value
    }
