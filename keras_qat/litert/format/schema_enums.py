"""Names the numbers of the schema, with the classes that `ai-edge-litert` generates from it."""

from collections.abc import Mapping
from functools import cache


@cache
def names(enum: str) -> dict[int, str]:
    """Returns the names of the members of an enum or union of the schema, by number.

    Args:
        enum: Name of the enum, such as `"TensorType"`.

    Example:
        >>> from keras_qat.litert.format.schema_enums import names
        >>> names("Padding")
        {0: 'SAME', 1: 'VALID'}
    """
    from ai_edge_litert import schema_py_generated as schema

    generated: type = getattr(schema, enum)
    members: Mapping[str, int] = vars(generated)
    numbered = [(number, name) for name, number in members.items() if not name.startswith("_")]
    return dict(sorted(numbered))


def name_of(enum: str, number: int) -> str:
    """Returns the name of a member of an enum.

    Args:
        enum: Name of the enum.
        number: The number of the member. Numbers of a newer schema have no name.

    Example:
        >>> name_of("BuiltinOperator", 3), name_of("BuiltinOperator", 999)
        ('CONV_2D', 'UNKNOWN(999)')
    """
    return names(enum).get(number, f"UNKNOWN({number})")
