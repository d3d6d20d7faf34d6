"""Values that are computed from weights alone. The oracles are Keras and the interpreter."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from tests.passes.customs import assert_exact, assert_file_exact, normal
from tests.quick import some_quick

IMAGE = (6, 6, 4)


class Fusion(layers.Layer):
    """A weighted sum of images, as in BiFPN. `function` computes the factors from the weights."""

    def __init__(self, function, in_list=False, **kwargs):
        super().__init__(**kwargs)
        self.function, self.in_list = function, in_list

    def build(self, shapes):
        options = {"initializer": keras.initializers.RandomUniform(0.5, 1.5, seed=1)}
        if self.in_list:
            self.w = [self.add_weight((), name=f"w{i}", **options) for i in range(len(shapes))]
        else:
            self.w = self.add_weight((len(shapes),), name="w", **options)

    def compute_output_shape(self, shapes):
        return shapes[0]

    def call(self, inputs):
        factors = self.function(self.w)
        return sum(factors[i] * x for i, x in enumerate(inputs))


def fast(w):
    """Normalizes weights without a softmax, as EfficientDet does."""
    return w / (ops.sum(ops.relu(w)) + 1e-4)


def fast_of_list(w):
    kept = [ops.relu(each) for each in w]
    return [each / (sum(kept) + 1e-4) for each in kept]


FUSIONS = {
    "fast": (lambda: Fusion(fast)),
    "relu": (lambda: Fusion(lambda w: ops.relu(w) / (ops.sum(ops.relu(w)) + 1e-4))),
    "softmax": (lambda: Fusion(ops.softmax)),
    "list": (lambda: Fusion(fast_of_list, in_list=True)),
    "plain": (lambda: Fusion(lambda w: w)),
}


def model_of(fusion):
    """Makes a node of BiFPN: three tensors are fused, then an activation and a convolution."""
    x = keras.Input(IMAGE, name="x")
    y = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    z = layers.UpSampling2D(name="up")(layers.MaxPooling2D(name="pool")(y))
    fused = layers.Activation("swish", name="swish")(fusion([x, y, z]))
    return keras.Model(x, layers.Conv2D(2, 3, name="head")(fused))


@pytest.mark.parametrize("name", some_quick(FUSIONS, 0))
def test_fusion_weights_are_exact_and_train(tmp_path, name):
    model, data = model_of(FUSIONS[name]()), normal(IMAGE, 8)
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(data), model(data), atol=1e-5)
    quantized = keras_qat.quantize_model(model, calibration_data=data)
    assert sum("gamma" in v.path for v in quantized.trainable_variables) == 3  # the factors
    before = [ops.convert_to_numpy(v).copy() for v in quantized.trainable_variables]
    quantized.compile(keras.optimizers.SGD(0.1), "mse")
    quantized.fit(data, np.ones((8, *model.output_shape[1:]), "float32"), verbose=0)
    after = [ops.convert_to_numpy(v) for v in quantized.trainable_variables]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    quantized.save(tmp_path / "model.keras")
    assert_file_exact(keras.models.load_model(tmp_path / "model.keras"), data, tmp_path)


@pytest.mark.parametrize(
    "function",
    [
        lambda w: [w[0], w[0], w[1]],
        lambda w: [ops.relu(w)[1], ops.relu(w)[1], w[0]],
        lambda w: [ops.sum(w), w[0], w[1]],
        lambda w: [ops.cumsum(w)[0], ops.cumsum(w)[1], w[2]],
    ],
)
def test_numbers_that_are_used_twice_are_refused(function):
    model = model_of(Fusion(function, name="fusion"))
    with pytest.raises(UnsupportedLayerError, match="used in two ways.*'fusion'"):
        keras_qat.quantize_model(model)


class Offsets(layers.Layer):
    """A layer with weights in a dict."""

    def build(self, input_shape):
        shape = input_shape[-1:]
        self.parts = {"shift": self.add_weight(shape, name="shift"), "other": [3.0]}

    def call(self, x):
        return ops.abs(x) + self.parts["shift"] * self.parts["other"][0]


def test_weights_in_a_dict_are_found(tmp_path):
    x = keras.Input((5, 3), name="x")
    assert_exact(keras.Model(x, Offsets(name="offsets")(x)), normal((5, 3)), tmp_path)
