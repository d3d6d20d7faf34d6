"""canonicalize: adjacent transpositions, reshapes, paddings and ReLUs join or cancel."""

import functools

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import strategies as st
from keras import layers, ops

import keras_qat
from keras_qat.graph import Edge, read_model
from keras_qat.passes import PIPELINE
from keras_qat.passes.canonicalize import canonicalize
from tests.layers.cases import randomize
from tests.layers.litert_files import exported, operators_of
from tests.passes.graphs import applied, chains, maximum_difference

IMAGE = (4, 6, 3)
OTHERS = [rewrite.__name__ for rewrite in PIPELINE if rewrite is not canonicalize]


def model_of(*sequence, shape=IMAGE):
    """Makes a model of a sequence of layers and functions, with random weights."""
    x = keras.Input(shape, name="x")
    y = x
    for each in sequence:
        y = each(y)
    model = keras.Model(x, y)
    randomize(model, np.random.default_rng(0))
    return model


def data_for(model, batch=4):
    rng = np.random.default_rng(1)
    return rng.normal(0, 2, (batch, *model.input_shape[1:])).astype("float32")


def names(model):
    """Returns the classes of the layers, the input left out."""
    return [type(layer).__name__ for layer in model.layers[1:]]


def quantized(model):
    qat = keras_qat.quantize_model(model)
    keras_qat.calibrate(qat, data_for(model, 16), verbose=0)
    return qat


def channels_first(x):
    return layers.ReLU()(layers.BatchNormalization(axis=1)(x))


def pad(*widths, value=0.0):
    return lambda x: ops.pad(x, ((0, 0), *widths), constant_values=value)


