"""Weight clustering. The oracles are the integers of the file, and numbers by hand."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.callbacks import MagnitudePruning, WeightClustering
from keras_qat.callbacks.clustering import _Clusters
from keras_qat.errors import InvalidTrainingError

RNG = np.random.default_rng(0)
DATA = RNG.random((24, 6, 6, 8), "float32"), RNG.random((24, 4), "float32")
MOST = 6
WRONG: Any = "few"

drifts = pytest.mark.filterwarnings("ignore::keras_qat.errors.RangeDriftWarning")


def quantized(scheme="int8", **options):
    keras.utils.set_random_seed(0)
    steps = [
        layers.Conv2D(8, 3, use_bias=False, name="conv"),
        layers.BatchNormalization(name="bn"),
        layers.DepthwiseConv2D(3, name="depthwise"),
        layers.GlobalAveragePooling2D(name="mean"),
        layers.Dense(4, name="head"),
    ]
    model = keras.Sequential([keras.Input((6, 6, 8), name="image"), *steps])
    return keras_qat.quantize_model(model, scheme, calibration_data=DATA[0], **options)


def fit(qat, *callbacks, rate=0.01):
    if not qat.compiled:
        qat.compile(keras.optimizers.Adam(rate), "mse")
    return qat.fit(*DATA, batch_size=4, epochs=2, callbacks=list(callbacks), verbose=0)


def integers(qat):
    weights = keras_qat.integer_weights(qat)
    return {name: weights[f"{name}/kernel"].values for name in ("conv", "depthwise", "head")}


@pytest.mark.parametrize(
    ("scheme", "options"),
    [
        ("int8", {}),
        pytest.param("int8", {"weight_range_rule": "lsq"}, marks=pytest.mark.slow),
        pytest.param("int8_per_tensor", {}, marks=pytest.mark.slow),
        pytest.param("int4", {}, marks=pytest.mark.slow),
    ],
)
def test_clusters_are_few_integers_of_the_file(scheme, options, tmp_path):
    qat = quantized(scheme, **options)
    before = np.array(ops.convert_to_numpy(qat.get_layer("conv").kernel))
    fit(qat, WeightClustering(MOST, exclude=["depthwise"]))
    found = integers(qat)
    assert all(len(np.unique(found[name])) <= MOST for name in ("conv", "head"))
    assert len(np.unique(found["depthwise"])) > MOST
    assert not np.allclose(before, ops.convert_to_numpy(qat.get_layer("conv").kernel), atol=1e-3)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", DATA[0], verbose=0).exact


@drifts
def test_clusters_change_and_stay_few_in_the_next_training():
    qat = quantized()
    fit(qat, WeightClustering(MOST))
    first = integers(qat)
    fit(qat, WeightClustering(MOST))
    second = integers(qat)
    assert all(len(np.unique(values)) <= MOST for values in second.values())
    assert all((values != first[name]).any() for name, values in second.items())


@drifts
def test_clusters_keep_zeros_of_pruning():
    qat = quantized()
    fit(qat, MagnitudePruning(0.5, exclude=["depthwise"]))
    zeros = {name: values == 0 for name, values in integers(qat).items()}
    fit(qat, MagnitudePruning(None), WeightClustering(MOST), rate=0.05)
    assert all((values[zeros[name]] == 0).all() for name, values in integers(qat).items())


def test_follow_gives_centroids_the_mean_of_the_nearest_weights():
    weights = np.array([2.0, 5.0, 0.9, -6.0, 9.0])
    clusters = _Clusters.of(weights, np.array([-7.0, 0.0, 3.0, 7.0]), 7)
    clusters.follow(weights)
    assert clusters.places.tolist() == [2, 2, 1, 0, 3]
    # (2 + 5) / 2 is a tie of 3 and 4, which float errors would round either way.
    np.testing.assert_allclose(clusters.centroids, [-7, 0, 3.51, 7])


def test_add_step_moves_weights_as_the_kernel_but_not_zeros():
    clusters = _Clusters.of(np.array([0.0, 1.2]), np.array([-7.0, 0.0, 7.0]), 7)
    clusters.made = np.array([0.0, 1.0])
    clusters.add_step(np.array([0.3, 1.1]))
    np.testing.assert_allclose(clusters.weights, [0, 1.3])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WeightClustering(3), "4 or more"),
        (lambda: WeightClustering(WRONG), "4 or more"),
        (lambda: fit(quantized(), WeightClustering(exclude=["melt"])), "exclude.*conv.*melt"),
        (lambda: fit(quantized("uint8"), WeightClustering()), "zero point.*'conv'"),
    ],
)
def test_clustering_refuses(make, message):
    with pytest.raises(InvalidTrainingError, match=message):
        make()


def test_clustering_is_serializable():
    config = keras.saving.serialize_keras_object(WeightClustering(9, exclude=["head"]))
    same: Any = keras.saving.deserialize_keras_object(config)
    assert same.get_config() == {"clusters": 9, "exclude": ["head"]}
