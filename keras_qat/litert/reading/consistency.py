"""Checks the tables of a file of any origin against each other.

The checks are those of LiteRT's own verifier
(https://github.com/tensorflow/tensorflow/blob/master/tensorflow/lite/core/tools/verifier.cc), and
checks of facts that LiteRT's interpreter relies on but does not check.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from keras_qat.litert.format.constants import buffer_data, check_constant, is_empty
from keras_qat.litert.format.flatbuffer import Damage, Record
from keras_qat.litert.format.operators import declaration_of
from keras_qat.litert.format.schema_enums import name_of
from keras_qat.litert.format.schema_tables import tables
from keras_qat.litert.reading.remarks import has_axis_of_its_own

SCHEMA_VERSION = 3
MOST_ELEMENTS = 2**40  # more elements than any machine holds; products cannot overflow
NO_TENSOR = -1


def builtin_number(code: Record) -> int:
    """Returns the number of a built-in operator.

    Args:
        code: An `OperatorCode` table. Files for runtimes before 2.4 have the number in a field of
            one byte; later files have both fields.
    """
    return max(code["builtin_code"], code["deprecated_builtin_code"])


def check_consistency(model: Record, content: bytes) -> None:
    """Checks the tables of a model against each other.

    Args:
        model: The `Model` table.
        content: The whole file.

    Raises:
        Damage: at the first inconsistency.
    """
    if model["version"] != SCHEMA_VERSION:
        raise Damage("Model.version", f"it is {model['version']}, not {SCHEMA_VERSION}")
    if not model["subgraphs"]:
        raise Damage("Model.subgraphs", "there are none")
    _check_codes(model["operator_codes"] or ())
    for i, buffer in enumerate(model["buffers"] or ()):
        try:
            buffer_data(buffer, content)
        except Damage as damage:
            raise Damage(f"Model.buffers[{i}]", damage.what) from None
    for i, subgraph in enumerate(model["subgraphs"]):
        where = f"Model.subgraphs[{i}]"
        _check_tensors(model, subgraph, content, where)
        _check_operators(model, subgraph, content, where)
    _check_calls(model["subgraphs"])
    _check_metadata(model)
    _check_signatures(model)


def _check_codes(codes: Iterable[Record]) -> None:
    for i, code in enumerate(codes):
        where, number = f"Model.operator_codes[{i}]", builtin_number(code)
        if number < 0 or code["version"] < 0:
            raise Damage(where, f"builtin_code={number}, version={code['version']}")
        if name_of("BuiltinOperator", number) == "CUSTOM" and not code["custom_code"]:
            raise Damage(f"{where}.custom_code", "a custom operator needs a name")


def _check_index(index: int, things: Sequence[Any] | None, where: str) -> None:
    """Checks that a number is the index of an existing object."""
    if not 0 <= index < len(things or ()):
        raise Damage(where, f"{index} is not one of {len(things or ())}")


def _check_tensors(model: Record, subgraph: Record, content: bytes, where: str) -> None:
    if subgraph["tensors"] is None:
        raise Damage(f"{where}.tensors", "the vector is missing")
    for i, tensor in enumerate(subgraph["tensors"]):
        at = f"{where}.tensors[{i}] {tensor['name']!r}"
        _check_shape(tensor, at)
        _check_quantization(tensor, at)
        # Buffer 0 stands for no data, even in a file without buffers.
        if tensor["buffer"] or model["buffers"]:
            _check_index(tensor["buffer"], model["buffers"], f"{at}.buffer")
            data = buffer_data(model["buffers"][tensor["buffer"]], content)
            if tensor["buffer"] and data is not None:
                check_constant(tensor, data, at)


def _check_shape(tensor: Record, where: str) -> None:
    shape = tensor.integers("shape")
    elements = 1
    for size in shape:
        elements *= max(size, 1)
        if size < 0 or elements > MOST_ELEMENTS:
            raise Damage(f"{where}.shape", f"no tensor can be of shape {shape[:10]}")
    signature = tensor["shape_signature"]
    if signature is not None and signature.size:
        fixed = [n for n in signature.tolist() if n != -1]
        if signature.size != len(shape) or any(n < 0 for n in fixed):
            received = signature[:10].tolist()
            raise Damage(f"{where}.shape_signature", f"{received} does not fit shape {shape[:10]}")


def _check_quantization(tensor: Record, where: str) -> None:
    quantization = tensor["quantization"]
    if quantization is None or quantization["scale"] is None or not quantization["scale"].size:
        return
    scales, zeros = quantization["scale"], quantization["zero_point"]
    if zeros is None or zeros.size != scales.size:
        zero_points = 0 if zeros is None else zeros.size
        raise Damage(f"{where}.quantization", f"{scales.size} scales, {zero_points} zero points")
    shape = tensor.integers("shape")
    axis = quantization["quantized_dimension"]
    if (scales.size == 1 and axis == 0) or has_axis_of_its_own(tensor):
        return
    if shape and (not 0 <= axis < len(shape) or scales.size not in (1, shape[axis])):
        raise Damage(
            f"{where}.quantization", f"{scales.size} scales at axis {axis} of shape {shape}"
        )


def _check_operators(model: Record, subgraph: Record, content: bytes, where: str) -> None:
    tensors = subgraph["tensors"]
    for end in ("inputs", "outputs"):
        for index in subgraph.integers(end):
            _check_index(index, tensors, f"{where}.{end}")
    known = set(subgraph.integers("inputs"))
    given = {i for i, tensor in enumerate(tensors) if _is_given(tensor, model, content)}
    # A tensor of stated size 0 needs no operator. An operator may compute it for another batch. A
    # variable has a value, and an operator may set it.
    empty = {i for i, tensor in enumerate(tensors) if is_empty(tensor) or tensor["is_variable"]}
    for i, operator in enumerate(subgraph["operators"] or ()):
        at = f"{where}.operators[{i}]"
        _check_index(operator["opcode_index"], model["operator_codes"], f"{at}.opcode_index")
        number = builtin_number(model["operator_codes"][operator["opcode_index"]])
        at = f"{at} ({name_of('BuiltinOperator', number)})"
        _check_operands(operator, tensors, at)
        _check_order(operator, number, known, given, empty, at)
        end = operator["large_custom_options_offset"] + operator["large_custom_options_size"]
        if end > len(content):
            raise Damage(f"{at}.large_custom_options", f"they end at {end} of {len(content)}")


def _is_given(tensor: Record, model: Record, content: bytes) -> bool:
    """Returns whether a tensor has its value before any operator runs."""
    if tensor["is_variable"] or tensor["external_buffer"] or is_empty(tensor):
        return True
    if not tensor["buffer"]:
        return False
    return buffer_data(model["buffers"][tensor["buffer"]], content) is not None


def _check_operands(operator: Record, tensors: Sequence[Record], where: str) -> None:
    for end in ("inputs", "outputs", "intermediates"):
        for index in operator.integers(end):
            if index != NO_TENSOR or end == "outputs":
                _check_index(index, tensors, f"{where}.{end}")


def _check_order(
    operator: Record, number: int, known: set[int], given: set[int], empty: set[int], where: str
) -> None:
    """Checks that an operator takes only tensors that have a value, and sets new ones."""
    inputs = [i for i in operator.integers("inputs") if i != NO_TENSOR]
    name = name_of("BuiltinOperator", number)
    if declaration_of(name).place("new_shape") is not None:
        inputs = inputs[:1]  # the shape may be in the options alone
    if name == "CUSTOM":
        inputs = []  # may be working memory, as for Arm's `ethos-u`
    for index in inputs:
        if index not in known and index not in given:
            raise Damage(f"{where}.inputs", f"tensor {index} is not computed before")
    for index in operator.integers("outputs"):
        if index in known or index in given - empty:
            raise Damage(f"{where}.outputs", f"tensor {index} has a value already")
        known.add(index)


def _check_calls(subgraphs: Sequence[Record]) -> None:
    """Checks that the subgraphs of operators exist, and that no subgraph runs itself."""
    called = [sorted(set(_called(subgraph, i, subgraphs))) for i, subgraph in enumerate(subgraphs)]
    done: set[int] = set()
    for start in range(len(subgraphs)):
        stack = [(start, iter(called[start]))]
        running = {start}
        while stack:
            current, rest = stack[-1]
            following = next((i for i in rest if i not in done), None)
            if following is None:
                stack.pop()
                running.discard(current)
                done.add(current)
            elif following in running:
                raise Damage(f"Model.subgraphs[{following}]", "it runs itself")
            else:
                running.add(following)
                stack.append((following, iter(called[following])))


def _called(subgraph: Record, number: int, subgraphs: Sequence[Record]) -> Iterable[int]:
    """Yields the numbers of the subgraphs that the operators of a subgraph run."""
    for i, operator in enumerate(subgraph["operators"] or ()):
        for options in (operator["builtin_options"], operator["builtin_options2"]):
            for field in tables().get(options.table, ()) if options is not None else ():
                if field is None or field.kind != "subgraph":
                    continue
                name = field.name
                for index in options.integers(name) if field.is_vector else [options[name]]:
                    where = f"Model.subgraphs[{number}].operators[{i}].{field.name}"
                    _check_index(index, subgraphs, where)
                    yield index


def _check_metadata(model: Record) -> None:
    for index in model.integers("metadata_buffer"):
        _check_index(index, model["buffers"], "Model.metadata_buffer")
    for i, metadata in enumerate(model["metadata"] or ()):
        if metadata["name"] is None:
            raise Damage(f"Model.metadata[{i}].name", "it is absent")
        _check_index(metadata["buffer"], model["buffers"], f"Model.metadata[{i}].buffer")


def _check_signatures(model: Record) -> None:
    for i, signature in enumerate(model["signature_defs"] or ()):
        where = f"Model.signature_defs[{i}]"
        _check_index(signature["subgraph_index"], model["subgraphs"], f"{where}.subgraph_index")
        if signature["signature_key"] is None:
            raise Damage(f"{where}.signature_key", "it is absent")
        tensors = model["subgraphs"][signature["subgraph_index"]]["tensors"]
        for end in ("inputs", "outputs"):
            entries: Sequence[Record] | None = signature[end]
            for j, entry in enumerate(entries or ()):
                _check_index(entry["tensor_index"], tensors, f"{where}.{end}[{j}].tensor_index")
                if entry["name"] is None:
                    raise Damage(f"{where}.{end}[{j}].name", "it is absent")
