"""Functions that tests name as `module:function`."""

import numpy as np

from tests.models import labels, small_images

NUMBER = 5


def arrays():
    return small_images(20), labels(20)


def inputs_alone():
    return small_images(20)


def batches():
    x, y = arrays()
    return [(x[i : i + 8], y[i : i + 8]) for i in (0, 8, 16)]


def generator():
    yield from batches()


def dataset():
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(arrays()).batch(8)


def wrong_shape():
    return np.zeros((4, 5, 5, 3), "float32"), labels(4)


def number():
    return NUMBER
