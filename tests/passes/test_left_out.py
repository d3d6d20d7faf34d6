"""Leaves out each rewrite once. The function stays, or the error names the rewrite."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from docs.rewrite_examples import EXAMPLES
from keras_qat.errors import InvalidRewriteError, UnsupportedLayerError
from keras_qat.graph import read_model
from keras_qat.passes import PIPELINE, run_pipeline, select_rewrites
from keras_qat.passes.left_out import check_left_out
from tests.quick import some_quick

NAMES = [rewrite.__name__ for rewrite in PIPELINE]
# LiteRT has no operator for the operations that these passes rewrite.
NEEDED = {
    *(
        "inline_models",
        "move_channels_last",
        "open_drop_ins",
        "split_activations",
        "open_layers",
        "fold_filled_tensors",
        "write_associative_scans",
        "write_fourier_transforms",
        "write_selections",
    ),
    *("move_normalized_axes", "write_compositions", "split_outputs", "write_normalizations"),
    *("write_attention", "write_quotients", "write_softmaxes", "write_kernels"),
    *("write_products", "write_sums_as_means", "split_merges", "move_batch_first", "pad_maxima"),
}


def all_but(*names):
    return [name for name in NAMES if name not in names]


def assert_same_function(clone, model):
    rng = np.random.default_rng(0)
    data = [rng.uniform(0.5, 2.0, (4, *x.shape[1:])).astype("float32") for x in model.inputs]
    data = data if len(data) > 1 else data[0]
    ours, theirs = (keras.tree.flatten(each(data)) for each in (clone, model))
    for x, y in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", NAMES)
def test_clone_model_without_one_rewrite(name):
    model = EXAMPLES[name]()
    if name in NEEDED:
        message = f"without the rewrite '{name}'.*left out.* Layer: '.*Add '{name}'"
        with pytest.raises(UnsupportedLayerError, match=message):
            keras_qat.clone_model(model, rewrites=all_but(name))
    else:
        assert_same_function(keras_qat.clone_model(model, rewrites=all_but(name)), model)


def test_clone_model_without_split_activations_folds_nothing_after_an_activation():
    conv = layers.Conv2D(2, 1, activation="relu", name="conv")
    model = keras.Sequential(
        [keras.Input((4, 4, 3)), conv, layers.BatchNormalization(name="norm"), layers.ReLU()]
    )
    clone = keras_qat.clone_model(model, rewrites=["fold_batch_norms", "fuse_activations"])
    assert [layer.name for layer in clone.layers[1:]] == ["conv", "norm"]
    assert_same_function(clone, model)


@pytest.mark.parametrize("seed", some_quick(range(2), 0))
def test_clone_model_with_random_rewrites_keeps_the_function(seed):
    rng = np.random.default_rng(seed)
    chosen = {name for name in NAMES if name in NEEDED or rng.random() < 0.5}
    if "recognize_functions" not in chosen:
        chosen.add("write_affines")  # either of the two rewrites the division of a hard-swish
    chosen.add("remove_identities")  # no other rewrite takes the cast of a `Rescaling`
    names = [name for name in NAMES if name in chosen]
    for example in EXAMPLES.values():
        model = example()
        assert_same_function(keras_qat.clone_model(model, rewrites=names), model)


def test_quantize_model_obeys_rewrites(tmp_path):
    model, data = EXAMPLES["fold_batch_norms"](), np.ones((4, 8, 8, 3), "float32")
    qat = keras_qat.quantize_model(model, rewrites=["inline_models"])
    names = [type(layer).__name__ for layer in qat.layers[2:]]
    assert names == ["QConv2D", "QBatchNormalization", "QReLU"]
    assert {rewrite.rewrite for rewrite in qat.rewrite_log} == {"inline_models"}
    keras_qat.calibrate(qat, data, verbose=0)
    keras_qat.export_litert(qat, tmp_path / "model.tflite")
    report = keras_qat.verify(qat, tmp_path / "model.tflite", data, kernels="default", verbose=0)
    assert report.exact


def test_select_rewrites_ignores_the_order_of_names():
    chosen = select_rewrites(["fuse_activations", "inline_models"])
    assert [rewrite.__name__ for rewrite in chosen] == ["inline_models", "fuse_activations"]
    assert select_rewrites([]) == () and select_rewrites(None) is PIPELINE


@pytest.mark.parametrize("rewrites", [["fold_batchnorms"], "fold_batch_norms"])
def test_clone_model_refuses_an_unknown_rewrite(rewrites):
    with pytest.raises(InvalidRewriteError, match="Unknown rewrite.*fold_batch_norms.*fold_") as e:
        keras_qat.clone_model(EXAMPLES["fold_batch_norms"](), rewrites=rewrites)
    assert "docs/rewrites.md" in str(e.value)


def test_check_left_out_refuses_layers_that_no_rewrite_takes():
    model = keras.Sequential(
        [keras.Input((2, 2, 2, 3)), layers.Conv3DTranspose(2, 3, name="volumes")]
    )
    graph, _ = run_pipeline(read_model(model), ())
    with pytest.raises(UnsupportedLayerError, match="in float only.* Layer: 'volumes'"):
        check_left_out(graph, [], PIPELINE)


def test_clone_model_without_rewrites_keeps_fused_activations():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, activation="relu", name="d")])
    clone = keras_qat.clone_model(model, rewrites=[])
    assert [layer.name for layer in clone.layers[1:]] == ["d"]
    assert_same_function(clone, model)
