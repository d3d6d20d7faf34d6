import keras
import numpy as np
import pytest

import keras_qat

NAMES = ("DenseNet121", "EfficientNetB0", "MobileNet", "MobileNetV2", "MobileNetV3Small")
NAMES += ("NASNetMobile", "ResNet50V2")
pytestmark = pytest.mark.slow


def assert_close(model, files, name):
    (inputs,), (expected,) = files.arrays(name)
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(model(inputs, training=False) / scale, expected / scale, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_load_model_of_applications_of_keras_2(applications, name):
    assert_close(keras_qat.load_model(applications.path(name)), applications, name)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_load_weights_of_keras_2_into_applications(applications, name, by_name):
    keras.utils.clear_session()
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=7)
    path = applications.folder / f"{name}_weights.h5"
    report = keras_qat.load_weights(model, path, by_name=by_name)
    assert not (report.missing or report.unexpected)
    assert_close(model, applications, name)


@pytest.mark.parametrize("name", ["MobileNet", "MobileNetV2", "MobileNetV3Small", "ResNet50V2"])
def test_load_weights_of_keras_2_into_rewritten_applications(applications, name):
    model = getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=7)
    clone = keras_qat.clone_model(model)
    keras_qat.load_weights(clone, applications.folder / f"{name}_weights.h5")
    assert_close(clone, applications, name)
