"""Errors name the statement that cannot be traced. A comment after the statement marks it."""

import inspect
import re

import keras
import numpy as np
import pytest

import keras_qat
from keras_qat.errors import InvalidModelError, UnsupportedLayerError
from keras_qat.graph.statements import failing_statement, first_line
from tests.graph.subclassed_models import UNTRACEABLE, Inside, UsesTensorFlow

ONES = np.ones((2, 4), "float32")


def marked(cls):
    """Returns the file, the line and the source of the statement that cannot be traced."""
    lines, start = inspect.getsourcelines(cls)
    index = next(i for i, line in enumerate(lines) if "# here" in line)
    return f"subclassed_models.py, line {start + index}: `{lines[index].strip()}`"


def built(model):
    """Builds a model with its input shape, which Keras records only if it can trace the model."""
    model(ONES)
    if model.get_build_config() is None:
        model.build((None, 4))
    return model


def refusal(model):
    with pytest.raises(UnsupportedLayerError, match="cannot be traced") as caught:
        keras_qat.clone_model(model)
    return caught.value


@pytest.mark.parametrize("cls", UNTRACEABLE)
def test_refusal_names_the_failing_statement(cls):
    error = refusal(built(cls(name="bad")))
    assert error.layer == "bad"
    assert f"a {cls.__name__}, whose `call` raised" in str(error)
    assert f" in {marked(cls)}" in str(error)


@pytest.mark.parametrize("cls", UNTRACEABLE)
def test_refusal_names_the_statement_of_an_inner_model(cls):
    error = refusal(built(Inside(Inside(cls(name="bad")), name="outer")))
    assert f" in {marked(cls)}" in str(error)


def test_refusal_names_the_statement_of_a_model_in_a_functional_model():
    x = keras.Input((4,))
    error = refusal(keras.Model(x, Inside(UsesTensorFlow(name="bad"), name="outer")(x)))
    assert error.layer == "bad" and marked(UsesTensorFlow) in str(error)


def test_refusal_of_a_model_that_ran_only_eagerly_asks_for_build():
    model = UNTRACEABLE[0](name="bad")
    model(ONES)
    with pytest.raises(
        InvalidModelError, match=r"does not know the input shapes.*model\.build\("
    ) as caught:
        keras_qat.clone_model(model)
    assert caught.value.layer == "bad"


def test_failing_statement_of_a_library_error_is_none():
    try:
        keras.layers.Dense(0)
    except ValueError as error:
        inner = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        assert failing_statement(inner) is None
        assert first_line(inner)


def test_failing_statement_without_source_has_file_and_line():
    names: dict = {"__name__": "typed"}
    exec(compile("def fail():\n    raise ValueError('no')", "<typed>", "exec"), names)
    with pytest.raises(ValueError, match="no") as caught:
        names["fail"]()
    statement = failing_statement(caught.value)
    assert statement is not None and re.fullmatch("<typed>, line 2", statement)


def test_first_line_leaves_out_the_text_that_keras_adds():
    text = "Exception encountered when calling X.call().\n\n\x1b[1mthe reason\nmore\x1b[0m\n\nArgs"
    assert first_line(ValueError(text)) == "the reason"
    assert first_line(ValueError("short\nlong")) == "short"


def test_first_line_ends_after_a_sentence_or_a_word():
    sentences = "The first one. " + 8 * "Another sentence. " + 20 * "and so on "
    assert first_line(ValueError(sentences)) == "The first one. " + 7 * "Another sentence. " + (
        "Another sentence"
    )
    assert first_line(ValueError(100 * "word ")) == 39 * "word " + "..."
    assert first_line(ValueError("One. Two.")) == "One. Two."
