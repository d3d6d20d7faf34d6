"""Compilation and float64 on the chosen backend, and the arithmetic on other backends."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

from keras_qat import backend
from keras_qat.backend import rules

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


@pytest.fixture
def traces():
    """Makes a rule that records the shapes of its traces."""
    seen = []

    def rule(x, *, by):
        seen.append((tuple(x.shape), by))
        return x * by

    return backend.compiled(rule), seen


@on_tensorflow
def test_compiled_traces_once_for_all_shapes(traces):
    compiled, seen = traces
    for by in (2, 3, 2, 3):
        for size in range(1, 8):
            assert np.asarray(compiled(np.ones(size, "float32"), by=by)).tolist() == [by] * size
    assert seen == [((None,), 2), ((None,), 3)]


@on_tensorflow
def test_compiled_traces_again_for_another_rank_or_dtype(traces):
    compiled, seen = traces
    for x in (np.ones(2, "float32"), np.ones((2, 2), "float32"), np.ones(2, "int32")):
        compiled(x, by=2)
    assert [shape for shape, _ in seen] == [(None,), (None, None), (None,)]


@on_tensorflow
def test_compiled_fuses_tensors_of_many_values(monkeypatch):
    import tensorflow as tf

    compiled, made, function = backend.compiled(tripled), [], tf.function

    def noted(*args, **kwargs):
        made.append(kwargs.get("jit_compile", False))
        return function(*args, **kwargs)

    rules._xla_works()
    rules.traced_rule.cache_clear()
    monkeypatch.setattr(tf, "function", noted)
    compiled(np.ones((2, 2), "float32"))
    assert made == [False]
    large = compiled(np.ones((2, rules.FUSED_SIZE // 2), "float32"))
    assert made == [False, True] and (np.asarray(large) == 3.0).all()


@on_tensorflow
@pytest.mark.parametrize("batch", [None, 1, rules.USUAL_BATCH])
@pytest.mark.parametrize("values", [1, rules.FUSED_SIZE // rules.USUAL_BATCH])
def test_compiled_in_a_graph_fuses_by_static_sizes(batch, values):
    import tensorflow as tf

    compiled = backend.compiled(tripled)
    spec = tf.TensorSpec([batch, values], tf.float32)
    outer = tf.function(lambda x: compiled(x), input_signature=[spec], autograph=False)
    graph = outer.get_concrete_function().graph
    is_fused = any("_XlaMustCompile" in op.node_def.attr for op in graph.get_operations())
    assert is_fused == (values > 1 and batch != 1)
    for size in (1, 3) if batch is None else (batch,):
        y = outer(tf.ones([size, values]))
        assert y.shape == (size, values) and (y.numpy() == 3.0).all()


@on_tensorflow
def test_compiled_inside_another_is_part_of_it(traces):
    compiled, seen = traces
    doubled = backend.compiled(lambda x: compiled(x, by=2) + 1)
    assert np.asarray(doubled(np.ones(3, "float32"))).tolist() == [3.0] * 3
    assert np.asarray(doubled(np.ones(4, "float32"))).tolist() == [3.0] * 4
    assert seen == [((None,), 2)]


@on_tensorflow
@pytest.mark.parametrize("wrapped", [backend.part, backend.compiled])
def test_part_is_traced_once_for_all_rules_that_call_it(wrapped):
    traces = []

    @wrapped
    def square(x):
        traces.append(x)
        return x * x

    rules = [
        backend.compiled(lambda x, y: square(x) + square(square(y))),
        backend.compiled(lambda x, y: square(square(y)) - square(x)),
    ]
    x, y = np.array([[1, 2], [3, 4]], "int32"), np.array([[5, 6]], "int32")
    plus, minus = (np.asarray(rule(x, y)).tolist() for rule in rules)
    assert plus == [[626, 1300], [634, 1312]]
    assert minus == [[624, 1292], [616, 1280]]
    assert len(traces) == 1


def test_part_outside_of_rules_is_the_function_itself():
    assert backend.part(tripled)(2, by=5) == 10


def test_on_one_replica_computes_equal_values_eagerly_and_compiled():
    x = keras.Input((2,))
    model = keras.Model([x], [x + 1.0, keras.layers.Dropout(0.5)(x)])
    compute = backend.on_one_replica(model, trace_first=False)
    for batch in (3, 3, 2):
        values = np.arange(2.0 * batch, dtype="float32").reshape(batch, 2)
        one, two = compute([values])
        np.testing.assert_array_equal(one, values + 1)
        np.testing.assert_array_equal(two, values)


@on_tensorflow
def test_compiled_keeps_static_shapes_in_a_graph():
    import tensorflow as tf

    def combined(a, b):
        return a + b, tf.range(5), tf.reduce_max(a, axis=1, keepdims=True)

    shapes = []

    def outer(a, b):
        shapes.extend(y.shape.as_list() for y in backend.compiled(combined)(a, b))
        return a

    specs = [tf.TensorSpec([None, 1, 3], tf.float32), tf.TensorSpec([None, 4, 1], tf.float32)]
    tf.function(outer, input_signature=specs, autograph=False).get_concrete_function()
    assert shapes == [[None, 4, 3], [5], [None, 1, 3]]


@on_tensorflow
def test_compiled_under_a_gradient_tape_keeps_its_values():
    import tensorflow as tf

    x = tf.Variable(tf.constant([1.0, 2.0]))
    with tf.GradientTape():
        y = backend.compiled(tripled)(x)
    assert y.numpy().tolist() == [3.0, 6.0]


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


@on_tensorflow
def test_compiled_works_without_xla(monkeypatch):
    monkeypatch.setattr(rules, "_xla_works", lambda: False)
    monkeypatch.setattr(rules.Rule, "_fused", None)
    y = backend.compiled(tripled)(np.ones(rules.FUSED_SIZE, "float32"))
    assert (np.asarray(y) == 3.0).all()


@on_tensorflow
def test_xla_works_is_false_if_xla_fails(monkeypatch):
    import tensorflow as tf

    def failing(*args, **kwargs):
        raise tf.errors.UnimplementedError(None, None, "no XLA on this device")

    monkeypatch.setattr(tf, "function", lambda *args, **kwargs: failing)
    assert rules._xla_works.__wrapped__() is False


def test_float64_computes_in_double():
    with backend.float64():
        x = keras.ops.cast(np.array([1.0], "float32"), "float64") / 49
        assert keras.backend.standardize_dtype(x.dtype) == "float64"
        assert (np.asarray(x) == [1 / 49]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["jax", "torch"])
def test_arithmetic_on_another_backend(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    environment = os.environ | {"KERAS_BACKEND": name}
    result = subprocess.run(
        [*command, "tests/arithmetic"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout
