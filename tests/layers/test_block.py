"""Drop-in blocks compute, train and save like the Keras layers that they replace."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.errors import InvalidModelError, UnsupportedLayerError
from keras_qat.layers import (
    QBatchNormalization,
    QConv1D,
    QConv1DTranspose,
    QConv2D,
    QConv2DTranspose,
    QDense,
    QDepthwiseConv1D,
    QDepthwiseConv2D,
    QEinsumDense,
    QSeparableConv1D,
    QSeparableConv2D,
)
from tests import seeds
from tests.quick import some_quick

L = keras.layers
STEPS, IMAGE = (9, 4), (9, 8, 4)
SPELLED_OUT = {
    "kernel_initializer": "he_normal",
    "bias_initializer": "ones",
    "kernel_regularizer": keras.regularizers.L2(0.01),
    "bias_regularizer": "l1",
    "activity_regularizer": "l2",
    "kernel_constraint": keras.constraints.MaxNorm(0.5),
    "bias_constraint": "non_neg",
}
UNPENALIZED = {"activity_regularizer": None}
SEPARABLE = {
    "depthwise_initializer": "he_normal",
    "pointwise_regularizer": "l2",
    "depthwise_constraint": keras.constraints.MaxNorm(0.5),
    "depth_multiplier": 2,
}

# The drop-in layer, the Keras layer, the shape of the input, and the arguments of both.
LAYERS = [
    (QConv2D, L.Conv2D, IMAGE, (6, 3), {}),
    (QConv2D, L.Conv2D, IMAGE, (6, 3), {"strides": (2, 1), "padding": "same", "groups": 2}),
    (QConv2D, L.Conv2D, IMAGE, (6, (1, 3)), {"dilation_rate": 2, **SPELLED_OUT}),
    (QConv2D, L.Conv2D, IMAGE, (6, 3, 1, "same", None, 1, 1, "relu"), {}),
    (QDepthwiseConv2D, L.DepthwiseConv2D, IMAGE, (3,), {"depth_multiplier": 2, "strides": 2}),
    (QDepthwiseConv2D, L.DepthwiseConv2D, IMAGE, (3,), {"padding": "same", "dilation_rate": 2}),
    (QConv2DTranspose, L.Conv2DTranspose, IMAGE, (5, 3), {"strides": 2, "padding": "same"}),
    (QConv2DTranspose, L.Conv2DTranspose, IMAGE, (5, 3), {"strides": 2, "output_padding": 1}),
    (QConv2DTranspose, L.Conv2DTranspose, IMAGE, (5, 3), {"dilation_rate": 2}),
    (QSeparableConv2D, L.SeparableConv2D, IMAGE, (6, 3), {"strides": 2, "padding": "same"}),
    (QSeparableConv2D, L.SeparableConv2D, IMAGE, (6, 3), {"dilation_rate": 2, **SEPARABLE}),
    (QConv1D, L.Conv1D, STEPS, (6, 3), {"padding": "causal", "dilation_rate": 2}),
    (QConv1D, L.Conv1D, STEPS, (6, 3), {"strides": 2, "groups": 2, **SPELLED_OUT}),
    (QDepthwiseConv1D, L.DepthwiseConv1D, STEPS, (3,), {"padding": "same", "strides": 2}),
    (QConv1DTranspose, L.Conv1DTranspose, STEPS, (5, 3), {"strides": 2, "padding": "same"}),
    (QSeparableConv1D, L.SeparableConv1D, STEPS, (6, 3), {"strides": 2}),
    (QSeparableConv1D, L.SeparableConv1D, STEPS, (6, 3), {"padding": "same", **SEPARABLE}),
    (QDense, L.Dense, (7,), (5,), SPELLED_OUT),
    (QDense, L.Dense, (3, 7), (5, "tanh"), {"use_bias": True}),
    (QDense, L.Dense, (7,), (5,), {"lora_rank": 2}),
    (QEinsumDense, L.EinsumDense, (3, 7), ("abc,cd->abd", (None, 5)), {"bias_axes": "d"}),
    (QEinsumDense, L.EinsumDense, (3, 7), ("abc,cde->abde", (None, 2, 5)), {}),
]


def skip_where_keras_cannot(theirs, shape, args, kwargs):
    """Skips a dilated transposed convolution on CPUs for which TensorFlow has no kernel."""
    try:
        theirs(*args, **kwargs)(np.zeros((1, *shape), "float32"))
    except tf.errors.InvalidArgumentError as error:
        if "do not yet support dilation rates" not in str(error):
            raise
        pytest.skip("TensorFlow has no dilated transposed convolution for this CPU")


def pair(kind, theirs, shape, args, kwargs, norm, activation):
    """Makes a model of the drop-in layer and a model of the Keras layers from one seed."""
    skip_where_keras_cannot(theirs, shape, args, kwargs)
    norm_arguments = {"momentum": 0.9, "epsilon": 0.01} if norm else {}
    seeds.seed(7)
    own = {} if activation is None else {"activation": activation}
    block = kind(*args, **kwargs, **own, **({"batch_norm": norm_arguments} if norm else {}))
    ours = keras.Sequential([keras.Input(shape), block])
    given = theirs(*args, **kwargs).get_config()
    last = activation or given["activation"]
    seeds.seed(7)
    given["activation"] = last
    if "use_bias" in given:
        given["use_bias"] = block.use_bias
    if not norm:
        return ours, keras.Sequential([keras.Input(shape), theirs.from_config(given)])
    # The penalty is on the output of the block.
    penalty = given.pop("activity_regularizer", None)
    head = theirs.from_config({**given, "activation": None})
    behind = L.Activation(last, activity_regularizer=penalty)
    chain = [head, L.BatchNormalization(**norm_arguments), behind]
    return ours, keras.Sequential([keras.Input(shape), *chain])


@pytest.mark.parametrize("norm", [pytest.param(False, marks=pytest.mark.slow), True])
@pytest.mark.parametrize(
    ("kind", "theirs", "shape", "args", "kwargs"), some_quick(LAYERS, 0, 6, 10, 12, 18, 20)
)
def test_block_equals_the_keras_layers_in_sequence(kind, theirs, shape, args, kwargs, norm):
    activation = None if len(args) > 7 or "tanh" in args else "swish"
    ours, plain = pair(kind, theirs, shape, args, kwargs, norm, activation)
    assert [w.shape for w in ours.weights] == [w.shape for w in plain.weights]
    for mine, other in zip(ours.weights, plain.weights, strict=True):
        np.testing.assert_array_equal(np.array(mine), np.array(other))
    rng = np.random.default_rng(0)
    x = rng.normal(0.5, 2.0, (8, *shape)).astype("float32")
    for training in (False, True):
        assert_same_step(ours, plain, x, training)
    train_both(ours, plain, x, steps=10)
    for mine, other in zip(ours.weights, plain.weights, strict=True):
        np.testing.assert_allclose(np.array(mine), np.array(other), rtol=1e-4, atol=1e-5)


def assert_same_step(ours, plain, x, training):
    """Checks that outputs, losses and gradients agree."""
    found = []
    for model in (ours, plain):
        with tf.GradientTape() as tape:
            y = model(x, training=training)
            loss = tf.reduce_mean(y**2) + tf.add_n([0.0, *model.losses])
        found.append((y, loss, *tape.gradient(loss, [w.value for w in model.trainable_weights])))
    for mine, other in zip(*found, strict=True):
        size = max(float(tf.reduce_max(tf.abs(other))), 1e-3)
        np.testing.assert_allclose(mine.numpy(), other.numpy(), rtol=0, atol=1e-5 * size)


def train_both(ours, plain, x, steps):
    target = np.random.default_rng(1).normal(size=plain(x).shape).astype("float32")
    for model in (ours, plain):
        model.compile(keras.optimizers.SGD(0.01), "mse")
        model.fit(x, target, batch_size=len(x), epochs=steps, shuffle=False, verbose=0)


@pytest.mark.parametrize("kind", [QConv2D, QConv1D, QDense, QSeparableConv2D, QDepthwiseConv2D])
def test_block_with_a_batch_norm_has_a_bias_only_on_request(kind):
    arguments = {QDense: (3,), QDepthwiseConv2D: (3,)}.get(kind, (3, 3))
    assert kind(*arguments).use_bias
    assert not kind(*arguments, batch_norm=True).use_bias
    assert kind(*arguments, batch_norm=True, use_bias=True).use_bias
    assert not kind(*arguments, use_bias=False).use_bias
    again = kind.from_config(kind(*arguments, batch_norm=True, use_bias=True).get_config())
    assert again.use_bias and again.batch_normalization is not None


@pytest.mark.parametrize("value", ["yes", L.BatchNormalization(), {"momentums": 0.9}])
def test_block_refuses_an_invalid_batch_norm(value):
    with pytest.raises(InvalidModelError, match="Layer: 'conv'.*arguments of keras.layers"):
        QConv2D(3, 1, batch_norm=value, name="conv")


def test_block_without_integers_refuses_a_scheme():
    with pytest.raises(UnsupportedLayerError, match="'own'.* Expected: scheme=None.*QEinsumDense"):
        QEinsumDense("ab,bc->ac", 3, scheme="int8", name="own")


def test_block_takes_use_bias_by_position():
    assert QDense(3, "relu", True, batch_norm=True).use_bias


@pytest.mark.parametrize(("kind", "theirs", "shape", "args", "kwargs"), LAYERS)
def test_block_configuration_makes_an_equal_block(kind, theirs, shape, args, kwargs):
    del theirs
    layer = kind(*args, **kwargs, batch_norm={"momentum": 0.5})
    again = kind.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    assert again.batch_normalization.momentum == 0.5
    model = keras.Sequential([keras.Input(shape), layer])
    copy = keras.models.model_from_json(model.to_json())
    assert [w.shape for w in copy.weights] == [w.shape for w in model.weights]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("kind", "theirs", "shape", "args", "kwargs"), LAYERS)
@pytest.mark.parametrize("norm", some_quick([False, True], 1))
def test_block_copies_weights_from_and_to_keras(kind, theirs, shape, args, kwargs, norm):
    _, plain = pair(kind, theirs, shape, args, {**kwargs, **UNPENALIZED}, norm, None)
    for weight in plain.weights:
        weight.assign(np.abs(np.random.default_rng(2).normal(size=weight.shape)) + 0.1)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    block = kind.from_keras(plain.layers)
    assert block.name == plain.layers[0].name
    np.testing.assert_allclose(block(x), plain(x), rtol=1e-5, atol=1e-5)
    back = keras.Sequential([keras.Input(shape), *(block.to_keras() or [])])
    assert all(type(layer).__module__.startswith("keras.") for layer in back.layers)
    np.testing.assert_allclose(back(x), plain(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "theirs"), [(QDense, L.Dense), (QEinsumDense, L.EinsumDense)])
def test_block_copies_the_weights_of_its_activation(kind, theirs):
    arguments = (3,) if theirs is L.Dense else ("ab,bc->ac", 3)
    plain, x = theirs(*arguments, activation=L.PReLU()), np.eye(4, dtype="float32") - 0.5
    plain(x)
    plain.activation.alpha.assign([0.1, 0.5, 2.0])
    block = kind.from_keras(plain)
    np.testing.assert_allclose(block(x), plain(x), atol=1e-6)
    plain.activation.alpha.assign([0.0, 0.0, 0.0])
    (back,) = block.to_keras() or []
    np.testing.assert_allclose(back(x), block(x), atol=1e-6)


def test_block_keeps_names_from_and_to_keras():
    chain = [L.Conv2D(3, 1, name="conv"), L.BatchNormalization(name="bn"), L.ReLU(name="act")]
    block = QConv2D.from_keras(chain)
    assert not block.built
    assert [layer.name for layer in block.to_keras() or []] == ["conv", "bn", "act"]


@pytest.mark.parametrize(
    ("chain", "message"),
    [
        ([L.Conv1D(3, 1)], "does not stand"),
        ([], "does not stand"),
        ([L.Conv2D(3, 1), L.MaxPooling2D()], "cannot absorb"),
        ([L.Conv2D(3, 1), L.ReLU(), L.BatchNormalization()], "cannot absorb"),
        ([L.Conv2D(3, 1, activation="relu"), L.BatchNormalization()], "cannot absorb"),
        ([L.Conv2D(3, 1), L.BatchNormalization(), L.BatchNormalization()], "cannot absorb"),
        ([L.Conv2D(3, 1), L.LeakyReLU()], "cannot absorb"),
        ([L.Conv2D(3, 1, activity_regularizer="l2"), L.ReLU()], "A penalty on a tensor inside"),
    ],
)
def test_from_keras_refuses_chains_that_are_not_a_block(chain, message):
    with pytest.raises(InvalidModelError, match=message):
        QConv2D.from_keras(chain)


def test_block_with_a_frozen_kernel_and_a_trainable_batch_norm():
    chain = [L.Conv2D(3, 1, trainable=False), L.BatchNormalization()]
    plain = keras.Sequential([keras.Input(IMAGE), *chain])
    block = QConv2D.from_keras(plain.layers)
    again = QConv2D.from_config(block.get_config())
    again.build((None, *IMAGE))
    for each in (block, again):
        names = {weight.path.rpartition("/")[2] for weight in each.trainable_weights}
        assert names == {"gamma", "beta"}
    flags = [layer.trainable for layer in block.to_keras() or []]
    assert flags == [False, True]


@pytest.mark.parametrize("is_trained", [True, False])
def test_block_with_a_frozen_batch_norm(is_trained):
    chain = [L.Conv2D(3, 1, trainable=is_trained), L.BatchNormalization(trainable=False)]
    block = QConv2D.from_keras(keras.Sequential([keras.Input(IMAGE), *chain]).layers)
    again = QConv2D.from_config(block.get_config())
    again.build((None, *IMAGE))
    names = {weight.path.rpartition("/")[2] for weight in again.trainable_weights}
    assert names == ({"kernel", "bias"} if is_trained else set())
    assert not again.batch_normalization.trainable


def test_block_saves_what_was_frozen_later():
    block = QConv2D(3, 1, batch_norm=True)
    block.build((None, *IMAGE))
    block.batch_normalization.trainable = False
    assert not QConv2D.from_config(block.get_config()).batch_normalization.trainable
    block.trainable = False
    assert not QConv2D.from_config(block.get_config()).trainable


def test_block_with_channels_first():
    block = QConv2D(3, 1, data_format="channels_first", batch_norm=True, use_bias=True)
    assert block.batch_normalization.axis == 1
    assert block.compute_output_shape((None, 4, 9, 8)) == (None, 3, 9, 8)
    np.testing.assert_array_equal(block._spread(np.arange(3.0)).shape, (3, 1, 1))


def test_block_with_mixed_precision_has_the_dtypes_of_keras():
    x = np.random.default_rng(0).normal(size=(2, *IMAGE)).astype("float32")
    block = QConv2D(3, 1, batch_norm=True, dtype="mixed_float16")
    plain = keras.Sequential([keras.Input(IMAGE), *(block.to_keras() or [])])
    assert block(x).dtype == plain(x).dtype == "float16"
    assert block.kernel.dtype == "float32"


class Subclassed(keras.Model):
    """A subclassed model of drop-in layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = QConv2D(4, 3, batch_norm=True, activation="relu")
        self.norm = QBatchNormalization(activation="relu6")
        self.head = QDense(2)

    def call(self, x, training=None):
        y = self.norm(self.conv(x, training=training), training=training)
        return self.head(keras.ops.mean(y, axis=(1, 2)))


def test_block_trains_in_a_subclassed_model():
    model = Subclassed()
    x = np.random.default_rng(0).normal(size=(8, *IMAGE)).astype("float32")
    model.compile("sgd", "mse")
    first = model.fit(x, np.ones((8, 2)), epochs=1, verbose=0).history["loss"][0]
    assert model.fit(x, np.ones((8, 2)), epochs=9, verbose=0).history["loss"][-1] < first


def test_block_returns_an_activation_that_is_a_lambda():
    block = QDense(3, activation=lambda x: x * 0.5, name="head")
    x = np.ones((2, 4), "float32")
    expected = np.array(block(x))
    with pytest.warns(UserWarning, match="includes a `lambda`"):
        (layer,) = block.to_keras() or []
    np.testing.assert_array_equal(np.array(layer(x)), expected)


def test_block_gives_its_activation_its_dtype_policy():
    block = QDense(3, batch_norm=True, activation="relu", dtype="mixed_bfloat16")
    assert {layer.compute_dtype for layer in block.to_keras() or []} == {"bfloat16"}
