"""Small float models and data that several test files share."""

import functools

import keras
import numpy as np
from keras import layers

import keras_qat
from tests import seeds

CLASSES = 5


def images(count=16, seed=0, shape=(8, 8, 3)):
    return np.random.default_rng(seed).random((count, *shape), "float32")


def labels(count=16):
    return np.arange(count) % CLASSES


def randomized(model, seed=0):
    """Gives biases and batch normalizations values with an effect. Returns the model."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        name = variable.path.rpartition("/")[2]
        shape = variable.shape
        if name in ("gamma", "moving_variance"):
            variable.assign(rng.uniform(0.5, 1.5, shape))
        elif name in ("beta", "moving_mean", "bias"):
            variable.assign(rng.normal(0, 0.3, shape))
    return model


def network(seed=0):
    """Makes a residual block with a depthwise branch: one layer of most families."""
    seeds.seed(seed)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(image)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="relu")(x)
    y = layers.DepthwiseConv2D(3, padding="same", activation="relu6", name="depthwise")(x)
    x = layers.Add(name="add")([x, y])
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    x = layers.Dense(CLASSES, activation="softmax", name="head")(x)
    return randomized(keras.Model(image, x, name="network"), seed)


def small_network(seed=0):
    """Makes a convolution, a batch normalization and a dense layer, which compile fast."""
    seeds.seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3), name="image"),
            layers.Conv2D(4, 3, use_bias=False, name="conv"),
            layers.BatchNormalization(name="bn", momentum=0.5),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(CLASSES, activation="softmax", name="head"),
        ],
        name="small_network",
    )
    return randomized(model, seed)


def small_images(count=16, seed=0):
    return images(count, seed, (4, 4, 3))


def called(model, x):
    """Returns the outputs of a call as arrays. `predict` would trace a graph first."""
    return keras.tree.map_structure(keras.ops.convert_to_numpy, model(x))


def linear(inputs=4, units=2):
    """Makes one dense layer. Each output is the sum of the inputs."""
    dense = layers.Dense(units, kernel_initializer="ones", name="dense")
    return keras.Sequential([keras.Input((inputs,), name="x"), dense], name="linear")


def quantized(model, data):
    """Makes a calibrated quantized model without a progress bar."""
    result = keras_qat.quantize_model(model)
    keras_qat.calibrate(result, data, verbose=0)
    return result


@functools.cache
def quantized_network():
    """Returns the calibrated `network()`. All tests share it: do not change it."""
    return quantized(network(), images())


@functools.cache
def quantized_small_network():
    """Returns the calibrated `small_network()`. All tests share it: do not change it."""
    return quantized(small_network(), small_images())
