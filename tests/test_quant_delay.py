"""Training in float first. The oracles are the float clone, an uninterrupted run and LiteRT."""

import importlib.util

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import MissingRangeError
from keras_qat.layers.core.modes import float_mode
from tests import seeds
from tests.layers.cases import Case
from tests.layers.contract import Prepared, assert_equals_litert
from tests.layers.litert_files import exported
from tests.models import labels, quantized, small_images, small_network
from tests.processes import run_python
from tests.quick import some_quick

LOSS = "sparse_categorical_crossentropy"
OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
}


def compiled(model, optimizer="sgd", **arguments):
    model.compile(OPTIMIZERS[optimizer](), LOSS, metrics=["accuracy"], **arguments)
    return model


def delayed(steps, optimizer="sgd", source=small_network, **arguments):
    return compiled(keras_qat.quantize_model(source(), quant_delay=steps), optimizer, **arguments)


def train(model, batches=1, start=0):
    """Trains on different batches, each a step of 8 samples. Returns the losses."""
    data, targets = small_images(8 * 8), labels(8 * 8)
    losses = []
    for i in range(start, start + batches):
        model.reset_metrics()
        part = slice(8 * i, 8 * i + 8)
        losses.append(float(model.train_on_batch(data[part], targets[part])[0]))
    return losses


def left(model):
    return int(model.quant_delay.left)


def shared_and_nested(seed=0):
    """Makes a layer that is called twice, inside a model that is called twice."""
    seeds.seed(seed)
    layers = keras.layers
    inner = keras.Input((4, 4, 3))
    conv = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv")
    nested = keras.Model(inner, conv(conv(inner)), name="nested")
    image = keras.Input((4, 4, 3), name="image")
    x = layers.Flatten()(layers.BatchNormalization(name="bn")(nested(nested(image))))
    return keras.Model(image, layers.Dense(5, activation="softmax", name="head")(x))


def weights_of(model):
    """Returns the weights that the float model has, too, by path."""
    ours = ("minimum", "maximum", "updates", "seen", "held", "unfit", "left")
    return {
        variable.path: np.array(variable)
        for variable in model.variables
        if variable.path.rpartition("/")[2] not in ours
    }


def apart(model, other):
    """Returns the largest difference of two models' weights, relative to the largest of each."""
    ours, theirs = weights_of(model), weights_of(other)
    assert set(ours) == set(theirs)
    return max(
        np.max(np.abs(ours[path] - theirs[path])) / max(np.max(np.abs(theirs[path])), 1e-3)
        for path in ours
    )


@pytest.mark.parametrize(
    ("source", "optimizer", "jit"),
    some_quick(
        [
            (shared_and_nested, "adam", False),
            (small_network, "sgd", False),
            (shared_and_nested, "adam", True),
        ],
        0,
    ),
)
def test_quant_delay_trains_the_float_model_until_it_ends(source, optimizer, jit):
    model = delayed(3, optimizer, source, jit_compile=jit)
    exact = compiled(keras_qat.clone_model(source()), optimizer, jit_compile=jit)
    assert train(model, 3) == pytest.approx(train(exact, 3), rel=1e-5)
    assert apart(model, exact) < 1e-4
    assert left(model) == 0
    train(model, start=3)
    train(exact, start=3)
    assert apart(model, exact) > 1e-3
    assert left(model) == 0


def test_quant_delay_quantizes_as_usual_after_it_ends():
    model = delayed(2)
    train(model, 2)
    plain = compiled(keras_qat.quantize_model(small_network()))
    shared = [v for v in model.weights if not v.path.endswith("quant_delay/left")]
    plain.set_weights([np.array(v) for v in shared])
    plain.optimizer.build(plain.trainable_variables)
    for ours, theirs in zip(plain.optimizer.variables, model.optimizer.variables, strict=True):
        ours.assign(theirs)
    assert train(plain, 2, start=2) == train(model, 2, start=2)
    assert apart(plain, model) == 0


def test_quant_delay_of_none_adds_no_variable():
    plain, model = keras_qat.quantize_model(small_network()), delayed(2)
    assert plain.quant_delay is None
    added = {v.path for v in model.variables} - {v.path for v in plain.variables}
    assert added == {"image_quantize/quant_delay/left"}
    assert "quant_delay" not in str(plain.get_config())


def test_quant_delay_observes_ranges():
    model = delayed(2)
    train(model, 1)
    observer, exact = model.get_layer("conv").observer, keras_qat.clone_model(small_network())
    y = np.array(exact.get_layer("conv")(small_images(64)[:8], training=True))
    found = float(observer.minimum), float(observer.maximum)
    assert found == pytest.approx((y.min(), y.max()), rel=1e-5)
    train(model, 1, start=1)
    assert int(observer.updates) == 2


def test_quant_delay_has_integer_inference():
    model, prepared = delayed(4), Prepared(Case("delay", (), small_network))
    with pytest.raises(MissingRangeError, match="'image_quantize', 'conv', 'head'"):
        model.evaluate(prepared.x, labels(), verbose=0)
    train(model, 2)
    prepared.quantized = model
    assert assert_equals_litert(prepared)
    predicted = model.predict(prepared.x, verbose=0)
    accuracy = np.mean(predicted.argmax(axis=-1) == labels())
    assert model.evaluate(prepared.x, labels(), verbose=0)[1] == pytest.approx(accuracy)
    assert left(model) == 2


