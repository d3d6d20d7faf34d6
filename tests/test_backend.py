"""Compilation and float64 on the chosen backend, and the same arithmetic on the others."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_qat import backend

ROOT = pathlib.Path(__file__).parents[1]
on_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow compiles single functions"
)


def tripled(x, *, by=3):
    return x * by


def test_compiled_keeps_values_options_and_name():
    compiled = backend.compiled(tripled)
    assert compiled.__name__ == "tripled"
    assert np.asarray(compiled(np.array([1, 2], "int32"))).tolist() == [3, 6]
    assert np.asarray(compiled(np.array([1, 2], "int32"), by=5)).tolist() == [5, 10]
    assert np.asarray(compiled(np.array([1, 2], "int32"), by=3)).tolist() == [3, 6]


def test_compiled_takes_symbolic_tensors():
    x = keras.KerasTensor((None, 4), dtype="int32")
    assert backend.compiled(tripled)(x).shape == (None, 4)


def test_compiled_in_a_functional_model_of_any_batch_size():
    class Tripled(keras.layers.Layer):
        def call(self, x):
            return backend.compiled(tripled)(x)

    x = keras.Input((4,))
    model = keras.Model(x, Tripled()(x))
    for batch in (1, 5):
        assert model.predict(np.ones((batch, 4)), verbose=0).tolist() == [[3.0] * 4] * batch


@on_tensorflow
def test_compiled_traces_once_for_a_shape_and_option():
    traces = []

    def counted(x, *, by):
        traces.append(by)
        return x * by

    compiled = backend.compiled(counted)
    for by in (2, 3, 2, 3):
        compiled(np.array([1], "float32"), by=by)
    assert traces == [2, 3]


@on_tensorflow
def test_compiled_runs_in_xla():
    import tensorflow as tf

    def first_is_xla(x):
        return tf.ones_like(x) * float(tf.executing_eagerly())

    assert np.asarray(backend.compiled(first_is_xla)(np.array([2], "float32"))).tolist() == [0.0]


@on_tensorflow
@pytest.mark.parametrize("jit_compile", [True, False])
def test_compiled_inside_another_function_of_unknown_batch(jit_compile):
    import tensorflow as tf

    compiled = backend.compiled(tripled)
    spec = tf.TensorSpec([None, 2], tf.int32)
    outer = tf.function(
        lambda x: compiled(x) + 1, input_signature=[spec], jit_compile=jit_compile, autograph=False
    )
    for batch in (1, 3):
        assert outer(tf.ones([batch, 2], "int32")).numpy().tolist() == [[4, 4]] * batch
    assert outer.get_concrete_function().structured_outputs.shape.as_list() == [None, 2]


@on_tensorflow
def test_compiled_takes_variables():
    variable = keras.Variable([1.0, 2.0])
    assert np.asarray(backend.compiled(tripled)(variable)).tolist() == [3.0, 6.0]


def test_compiled_calls_the_function_itself_where_xla_does_not_work(monkeypatch):
    monkeypatch.setattr(backend, "_xla_works", lambda: False)
    seen = []
    backend.compiled(seen.append)("as it is")
    assert seen == ["as it is"]


@on_tensorflow
def test_xla_failing_is_noticed(monkeypatch):
    import tensorflow as tf

    def failing(*args, **kwargs):
        raise tf.errors.UnimplementedError(None, None, "no XLA on this device")

    monkeypatch.setattr(tf, "function", lambda *args, **kwargs: failing)
    assert backend._xla_works.__wrapped__() is False


def test_float64_is_double():
    with backend.float64():
        x = keras.ops.cast(np.array([1.0], "float32"), "float64") / 49
        assert keras.backend.standardize_dtype(x.dtype) == "float64"
        assert (np.asarray(x) == [1 / 49]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jax", "torch"])
def test_all_arithmetic_on_another_backend(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    environment = os.environ | {"KERAS_BACKEND": name}
    result = subprocess.run(
        [*command, "tests/arithmetic"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
