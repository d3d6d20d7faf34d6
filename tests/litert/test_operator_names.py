"""The list of modules that name LiteRT's operators, besides the layers that add them to files."""

import ast
from pathlib import Path

import keras_qat
from keras_qat.litert.format.schema_enums import names

PACKAGE = Path(keras_qat.__file__).parent
# All other facts are in operators.toml, or in the data files of targets. `loading` names layers of
# Keras.
KNOWN = {
    # These add operators to a file, or remove operators that they added.
    "lowering/builder.py": {"DEQUANTIZE", "RESHAPE"},
    "lowering/model_io.py": {"QUANTIZE"},
    "litert/running/measured_tables.py": {"ADD", "CAST", "GATHER"},
    "litert/writing/fixed_batch.py": {"ADD", "SHAPE"},
    # An operator that is in a part of the layers which actions.toml gives advice for.
    "targets/quantities.py": {"FLOOR_DIV"},
    # Types that operators have no kernels for.
    "scheme.py": {"BATCH_MATMUL", "ELU"},
    # The name of all custom operators in the schema.
    "litert/format/custom_options.py": {"CUSTOM"},
    "litert/reading/consistency.py": {"CUSTOM"},
    # Also a fused activation of this name.
    "verification/kernels.py": {"RELU6"},
}


def operators_in(path):
    """Returns the operators that the code of a module names."""
    operators = set(names("BuiltinOperator").values())
    strings = {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return strings & operators


def test_modules_outside_of_layers_know_operators_by_the_table():
    found = {
        path.relative_to(PACKAGE).as_posix(): operators_in(path)
        for path in PACKAGE.rglob("*.py")
        if path.relative_to(PACKAGE).parts[0] not in ("layers", "loading")
    }
    assert {path: codes for path, codes in found.items() if codes} == KNOWN
