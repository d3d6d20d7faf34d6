import h5py
import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidFileError, InvalidModelError, UnsafeFileError

L = keras.layers
IMAGE = np.random.default_rng(0).random((2, 12, 12, 3), "float32")


def network(filters=4, classes=3, separable=True, prefix=""):
    x = keras.Input((12, 12, 3))
    y = L.Conv2D(filters, 3, use_bias=False, name=f"{prefix}conv")(x)
    y = L.ReLU(name=f"{prefix}relu")(L.BatchNormalization(name=f"{prefix}norm")(y))
    y = L.DepthwiseConv2D(3, name=f"{prefix}depthwise")(y)
    if separable:
        y = L.SeparableConv2D(6, 3, activation="relu", name=f"{prefix}separable")(y)
    y = L.GlobalAveragePooling2D(name=f"{prefix}pool")(y)
    return keras.Model(x, L.Dense(classes, name=f"{prefix}head")(y))


def randomized(model, seed=0):
    generator = np.random.default_rng(seed)
    model.set_weights([np.abs(generator.normal(size=w.shape)) + 0.1 for w in model.get_weights()])
    return model


def write_old(path, model, root=None, suffix=":0", rename=lambda name: name):
    """Writes weights in the format of Keras 2."""
    with h5py.File(path, "w") as file:
        group = file if root is None else file.create_group(root)
        group.attrs["layer_names"] = [rename(layer.name).encode() for layer in model.layers]
        for layer in model.layers:
            own = group.create_group(rename(layer.name))
            weights = [*layer.trainable_weights, *layer.non_trainable_weights]
            kernel = "depthwise_kernel" if "Depthwise" in type(layer).__name__ else "kernel"
            names = [
                f"{rename(layer.name)}/{kernel if w.name == 'kernel' else w.name}{suffix}"
                for w in weights
            ]
            own.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, weights, strict=True):
                own[name] = np.asarray(weight)


def outputs(model):
    return np.asarray(model(IMAGE, training=False))


@pytest.mark.parametrize("root", [None, "model_weights"])
def test_load_weights_into_the_same_architecture(tmp_path, root):
    source, target = randomized(network()), network()
    write_old(tmp_path / "weights.h5", source, root)
    report = keras_qat.load_weights(target, tmp_path / "weights.h5")
    assert not (report.missing or report.unexpected or report.mismatched)
    assert len(report.loaded) == len(source.weights)
    np.testing.assert_array_equal(outputs(target), outputs(source))


def test_load_weights_by_topology_ignores_names(tmp_path):
    source, target = randomized(network()), network(prefix="other_")
    write_old(tmp_path / "weights.h5", source)
    keras_qat.load_weights(target, tmp_path / "weights.h5")
    np.testing.assert_array_equal(outputs(target), outputs(source))


def test_load_weights_finds_reordered_layers_by_name(tmp_path):
    x = keras.Input((4,))
    first, second = L.Dense(4, name="first"), L.Dense(4, name="second")
    source = randomized(keras.Model(x, second(first(x))))
    write_old(tmp_path / "weights.h5", source)
    target = keras.Sequential([keras.Input((4,)), L.Dense(4, name="second"),
                               L.Dense(4, name="first")])  # fmt: skip
    keras_qat.load_weights(target, tmp_path / "weights.h5")
    np.testing.assert_array_equal(target.get_layer("first").kernel, first.kernel)


def test_load_weights_finds_names_with_slashes(tmp_path):
    source = randomized(network(prefix="block1_"))
    write_old(tmp_path / "weights.h5", source, rename=lambda name: name.replace("_", "/", 1))
    target = network(prefix="block1_")
    report = keras_qat.load_weights(target, tmp_path / "weights.h5", by_name=True)
    assert not report.missing and not report.unexpected
    np.testing.assert_array_equal(outputs(target), outputs(source))


def test_load_weights_by_name_loads_common_layers(tmp_path):
    write_old(tmp_path / "weights.h5", randomized(network()))
    target = network(separable=False)
    before = np.array(target.get_layer("head").bias)
    with pytest.raises(InvalidFileError, match="another shape"):
        keras_qat.load_weights(target, tmp_path / "weights.h5", by_name=True)
    np.testing.assert_array_equal(target.get_layer("head").bias, before)
    report = keras_qat.load_weights(
        target, tmp_path / "weights.h5", by_name=True, skip_mismatch=True
    )
    assert [mismatch.variable for mismatch in report.mismatched] == ["head/kernel"]
    assert report.mismatched[0].expected == (4, 3) and report.mismatched[0].received == (6, 3)
    assert [name.split("/")[0] for name in report.unexpected] == ["separable"] * 3
    assert "head/bias" in report.loaded and not report.missing
    assert "1 of another shape" in str(report) and "unexpected: separable" in str(report)


