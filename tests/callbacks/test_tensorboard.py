"""Keras's `TensorBoard` on a quantized model. The oracles are the model's own variables."""

import keras
import numpy as np
import pytest

import keras_qat
from tests.models import labels, small_images, small_network

pytest.importorskip("tensorboard", reason="needs tensorboard: pip install -e '.[tensorboard]'")


def trained(*callbacks):
    keras.utils.set_random_seed(0)
    model = keras_qat.quantize_model(small_network(), calibration_data=small_images(8))
    model.compile("sgd", "sparse_categorical_crossentropy")
    data = small_images(8), labels(8)
    model.fit(*data, validation_data=data, batch_size=4, verbose=0, callbacks=list(callbacks))
    return model


def histograms(folder):
    """Returns the last histogram of each tag: rows of the left edge, the right edge, the count."""
    import tensorflow as tf

    (path,) = (folder / "train").glob("events*")
    events = map(
        tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    )
    values = (value for event in events for value in event.summary.value)
    return {
        value.tag.removesuffix("/histogram"): tf.make_ndarray(value.tensor)
        for value in values
        if value.tag.endswith("/histogram")
    }


def test_tensorboard_writes_histograms_of_weights_and_ranges(tmp_path):
    callback = keras.callbacks.TensorBoard(
        tmp_path, histogram_freq=1, write_graph=True, write_images=True, update_freq=1
    )
    model, written = trained(callback), histograms(tmp_path)
    variables = {each.path: np.asarray(each) for layer in model.layers for each in layer.weights}
    assert written.keys() == variables.keys() and any("/range/maximum" in each for each in written)
    for name, value in variables.items():
        low, high, counts = written[name].T
        assert counts.sum() == value.size, name
        found = low.min(), high.max()
        np.testing.assert_allclose(found, [value.min(), value.max()], 1e-5, err_msg=name)
    for a, b in zip(model.get_weights(), trained().get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)  # the callback changes nothing
