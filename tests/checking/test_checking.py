"""check. The oracle is the result of quantize_model for the same model."""

import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_qat
from keras_qat import errors
from keras_qat.checking import MadeLayer
from tests.graph.subclassed_models import UsesTensorFlow
from tests.models import network, quantized_network, small_network


class Sorted(layers.Layer):
    """A custom layer with an operation that has no integer form."""

    def call(self, x):
        return ops.sort(x)


class Untraceable(layers.Layer):
    """A layer whose `call` cannot be traced."""

    def call(self, x):
        return x * float(ops.max(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape)


class Around(layers.Layer):
    """A layer that contains an untraceable layer."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Untraceable(name="inner")

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, x):
        return ops.relu(self.inner(x))

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape)


def full_of_errors():
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = Sorted(name="sorted")(x)
    x = Around(name="around")(Untraceable(name="untraceable")(x))
    shared = layers.LSTM(4, return_sequences=True, recurrent_dropout=0.1, name="lstm")
    x = shared(shared(layers.Reshape((36, 4), name="reshape")(x)))
    first, second = ops.split(x, 2, axis=0)
    return keras.Model(image, [layers.Dense(3, name="head")(first), second], name="errors")


def nested():
    image = keras.Input((8, 8, 3), name="outer")
    block = network()
    return keras.Model(image, layers.Dense(2, name="top")(block(image)), name="nested")


def requantized():
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    sigmoid = layers.Activation("sigmoid", name="sigmoid")(shared(x))
    return keras.Model(x, layers.Concatenate(name="both")([sigmoid, shared(x), x]))


def written_out():
    x = keras.Input((6, 4), name="x")
    y = layers.MultiHeadAttention(2, 2, name="attention")(x, x)
    y = layers.Identity(name="nothing")(layers.Rescaling(2.0, name="scale")(y))
    return keras.Model(x, ops.softmax(y, axis=1) / (ops.square(y) + 1.0))


OK = (network, small_network, nested, requantized, written_out)


def becomes(report):
    return {row.name: [layer.name for layer in row.becomes] for row in report.layers}


@pytest.mark.parametrize("make", OK)
def test_check_names_the_layers_that_quantize_model_makes(make):
    model = make()
    report, made = keras_qat.check(model), keras_qat.quantize_model(model)
    assert report.ok and not report.errors
    assert report.rewrites == made.rewrite_log
    found = {layer for row in report.layers for layer in row.becomes}
    assert found == {
        MadeLayer(layer.name, type(layer).__name__, layer.operators)
        for layer in made.layers
        if not isinstance(layer, layers.InputLayer)
    }


def test_check_has_a_row_per_layer():
    report = keras_qat.check(network())
    assert becomes(report) == {
        "image": ["image_quantize"],
        **{name: ["conv"] for name in ("conv", "bn", "relu")},
        "depthwise": ["depthwise"],
        "add": ["add"],
        "pool": ["pool"],
        "mean": ["mean"],
        "head": ["head", "head_softmax"],
    }
    rows = {row.name: row for row in report.layers}
    assert rows["bn"].kind == "BatchNormalization"
    assert rows["conv"].rewrites == ("fold_batch_norms", "fuse_activations")
    assert rows["relu"].rewrites == ("fuse_activations",)
    assert rows["pool"].becomes == (MadeLayer("pool", "QMaxPooling2D", ("MAX_POOL_2D",)),)


def test_check_has_rows_for_nested_and_removed_layers():
    assert {"conv", "bn", "top"} <= set(becomes(keras_qat.check(nested())))
    rows = {row.name: row for row in keras_qat.check(written_out()).layers}
    assert rows["nothing"].becomes == () and not rows["nothing"].refused
    assert rows["nothing"].rewrites == ("remove_identities",)
    assert {"QDense", "QBatchMatmul"} & {x.kind for x in rows["attention"].becomes}


def test_check_has_one_row_per_shared_layer_with_its_requantization():
    report = keras_qat.check(requantized())
    assert [row.name for row in report.layers].count("shared") == 1
    assert becomes(report)["sigmoid"] == ["sigmoid", "sigmoid_requantize"]


def test_check_finds_all_refused_layers():
    report = keras_qat.check(full_of_errors())
    assert not report.ok
    refused = [row.name for row in report.layers if row.refused]
    assert refused[:-1] == ["sorted", "untraceable", "around", "lstm"]
    assert sorted(str(f.layer) for f in report.findings)[:4] == [
        *("inner", "lstm", "sorted"),
        refused[-1],  # the split along the batch axis
    ]
    assert {f.level for f in report.findings} == {"error"} and len(report.findings) == 5
    assert all(finding.message and finding.fix for finding in report.findings)
    by_layer = {finding.layer: finding for finding in report.findings}
    assert "test_checking.py, line " in by_layer["untraceable"].message
    assert becomes(report)["conv"] == ["conv"] and becomes(report)["image"] == ["image_quantize"]


@pytest.mark.parametrize("make", [network, full_of_errors])
def test_check_report_is_a_table_and_plain_values(make):
    report = keras_qat.check(make(), target="reference")
    text = str(report)
    assert all(row.name in text for row in report.layers)
    assert text.splitlines()[-1] == report.verdict
    for finding in report.findings:
        assert f"{finding.message}\n  To fix it: {finding.fix}\n" in text
    assert ("\nErrors\n- unsupported-layer: " in text) == bool(report.errors)
    assert ("\nWarnings\n- runtimes-differ: " in text) == bool(report.warnings)
    plain = json.loads(json.dumps(report.to_dict()))
    assert plain["ok"] is report.ok and len(plain["layers"]) == len(report.layers)
    assert plain["layers"][1]["becomes"][0]["kind"] == "QConv2D"


def test_check_report_escapes_brackets():
    x = keras.Input((6,), name="x")
    assert "x[...]" in str(keras_qat.check(keras.Model(x, x[:, 1:3])))


def test_check_verdict_has_counts():
    verdict = keras_qat.check(network(), target="reference").verdict
    assert verdict == "OK: 9 layers become 8 in int8. 1 warning, see above."
    assert keras_qat.check(small_network()).verdict == "OK: 6 layers become 5 in int8."
    verdict = keras_qat.check(full_of_errors()).verdict
    assert verdict == "NOT OK: 5 errors, see above."


def test_check_finds_unknown_input_sizes_and_nan_weights():
    a, b = keras.Input((4,), name="a"), keras.Input((None, 4), name="b")
    model = keras.Model([a, b, keras.Input((2,), name="c")], layers.Dense(2, name="d")(b))
    model.get_layer("d").kernel.assign(np.full((4, 2), np.nan))
    report = keras_qat.check(model)
    assert [finding.layer for finding in report.findings] == ["d/kernel", "a", "b", "c"]
    assert "8 NaN" in report.findings[0].message


def test_check_omits_errors_that_follow_from_others():
    x = keras.Input((None, None, 3), name="image")
    report = keras_qat.check(keras.Model(x, layers.GlobalAveragePooling2D()(x)))
    assert [finding.layer for finding in report.errors] == ["image"]


class Subclassed(keras.Model):
    """A subclassed model of two layers that are fused."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="dense")
        self.relu = layers.ReLU(name="relu")

    def call(self, x):
        return self.relu(self.dense(x))


def test_check_opens_a_subclassed_model():
    model = Subclassed(name="sub")
    model(np.ones((1, 4), "float32"))
    report = keras_qat.check(model)
    assert becomes(report) == {"x": ["x_quantize"], "dense": ["dense"], "relu": ["dense"]}


def test_check_finds_an_untraceable_subclassed_model():
    model = UsesTensorFlow(name="bad")
    model(np.ones((1, 4), "float32"))
    report = keras_qat.check(model)
    assert not report.ok and report.layers == () and report.findings[0].layer == "bad"
    assert "subclassed_models.py, line " in str(report)


def test_check_leaves_the_model_unchanged():
    model = network()
    weights = [(v.path, v.trainable, np.array(v)) for v in model.variables]
    calls = [(len(x._inbound_nodes), len(x._outbound_nodes)) for x in model.layers]
    keras_qat.check(model)
    assert calls == [(len(x._inbound_nodes), len(x._outbound_nodes)) for x in model.layers]
    for (path, trainable, value), variable in zip(weights, model.variables, strict=True):
        assert (path, trainable) == (variable.path, variable.trainable)
        assert (value == np.array(variable)).all()


def test_check_takes_a_clone():
    clone = keras_qat.clone_model(network())
    assert keras_qat.check(clone).ok


def test_check_refuses_a_quantized_model_in_another_model():
    x = keras.Input((8, 8, 3))
    with pytest.raises(errors.InvalidModelError, match="quantized already"):
        keras_qat.check(keras.Model(x, layers.ReLU()(quantized_network()(x))))


def test_check_of_a_quantized_model_has_a_row_per_layer():
    model = quantized_network()
    report = keras_qat.check(model, "uint8")
    assert report.ok and report.scheme == "int8" and report.rewrites == model.rewrite_log
    assert [row.name for row in report.layers] == [layer.name for layer in model.layers]
    rows = {row.name: row for row in report.layers}
    assert rows["conv"].becomes == (MadeLayer("conv", "QConv2D", ("CONV_2D",)),)
    assert rows["conv"].rewrites == ("fold_batch_norms", "fuse_activations")


@pytest.mark.parametrize("make", [full_of_errors, lambda: nan_model(), lambda: two_errors()])
def test_check_has_the_error_of_quantize_model_first(make):
    model = make()
    finding = keras_qat.check(model).errors[0]
    with pytest.raises(errors.KerasQatError) as raised:
        keras_qat.quantize_model(model)
    assert raised.value.layer == finding.layer
    assert str(raised.value) == f"{finding.message} To fix it: {finding.fix}"


def nan_model():
    model = small_network()
    model.get_layer("conv").kernel.assign(np.full((3, 3, 3, 4), np.nan))
    return model


def two_errors():
    x = keras.Input((6, 4), name="x")
    y = layers.LSTM(4, return_sequences=True, recurrent_dropout=0.1, name="lstm")(x)
    return keras.Model(x, layers.GRU(3, recurrent_dropout=0.1, name="gru")(y))


def test_check_finds_errors_of_build():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Concatenate(axis=0, name="stacked")([x, x]))
    report = keras_qat.check(model)
    assert [finding.layer for finding in report.errors] == ["stacked"]
    with pytest.raises(errors.UnsupportedLayerError, match="stacked"):
        keras_qat.quantize_model(model)


@pytest.mark.parametrize("model", [None, keras.Sequential([layers.Dense(2)])])
def test_check_refuses_models_that_cannot_be_read(model):
    with pytest.raises(errors.InvalidModelError):
        keras_qat.check(model)


def test_check_refuses_an_unknown_scheme():
    with pytest.raises(errors.InvalidSchemeError, match="int3"):
        keras_qat.check(network(), "int3")