def test_load_weights_refuses_another_number_of_layers(tmp_path):
    write_old(tmp_path / "weights.h5", randomized(network(prefix="a_")))
    with pytest.raises(InvalidFileError, match="another number of layers.*by_name=True"):
        keras_qat.load_weights(network(separable=False), tmp_path / "weights.h5")


def test_load_weights_refuses_another_shape_and_changes_nothing(tmp_path):
    write_old(tmp_path / "weights.h5", randomized(network()))
    target = network(classes=5)
    before = target.get_weights()
    with pytest.raises(InvalidFileError, match="head/kernel") as raised:
        keras_qat.load_weights(target, tmp_path / "weights.h5")
    assert str(tmp_path / "weights.h5") in str(raised.value)
    for value, old in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, old)


def test_load_weights_by_name_refuses_files_without_common_names(tmp_path):
    write_old(tmp_path / "weights.h5", randomized(network()))
    with pytest.raises(InvalidFileError, match="No weight"):
        keras_qat.load_weights(network(prefix="x_"), tmp_path / "weights.h5", by_name=True)


@pytest.mark.parametrize("rewrite", [keras_qat.clone_model, keras_qat.quantize_model])
def test_load_weights_into_a_rewritten_clone(tmp_path, rewrite):
    source, clone = randomized(network()), rewrite(network())
    write_old(tmp_path / "weights.h5", source)
    report = keras_qat.load_weights(clone, tmp_path / "weights.h5")
    assert not (report.missing or report.unexpected)
    stripped = keras_qat.strip_quantization(clone)
    np.testing.assert_allclose(outputs(stripped), outputs(source), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["convolutions", "convolutions_1d", "nested", "slashed_names"])
def test_load_weights_of_keras_2_into_a_rewritten_clone(keras2, name):
    inputs, expected = keras2.arrays(name)
    model = keras_qat.load_model(keras2.path(name))
    fresh = keras.models.clone_model(model)
    clone = keras_qat.clone_model(fresh)
    keras_qat.load_weights(clone, keras2.folder / f"{name}_weights.h5")
    made = keras.tree.flatten(clone(inputs[0], training=False))
    for output, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(output, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["attention", "frozen_nested", "recurrent", "shared_layers"])
def test_load_weights_of_keras_2_into_their_model(keras2, name):
    inputs, expected = keras2.arrays(name)
    model = keras.models.clone_model(keras_qat.load_model(keras2.path(name)))
    keras_qat.load_weights(model, keras2.folder / f"{name}_weights.h5")
    made = keras.tree.flatten(model(inputs[0] if len(inputs) == 1 else inputs, training=False))
    for output, other in zip(made, expected, strict=True):
        np.testing.assert_allclose(output, other, rtol=1e-5, atol=1e-5)


def test_load_weights_names_layers_that_were_folded_away(tmp_path):
    """A frozen batch normalization is folded into the convolution after it."""

    def built():
        x = keras.Input((12, 12, 3))
        y = L.BatchNormalization(trainable=False, name="first")(x)
        return keras.Model(x, L.Conv2D(2, 3, name="conv")(y))

    write_old(tmp_path / "weights.h5", randomized(built()))
    clone = keras_qat.quantize_model(randomized(built(), 1))
    with pytest.raises(InvalidFileError, match="not in the model: first/gamma"):
        keras_qat.load_weights(clone, tmp_path / "weights.h5")
    report = keras_qat.load_weights(clone, tmp_path / "weights.h5", by_name=True)
    assert report.loaded == ("conv/kernel", "conv/bias") and len(report.unexpected) == 4


@pytest.mark.parametrize("initializer", ["glorot_uniform", "ones"])
def test_load_weights_refuses_a_kernel_that_a_rewrite_transposed(tmp_path, initializer):
    def built():
        layer = L.EinsumDense("ab,cb->ac", 4, kernel_initializer=initializer, name="einsum")
        return keras.Sequential([keras.Input((4,)), layer, L.Dense(2, name="head")])

    write_old(tmp_path / "weights.h5", randomized(built()))
    with pytest.raises(InvalidFileError, match="not in the model: einsum/kernel"):
        keras_qat.load_weights(keras_qat.quantize_model(built()), tmp_path / "weights.h5")


