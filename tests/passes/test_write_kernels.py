"""write_kernels: operations of a tensor and a kernel become layers with a trainable kernel."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.passes.customs import (
    Gated,
    MyConv,
    MyDense,
    Upsampled,
    around,
    assert_exact,
    assert_file_exact,
    names,
    normal,
)
from tests.quick import slow

layers = keras.layers


def kernel(*shape):
    return normal(shape, 1, seed=1)[0]


OPERATIONS = {
    "matmul": ((5, 4), lambda x: x @ kernel(4, 3), ["QDense"]),
    "vector": ((5, 4), lambda x: ops.matmul(x, kernel(4)), ["QDense", "QReshape"]),
    "left": (
        (5, 4),
        lambda x: ops.matmul(kernel(7, 5), x),
        ["QTranspose", "QDense", "QTranspose"],
    ),
    "dot": ((5, 4), lambda x: ops.dot(x, kernel(2, 4, 3)), ["QDense", "QReshape"]),
    "tensordot": ((5, 4), lambda x: ops.tensordot(x, kernel(4, 3), 1), ["QDense"]),
    "tensordot_of_two_axes": (
        (5, 4),
        lambda x: ops.tensordot(x, kernel(4, 5, 3), [[1, 2], [1, 0]]),
        ["QReshape", "QDense"],
    ),
    "einsum": ((5, 4), lambda x: ops.einsum("...c,dc->...d", x, kernel(3, 4)), ["QDense"]),
    "einsum_of_another_axis": (
        (5, 4),
        lambda x: ops.einsum("bnd,nk->bkd", x, kernel(5, 6)),
        ["QTranspose", "QDense", "QTranspose"],
    ),
    "conv1d": ((9, 4), lambda x: ops.conv(x, kernel(3, 4, 6), dilation_rate=2), ["QConv1D"]),
    "conv2d": ((7, 7, 4), lambda x: ops.conv(x, kernel(3, 3, 4, 6), strides=2), ["QConv2D"]),
    "depthwise1d": ((7, 4), lambda x: ops.depthwise_conv(x, kernel(3, 4, 1)), ["QDepthwiseConv1D"]),
    "separable": (
        (7, 7, 4),
        lambda x: ops.separable_conv(x, kernel(3, 3, 4, 2), kernel(1, 1, 8, 3), padding="same"),
        ["QDepthwiseConv2D", "QConv2D"],
    ),
    "lambda": (
        (5, 4),
        layers.Lambda(lambda x: ops.relu(ops.matmul(x, kernel(4, 3)) + 1.5)),
        ["QDense"],
    ),
}


# Keras's `tensordot` warns.
@pytest.mark.one_in(2)
@pytest.mark.filterwarnings("ignore:NotImplemented should not be used:DeprecationWarning")
@pytest.mark.parametrize("name", OPERATIONS)
def test_write_kernels_of_constants(name, tmp_path):
    shape, operation, expected = OPERATIONS[name]
    quantized = assert_exact(around(operation, shape), normal(shape), tmp_path)
    assert names(quantized) == expected
    assert quantized.trainable_weights == []


CUSTOM = {
    "dense": ((6, 5), lambda: MyDense(3), ["QDense"]),
    "conv": ((6, 6, 2), lambda: MyConv(3, 3, 2, bias_initializer="random_normal"), ["QConv2D"]),
    "transposed": ((4, 4, 2), lambda: Upsampled(3, 3, 2), ["QConv2DTranspose"]),
    "gated": ((6, 5), Gated, ["QDense", "QDense", "QSigmoid", "QMultiply"]),
    "einsum": (
        (6, 5),
        lambda: layers.EinsumDense("abc,cde->abde", (6, 3, 2), bias_axes="de", activation="relu"),
        ["QDense", "QReshape"],
    ),
}


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", CUSTOM)
def test_write_kernels_lets_weights_of_custom_layers_train(name, tmp_path):
    shape, make, expected = CUSTOM[name]
    model, data = around(make(), shape), normal(shape)
    quantized = assert_exact(model, data, tmp_path)
    assert sorted(names(quantized)) == sorted(expected)
    before = [np.array(weight) for weight in quantized.trainable_weights]
    quantized.compile(keras.optimizers.SGD(0.1), "mse")
    quantized.fit(data, 1 + np.array(model(data)), verbose=0)
    after = [np.array(weight) for weight in quantized.trainable_weights]
    assert len(after) == len(model.trainable_weights)
    assert all(np.any(old != new) for old, new in zip(before, after, strict=True))
    assert_file_exact(quantized, data, tmp_path)


def test_write_kernels_keeps_weights_frozen():
    layer = MyDense(3)
    model = around(layer, (5,))
    layer.w.trainable = False
    clone = keras_qat.clone_model(model)
    # The kernel is frozen, its bias is not.
    quantized = keras_qat.quantize_model(model)
    assert names(quantized) == ["QDense"]
    for each in (clone, quantized):
        assert [weight.path.rpartition("/")[2] for weight in each.trainable_weights] == ["beta"]
    np.testing.assert_allclose(clone(normal((5,))), model(normal((5,))), atol=1e-5)


class Twice(MyDense):
    """Uses its kernel twice in the same way."""

    def call(self, inputs):
        return ops.matmul(ops.tanh(ops.matmul(inputs, self.w)), self.w)


class Tied(MyDense):
    """Uses its kernel in two ways."""

    def call(self, inputs):
        return ops.matmul(ops.matmul(inputs, self.w), ops.transpose(self.w)) + 0 * self.b


def test_write_kernels_shares_a_weight_used_twice(tmp_path):
    model = around(Twice(4), (6, 4))
    model.layers[1].b.trainable = False
    quantized = assert_exact(model, normal((6, 4)), tmp_path)
    assert names(quantized).count("QDense") == 1


def test_write_kernels_refuses_a_weight_used_in_two_ways():
    with pytest.raises(
        UnsupportedLayerError, match="(?s)two weights that train separately.*tied.*'tied"
    ):
        keras_qat.quantize_model(around(Tied(4, name="tied"), (6, 4)))


class Language(layers.Layer):
    """Uses the table of an embedding a second time, to score its rows."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = layers.Embedding(11, 4)

    def build(self, input_shape):
        self.table.build(input_shape)
        super().build(input_shape)

    def call(self, inputs):
        return ops.matmul(self.table(inputs), ops.transpose(self.table.embeddings))


