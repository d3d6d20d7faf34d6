import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.graph import build_model
from keras_qat.passes.pool_whole_images import pool_whole_images
from tests.models import called
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
def test_pool_whole_images_makes_a_window_over_the_image_global(arguments):
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
def test_pool_whole_images_leaves_smaller_windows(arguments):
    model = pooled(**arguments)
    assert applied(pool_whole_images, model).nodes["pool"].head is model.get_layer("pool")


@pytest.mark.parametrize(
    ("shape", "pool"),
    [
        ((6, 5, 3), layers.AdaptiveAveragePooling2D(1, name="pool")),
        ((6, 3), layers.AveragePooling1D(6, name="pool")),
        ((6, 3), layers.AveragePooling1D(9, padding="same", name="pool")),
        ((6, 3), layers.AdaptiveAveragePooling1D(1, name="pool")),
        ((6, 5, 3), lambda x: keras.ops.average_pool(x, 6, padding="same")),
        ((6, 5, 3), lambda x: keras.ops.average_pool(x, (6, 5))),
    ],
)
def test_pool_whole_images_makes_other_poolings_global(shape, pool):
    x = keras.Input(shape, name="x")
    graph = applied(pool_whole_images, keras.Model(x, pool(x)))
    (node,) = (each for each in graph.nodes.values() if not each.is_input)
    assert type(node.head) in (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D)
    assert node.head.keepdims and node.head.name == node.name
    data = np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")
    pooled = build_model(graph)(data).numpy()
    axes = tuple(range(1, len(shape)))
    np.testing.assert_allclose(pooled, data.mean(axes, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "pool"),
    [
        ((6, 5, 3), layers.AdaptiveAveragePooling2D((1, 2), name="pool")),
        ((6, 3), layers.AveragePooling1D(5, name="pool")),
        ((6, 5, 3), layers.MaxPooling2D((6, 5), name="pool")),
    ],
)
def test_pool_whole_images_leaves_poolings_of_a_part(shape, pool):
    x = keras.Input(shape, name="x")
    assert applied(pool_whole_images, keras.Model(x, pool(x))).nodes["pool"].head is pool


def test_pool_whole_images_gives_the_average_its_own_range():
    data = np.zeros((8, 4, 4, 1), "float32")
    data[:, 0, 0] = 16.0
    x = keras.Input((4, 4, 1))
    model = keras.Model(x, layers.AveragePooling2D(4, name="pool")(x))
    qat = keras_qat.quantize_model(model, calibration_data=data)
    assert float(qat.get_layer("pool").neighbours.output.grid().scale) == pytest.approx(1 / 255)
    assert called(qat, data).ravel().tolist() == [1.0] * 8