def test_load_weights_refuses_a_mean_that_absorbed_a_bias(tmp_path):
    def built():
        layers = [keras.Input((4,)), L.Dense(3, name="dense"), L.BatchNormalization(name="norm")]
        return keras.Sequential([*layers, L.Dense(2, use_bias=False, name="head")])

    write_old(tmp_path / "weights.h5", randomized(built()))
    clone = keras_qat.clone_model(built(), rewrites=[*keras_qat.DEFAULT_REWRITES, "drop_bias"])
    report = keras_qat.load_weights(clone, tmp_path / "weights.h5", by_name=True)
    assert report.loaded == ("head/kernel",) and "norm/moving_mean" in str(report.unexpected)


def test_load_weights_refuses_scales_of_a_rewritten_layer_normalization(tmp_path):
    def built():
        layers = [keras.Input((6,)), L.LayerNormalization(name="norm"), L.Dense(2, name="head")]
        return keras.Sequential(layers)

    write_old(tmp_path / "weights.h5", randomized(built()))
    quantized = keras_qat.quantize_model(built())
    quantized.save(tmp_path / "quantized.keras")
    # A loaded model has no record of its rewrites.
    for model in (quantized, keras_qat.load_model(tmp_path / "quantized.keras")):
        with pytest.raises(InvalidFileError, match="not in the model: norm/gamma"):
            keras_qat.load_weights(model, tmp_path / "weights.h5")


@pytest.mark.parametrize("ending", [".weights.h5", ".keras", ".h5"])
def test_load_weights_of_keras_3(tmp_path, ending):
    source, target = randomized(network()), network()
    path = tmp_path / f"model{ending}"
    source.save_weights(path) if ending == ".weights.h5" else source.save(path)
    report = keras_qat.load_weights(target, path)
    assert len(report.loaded) == len(target.weights) and not report.missing
    np.testing.assert_array_equal(outputs(target), outputs(source))


def test_load_weights_of_keras_3_with_skip_mismatch(tmp_path):
    randomized(network()).save_weights(tmp_path / "new.weights.h5")
    target = network(classes=5)
    before = target.get_weights()
    what = r"'head'.*\(6, 5\).*\(6, 3\).*skip_mismatch=True"
    with pytest.raises(InvalidFileError, match=what):
        keras_qat.load_weights(target, tmp_path / "new.weights.h5")
    for value, other in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(value, other)  # Keras has assigned the layers before the head
    report = keras_qat.load_weights(target, tmp_path / "new.weights.h5", skip_mismatch=True)
    assert report.missing == ("head/kernel", "head/bias")


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_load_weights_reports_weights_without_a_layer(tmp_path, ending):
    path = tmp_path / f"long{ending}"
    source = keras.Sequential([keras.Input((4,)), L.Dense(4), L.Dense(4), L.Dense(3)])
    source.compile("adam", "mse")
    source.fit(np.ones((2, 4)), np.ones((2, 3)), verbose=0)
    source.save_weights(path) if ending == ".weights.h5" else source.save(path)
    target = keras.Sequential([keras.Input((4,)), L.Dense(4), L.Dense(4)])
    with pytest.raises(InvalidFileError, match="no variables for.*layers/dense_2/vars/0"):
        keras_qat.load_weights(target, path)
    report = keras_qat.load_weights(target, path, skip_mismatch=True)
    assert report.unexpected == ("layers/dense_2/vars/0", "layers/dense_2/vars/1")
    keras_qat.load_weights(keras.models.clone_model(source), path)  # the file has no optimizer


def test_load_weights_passes_on_warnings_of_keras(tmp_path):
    source, path = network(), tmp_path / "new.weights.h5"
    source.compile("adam", "mse")
    source.fit(IMAGE, np.ones((2, 3)), verbose=0)
    source.save_weights(path)
    target = network()
    target.compile("adam", "mse")  # its optimizer is not built yet
    with pytest.warns(UserWarning, match="optimizer"):
        keras_qat.load_weights(target, path)


@pytest.mark.parametrize("ending", [".weights.h5", ".keras"])
def test_load_weights_of_keras_3_into_a_clone_suggests_a_fix(tmp_path, ending):
    source, path = network(), tmp_path / f"new{ending}"
    source.save_weights(path) if ending == ".weights.h5" else source.save(path)
    with pytest.raises(InvalidFileError, match="saved from, and quantize that"):
        keras_qat.load_weights(keras_qat.clone_model(source), path)


