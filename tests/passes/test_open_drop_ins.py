"""open_drop_ins: a model of drop-in layers becomes the same file as its model of Keras layers."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.layers import (
    QAdd,
    QBatchNormalization,
    QConv1D,
    QConv2D,
    QConv2DTranspose,
    QDense,
    QDepthwiseConv2D,
    QGlobalAveragePooling2D,
    QMaximum,
    QMaxPooling2D,
    QMultiply,
    QReLU,
    QSeparableConv2D,
)
from keras_qat.litert import to_bytes
from keras_qat.lowering import lower_model
from tests import seeds
from tests.quick import some_quick

IMAGE = (8, 8, 3)


def norm(name):
    return layers.BatchNormalization(name=name)


def residual_plain(x):
    y = layers.Conv2D(4, 3, padding="same", use_bias=False, name="stem")(x)
    y = layers.ReLU(6, name="stem_relu")(norm("stem_norm")(y))
    z = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="depth")(y)
    z = layers.Activation("relu")(norm("depth_norm")(z))
    z = norm("project_norm")(layers.Conv2D(4, 1, use_bias=False, name="project")(z))
    y = layers.Activation("relu")(layers.Add(name="add")([y, z]))
    y = layers.MaxPooling2D(name="pool")(y)
    y = layers.GlobalAveragePooling2D(name="mean")(y)
    return layers.Dense(3, activation="softmax", name="head")(y)


def residual_ours(x):
    y = QConv2D(4, 3, padding="same", batch_norm=True, activation="relu6", name="stem")(x)
    z = QDepthwiseConv2D(3, padding="same", batch_norm=True, activation="relu", name="depth")(y)
    z = QConv2D(4, 1, batch_norm=True, name="project")(z)
    y = QMaxPooling2D(name="pool")(QAdd("relu", name="add")([y, z]))
    return QDense(3, activation="softmax", name="head")(QGlobalAveragePooling2D(name="mean")(y))


def apart_plain(x):
    y = norm("a_norm")(layers.Conv2D(4, 3, name="a")(x))
    return layers.ReLU(name="end")(y)


def apart_ours(x):
    """Builds blocks without an activation. A layer after them has it."""
    return QReLU(name="end")(QConv2D(4, 3, batch_norm=True, use_bias=True, name="a")(x))


def others_plain(x):
    y = layers.SeparableConv2D(4, 3, padding="same", use_bias=False, name="a")(x)
    y = layers.Activation("swish", name="a_silu")(norm("a_norm")(y))
    z = layers.Conv2DTranspose(4, 3, padding="same", activation="relu", name="b")(x)
    y = layers.Maximum(name="c")([layers.Multiply(name="d")([y, z]), z])
    y = layers.ReLU(name="e_relu")(norm("e")(layers.Activation("tanh", name="t")(y)))
    y = layers.Add(name="f")([y, z, z])
    return layers.MaxPooling2D(name="end")(layers.Activation("elu", name="f_elu")(y))


def others_ours(x):
    y = QSeparableConv2D(4, 3, padding="same", batch_norm=True, activation="swish", name="a")(x)
    z = QConv2DTranspose(4, 3, padding="same", activation="relu", name="b")(x)
    y = QMaximum(name="c")([QMultiply(name="d")([y, z]), z])
    y = QBatchNormalization("relu", name="e")(layers.Activation("tanh", name="t")(y))
    return QMaxPooling2D(name="end")(QAdd("elu", name="f")([y, z, z]))


PAIRS = [
    (residual_plain, residual_ours),
    (apart_plain, apart_ours),
    (others_plain, others_ours),
]


def models_of(plain, ours):
    """Makes both models from one seed."""
    made = []
    for write in (plain, ours):
        seeds.seed(11)
        image = keras.Input(IMAGE, name="image")
        made.append(keras.Model(image, write(image), name="model"))
    return made


def file_of(model, data):
    quantized = keras_qat.quantize_model(model)
    keras_qat.calibrate(quantized, data, verbose=0)
    return to_bytes(lower_model(quantized))


@pytest.mark.parametrize(("plain", "ours"), some_quick(PAIRS, 2))
def test_open_drop_ins_gives_the_file_of_the_keras_model_after_training(plain, ours):
    rng = np.random.default_rng(0)
    data = rng.normal(size=(32, *IMAGE)).astype("float32")
    models = models_of(plain, ours)
    target = rng.random(models[0](data).shape)
    for model in models:
        model.compile(keras.optimizers.SGD(0.01), "mse")
        seeds.seed(12)
        model.fit(data, target, batch_size=16, epochs=2, shuffle=False, verbose=0)
    theirs, mine = models
    # Training is not bit-exact from run to run, so both models get the same weights.
    theirs.set_weights(mine.get_weights())
    expected = file_of(keras_qat.clone_model(theirs), data)
    assert file_of(mine, data) == expected
    assert file_of(theirs, data) == expected
    assert file_of(keras_qat.clone_model(mine), data) == expected


def test_drop_in_model_trains_like_the_keras_model():
    rng = np.random.default_rng(0)
    data, target = rng.normal(size=(32, *IMAGE)).astype("float32"), rng.integers(0, 3, 32)
    models = models_of(residual_plain, residual_ours)
    for model in models:
        model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
        seeds.seed(12)
        model.fit(data, target, batch_size=16, epochs=5, shuffle=False, verbose=0)
    for mine, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-4, atol=1e-5)


def test_drop_in_layers_have_the_names_that_keras_gives():
    keras.utils.clear_session()
    x = keras.Input(IMAGE)
    y = QAdd()([QConv2D(3, 1)(x), QConv2D(3, 1)(x)])
    model = keras.Model(x, QReLU()(QDepthwiseConv2D(1)(layers.Conv2D(3, 1)(y))))
    assert [layer.name for layer in model.layers[1:]] == [
        "conv2d",
        "conv2d_1",
        "add",
        "conv2d_2",
        "depthwise_conv2d",
        "re_lu",
    ]


def test_open_drop_ins_keeps_a_block_shared():
    x, y = keras.Input(IMAGE), keras.Input(IMAGE)
    block = QConv2D(3, 3, batch_norm=True, activation="swish", name="block")
    clone = keras_qat.clone_model(keras.Model([x, y], [block(x), block(y)]))
    convolutions = [layer for layer in clone.layers if type(layer) is QConv2D]
    assert len(convolutions) == 1 and len(clone.weights) == len(block.weights)


class Custom(layers.Layer):
    """A custom layer with a drop-in layer inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = QConv2D(3, 3, batch_norm=True, activation="swish", name="inner")

    def call(self, x):
        return self.inner(x) + 1.0


