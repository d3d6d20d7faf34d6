"""Functions that tests pass as `module:function`."""

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


def generator_of_triples():
    for x, y in batches():
        yield x, y, np.ones(len(y))


def samples():
    return list(zip(*arrays(), strict=True))


def tensors():
    import tensorflow as tf

    return tuple(map(tf.constant, arrays()))


def inputs_in_a_list():
    x, y = arrays()
    return [x], y


def inputs_in_lists():
    return [([x],) for x, _ in batches()]


def nothing():
    return []


def failing():
    raise ValueError("there is no data today")


def failing_midway():
    yield from batches()[:1]
    raise ValueError("there is no data today")


def not_finite_later():
    x, y = arrays()
    x[15] = np.nan
    return x, y
