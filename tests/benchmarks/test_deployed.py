import pytest

from keras_qat.litert import Model, Operator, Tensor, to_bytes
from tests.delegates import undelegated


@pytest.fixture
def deployed(script):
    return script("deployed")


def chain(*codes):
    """Makes a float32 model of a sequence of operators."""
    tensors = [Tensor(f"t{i}", (1, 4, 4, 8), "float32") for i in range(len(codes) + 1)]
    operators = tuple(
        Operator(code, (x,), (y,)) for code, x, y in zip(codes, tensors, tensors[1:], strict=False)
    )
    return Model({"x": tensors[0]}, {"y": tensors[-1]}, operators)


def test_undelegated_lists_operators_outside_of_xnnpack():
    content = to_bytes(chain("RELU", "TANH", "LOG_SOFTMAX", "RELU", "L2_NORMALIZATION"))
    assert undelegated(content) == ([("t3", "LOG_SOFTMAX"), ("t5", "L2_NORMALIZATION")], 2)


def test_against_compares_with_the_goal(deployed):
    assert deployed.against({"ours": 2.0, "converter": 1.0}, 1.05)["verdict"] == "NOT reached"
    assert deployed.against({"ours": 1.0, "converter": 1.0}, 1.05)["verdict"] == "reached"
    assert deployed.against({"ours": None, "converter": 1.0}, 1.05)["ratio"] is None


def test_renew_replaces_only_the_table(deployed, tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"# Before\n\n{deployed.START}\nold\n{deployed.END}\n\nAfter\n")
    deployed.renew(page, {"Net": {"failed": "RuntimeError: no\\1memory"}})
    text = page.read_text()
    assert text.startswith("# Before\n\n") and text.endswith("\n\nAfter\n")
    assert "RuntimeError: no\\1memory" in text and "old" not in text
