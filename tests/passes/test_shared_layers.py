"""A layer that is called more than once computes each call as Keras does."""

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.passes.customs import MyDense, normal
from tests.quick import some_quick

IMAGES = ((8, 6, 3), (4, 10, 3), (12, 4, 3))
SEQUENCES = ((8, 4), (5, 4))
VECTORS = ((4,), (6,), (2, 3))


class Padded(layers.Layer):
    """A layer without weights. Its call has an argument."""

    def call(self, x, sign=1.0):
        return sign * ops.pad(x, [[0, 0], *[[1, 0]] * (len(x.shape) - 1)])


class Resized(layers.Layer):
    """A layer that consists of layers without weights."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.up, self.crop = layers.UpSampling2D(2), layers.Cropping2D(1)

    def call(self, x):
        return self.crop(self.up(x))


class Folded(keras.Model):
    """A subclassed model that calls its own layers at several sizes."""

    def __init__(self):
        super().__init__()
        self.up, self.flat, self.relu = layers.UpSampling2D(2), layers.Flatten(), layers.ReLU()

    def call(self, x):
        return [self.flat(self.relu(self.up(x))), self.flat(self.up(self.up(x)))]


def nested():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(3, 3, padding="same", activation="swish")(image)
    return keras.Model(image, layers.UpSampling2D(2)(layers.BatchNormalization()(x)))


def flat(x):
    return ops.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))


# Functions that make a layer, with the shapes of its inputs.
SHARED = [
    (lambda: layers.UpSampling2D(2), IMAGES),
    (lambda: layers.UpSampling2D(2, interpolation="bilinear"), IMAGES),
    (lambda: layers.Resizing(5, 5), IMAGES),
    (lambda: layers.CenterCrop(3, 3), IMAGES),
    (lambda: layers.Cropping2D(1), IMAGES),
    (lambda: layers.ZeroPadding2D(1), IMAGES),
    (lambda: layers.AveragePooling2D(4), IMAGES),
    (lambda: layers.MaxPooling2D(3, 2, padding="same"), IMAGES),
    (lambda: layers.AdaptiveAveragePooling2D(2), IMAGES),
    (layers.GlobalAveragePooling2D, IMAGES),
    (layers.Flatten, (*IMAGES, *SEQUENCES)),
    (lambda: layers.Permute((2, 1, 3)), IMAGES),
    (lambda: layers.Reshape((-1, 2)), (*IMAGES, *SEQUENCES)),
    (lambda: layers.Softmax(axis=(1, 2)), IMAGES),
    (lambda: layers.Softmax(), VECTORS),
    (lambda: layers.Rescaling(0.5, 0.25), VECTORS),
    (lambda: layers.Lambda(flat), IMAGES),
    (lambda: layers.Lambda(lambda x: x[:, 1 : x.shape[1] - 1] * float(x.shape[1])), SEQUENCES),
    (lambda: layers.UpSampling1D(2), SEQUENCES),
    (lambda: layers.TimeDistributed(layers.Flatten()), IMAGES),
    (lambda: layers.TimeDistributed(layers.Conv1D(2, 2)), IMAGES),
    (lambda: layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False), IMAGES),
    (layers.ReLU, VECTORS),
    (lambda: layers.Activation("swish"), VECTORS),
    (lambda: layers.Dropout(0.5), VECTORS),
    (lambda: layers.Dense(2, activation="swish"), ((3,), (2, 3), (4, 3))),
    (lambda: layers.Conv2D(3, 3, strides=2, padding="same", activation="swish"), IMAGES),
    (Padded, (*IMAGES, *SEQUENCES)),
    (Resized, IMAGES),
    (nested, IMAGES),
]


def arrays(outputs):
    return [np.asarray(y) for y in keras.tree.flatten(outputs)]


def assert_same(model, other, data):
    """Checks that two models have outputs of equal shapes, dtypes and values."""
    for mine, expected in zip(arrays(other(data)), arrays(model(data)), strict=True):
        assert (mine.shape, mine.dtype) == (expected.shape, expected.dtype)
        limit = 1e-5 * max(float(np.abs(expected).max()), 1e-6)
        np.testing.assert_allclose(mine, expected, rtol=0, atol=limit)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("make", "shapes"), SHARED)
def test_shared_layer_called_at_several_shapes_keeps_its_function(make, shapes):
    layer, inputs = make(), [keras.Input(shape) for shape in shapes]
    model = keras.Model(inputs, [layer(x) for x in inputs])
    data = [normal(shape, 2) for shape in shapes]
    clone = keras_qat.clone_model(model)
    assert_same(model, clone, data)
    assert_same(model, keras_qat.strip_quantization(clone), data)


STEPS = {
    "up": lambda: layers.UpSampling2D(2),
    "crop": lambda: layers.Cropping2D(1),
    "pad": lambda: layers.ZeroPadding2D(((1, 0), (0, 1))),
    "pool": lambda: layers.MaxPooling2D(2, padding="same"),
    "mean": lambda: layers.AveragePooling2D(2, padding="same"),
    "turn": lambda: layers.Permute((2, 1, 3)),
    "relu": layers.ReLU,
    "scale": lambda: layers.Rescaling(0.5, 1.0),
    "twice": lambda: layers.Concatenate(axis=1),
    "own": Padded,
    "inner": Resized,
}


def check_chain(names):
    """Checks that a clone of a chain of shared layers computes the same."""
    made = {name: STEPS[name]() for name in names}
    image = keras.Input((6, 8, 2))
    tensors = [image]
    for name in names:
        x = tensors[-1]
        is_small = min(x.shape[1:3]) <= 2 and name == "crop"
        if not is_small and max(x.shape[1:3]) <= 40:
            tensors.append(made[name]([x, x] if name == "twice" else x))
    if len(tensors) == 1:
        return
    model = keras.Model(image, tensors[1:])
    assert_same(model, keras_qat.clone_model(model), normal((6, 8, 2), 2))


names_of_steps = st.lists(st.sampled_from(sorted(STEPS)), min_size=2, max_size=8)


@settings(max_examples=10, suppress_health_check=[HealthCheck.too_slow])
@given(names_of_steps)
def test_shared_layers_in_chains_keep_their_function(names):
    check_chain(names)


@pytest.mark.slow
@settings(max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(names_of_steps)
def test_shared_layers_in_many_chains_keep_their_function(names):
    check_chain(names)


def assert_exact(model, data, folder):
    """Checks that the quantized model has the model's shapes, and its file equal values."""
    qat = keras_qat.quantize_model(model, calibration_data=data)
    assert [y.shape for y in qat.outputs] == [y.shape for y in model.outputs]
    keras_qat.export_litert(qat, folder / "model.tflite")
    report = keras_qat.verify(qat, folder / "model.tflite", data, verbose=0)
    assert report.exact, report
    reloaded = keras_qat_round_trip(qat, folder / "model.keras")
    for mine, expected in zip(arrays(reloaded(data)), arrays(qat(data)), strict=True):
        assert np.array_equal(mine, expected)


