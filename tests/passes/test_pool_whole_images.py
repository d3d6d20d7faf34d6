import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.passes.pool_whole_images import pool_whole_images
from tests.passes.graphs import applied, maximum_difference


def pooled(**arguments):
    x = keras.Input((6, 5, 3), name="x")
    return keras.Model(x, layers.AveragePooling2D(name="pool", **arguments)(x))


@pytest.mark.parametrize(
    "arguments",
    [
        {"pool_size": (6, 5)},
        {"pool_size": (6, 5), "strides": 1},
        {"pool_size": 6, "padding": "same"},
        {"pool_size": 12, "padding": "same"},
    ],
)
def test_a_window_over_the_whole_image_becomes_a_global_pooling(arguments):
    model = pooled(**arguments)
    graph = applied(pool_whole_images, model)
    head = graph.nodes["pool"].head
    assert type(head) is layers.GlobalAveragePooling2D
    assert head.keepdims
    assert graph.nodes["pool"].shapes == ((None, 1, 1, 3),)
    data = np.random.default_rng(0).normal(size=(4, 6, 5, 3)).astype("float32")
    assert maximum_difference(graph, model, data) < 1e-6


@pytest.mark.parametrize(
    "arguments",
    [
        {"pool_size": 5},
        {"pool_size": 2},
        {"pool_size": (5, 5), "strides": 6},
        {"pool_size": (3, 5), "strides": (6, 5), "padding": "same"},
    ],
)
def test_a_smaller_window_stays(arguments):
    model = pooled(**arguments)
    assert applied(pool_whole_images, model).nodes["pool"].head is model.get_layer("pool")


def test_the_average_has_a_range_of_its_own():
    data = np.zeros((8, 4, 4, 1), "float32")
    data[:, 0, 0] = 16.0
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, layers.AveragePooling2D(4, name="pool")(x))
    qat = keras_qat.quantize_model(model, calibration_data=data)
    assert float(qat.get_layer("pool").links.output.grid().scale) == pytest.approx(1 / 255)
    assert qat.predict(data, verbose=0).ravel().tolist() == [1.0] * 8