def test_open_drop_ins_reaches_into_custom_layers():
    x = keras.Input(IMAGE)
    model = keras.Model(x, Custom(name="custom")(x))
    clone = keras_qat.clone_model(model)
    data = np.random.default_rng(0).normal(size=(4, *IMAGE)).astype("float32")
    np.testing.assert_allclose(clone(data), model(data), rtol=1e-5, atol=1e-5)
    assert len(clone.trainable_weights) == len(model.trainable_weights)


def test_open_drop_ins_of_a_sequence_model():
    x = keras.Input((9, 3), name="x")
    ours = keras.Model(x, QConv1D(4, 3, padding="causal", activation="selu", name="a")(x))
    plain = keras.Model(x, layers.Conv1D(4, 3, padding="causal", activation="selu", name="a")(x))
    plain.set_weights(ours.get_weights())
    data = np.random.default_rng(0).normal(size=(8, 9, 3)).astype("float32")
    assert file_of(ours, data) == file_of(plain, data)


@keras.saving.register_keras_serializable("tests")
class Doubled(QConv2D):
    """A subclass that computes a different function."""

    def float_forward(self, inputs, training=None):
        return 2.0 * super().float_forward(inputs, training=training)


def test_open_drop_ins_leaves_subclasses():
    x = keras.Input(IMAGE)
    model = keras.Model(x, Doubled(3, 3, name="doubled")(x))
    clone = keras_qat.clone_model(model)
    assert type(clone.get_layer("doubled")) is Doubled
    data = np.random.default_rng(0).normal(size=(4, *IMAGE)).astype("float32")
    np.testing.assert_array_equal(np.asarray(clone(data)), np.asarray(model(data)))


def test_open_drop_ins_is_logged():
    image = keras.Input(IMAGE, name="image")
    clone = keras_qat.clone_model(keras.Model(image, apart_ours(image)))
    assert [str(rewrite) for rewrite in clone.rewrite_log] == [
        "open_drop_ins: a -> a + a_batch_normalization",
        "open_drop_ins: end -> end",
        "fold_batch_norms: a + a_batch_normalization -> a",
        "fuse_activations: a + end -> a",
    ]


def test_open_drop_ins_of_a_clone_with_folded_factors_gives_the_same_file():
    x = keras.Input(IMAGE, name="image")
    y = layers.Conv2D(4, 3, activation="relu", name="first")(layers.Rescaling(0.1, -1.0)(x))
    y = layers.Conv2D(4, 3, strides=2, name="second")(layers.Rescaling(2.0, 1.0)(y))
    model = keras.Model(x, y)
    data = np.random.default_rng(0).normal(size=(8, *IMAGE)).astype("float32")
    assert file_of(keras_qat.clone_model(model), data) == file_of(model, data)
