"""ELU with the reference kernels: a table that LiteRT's kernel computes."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from keras_qat.litert import Model, Operator, Quantization, Runner, Tensor, to_bytes
from keras_qat.litert.running.measured_tables import with_measured_tables

X = np.random.default_rng(0).integers(-128, 128, (3, 5, 7)).astype("int8")


def tensor(name, scale, zero_point, dtype="int8"):
    quantization = Quantization(np.array([scale], "float32"), np.array([zero_point], "int64"))
    return Tensor(name, (None, 5, 7), dtype, quantization)


def chain():
    """Makes ELU, ELU, RESHAPE. Both sets of kernels copy integers alike."""
    x, y, z = tensor("x", 0.03, -7), tensor("y", 0.02, -20), tensor("z", 0.015, -70)
    flat = Tensor("flat", (None, 35), "int8", z.quantization)
    shape = Tensor("shape", (2,), "int32", None, np.array([-1, 35], "int32"))
    operators = (
        Operator("ELU", (x,), (y,)),
        Operator("ELU", (y,), (z,)),
        Operator("RESHAPE", (z, shape), (flat,), 1, {"newShape": [-1, 35]}),
    )
    return to_bytes(Model({"x": x}, {"flat": flat}, operators))


def interpreted(content, resolver):
    interpreter = Interpreter(model_content=content, experimental_op_resolver_type=resolver)
    interpreter.resize_tensor_input(0, X.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(0, X)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def test_reference_kernels_lack_elu():
    with pytest.raises(ValueError, match="ELU"):
        interpreted(chain(), OpResolverType.BUILTIN_REF)


def test_reference_kernels_compute_elu_as_litert_does():
    expected = interpreted(chain(), OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    found = interpreted(with_measured_tables(chain()), OpResolverType.BUILTIN_REF)
    assert (found == expected).all() and len(np.unique(found)) > 50


def test_runner_with_measured_tables_shows_only_tensors_of_the_file():
    runner = Runner(chain(), kernels="reference", expose_all=True)
    (result,) = runner.run([X])
    tensors = runner.tensors()
    assert set(tensors) == {"x", "y", "z", "flat"}
    assert (tensors["z"].reshape(3, 35) == result).all()


def test_with_measured_tables_leaves_a_float_elu():
    x, y = Tensor("x", (1, 4), "float32"), Tensor("y", (1, 4), "float32")
    content = to_bytes(Model({"x": x}, {"y": y}, (Operator("ELU", (x,), (y,)),)))
    with pytest.raises(ValueError, match="ELU"):
        Interpreter(
            model_content=with_measured_tables(content),
            experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
        )
