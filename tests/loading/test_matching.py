import h5py
import keras
import numpy as np
import pytest

from keras_qat.errors import InvalidFileError
from keras_qat.loading.files.hdf5 import saved_layers
from keras_qat.loading.weights.matching import match_layer

L = keras.layers


@pytest.fixture
def match(tmp_path):
    """Pairs the weights of a layer with named arrays. Returns the name for each weight."""

    def pair(layer, shapes):
        with h5py.File(tmp_path / "weights.h5", "w") as file:
            file.attrs["layer_names"] = [layer.name.encode()]
            group = file.create_group(layer.name)
            group.attrs["weight_names"] = [name.encode() for name in shapes]
            for name, shape in shapes.items():
                group[name] = np.zeros(shape, "float32")
            (saved,) = saved_layers(file)
            return {variable.name: name for variable, (name, _) in match_layer(layer, saved)}

    return pair


def test_match_finds_reordered_layers_of_a_nested_model_by_name(tmp_path):
    block = keras.Sequential([keras.Input((4,)), L.Dense(4, use_bias=False, name="a"),
                              L.Dense(4, use_bias=False, name="b")], name="block")  # fmt: skip
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"block"]
        group = file.create_group("block")
        group.attrs["weight_names"] = [b"b/kernel:0", b"a/kernel:0"]
        for number, name in enumerate(("b", "a")):
            group[f"{name}/kernel:0"] = np.full((4, 4), number, "float32")
        (saved,) = saved_layers(file)
        pairs = match_layer(block, saved)
        assert [(variable.path.split("/")[-2], name) for variable, (name, _) in pairs] == [
            ("a", "a/kernel:0"),
            ("b", "b/kernel:0"),
        ]


def test_match_prefers_names_of_variables_to_their_order(match):
    layer = L.BatchNormalization(name="norm")
    layer.build((None, 3))
    # TensorFlow 1 made the scope unique. The order is that of another version.
    names = ["moving_mean", "moving_variance", "beta", "gamma"]
    found = match(layer, {f"norm_1/{name}:0": (3,) for name in names})
    assert found == {name: f"norm_1/{name}:0" for name in names}


def test_match_knows_the_old_name_of_a_depthwise_kernel(match):
    layer = L.DepthwiseConv2D(3, name="conv")
    layer.build((None, 8, 8, 2))
    found = match(layer, {"conv/bias:0": (2,), "conv/depthwise_kernel:0": (3, 3, 2, 1)})
    assert found == {"kernel": "conv/depthwise_kernel:0", "bias": "conv/bias:0"}


def test_match_takes_names_of_keras_1_in_order(match):
    layer = L.Dense(2, name="dense")
    layer.build((None, 3))
    found = match(layer, {"dense_W": (3, 2), "dense_b": (2,)})
    assert found == {"kernel": "dense_W", "bias": "dense_b"}


@pytest.mark.parametrize(
    "shapes, message",
    [
        ({"dense/kernel:0": (3, 2)}, "another number of weights"),
        ({"dense/kernel:0": (3, 2), "dense/gamma:0": (2,)}, "other weights"),
    ],
)
def test_match_refuses_other_weights(match, shapes, message):
    layer = L.Dense(2, name="dense")
    layer.build((None, 3))
    with pytest.raises(InvalidFileError, match=message) as raised:
        match(layer, shapes)
    assert raised.value.layer == "dense" and "dense/kernel:0" in str(raised.value)
