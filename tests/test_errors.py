import inspect

import pytest

from keras_qat import errors

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass)]
TYPES = [cls for cls in CLASSES if issubclass(cls, Exception) and not issubclass(cls, Warning)]


def test_error_text_has_all_parts_in_order():
    error = errors.KerasQatError(
        "It failed.", layer="conv", received="a cat", expected="a dog", fix="Get a dog."
    )
    assert str(error) == (
        "It failed. Layer: 'conv'. Expected: a dog. Received: a cat. To fix it: Get a dog."
    )
    assert error.layer == "conv"


def test_error_text_leaves_out_missing_parts():
    assert str(errors.KerasQatError("It failed.")) == "It failed."
    assert errors.KerasQatError("It failed.").layer is None
    assert str(errors.KerasQatError("No.", received=0)) == "No. Received: 0."


@pytest.mark.parametrize("cls", TYPES, ids=lambda cls: cls.__name__)
def test_error_has_the_base_class_and_a_builtin_one(cls):
    assert issubclass(cls, errors.KerasQatError)
    builtin = ValueError | OSError | ArithmeticError | ImportError
    assert cls is errors.KerasQatError or issubclass(cls, builtin)
    assert inspect.getdoc(cls)
