"""Files of Keras 1, written by hand after its sources: Keras 1 does not run on this Python."""

import json

import h5py
import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidFileError

RNG = np.random.default_rng(0)


def array(*shape):
    return RNG.normal(size=shape).astype("float32")


def write(path, config, weights):
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"] = b"1.2.2"
        file.attrs["model_config"] = json.dumps(config).encode()
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for layer, arrays in weights.items():
            own = group.create_group(layer)
            own.attrs["weight_names"] = [name.encode() for name in arrays]
            for name, values in arrays.items():
                own[name] = values


def conv(**arguments):
    config = {"name": "conv", "batch_input_shape": [None, 8, 8, 3], "nb_filter": 4, "nb_row": 3}
    config |= {"nb_col": 2, "border_mode": "same", "subsample": [2, 2], "dim_ordering": "tf"}
    config |= {
        "init": "glorot_uniform",
        "activation": "relu",
        "bias": True,
        "input_dtype": "float32",
    }
    config |= {"W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.01}}
    config |= {"b_regularizer": None, "W_constraint": {"name": "MaxNorm", "m": 2, "axis": 0}}
    config |= {"b_constraint": None, "activity_regularizer": None, "trainable": True, **arguments}
    return {"class_name": "Convolution2D", "config": config}


NORM = {"name": "norm", "mode": 0, "axis": 3, "momentum": 0.9, "epsilon": 0.01}
NORM |= {"gamma_regularizer": None, "beta_regularizer": None}
DENSE = {"name": "dense", "output_dim": 5, "init": "normal", "activation": "softmax"}
DENSE |= {"W_regularizer": None, "b_regularizer": None, "bias": True, "input_dim": None}


def test_load_model_of_a_sequential_model_of_keras_1(tmp_path):
    layers = [
        conv(),
        {"class_name": "BatchNormalization", "config": NORM},
        {"class_name": "MaxPooling2D", "config": {"name": "pool", "pool_size": [2, 2],
         "strides": [2, 2], "border_mode": "valid", "dim_ordering": "tf"}},
        {"class_name": "Dropout", "config": {"name": "dropout", "p": 0.25}},
        {"class_name": "Flatten", "config": {"name": "flatten"}},
        {"class_name": "Dense", "config": DENSE},
    ]  # fmt: skip
    kernel, bias, dense, offset = array(3, 2, 3, 4), array(4), array(16, 5), array(5)
    norm = [array(4), array(4), array(4), np.abs(array(4)) + 0.5]
    names = [f"norm_{name}" for name in ("gamma", "beta", "running_mean", "running_std")]
    weights = {
        "conv": {"conv_W": kernel, "conv_b": bias},
        "norm": dict(zip(names, norm, strict=True)),
        "dense": {"dense_W": dense, "dense_b": offset},
    }
    write(tmp_path / "old.h5", {"class_name": "Sequential", "config": layers}, weights)
    model = keras_qat.load_model(tmp_path / "old.h5")
    assert model.get_layer("dropout").rate == 0.25
    assert float(model.get_layer("conv").kernel_regularizer.l2) == pytest.approx(0.01)

    x = array(2, 8, 8, 3)
    y = keras.ops.relu(keras.ops.conv(x, kernel, 2, "same") + bias)
    gamma, beta, mean, variance = norm
    y = (y - mean) / np.sqrt(variance + 0.01) * gamma + beta
    y = keras.ops.reshape(keras.ops.max_pool(y, 2), (2, 16))
    np.testing.assert_allclose(
        model(x), keras.ops.softmax(keras.ops.matmul(y, dense) + offset), atol=1e-5
    )


def test_load_model_of_a_graph_with_a_merge_of_keras_1(tmp_path):
    def layer(class_name, config, *inputs):
        nodes = [[[name, 0, 0] for name in inputs]] if inputs else []
        return {"class_name": class_name, "config": config, "name": config["name"],
                "inbound_nodes": nodes}  # fmt: skip

    width = {"name": "line", "batch_input_shape": [None, 9, 2], "input_dtype": "float32"}
    conv1d = {"name": "conv1d", "nb_filter": 2, "filter_length": 3, "border_mode": "same"}
    conv1d |= {"subsample_length": 1, "activation": "linear", "bias": True, "init": "uniform"}
    merges = {"sum": np.add, "mul": np.multiply, "max": np.maximum}
    layers = [layer("InputLayer", width), layer("Convolution1D", conv1d, "line")]
    layers += [layer("Merge", {"name": mode, "mode": mode}, "line", "conv1d") for mode in merges]
    concat = {"name": "all", "mode": "concat", "concat_axis": -1}
    layers.append(layer("Merge", concat, *merges))
    config = {"name": "net", "layers": layers, "input_layers": [["line", 0, 0]]}
    config["output_layers"] = [["all", 0, 0]]
    kernel, bias = array(3, 1, 2, 2), array(2)
    weights = {"conv1d": {"conv1d_W": kernel, "conv1d_b": bias}}
    write(tmp_path / "old.h5", {"class_name": "Model", "config": config}, weights)
    model = keras_qat.load_model(tmp_path / "old.h5")
    x = array(2, 9, 2)
    y = np.asarray(keras.ops.conv(x, kernel[:, 0], 1, "same") + bias)
    expected = np.concatenate([merge(x, y) for merge in merges.values()], axis=-1)
    np.testing.assert_allclose(model(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    "layer, message",
    [
        (conv(dim_ordering="th"), "Theano"),
        ({"class_name": "MaxoutDense", "config": {"name": "maxout"}}, "MaxoutDense of Keras 1"),
        ({"class_name": "LSTM", "config": {"name": "lstm", "output_dim": 3}}, "another layout"),
        (
            {"class_name": "BatchNormalization", "config": {**NORM, "mode": 1}},
            "expected: mode 0|Expected: mode 0",
        ),
        ({"class_name": "Merge", "config": {"name": "m", "mode": "cos"}}, "mode 'cos'"),
    ],
)
def test_load_model_refuses_layers_of_keras_1_that_keras_3_lacks(tmp_path, layer, message):
    config = {"class_name": "Sequential", "config": [conv(), layer]}
    config["config"] = [layer] if layer["class_name"] == "Convolution2D" else config["config"]
    write(tmp_path / "old.h5", config, {"conv": {}})
    with pytest.raises(InvalidFileError, match=message) as raised:
        keras_qat.load_model(tmp_path / "old.h5")
    assert raised.value.layer == layer["config"]["name"]