def test_load_weights_of_other_names_into_a_clone_suggests_a_fix(tmp_path):
    write_old(tmp_path / "old.h5", network(prefix="a_"))
    with pytest.raises(InvalidFileError, match="No weight.*saved from; quantize that"):
        keras_qat.load_weights(keras_qat.clone_model(network()), tmp_path / "old.h5")


def test_load_weights_ignores_a_name_of_two_nested_models_in_a_clone(tmp_path):
    def twins():
        x, twin = (
            keras.Input((4,)),
            lambda name: keras.Sequential([keras.Input((4,)), L.Dense(4, name="dense")], name=name),
        )
        return keras.Model(x, L.Dense(2, name="head")(twin("second")(twin("first")(x))))

    randomized(twins()).save(tmp_path / "twins.h5")
    clone = keras_qat.clone_model(twins())
    with pytest.raises(InvalidFileError, match="not in the file: dense/kernel"):
        keras_qat.load_weights(clone, tmp_path / "twins.h5")
    report = keras_qat.load_weights(clone, tmp_path / "twins.h5", by_name=True)
    assert report.loaded == ("head/kernel", "head/bias") and len(report.unexpected) == 4


def test_load_weights_into_a_model_without_weights(tmp_path):
    model = keras.Sequential([keras.Input((4,)), L.ReLU(name="relu")])
    write_old(tmp_path / "old.h5", model)
    assert keras_qat.load_weights(model, tmp_path / "old.h5").loaded == ()


def test_load_weights_of_keras_3_refuses_by_name(tmp_path):
    network().save_weights(tmp_path / "new.weights.h5")
    with pytest.raises(InvalidFileError, match="no names of layers"):
        keras_qat.load_weights(network(), tmp_path / "new.weights.h5", by_name=True)


def test_load_weights_into_a_normalization_takes_effect(keras2):
    inputs, expected = keras2.arrays("learned_normalization")
    model = keras.Sequential([keras.Input((5,)), L.Normalization(), L.Dense(3)])
    keras_qat.load_weights(model, keras2.path("learned_normalization"))
    np.testing.assert_allclose(model(inputs[0]), expected[0], rtol=1e-5, atol=1e-5)


def test_load_weights_refuses_a_model_that_is_not_built(tmp_path):
    with pytest.raises(InvalidModelError, match="built"):
        keras_qat.load_weights(keras.Sequential([L.Dense(2)]), tmp_path / "weights.h5")


def test_load_weights_refuses_a_missing_and_an_empty_file(tmp_path):
    with pytest.raises(InvalidFileError, match="no such file"):
        keras_qat.load_weights(network(), tmp_path / "weights.h5")
    h5py.File(tmp_path / "weights.h5", "w").close()
    with pytest.raises(InvalidFileError, match="layout"):
        keras_qat.load_weights(network(), tmp_path / "weights.h5")


def test_load_weights_refuses_the_checkpoint_layout_of_keras_2(tmp_path):
    with h5py.File(tmp_path / "tf.weights.h5", "w") as file:
        file["_layer_checkpoint_dependencies/dense/vars/0"] = np.zeros((3, 2), "float32")
    with pytest.raises(InvalidFileError, match="layout.*model.save_weights"):
        keras_qat.load_weights(network(), tmp_path / "tf.weights.h5")


def test_load_weights_of_a_batch_norm_over_another_axis_into_a_clone(tmp_path):
    def built():
        layers = [keras.Input((4, 6, 6)), L.BatchNormalization(axis=1, name="norm"), L.Flatten()]
        return keras.Sequential([*layers, L.Dense(2, name="head")])

    source, clone = randomized(built()), keras_qat.clone_model(built())
    write_old(tmp_path / "weights.h5", source)
    keras_qat.load_weights(clone, tmp_path / "weights.h5")
    x = np.random.default_rng(0).random((2, 4, 6, 6), "float32")
    np.testing.assert_allclose(clone(x), source(x), rtol=1e-4)


def test_load_weights_does_not_read_values_of_other_files(tmp_path):
    model = keras.Sequential([keras.Input((3,)), L.Dense(2, name="dense")])
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
        group = file.create_group("dense")
        group.attrs["weight_names"] = [b"kernel:0", b"bias:0"]
        (tmp_path / "secret").write_bytes(bytes(24))
        group.create_dataset("kernel:0", (3, 2), "float32", external=str(tmp_path / "secret"))
        group["bias:0"] = np.zeros(2, "float32")
    with pytest.raises(UnsafeFileError, match="kernel:0"):
        keras_qat.load_weights(model, tmp_path / "weights.h5")