def keras_qat_round_trip(qat, path):
    qat.save(path)
    return keras.saving.load_model(path)


def test_shared_upsampling_in_a_feature_pyramid_is_exact(tmp_path):
    image, up, relu = keras.Input((16, 16, 2)), layers.UpSampling2D(2), layers.ReLU()
    a = relu(layers.Conv2D(4, 3, strides=2, padding="same")(image))
    b = relu(layers.Conv2D(4, 3, strides=2, padding="same")(a))
    top = layers.Concatenate()([a, up(b)])
    model = keras.Model(image, [layers.Concatenate()([image, up(top)]), up(up(b))])
    assert_exact(model, normal((16, 16, 2), 4), tmp_path)


def test_shared_layers_of_a_subclassed_model_are_exact(tmp_path):
    image = keras.Input((3, 4, 2))
    model = keras.Model(image, Folded()(layers.Conv2D(2, 1)(image)))
    assert_exact(model, normal((3, 4, 2), 4), tmp_path)


def test_shared_layer_called_with_different_arguments_keeps_its_function():
    x, layer, product = keras.Input((3, 4)), Padded(), layers.Lambda(lambda xs: xs[0] * xs[1])
    y = layers.Dense(4)(x)
    outputs = [layer(x), layer(x, sign=-1.0), product([x, y]), product([x, x]), product([y, x])]
    model = keras.Model(x, outputs)
    assert_same(model, keras_qat.clone_model(model), normal((3, 4), 2))


