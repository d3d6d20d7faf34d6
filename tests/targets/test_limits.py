import pytest

from keras_qat.targets.limits import Limit, described, meets, read_limits


@pytest.mark.parametrize(
    ("value", "condition", "expected"),
    [
        (3, 3, True),
        (3, 4, False),
        ("int8", ["int8", "int16"], True),
        ("int32", ["int8", "int16"], False),
        (3, {"most": 3}, True),
        (4, {"most": 3}, False),
        (1, {"least": 2}, False),
        (2, {"least": 2, "most": 2}, True),
        (False, True, False),
        (None, True, True),
        (None, {"most": 0}, True),
        (2.0, [2, 4, 8], True),
        (2.5, [2, 4, 8], False),
    ],
)
def test_meets_a_condition(value, condition, expected):
    assert meets(value, condition) is expected


def test_limit_holds_if_one_alternative_is_met_completely():
    limit = Limit(({"a": 1, "b": 1}, {"c": 1}))
    assert limit.holds({"a": 1, "b": 1, "c": 0}.get)
    assert limit.holds({"a": 0, "b": 0, "c": 1}.get)
    assert not limit.holds({"a": 1, "b": 0, "c": 0}.get)
    assert limit.quantities == ("a", "b", "c")
    assert str(limit) == "a 1 and b 1, or c 1"


def test_read_limits():
    limits = read_limits({"a": 1, "fatal": {"b": True}, "any": [[{"c": 1}, {"d": {"most": 2}}]]})
    assert [(str(limit), limit.is_fatal) for limit in limits] == [
        ("b True", True),
        ("a 1", False),
        ("c 1, or d at most 2", False),
    ]


def test_described_conditions():
    assert described({"least": 0}) == "at least 0"
    assert described({"least": 1, "most": 3}) == "from 1 to 3"
    assert described(["NONE"]) == "'NONE'"