SCALED, TURNED = "DEPTHWISE_CONV_2D", "TRANSPOSE"
CASES = {
    "norm_between_permutes": (
        [
            layers.Permute((3, 1, 2)),
            lambda x: layers.BatchNormalization(axis=1)(x),
            layers.Permute((2, 3, 1)),
        ],
        [SCALED],
    ),
    "norms_of_channels_first": (
        [channels_first, channels_first],
        [TURNED, SCALED, SCALED, TURNED],
    ),
    "softmax_and_transpose": (
        [
            layers.Reshape((24, 3)),
            lambda x: ops.transpose(ops.softmax(x, axis=1), (0, 2, 1)),
        ],
        ["RESHAPE", TURNED, "SOFTMAX"],
    ),
    "softmax_of_rows": (
        [layers.Permute((2, 1, 3)), layers.Softmax(), layers.Permute((2, 1, 3))],
        ["SOFTMAX"],
    ),
    "function_between_transposes": (
        [
            lambda x: ops.tanh(ops.swapaxes(x, 1, 3)),
            lambda x: ops.moveaxis(x * 2.0, 1, 2),
        ],
        ["TANH", SCALED, TURNED],
    ),
    "transposes": ([layers.Permute((2, 3, 1)), layers.Permute((3, 1, 2)), ops.tanh], ["TANH"]),
    "reshapes": (
        [layers.Reshape((12, 6)), lambda x: ops.expand_dims(x, 2), layers.Flatten()],
        ["RESHAPE"],
    ),
    "function_between_reshapes": (
        [layers.Reshape((12, 6)), ops.tanh, layers.Reshape(IMAGE)],
        ["TANH"],
    ),
    "reshape_to_the_same_shape": ([layers.Reshape(IMAGE), ops.tanh], ["TANH"]),
    "zero_paddings": (
        [layers.ZeroPadding2D(1), layers.ZeroPadding2D(((0, 1), (2, 0)))],
        ["PAD"],
    ),
    "padding_of_nothing": ([layers.ZeroPadding2D(0), ops.tanh], ["TANH"]),
    "paddings_of_channels": ([layers.ZeroPadding2D(1), pad((0, 0), (0, 0), (0, 1))], ["PAD"]),
    "paddings_with_one_value": (
        [pad((1, 0), (0, 0), (0, 2), value=3.0), pad((0, 0), (0, 1), (0, 0), value=3.0)],
        ["PADV2"],
    ),
    "paddings_with_two_values": (
        [pad((1, 0), (0, 0), (0, 2)), pad((0, 0), (0, 1), (0, 0), value=3.0)],
        ["PAD", "PADV2"],
    ),
    "reflections": (
        [lambda x: ops.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), "reflect")] * 2,
        ["MIRROR_PAD", "MIRROR_PAD"],
    ),
    "relu_of_relu": ([layers.Conv2D(4, 3), layers.ReLU(), layers.ReLU()], ["CONV_2D"]),
    "relu6_of_relu": ([layers.Conv2D(4, 3), ops.relu, ops.relu6], ["CONV_2D"]),
    "relu_of_relu6": ([layers.Conv2D(4, 3), layers.ReLU(6.0), ops.relu], ["CONV_2D"]),
    "relu_of_pooling": (
        [layers.Conv2D(4, 1), layers.MaxPooling2D(), layers.ReLU()],
        ["CONV_2D", "MAX_POOL_2D"],
    ),
    "relu6_of_several_moves": (
        [
            layers.Conv2D(4, 1),
            layers.BatchNormalization(),
            layers.ZeroPadding2D(1),
            layers.Permute((2, 1, 3)),
            layers.MaxPooling2D(padding="same"),
            layers.Flatten(),
            layers.ReLU(6.0),
        ],
        ["CONV_2D", "PAD", TURNED, "MAX_POOL_2D", "RESHAPE"],
    ),
    "relu_of_padding_below_zero": (
        [layers.Conv2D(4, 1), pad((0, 0), (1, 0), (0, 0), value=-1.0), ops.relu],
        ["CONV_2D", "PADV2", "ADD"],
    ),
    "relu_of_pooled_input": ([layers.MaxPooling2D(), layers.ReLU()], ["MAX_POOL_2D", "ADD"]),
    "bias_of_reshaped_products": (
        [
            layers.Flatten(),
            layers.EinsumDense("bi,ijk->bjk", (2, 4), bias_axes="jk", activation="relu"),
            layers.Flatten(),
        ],
        ["RESHAPE", "FULLY_CONNECTED"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_canonicalize_leaves_these_operators(name):
    sequence, operators = CASES[name]
    model = model_of(*sequence)
    clone, data = keras_qat.clone_model(model), data_for(model)
    np.testing.assert_allclose(clone(data), model(data), rtol=1e-5, atol=1e-5)
    assert operators_of(exported(quantized(model))) == operators


@pytest.mark.parametrize("name", ["norms_of_channels_first", "relu6_of_several_moves"])
def test_canonicalize_keeps_models_exact(name, tmp_path):
    model = model_of(*CASES[name][0])
    qat = quantized(model)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(qat, tmp_path / "model.tflite", data_for(model), verbose=0)
    assert report.exact, report


def test_canonicalize_keeps_tensors_that_are_outputs():
    x = keras.Input(IMAGE, name="x")
    turned = layers.Permute((2, 1, 3), name="turned")(layers.Conv2D(3, 1)(x))
    flat = layers.Reshape((24, 3), name="flat")(turned)
    back = layers.Permute((2, 1, 3), name="back")(turned)
    ends = [turned, layers.Flatten(name="flatter")(flat), flat, back]
    model = keras.Model(x, ends)
    graph = applied(canonicalize, model)
    assert {"turned", "flat", "flatter"} <= set(graph.nodes) and "back" not in graph.nodes
    assert maximum_difference(graph, model, data_for(model)) == 0
    clone = keras_qat.clone_model(model)
    assert clone.output_names[:3] == ["turned", "flatter", "flat"]
    assert len(operators_of(exported(quantized(model)))) == 4


def test_canonicalize_returns_no_input_as_output():
    model = model_of(layers.Permute((2, 1, 3)), layers.Permute((2, 1, 3)))
    assert len(chains(applied(canonicalize, model))) == 2


def test_canonicalize_keeps_tensors_that_another_layer_takes():
    x = keras.Input(IMAGE, name="x")
    y = layers.Permute((2, 1, 3), name="turned")(x)
    ends = [layers.Permute((2, 1, 3), name="back")(y), layers.Flatten(name="flat")(y)]
    model = keras.Model(
        x,
        [layers.Conv2D(2, 1, name=f"e{len(e.shape)}")(e) if len(e.shape) > 2 else e for e in ends],
    )
    graph = applied(canonicalize, model)
    assert set(graph.nodes) == {"x", "turned", "e4", "flat"}
    assert maximum_difference(graph, model, data_for(model)) == 0


def test_canonicalize_leaves_a_shared_convolution_linear():
    a, b = keras.Input(IMAGE), keras.Input(IMAGE)
    conv = layers.Conv2D(3, 1, name="conv")
    y = layers.ReLU(name="relu")(layers.MaxPooling2D(name="pool")(conv(a)))
    graph = applied(canonicalize, keras.Model([a, b], [y, conv(b)]))
    assert graph.nodes["relu"].inputs == (Edge("pool"),)


def test_canonicalize_trains_a_norm_between_permutes():
    model = model_of(*CASES["norm_between_permutes"][0])
    clone = keras_qat.clone_model(model)
    assert [weight.shape for weight in clone.trainable_weights] == [(3,), (3,)]
    x = data_for(model)
    np.testing.assert_allclose(clone(x, training=True), model(x, training=True), atol=1e-4)


def test_canonicalize_joins_nothing_across_float_and_integers():
    model = model_of(
        layers.Permute((2, 1, 3), name="a"),
        layers.Permute((2, 1, 3), name="b"),
        layers.Conv2D(2, 1),
    )
    qat = keras_qat.quantize_model(model, overrides={"a": None})
    assert {"a", "b"} <= {layer.name for layer in qat.layers}


def test_canonicalize_logs_both_nodes_of_a_move():
    model = model_of(
        layers.Conv2D(2, 1, name="conv"), layers.MaxPooling2D(name="pool"), layers.ReLU(name="relu")
    )
    clone = keras_qat.clone_model(model)
    assert [str(each) for each in clone.rewrite_log] == [
        "canonicalize: pool + relu -> relu + pool",
        "fuse_activations: conv + relu -> conv",
    ]
    assert dict(clone.origins)["conv"] == ("conv", "relu")


def test_canonicalize_can_be_left_out():
    model = model_of(layers.Reshape((12, 6)), layers.Reshape((72,)))
    assert names(keras_qat.clone_model(model, rewrites=OTHERS)) == ["QReshape", "QReshape"]


def reshaped(x, choice):
    """Reshapes an image to one of four shapes of rank 4."""
    height, width, channels = x.shape[1:]
    shapes = [
        (channels, width, height),
        (height, width, channels),
        (height * width, 1, channels),
        (1, height, width * channels),
    ]
    return layers.Reshape(shapes[choice])(x)


def softmax(x, choice):
    """Adds a softmax over one of the axes. Skips axes of one element: Keras warns of them."""
    return x if x.shape[AXES[choice]] == 1 else ops.softmax(x, axis=AXES[choice])


AXES = (1, 2, 3, -1)
FUNCTIONS = (layers.ReLU(), layers.ReLU(6.0), layers.ReLU(), layers.Activation("tanh"))
ORDERS = ((1, 3, 2), (2, 1, 3), (2, 3, 1), (3, 1, 2))
# Steps on an image, each with four choices.
STEPS = {
    "conv": lambda x, choice: layers.Conv2D(1 + choice, 1)(x),
    "function": lambda x, choice: FUNCTIONS[choice](x),
    "norm": lambda x, choice: layers.BatchNormalization(axis=AXES[choice])(x),
    "pad": lambda x, choice: layers.ZeroPadding2D(choice // 2)(x),
    "permute": lambda x, choice: layers.Permute(ORDERS[choice])(x),
    "pool": lambda x, choice: layers.MaxPooling2D(1 + choice // 2, 1, padding="same")(x),
    "reshape": reshaped,
    "softmax": softmax,
}
chains_of_steps = st.lists(
    st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 3)), min_size=2, max_size=8
)


def check_chain(steps):
    """Checks that `canonicalize` keeps the function, adds no layer and needs no second run."""
    model = model_of(*(functools.partial(STEPS[kind], choice=n) for kind, n in steps))
    data = data_for(model)
    clones = [keras_qat.clone_model(model, rewrites=each) for each in (None, OTHERS)]
    theirs = np.asarray(model(data))
    assert np.abs(clones[0](data) - theirs).max() <= 1e-5 * max(np.abs(theirs).max(), 1)
    counts = [
        [sum(name in ("QTranspose", "QReshape") for name in names(clone)), len(names(clone))]
        for clone in clones
    ]
    assert counts[0][0] <= counts[1][0] and counts[0][1] <= counts[1][1]
    once = canonicalize(read_model(model))
    assert canonicalize(once) is once
    keras.backend.clear_session()


@hypothesis.settings(max_examples=5)
@hypothesis.given(chains_of_steps)
def test_canonicalize_keeps_the_function_of_random_chains(steps):
    check_chain(steps)


@pytest.mark.slow
@hypothesis.settings(max_examples=100)
@hypothesis.given(chains_of_steps)
def test_canonicalize_keeps_the_function_of_many_random_chains(steps):
    check_chain(steps)