class Table(layers.Layer):
    """Adds a table that is not along the last axis, of as many rows as there are heads."""

    def build(self, input_shape):
        self.table = self.add_weight(shape=(2, 1, 1), name="table", initializer="random_normal")

    def call(self, x):
        return ops.softmax(x + self.table)


@pytest.mark.parametrize(
    ("make", "shapes", "weights"),
    some_quick(
        [
            (
                lambda: layers.EinsumDense("abc,cde->abde", (None, 2, 3), bias_axes="de"),
                SEQUENCES,
                2,
            ),
            (lambda: layers.EinsumDense("abc,cd->abd", (None, 3), activation="relu"), SEQUENCES, 1),
            (lambda: MyDense(3), ((5, 4), (2, 4), (7, 4)), 2),
            (Table, ((2, 3, 4), (2, 5, 4)), 1),
        ],
        0,
        2,
    ),
    ids=["einsum", "einsum without bias", "custom", "table"],
)
def test_shared_weights_at_several_shapes_stay_shared(make, shapes, weights, tmp_path):
    layer, inputs = make(), [keras.Input(shape) for shape in shapes]
    outputs = [layers.Flatten()(ops.mean(layer(x), axis=1)) for x in inputs]
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Concatenate()(outputs)))
    data = [normal(shape, 6) for shape in shapes]
    clone = keras_qat.clone_model(model)
    assert_same(model, clone, data)
    assert len(clone.trainable_variables) == weights + 2
    qat = keras_qat.quantize_model(model, calibration_data=data)
    qat.compile(keras.optimizers.SGD(0.1), "mse")
    qat.fit(data, np.ones((6, 2), "float32"), verbose=0)
    qat.save(tmp_path / "model.keras")
    qat = keras.models.load_model(tmp_path / "model.keras")
    assert len(qat.trainable_variables) == weights + 2
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    assert keras_qat.verify(qat, tmp_path / "model.tflite", data, verbose=0).exact


def test_shared_layer_that_computes_differently_for_each_shape_is_refused():
    class Branched(Table):
        def call(self, x):
            return ops.softmax(x + self.table) if x.shape[2] == 3 else ops.relu(x * self.table)

    inputs, layer = [keras.Input((2, 3, 4)), keras.Input((2, 5, 4))], Branched(name="branched")
    model = keras.Model(inputs, [layer(x) for x in inputs])
    with pytest.raises(UnsupportedLayerError, match="different ways.*branched"):
        keras_qat.clone_model(model)


def test_shared_attention_with_and_without_a_causal_mask_is_refused():
    x, attention = keras.Input((5, 4)), layers.MultiHeadAttention(2, 3, name="attention")
    model = keras.Model(x, [attention(x, x), attention(x, x, use_causal_mask=True)])
    with pytest.raises(UnsupportedLayerError, match="weights would not stay shared"):
        keras_qat.clone_model(model)


@pytest.mark.parametrize("is_nested", [False, True])
def test_batch_norm_that_always_trains_is_refused(is_nested):
    x, norm = keras.Input((5,)), layers.BatchNormalization(name="norm")
    layer = keras.Sequential([keras.Input((5,)), norm]) if is_nested else norm
    model = keras.Model(x, layer(layers.Dense(5)(x), training=True))
    with pytest.raises(UnsupportedLayerError, match="training=True") as caught:
        keras_qat.clone_model(model)
    assert caught.value.layer == "norm"
    assert not keras_qat.check(model).ok
