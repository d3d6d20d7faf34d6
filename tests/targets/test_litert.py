"""The profile "litert" against the runtime that is installed."""

import importlib.metadata

import pytest
from ai_edge_litert.interpreter import Interpreter

from keras_qat.litert import Model, Operator, Tensor, to_bytes
from keras_qat.litert.format.custom_options import custom_name
from keras_qat.targets import get_target

# The runtime finds a missing custom operator only when it allocates tensors:
# tests/lowering/test_detection.py.
OPERATORS = {
    code: limits
    for code, limits in get_target("litert").operators.items()
    if custom_name(code) is None
}
RUNTIME = tuple(map(int, importlib.metadata.version("ai-edge-litert").split(".")[:2]))


def refusal(code, version):
    """Returns the runtime's error for a file with such an operator, before any allocation."""
    x, y = Tensor("x", (1, 2), "int8"), Tensor("y", (1, 2), "int8")
    content = to_bytes(Model({"x": x}, {"y": y}, (Operator(code, (x,), (y,), version),)))
    try:
        Interpreter(model_content=content)
    except (RuntimeError, ValueError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize("code", OPERATORS)
def test_litert_profile_has_the_versions_that_the_runtime_registers(code):
    (limit,) = (each for each in OPERATORS[code].limits if each.quantities == ("version",))
    versions = limit.alternatives[0]["version"]
    unknown = f"Didn't find op for builtin opcode '{code}' version"
    if RUNTIME >= (2, 3):  # the profile is of this release, older ones register fewer versions
        assert unknown not in refusal(code, versions["most"])
    assert unknown in refusal(code, versions["most"] + 1)
    if versions.get("least", 1) > 1:
        assert unknown in refusal(code, versions["least"] - 1)