def test_write_kernels_refuses_a_tied_weight_of_an_inner_layer():
    x = keras.Input((6,), dtype="int32")
    with pytest.raises(UnsupportedLayerError, match="(?s)become a constant.*language.*embeddings"):
        keras_qat.quantize_model(keras.Model(x, Language(name="language")(x)))


def test_write_kernels_takes_a_frozen_weight_used_in_two_ways():
    model = around(Tied(4, trainable=False), (6, 4))
    data = normal((6, 4))
    np.testing.assert_allclose(keras_qat.clone_model(model)(data), model(data), atol=1e-5)


@pytest.mark.parametrize("equation", ["bnd,nd->bnd", "bnd,nk->kd", "bnd,kn->nk", "bnd,d->bdn"])
def test_write_kernels_refuses_other_einsums(equation):
    x = keras.Input((5, 5))
    shape = (5,) * (len(equation.split("->")[0].split(",")[1]))
    with pytest.raises((UnsupportedLayerError, ValueError)):
        keras_qat.quantize_model(keras.Model(x, ops.einsum(equation, x, kernel(*shape))))


class Lookups(layers.Layer):
    """Looks up rows of its own tables, as layers with tied embeddings do."""

    def build(self, input_shape):
        del input_shape
        self.tokens = self.add_weight(shape=(9, 4), name="tokens")
        self.pairs = self.add_weight(shape=(9, 2, 2), name="pairs")

    def call(self, ids):
        pairs = ops.take(self.pairs, ids, axis=0)
        return ops.take(self.tokens, ids, axis=-2), ops.reshape(pairs, (-1, ids.shape[1], 4))


def test_write_kernels_writes_a_lookup_in_a_weight_as_an_embedding(tmp_path):
    ids = keras.Input((5,), dtype="int32")
    tokens, pairs = Lookups(name="lookups")(ids)
    model = keras.Model(ids, [tokens + pairs, tokens])
    data = np.random.default_rng(0).integers(0, 9, (6, 5))
    qat = keras_qat.quantize_model(model, calibration_data=data)
    assert len(qat.trainable_weights) == 2
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(qat, path)
    assert keras_qat.verify(qat, path, data, verbose=0).exact


class Steps(layers.Layer):
    """Adds one bias after the same product in each step of a loop."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(4, 8), name="w")
        self.b = self.add_weight(shape=(8,), name="b", initializer="random_normal")

    def call(self, inputs):
        state = ops.matmul(inputs[:, 0], self.w) + self.b
        for step in range(1, inputs.shape[1]):
            state = ops.relu(ops.matmul(inputs[:, step], self.w) + self.b) + state
        return state


class InTwoRows(layers.Layer):
    """Adds one bias between different factors."""

    def build(self, input_shape):
        self.b = self.add_weight(shape=(4,), name="b", initializer="random_normal")

    def call(self, inputs):
        return ops.relu(2 * inputs + self.b) + ops.relu(3 * (inputs + self.b) + 1)


class TableTwice(layers.Layer):
    """Adds a table, which is not one value for each channel, to two tensors."""

    def build(self, input_shape):
        self.b = self.add_weight(shape=(3, 4), name="b", initializer="random_normal")

    def call(self, inputs):
        return ops.relu(inputs + self.b) + ops.tanh(3 * inputs + self.b)


@pytest.mark.parametrize("layer", [TableTwice, *slow(Steps, InTwoRows)])
def test_write_kernels_keeps_a_bias_of_several_sums_one_weight(layer, tmp_path):
    model = around(layer(), (3, 4))
    data = normal((3, 4))
    quantized = assert_exact(model, data, tmp_path)
    assert len(quantized.trainable_weights) == len(model.trainable_weights)
    quantized.compile("sgd", "mse")
    quantized.fit(data, np.zeros((len(data), *quantized.output_shape[1:])), verbose=0)
    assert_file_exact(quantized, data, tmp_path)


class InTwoRoles(MyDense):
    """Adds its bias, and multiplies by it."""

    def call(self, inputs):
        return (ops.matmul(inputs, self.w) + self.b) * self.b


def test_write_kernels_refuses_a_weight_that_is_added_and_multiplied():
    with pytest.raises(UnsupportedLayerError, match="train separately.*'roles_add'"):
        keras_qat.quantize_model(around(InTwoRoles(4, name="roles"), (6, 4)))
