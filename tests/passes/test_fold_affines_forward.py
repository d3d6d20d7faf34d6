"""Constant arithmetic before a convolution or a dense layer is folded into its kernel and bias."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.graph import build_model, read_model
from keras_qat.passes import PIPELINE, run_pipeline
from tests import seeds
from tests.layers.cases import layer, randomize
from tests.layers.litert_files import exported, operators_of
from tests.models import called
from tests.quick import some_quick

layers = keras.layers
IMAGES = np.random.default_rng(0).integers(0, 256, (8, 9, 9, 3)).astype("float32")


def standardized():
    return layers.Normalization(mean=[120.0, 110.0, 100.0], variance=[3e3, 4e3, 5e3])


def model_of(*chain, shape=(9, 9, 3)):
    model = keras.Sequential([keras.Input(shape), *chain])
    for each in model.layers:
        if each.trainable_weights:
            randomize(each, np.random.default_rng(1))
    return model


FOLDED = [
    (standardized, layer(layers.Conv2D, 4, 3)),
    (standardized, layer(layers.Conv2D, 4, 3, use_bias=False, activation="relu")),
    (standardized, layer(layers.DepthwiseConv2D, 3, depth_multiplier=2)),
    (standardized, layer(layers.Dense, 5)),
    (layer(layers.Rescaling, 1 / 255), layer(layers.Conv2D, 4, 3, padding="same")),
    (layer(layers.Rescaling, 1 / 255), layer(layers.DepthwiseConv2D, 3, padding="same")),
]


@pytest.mark.parametrize(("arithmetic", "convolution"), FOLDED)
def test_fold_affines_forward_folds_into_the_next_layer(arithmetic, convolution):
    model = model_of(arithmetic(), convolution())
    clone = keras_qat.clone_model(model)
    assert len(clone.layers) == 2  # the input and one layer
    exact = called(model, IMAGES)
    np.testing.assert_allclose(called(clone, IMAGES), exact, rtol=1e-4, atol=1e-4)
    assert (
        len(operators_of(exported(keras_qat.quantize_model(model, calibration_data=IMAGES)))) == 1
    )


@pytest.mark.parametrize(
    "convolution",
    [
        layer(layers.Conv2D, 4, 3, padding="same"),  # pads with 0, not with the value mapped to 0
        layer(layers.Conv2D, 6, 3, groups=3),
    ],
)
def test_fold_affines_forward_leaves_affines_before_padding(convolution):
    clone = keras_qat.clone_model(model_of(standardized(), convolution()))
    assert len(clone.layers) == 3


def test_fold_affines_forward_folds_only_frozen_batch_norms():
    norm = layers.BatchNormalization(name="norm")
    model = model_of(norm, layers.Conv2D(4, 3, name="conv"))
    assert [x.name for x in keras_qat.clone_model(model).layers[1:]] == ["norm", "conv"]
    norm.trainable = False
    clone = keras_qat.clone_model(model)
    assert [x.name for x in clone.layers[1:]] == ["conv"]
    np.testing.assert_allclose(clone(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-2)


def test_fold_affines_forward_needs_all_consumers():
    x = keras.Input((9, 9, 3))
    y = standardized()(x)
    branch = layers.Conv2D(2, 1)(y)
    both = keras.Model(x, [branch, layers.DepthwiseConv2D(3)(y)])
    assert len(keras_qat.clone_model(both).layers) == 3
    mixed = keras.Model(x, [branch, layers.MaxPooling2D()(y)])
    assert len(keras_qat.clone_model(mixed).layers) == 4


def test_fold_affines_forward_leaves_shared_convolutions():
    x, other = keras.Input((9, 9, 3)), keras.Input((9, 9, 3))
    shared = layers.Conv2D(2, 1)
    model = keras.Model([x, other], [shared(standardized()(x)), shared(other)])
    assert len(keras_qat.clone_model(model).trainable_weights) == 2


@pytest.mark.parametrize(("arithmetic", "convolution"), some_quick(FOLDED, 0, 5))
def test_fold_affines_forward_keeps_training(arithmetic, convolution):
    """The kernel keeps its values and its gradients, so training takes the same steps."""
    model = model_of(arithmetic(), convolution())
    clone = keras_qat.clone_model(model)
    assert len(clone.layers) == 2
    target = np.random.default_rng(3).normal(size=model(IMAGES).shape)
    for each in (model, clone):
        each.compile(keras.optimizers.SGD(0.01), "mse")
        each.fit(IMAGES, target, epochs=5, batch_size=8, shuffle=False, verbose=0)
    for mine, other in zip(
        clone.get_weights(), model.get_weights()[-len(clone.weights) :], strict=True
    ):
        np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-4)


def test_fold_affines_forward_trains_on_pixels_as_on_rescaled_ones():
    """If 1 / 127.5 were in the kernel itself, the first training steps would destroy the kernel."""
    rng = np.random.default_rng(0)
    classes = np.arange(64) % 2
    data = rng.integers(0, 100, (64, 6, 6, 3)) + 100 * classes[:, None, None, None]
    rescaling = layers.Rescaling(1 / 127.5, -1.0)
    convolution = layers.Conv2D(4, 3, activation="relu")
    chain = rescaling, convolution, layers.GlobalAveragePooling2D(), layers.Dense(2)
    model = model_of(*chain, shape=(6, 6, 3))
    names = [rewrite.__name__ for rewrite in PIPELINE]
    others = [name for name in names if name != "fold_affines_forward"]
    losses = []
    for rewrites in (names, others):
        quantized = keras_qat.quantize_model(model, rewrites=rewrites)
        keras_qat.calibrate(quantized, data.astype("float32"), verbose=0)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        quantized.compile(keras.optimizers.SGD(0.05), loss)
        history = quantized.fit(data, classes, epochs=10, batch_size=32, shuffle=False, verbose=0)
        losses.append(history.history["loss"])
    assert losses[0][-1] < 0.7 * losses[0][0]
    np.testing.assert_allclose(*losses, rtol=0.02)


def test_fold_affines_forward_gives_equal_weights_in_graph_and_eager_mode():
    """TensorFlow's graph mode multiplies a scalar by the smaller of two other factors first."""
    tensorflow = pytest.importorskip("tensorflow")
    conv, norm = layers.Conv2D(64, 3, name="conv"), layers.BatchNormalization()
    model = model_of(layers.Rescaling(1 / 255), conv, norm, shape=(9, 9, 1))
    rewritten = keras_qat.quantize_model(model).get_layer("conv")
    assert rewritten.input_affine is not None and rewritten.batch_normalization is not None
    expected = keras.ops.convert_to_numpy(rewritten.folded_weights().kernel)
    for jit in (False, True):
        compiled = tensorflow.function(lambda: rewritten.folded_weights().kernel, jit_compile=jit)
        assert (keras.ops.convert_to_numpy(compiled()) == expected).all()


