import pathlib
import re

from keras_qat.loading.tensorflow.operations import FUNCTIONS
from keras_qat.loading.tensorflow.operators import OPERATORS

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "loading.md"


def test_loading_page_lists_all_functions_and_operators():
    text = PAGE.read_text()
    start = text.index("The functions,")
    functions, operators = text[start : text.index("## What is not")].split("The operators:")
    named = set(re.findall(r"`([\w.]+)`", functions)) - {"compat.v1.", "tf.shape"}
    assert named == set(FUNCTIONS)
    assert set(re.findall(r"`(\w+)`", operators)) == set(OPERATORS)
