"""clone_model and quantize_model. The oracles are the source model and Keras."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidModelError
from keras_qat.layers import QuantizedModel
from keras_qat.litert import to_bytes
from keras_qat.lowering import lower_model
from tests.models import (
    images,
    labels,
    network,
    quantized,
    quantized_network,
    small_images,
    small_network,
)
from tests.quick import some_quick

RESULTS = ["conv", "depthwise", "add", "pool", "mean", "head", "head_softmax"]


def state(model):
    """Returns all parts of a model that rewriting might change."""
    return {
        "weights": [(v.path, v.trainable, np.array(v).tolist()) for v in model.variables],
        "config": model.get_config(),
        "calls": [(len(x._inbound_nodes), len(x._outbound_nodes)) for x in model._flatten_layers()],
    }


@pytest.mark.parametrize("rewrite", [keras_qat.clone_model, keras_qat.quantize_model])
def test_clone_and_quantize_leave_the_source_model_unchanged(rewrite):
    block = network()
    image = keras.Input((8, 8, 3), name="outer")
    model = keras.Model(image, [block(image), layers.ReLU(name="relu")(image)])
    before = state(model)
    rewrite(model)
    assert state(model) == before


def test_calibrate_leaves_the_source_model_unchanged():
    model = network()
    before = state(model)
    quantized(model, images())
    assert state(model) == before


def test_clone_keeps_the_function_and_the_names():
    model, data = network(), images()
    clone = keras_qat.clone_model(model)
    expected = np.asarray(model(data))
    assert np.abs(np.asarray(clone(data)) - expected).max() <= 1e-4 * expected.max()
    assert [layer.name for layer in clone.layers] == ["image", *RESULTS]
    assert type(clone) is not QuantizedModel and clone.name == model.name


def test_quantized_model_has_the_names_and_a_layer_for_the_input():
    model = quantized_network()
    assert type(model) is QuantizedModel and isinstance(model, keras.Model)
    assert [layer.name for layer in model.layers] == ["image", "image_quantize", *RESULTS]


@pytest.mark.parametrize("rewrite", [keras_qat.clone_model, keras_qat.quantize_model])
def test_rewrite_log_lists_the_rewrites(rewrite):
    assert list(map(str, rewrite(network()).rewrite_log)) == [
        "split_activations: depthwise -> depthwise + depthwise_relu6",
        "split_activations: head -> head + head_softmax",
        "fold_batch_norms: conv + bn -> conv",
        "fuse_activations: conv + relu -> conv",
        "fuse_activations: depthwise + depthwise_relu6 -> depthwise",
    ]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("frozen", [("conv",), ("bn",), ("conv", "bn"), ("head", "depthwise")])
@pytest.mark.parametrize("rewrite", [keras_qat.clone_model, keras_qat.quantize_model])
def test_clone_and_quantize_keep_frozen_layers_frozen(rewrite, frozen):
    model = network()
    for name in frozen:
        model.get_layer(name).trainable = False
    made = rewrite(model)
    for theirs, ours in ((model.trainable_variables, made.trainable_variables),):
        endings = sorted(v.path.rpartition("/")[2] for v in theirs)
        assert sorted(v.path.rpartition("/")[2] for v in ours) == endings
    assert all(layer.trainable for layer in network().layers)


def test_quantize_keeps_a_frozen_nested_model_frozen():
    block = network()
    block.trainable = False
    image = keras.Input((8, 8, 3), name="outer")
    model = keras.Model(image, layers.Dense(2, name="top")(block(image)))
    made = keras_qat.quantize_model(model)
    assert [v.path for v in made.trainable_variables] == ["top/kernel", "top/bias"]


def test_clone_and_quantize_keep_regularizers_and_constraints():
    dense = layers.Dense(
        2, kernel_regularizer="l2", bias_constraint="non_neg", kernel_initializer="ones"
    )
    model = keras.Sequential([keras.Input((4,)), dense])
    for rewrite in (keras_qat.clone_model, keras_qat.quantize_model):
        layer = rewrite(model).layers[-1]
        assert isinstance(layer.kernel_regularizer, keras.regularizers.L2)
        assert isinstance(layer.bias_constraint, keras.constraints.NonNeg)
        assert isinstance(layer.kernel_initializer, keras.initializers.Ones)


def test_clone_trains_saves_and_loads(tmp_path):
    clone, data = keras_qat.clone_model(small_network()), small_images()
    clone.compile("sgd", "sparse_categorical_crossentropy")
    before = [np.array(v) for v in clone.trainable_variables]
    clone.train_on_batch(data, labels())
    after = clone.trainable_variables
    assert all((a != np.array(b)).any() for a, b in zip(before, after, strict=True))
    clone.save(tmp_path / "clone.keras")
    loaded = keras.models.load_model(tmp_path / "clone.keras")
    assert (np.asarray(loaded(data)) == np.asarray(clone(data))).all()


def test_clone_has_the_losses_of_the_source():
    model, data = small_network(), small_images()
    clone = keras_qat.clone_model(model)
    losses = []
    for each in (model, clone):
        each.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        losses.append([float(each.train_on_batch(data, labels())) for _ in range(3)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    ours, theirs = (np.array(each.get_layer("conv").kernel) for each in (clone, model))
    assert np.abs(ours - theirs).max() < 1e-5


def test_quantize_of_a_clone_equals_that_of_the_model():
    data = images()
    direct, cloned = network(), keras_qat.clone_model(network())
    first, second = (to_bytes(lower_model(quantized(m, data))) for m in (direct, cloned))
    assert first == second


def test_clone_of_a_clone_is_equal():
    clone = keras_qat.clone_model(network())
    again = keras_qat.clone_model(clone)
    assert [type(x) for x in again.layers] == [type(x) for x in clone.layers]
    assert [x.get_config() for x in again.layers] == [x.get_config() for x in clone.layers]
    assert (np.asarray(again(images())) == np.asarray(clone(images()))).all()


@pytest.mark.parametrize("rewrite", [keras_qat.clone_model, keras_qat.quantize_model])
def test_quantize_and_clone_refuse_a_quantized_model(rewrite):
    message = "quantized already.* Layer: 'network'.* To fix it: "
    with pytest.raises(InvalidModelError, match=message):
        rewrite(quantized_network())


def test_quantize_refuses_a_model_that_contains_a_quantized_one():
    image = keras.Input((8, 8, 3))
    inner = keras.models.clone_model(quantized_network())
    with pytest.raises(InvalidModelError, match="quantized already"):
        keras_qat.quantize_model(keras.Model(image, inner(image)))


def test_clone_computes_in_float32():
    with_policy = layers.Dense(2, dtype="mixed_float16", name="d")
    model = keras.Sequential([keras.Input((4,)), with_policy])
    made = keras_qat.clone_model(model).get_layer("d")
    assert made.compute_dtype == made.variable_dtype == "float32"


def test_quantize_keeps_the_structure_of_inputs_and_outputs():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    total = layers.Add(name="sum")([a, b])
    model = keras.Model({"b": b, "a": a}, {"z": layers.Dense(2, name="d")(total), "y": [total]})
    data = {"a": np.eye(4, dtype="float32"), "b": np.ones((4, 4), "float32")}
    for made in (keras_qat.clone_model(model), quantized(model, data)):
        outputs = made(data)
        assert outputs["z"].shape == (4, 2) and outputs["y"][0].shape == (4, 4)
        assert set(made.input) == {"a", "b"}


def test_quantize_is_deterministic():
    first, second = (to_bytes(lower_model(quantized(network(), images()))) for _ in range(2))
    assert first == second


@pytest.mark.one_in(3)
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("trained", ["source", "clone"])
def test_training_a_clone_leaves_the_source_unchanged_and_vice_versa(trained, jit):
    source = small_network()
    pair = {"source": source, "clone": keras_qat.clone_model(source)}
    one = pair.pop(trained)
    (other,) = pair.values()
    before = [np.array(v) for v in other.variables]
    one.compile("adam", "sparse_categorical_crossentropy", jit_compile=jit)
    one.train_on_batch(small_images(), labels())
    for variable in one.variables:
        variable.assign_add(keras.ops.ones_like(variable))
    assert all((a == np.array(b)).all() for a, b in zip(before, other.variables, strict=True))


@pytest.mark.parametrize("policy", some_quick(["mixed_bfloat16", "mixed_float16", "float64"], 0))
def test_quantize_ignores_a_global_dtype_policy(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential(
            [
                keras.Input((4, 4, 3)),
                keras.layers.Conv2D(4, 3, activation="swish"),
                keras.layers.Flatten(),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        qat = keras_qat.quantize_model(model)
        assert keras.config.dtype_policy().name == policy
        assert {layer.compute_dtype for layer in qat.layers[1:]} == {"float32"}
        qat.compile("sgd", "mse")
        qat.fit(np.ones((4, 4, 4, 3)), np.ones((4, 3)), verbose=0)
        stripped = keras_qat.strip_quantization(qat)
        assert {layer.compute_dtype for layer in stripped.layers[1:]} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")