def test_fold_affines_forward_puts_an_operation_before_the_kernel():
    model = model_of(layers.Rescaling(0.5, 1.0, name="scale"), layers.Dense(2, name="dense"))
    graph, _ = run_pipeline(read_model(model), PIPELINE)
    node = graph.nodes["dense"]
    assert [type(each).__name__ for each in node.operations] == ["InputAffine", "Dense"]
    assert node.head.name == "scale" and node.origins == ("scale", "dense")
    x = np.ones((1, *model.input_shape[1:]), "float32")
    assert (keras.ops.convert_to_numpy(node.head(x)) == 1.5).all()
    np.testing.assert_allclose(build_model(graph)(x), model(x), rtol=1e-6)


def gated(factor, *, is_output=False, last=layers.Conv2D):
    """A gate of `relu6(x + 3)` and a factor, as in MobileNetV3."""
    seeds.seed(0)
    x = keras.Input((9, 9, 3))
    y = layers.Conv2D(4, 3, name="conv")(x)
    gate = layers.Conv2D(4, 1)(layers.GlobalAveragePooling2D(keepdims=True)(y))
    product = layers.Multiply(name="product")([y, layers.ReLU(6.0)(gate + 3.0) * factor])
    outputs = last(5, 1, padding="same", name="last")(product)
    return keras.Model(x, [outputs, product] if is_output else outputs)


def test_fold_affines_forward_folds_one_of_two_factors_of_a_product():
    x = keras.Input((9, 9, 3))
    product = (layers.ReLU()(x) * 0.25) * (layers.ReLU(6.0)(x) * 0.5)
    model = keras.Model(x, layers.Conv2D(4, 3, name="last")(product))
    clone = keras_qat.clone_model(model)
    np.testing.assert_allclose(clone(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)
    assert len(clone.layers) == 6  # the input, two ReLUs, one factor, product and convolution


def test_fold_affines_forward_folds_a_factor_past_a_product():
    model = gated(1 / 6)
    quantized = keras_qat.quantize_model(model, calibration_data=IMAGES)
    codes = operators_of(exported(quantized))
    assert codes == ["CONV_2D", "MEAN", "CONV_2D", "MUL", "CONV_2D"]
    clone = keras_qat.clone_model(model)
    assert len(clone.layers) == 6
    np.testing.assert_allclose(clone(IMAGES), model(IMAGES), rtol=1e-4, atol=1e-4)
    exact = called(model, IMAGES)
    noise = called(quantized, IMAGES) - exact
    assert 10 * np.log10(np.var(exact) / np.var(noise)) > 25


@pytest.mark.parametrize(
    ("factor", "options"),
    [
        (np.array([0.1, 0.2, 0.3, 0.4], "float32"), {}),
        (1 / 6, {"is_output": True}),
        (1 / 6, {"last": layers.Conv2DTranspose}),
    ],
)
def test_fold_affines_forward_leaves_other_factors_before_a_product(factor, options):
    model = gated(factor, **options)
    clone = keras_qat.clone_model(model)
    assert len(clone.layers) == 7  # the input, three convolutions, mean, factor and product
    for got, expected in zip(
        keras.tree.flatten(clone(IMAGES)), keras.tree.flatten(model(IMAGES)), strict=True
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
