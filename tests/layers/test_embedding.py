"""GATHER from a table: cases of the contract, hand-computed numbers, errors."""

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import UnsupportedLayerError
from keras_qat.layers import QEmbedding
from tests.layers.cases import Case
from tests.layers.contract import quantized_with
from tests.layers.litert_files import exported, operators_of
from tests.models import called
from tests.quick import some_quick

layers = keras.layers
Embedding = layers.Embedding


def ids(model, rng, batch):
    """Returns ids for integer inputs, which are not scaled, and real values for others."""
    arrays = []
    for tensor in model.inputs:
        shape = (batch, *tensor.shape[1:])
        is_ids = tensor.name.startswith("ids")
        arrays.append(
            rng.integers(0, 11, shape, "int32") if is_ids else rng.normal(size=shape, scale=2)
        )
    return [x if x.dtype == np.int32 else x.astype("float32") for x in arrays]


def text():
    words = keras.Input((6,), name="ids", dtype="int32")
    x = layers.Flatten(name="flat")(Embedding(11, 4, name="words")(words))
    return keras.Model(words, layers.Dense(3, name="head")(x))


def text_and_numbers():
    """Makes one table for two inputs. One is float32, the default of `keras.Input`."""
    first, second = keras.Input((3,), name="ids_a"), keras.Input((3,), name="ids_b", dtype="int64")
    numbers = keras.Input((3, 4), name="numbers")
    shared = Embedding(11, 4, name="shared")
    vectors = [shared(first), shared(second), Embedding(11, 4, name="own")(first), numbers]
    x = layers.Concatenate(axis=1, name="joined")(vectors)
    return keras.Model([first, second, numbers], [layers.Dense(3, name="head")(x), vectors[0]])


CASES = [
    Case("embedding", (QEmbedding,), text, data=ids),
    Case("embedding_with_others", (QEmbedding,), text_and_numbers, data=ids),
]


def table_model(table):
    words = keras.Input((2,), name="ids", dtype="int32")
    model = keras.Model(words, Embedding(*np.shape(table), name="words")(words))
    model.set_weights([np.float32(table)])
    return model


def test_embedding_has_the_range_of_the_whole_table():
    quantized = keras_qat.quantize_model(table_model([[-64.0, 0.3], [63.5, -0.2], [7.25, 1.0]]))
    # Without calibration, and before ids 0 and 1 were ever looked up.
    assert called(quantized, np.array([[2, 2]], "int32")).tolist() == [[[7.5, 1.0]] * 2]
    assert called(quantized, np.array([[0, 1]], "int32")).tolist() == [[[-64, 0.5], [63.5, 0]]]
    assert operators_of(exported(quantized)) == ["GATHER"]


def test_embedding_range_follows_the_weights():
    quantized = keras_qat.quantize_model(table_model([[-1.0], [1.0]]))
    quantized.set_weights([np.array([[-64.0], [63.5]], "float32")])
    assert called(quantized, np.array([[1, 0]], "int32")).tolist() == [[[63.5], [-64.0]]]


@pytest.mark.parametrize("input_type", some_quick(["int8", "uint8", "float32"], 0))
def test_embedding_calibrates_trains_and_exports_exactly(tmp_path, input_type):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 11, (64, 6)), rng.integers(0, 3, 64)
    model = keras_qat.quantize_model(text())
    keras_qat.calibrate(model, x, verbose=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    before = model.get_layer("words").embeddings.numpy()
    history = model.fit(x, y, epochs=5, verbose=0).history["loss"]
    assert history[-1] < history[0]
    assert np.any(model.get_layer("words").embeddings.numpy() != before)
    path = tmp_path / "model.tflite"
    keras_qat.export_litert(model, path, inference_input_type=input_type)
    report = keras_qat.verify(model, path, x, verbose=0)
    assert report.exact, str(report)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(called(loaded, x), called(model, x))


def test_embedding_merges_low_rank_weights():
    model = table_model([[-64.0, 1.0], [63.5, 2.0]])
    model.get_layer("words").enable_lora(1)
    model.get_layer("words").lora_embeddings_b.assign([[1.0, 0.0]])
    clone = keras_qat.clone_model(model)
    x = np.array([[0, 1]], "int32")
    np.testing.assert_allclose(clone(x), model(x), rtol=1e-6)


def embedded(words, **kwargs):
    return Embedding(4, 2, name="words", **kwargs)(words)


@pytest.mark.filterwarnings("ignore:Layer 'flat':UserWarning")
def test_embedding_ignores_a_mask_that_no_layer_takes():
    words = keras.Input((3,), dtype="int32")
    flat = layers.Flatten(name="flat")
    model = keras.Model(words, flat(embedded(words, mask_zero=True)))
    table = [[-64.0, 1.0], [63.5, 2.0], [0.0, 3.0], [1.0, 4.0]]
    model.set_weights([np.array(table, "float32")])
    quantized = keras_qat.quantize_model(model)
    ids = np.array([[1, 0, 0]], "int32")
    np.testing.assert_array_equal(called(quantized, ids), called(model, ids))
    assert not quantized.get_layer("words").mask_zero


def test_embedding_quantized_by_keras_is_refused():
    words = keras.Input((3,), dtype="int32")
    model = keras.Model(words, embedded(words))
    model.get_layer("words").quantize("int8")
    with pytest.raises(UnsupportedLayerError, match="quantized already, by Keras.*words"):
        keras_qat.quantize_model(model)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: embedded(layers.Reshape((1, 3), name="row")(x)), "the output of 'row'"),
        (lambda x: [embedded(x), layers.Dense(2)(x)], "'ids', which is used as real values too"),
        (lambda x: [embedded(x), x], "'ids', which is used as real values too"),
    ],
)
def test_embedding_refuses_computed_or_shared_ids(function, message):
    inputs = keras.Input((3,), name="ids")
    model = keras.Model(inputs, function(inputs))
    with pytest.raises(UnsupportedLayerError, match=message):
        keras_qat.quantize_model(model)


def test_embedding_takes_ids_through_a_reshape():
    inputs = keras.Input((3,), name="ids")
    model = keras.Model(inputs, embedded(layers.Flatten()(inputs)))
    ids = np.array([[0, 1, 3]], "int32")
    keras_qat.quantize_model(model, default_ranges_stats=(-1, 1))
    clone = keras_qat.clone_model(model)
    np.testing.assert_array_equal(clone(ids), model(ids))


def test_quantize_model_quantizes_an_integer_input_of_real_values():
    inputs = keras.Input((2,), name="pixels", dtype="uint8")
    model = keras.Model(inputs, layers.Flatten()(inputs))
    quantized = quantized_with(model, pixels=(0.0, 255.0))
    assert called(quantized, np.array([[0, 255]], "uint8")).tolist() == [[0.0, 255.0]]
