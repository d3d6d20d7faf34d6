"""docs/errors.md explains each error, with the messages of the code."""

import ast
import functools
import inspect
import pathlib
import re

import pytest

from keras_qat import errors

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "errors.md").read_text()
CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, (errors.KerasQatError, UserWarning)) and cls is not errors.KerasQatError
]
ERRORS = [cls.__name__ for cls in CLASSES if not issubclass(cls, UserWarning)]
# These have dozens of messages, each with its own fix. The page has the most frequent ones.
MANY = {"UnsupportedLayerError", "InvalidFileError", "UnsafeFileError", "LiteRTFormatError"}
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", PAGE, flags=re.DOTALL | re.MULTILINE))


def spoken(node):
    """Returns the text of a string in the code, with `...` for inserted values, or None."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(spoken(part) or "..." for part in node.values)
    if isinstance(node, ast.BinOp):
        return f"{spoken(node.left) or '...'}{spoken(node.right) or '...'}"
    return None


def fits(said, message):
    """Returns whether a message on the page is that of the code. `...` stands for any text."""
    parts = (re.escape(part) for part in said.replace("`", "").split("..."))
    return re.fullmatch(".*".join(parts), message.replace("`", ""), flags=re.DOTALL) is not None


@functools.cache
def sources():
    return [ast.parse(path.read_text()) for path in (ROOT / "keras_qat").rglob("*.py")]


@functools.cache
def texts():
    return {text for tree in sources() for node in ast.walk(tree) if (text := spoken(node))}


def raised(name):
    """Returns the first sentences of all errors of a class in the code."""
    calls = (x for tree in sources() for x in ast.walk(tree) if isinstance(x, ast.Call))
    named = (call for call in calls if ast.unparse(call.func).split(".")[-1] == name)
    return {text for call in named if call.args and (text := spoken(call.args[0]))}


def explained(section):
    return re.findall(r'^\| (?:`\w+` \| )?"(.*?)" \|', section, flags=re.MULTILINE)


def test_error_page_has_a_section_per_error():
    assert sorted(SECTIONS) == sorted(ERRORS)
    assert all(explained(section) for section in SECTIONS.values())


def test_error_page_has_a_row_per_warning():
    warned = set(re.findall(r"^\| `(\w+Warning)` \|", PAGE, flags=re.MULTILINE))
    assert warned == {cls.__name__ for cls in CLASSES if issubclass(cls, UserWarning)}


@pytest.mark.parametrize("name", sorted(set(ERRORS) - MANY))
def test_error_page_explains_each_message(name):
    said = explained(SECTIONS[name])
    messages = raised(name)
    assert messages, "nothing raises it"
    missing = [message for message in messages if not any(fits(one, message) for one in said)]
    assert not missing, f"docs/errors.md, {name}: these messages are not explained"


@pytest.mark.parametrize("said", explained(PAGE))
def test_error_page_has_only_messages_of_the_code(said):
    assert any(fits(said, text) for text in texts())