def everything(model):
    variables = [*model.variables, *model.optimizer.variables]
    return [np.array(variable) for variable in variables]


def assert_same(model, other):
    assert [v.path for v in model.weights] == [v.path for v in other.weights]
    for ours, theirs in zip(everything(model), everything(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert exported(model) == exported(other)


def reload(model, path):
    model.save(path / "model.keras")
    return keras.models.load_model(path / "model.keras")


def reload_weights(model, path):
    model.save_weights(path / "model.weights.h5")
    other = delayed(4, "adam")
    other.optimizer.build(other.trainable_variables)
    other.load_weights(path / "model.weights.h5")
    return other


@pytest.mark.parametrize("resume", some_quick([reload, reload_weights], 0))
def test_quant_delay_resumes_after_an_interruption(resume, tmp_path):
    model = delayed(4, "adam")
    train(model, 2)
    other = resume(model, tmp_path)
    assert left(other) == left(model) == 2
    assert other.quant_delay.steps == 4
    assert train(other, 3, start=2) == train(model, 3, start=2)
    assert_same(other, model)


class Interrupted(Exception):
    """Stands for a power failure."""


def fit(model, *callbacks):
    data, targets = small_images(24), labels(24)
    arguments = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
    return model.fit(data, targets, callbacks=list(callbacks), **arguments)


@pytest.mark.slow  # quick tests load the remaining steps from files of models and checkpoints
def test_quant_delay_resumes_with_backup_and_restore(tmp_path):
    def cut(epoch, logs):
        if epoch == 1:
            raise Interrupted

    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(Interrupted):
        # This is before the second backup, so the backup is that of the first epoch of 3 steps.
        fit(delayed(5), keras.callbacks.LambdaCallback(on_epoch_end=cut), backup)
    model, straight = delayed(5), delayed(5)
    assert len(fit(model, keras.callbacks.BackupAndRestore(tmp_path)).epoch) == 2
    fit(straight)
    assert left(model) == 0
    assert_same(model, straight)


def test_quant_delay_saves_the_remaining_steps(tmp_path):
    path = str(tmp_path / "{epoch}.keras")
    fit(delayed(4), keras.callbacks.ModelCheckpoint(path))
    saved = [keras.models.load_model(path.format(epoch=epoch)) for epoch in (1, 2, 3)]
    assert [left(model) for model in saved] == [1, 0, 0]


def test_quant_delay_of_a_clone_starts_anew():
    model = delayed(4)
    train(model, 1)
    for clone in (keras.models.clone_model(model), type(model).from_config(model.get_config())):
        assert (left(model), left(clone)) == (3, 4)
        clone.set_weights(model.get_weights())
        assert left(clone) == 3


def test_quant_delay_of_a_model_of_ids():
    seeds.seed(0)
    ids = keras.Input((3,), dtype="int32", name="ids")
    source = keras.Model(ids, keras.layers.Dense(2)(keras.layers.Embedding(7, 4)(ids)))
    model = keras_qat.quantize_model(source, quant_delay=1)
    x = np.arange(6, dtype="int32").reshape(2, 3)
    expected = np.array(source(x, training=True))
    np.testing.assert_allclose(model(x, training=True), expected, rtol=1e-5, atol=1e-6)
    assert np.max(np.abs(np.array(model(x, training=True)) - expected)) > 1e-4


def test_quant_delay_ignores_calibration_and_inference():
    model, data = delayed(2), small_images()
    keras_qat.calibrate(model, data, verbose=0)
    model.predict(data, verbose=0)
    assert exported(model) == exported(quantized(small_network(), data))
    with float_mode():
        model(data, training=True)
    assert left(model) == 2


SCRIPT = """
import json
import keras, keras_qat
import numpy as np
from tests.models import labels, small_images, small_network
data, targets = small_images(32), labels(32)
models = [keras_qat.quantize_model(small_network(), quant_delay=3)]
models.append(keras_qat.clone_model(small_network()))
def apart():
    exact = {v.path: np.array(v) for v in models[1].variables}
    pairs = [(np.array(v), exact[v.path]) for v in models[0].variables if v.path in exact]
    return max(float(np.max(np.abs(a - b))) for a, b in pairs)
found = []
for model in models:
    model.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
for _ in range(2):
    for model in models:
        model.fit(data[:24], targets[:24], batch_size=8, shuffle=False, verbose=0)
    found.append(apart())
print(json.dumps({
    "backend": keras.backend.backend(),
    "float at first": found[0] < 1e-5,
    "quantized then": found[1] > 1e-4,
    "left": int(models[0].quant_delay.left),
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_quant_delay_counts_down_on_other_backends(backend):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    assert run_python(SCRIPT, backend=backend) == {
        "backend": backend,
        "float at first": True,
        "quantized then": True,
        "left": 0,
    }
