"""Converts the options of operators to the options tables of the schema."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_qat.errors import LiteRTFormatError
from keras_qat.litert.format.custom_options import custom_name, pack_map
from keras_qat.litert.format.operators import declaration_of
from keras_qat.litert.format.types import Operator

# The integer fields that are enums. The schema's generated classes lack this fact.
ENUM_FIELDS = {
    "padding": "Padding",
    "fusedActivationFunction": "ActivationFunctionType",
    "weightsFormat": "FullyConnectedOptionsWeightsFormat",
    "quantizedBiasType": "TensorType",
    "inDataType": "TensorType",
    "outDataType": "TensorType",
    "outputType": "TensorType",
    "outType": "TensorType",
    "idxOutType": "TensorType",
    "mode": "MirrorPadMode",
    "kernelType": "LSTMKernelType",
}


def options_fields(operator: Operator) -> dict[str, Any]:
    """Returns the fields of the schema's `OperatorT` that hold the options of an operator.

    Args:
        operator: The operator.

    Raises:
        LiteRTFormatError: for an unknown field or enum name, and for a value that the field cannot
            hold.

    Example:
        >>> from keras_qat.litert import Operator
        >>> from keras_qat.litert.writing.options import options_fields
        >>> list(options_fields(Operator("CUSTOM(Mine)", (), (), 1, {"size": 3})))
        ['customOptions']
    """
    if custom_name(operator.code) is not None:
        return {"customOptions": np.frombuffer(pack_map(operator.options), np.uint8)}
    number, table = pack_options(operator)
    return {"builtinOptionsType": number, "builtinOptions": table}


def pack_options(operator: Operator) -> tuple[int, Any]:
    """Builds the options table of an operator.

    Args:
        operator: The operator. Its `options` are fields of the table that its declaration names.

    Returns:
        The union's type number and the object-API table; `(0, None)` for an operator without one.

    Raises:
        LiteRTFormatError: for an unknown field or enum name, and for a value that the field cannot
            hold.

    Example:
        >>> from keras_qat.litert import Operator
        >>> from keras_qat.litert.writing.options import pack_options
        >>> number, table = pack_options(
        ...     Operator("ADD", (), (), 2, {"fusedActivationFunction": "RELU6"})
        ... )
        >>> number, table.fusedActivationFunction
        (11, 3)
    """
    from ai_edge_litert import schema_py_generated as schema

    kind = declaration_of(operator.code).options
    if kind is None:
        if operator.options:
            raise LiteRTFormatError(
                f"{operator.code} has no options.", received=f"options={dict(operator.options)}"
            )
        return schema.BuiltinOptions.NONE, None
    number = enum_value("BuiltinOptions", kind, operator.code)
    table: object = getattr(schema, f"{kind}T")()
    fields: Mapping[str, Any] = vars(table)
    for name, value in operator.options.items():
        if name not in fields:
            raise LiteRTFormatError(
                f"{kind} of {operator.code} has no such field.",
                expected=f"one of {sorted(fields)}",
                received=f"{name}={value!r}",
            )
        where = f"{operator.code}, {kind}.{name}"
        setattr(table, name, _field_value(name, value, getattr(table, name), where))
    return number, table


def _field_value(name: str, value: Any, default: Any, where: str) -> Any:
    """Returns the value of a field in its type. Nothing is rounded."""
    if name in ENUM_FIELDS:
        return enum_value(ENUM_FIELDS[name], value, where)
    if default is None:  # the packing itself checks strings and vectors
        return value
    try:
        converted = type(default)(value)
    except (TypeError, ValueError) as error:
        raise _wrong_value(where, default, value) from error
    if converted != value:  # 2.5 must not become 2
        raise _wrong_value(where, default, value)
    return converted


def _wrong_value(where: str, default: Any, value: Any) -> LiteRTFormatError:
    return LiteRTFormatError(
        f"{where} cannot hold that value.", expected=type(default).__name__, received=repr(value)
    )


def enum_value(enum: str, name: Any, where: str) -> int:
    """Looks up a member of one of the schema's enums.

    Args:
        enum: Name of the enum, such as `"Padding"`.
        name: Name of the member, such as `"SAME"`.
        where: The option that the value is for, for the message.

    Returns:
        The member's number in the schema.

    Raises:
        LiteRTFormatError: if the enum has no such member.

    Example:
        >>> from keras_qat.litert.writing.options import enum_value
        >>> enum_value("BuiltinOperator", "CONV_2D", "doc")
        3
    """
    from ai_edge_litert import schema_py_generated as schema

    generated: type = getattr(schema, enum)
    numbers: Mapping[str, int] = vars(generated)
    members = {k: v for k, v in numbers.items() if not k.startswith("_")}
    if str(name) not in members:  # str(), since a value such as a list is not hashable
        known = (
            f"one of {list(members)}" if len(members) <= 30 else f"a name in the schema's {enum}"
        )
        raise LiteRTFormatError(
            f"{where}: {enum} has no such member.", expected=known, received=repr(name)
        )
    return members[name]
