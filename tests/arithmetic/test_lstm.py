"""The integers of an LSTM, against the kernels of LiteRT and of TensorFlow Lite Micro."""

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from keras import ops

from keras_qat.arithmetic.lstm import LITERT, MICRO, LstmWeights, lstm
from keras_qat.arithmetic.lstm_tables import fixed_point_tables, interpolated_tables
from keras_qat.litert import Model, Operator, Quantization, Tensor, to_bytes
from tests.micro import needs_micro, run_on_micro
from tests.quick import some_quick

BATCH, STEPS, CHANNELS, UNITS = 3, 20, 9, 16
# The exponent of the cell state's scale, and the size of the weights' scales.
SIZES = [(-12, 0.1), (-9, 0.02), (-15, 0.02), (-10, 0.4), (-11, 1.0), (-13, 0.4), (-14, 0.1)]


def grid(scale, zero_point=0):
    return Quantization(np.array([scale], "float32"), np.array([zero_point], "int64"))


class Random:
    """An LSTM of random integers, and its file. The states of the file start from zero."""

    def __init__(self, exponent, size):
        rng = np.random.default_rng(-exponent)
        self.exponent = exponent
        self.x = rng.integers(-128, 128, (BATCH, STEPS, CHANNELS)).astype("int8")
        self.kernels = rng.integers(-127, 128, (4, UNITS, CHANNELS)).astype("int8")
        self.recurrent = rng.integers(-127, 128, (4, UNITS, UNITS)).astype("int8")
        self.bias = rng.integers(-9000, 9000, (4, UNITS)).astype("int32")
        self.scales = rng.uniform(0.001, 0.02, (2, 4)).astype("float32") * np.float32(size)
        self.input_grid = grid(rng.uniform(0.005, 0.05), int(rng.integers(-60, 60)))
        self.output_grid = grid(rng.uniform(0.004, 0.0079), int(rng.integers(-60, 60)))

    def file(self):
        x = Tensor("x", self.x.shape, "int8", self.input_grid)
        y = Tensor("y", (BATCH, STEPS, UNITS), "int8", self.output_grid)

        def constants(name, values, grids):
            pairs = enumerate(zip(values, grids, strict=True))
            return [Tensor(f"{name}{i}", v.shape, str(v.dtype), grid(g), v) for i, (v, g) in pairs]

        kernels = constants("kernel", self.kernels, self.scales[0])
        recurrent = constants("recurrent", self.recurrent, self.scales[1])
        bias = constants("bias", self.bias, self.scales[0] * self.input_grid.scale)
        shape = (BATCH, UNITS)
        h = Tensor("h", shape, "int8", self.output_grid, is_variable=True)
        c = Tensor("c", shape, "int16", grid(2.0**self.exponent), is_variable=True)
        grids = [*[grid(2.0**-12)] * 4, self.output_grid]
        operator = Operator(
            "UNIDIRECTIONAL_SEQUENCE_LSTM",
            (x, *kernels, *recurrent, *[None] * 3, *bias, None, None, h, c, *[None] * 4),
            (y,),
            options={"fusedActivationFunction": "TANH", "cellClip": 2.0 ** (self.exponent + 15)},
            intermediates=tuple(Tensor(f"i{i}", (0,), "int8", g) for i, g in enumerate(grids)),
        )
        return to_bytes(Model({"x": x}, {"y": y}, (operator,)))

    def computed(self, kernel):
        grids = self.input_grid, self.output_grid
        zero, offset = (each.zero_point.astype("int32")[0] for each in grids)
        own, recurrent = np.repeat(self.scales, UNITS, axis=1)
        weights = LstmWeights(
            self.kernels.reshape(-1, CHANNELS).T.astype("float32"),
            own,
            self.recurrent.reshape(-1, UNITS).T.astype("float32"),
            recurrent,
            self.bias.reshape(-1),
        )
        y = lstm(
            self.x.astype("float32") - zero,
            weights,
            self.input_grid.scale[0],
            np.int32(self.exponent),
            self.output_grid.scale[0],
            offset,
            kernel=kernel,
            largest_product=255 * 127,
        )
        return ops.convert_to_numpy(y) + offset


@pytest.mark.parametrize("kernels", ["BUILTIN_REF", "AUTO"])
@pytest.mark.parametrize(("exponent", "size"), some_quick(SIZES, 0))
def test_lstm_equals_litert(exponent, size, kernels):
    case = Random(exponent, size)
    interpreter = Interpreter(
        model_content=case.file(), experimental_op_resolver_type=OpResolverType[kernels]
    )
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], case.x)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_array_equal(case.computed(LITERT), found)


@needs_micro
@pytest.mark.parametrize(("exponent", "size"), some_quick(SIZES, 0))
def test_lstm_equals_tflite_micro(exponent, size):
    case = Random(exponent, size)
    [[found]] = run_on_micro([(case.file(), [case.x], 1)])
    np.testing.assert_array_equal(case.computed(MICRO), found)
    assert len(np.unique(found)) > 10


@pytest.mark.parametrize("tables", [interpolated_tables(), fixed_point_tables()])
def test_lstm_tables_are_near_the_functions(tables):
    x = np.arange(-(2**15), 2**15)
    sigmoid = 2.0**15 / (1 + np.exp(-x / 2.0**12))
    assert np.max(np.abs(tables.sigmoid - sigmoid)) < 11
    for bits, table in enumerate(tables.tanh):
        assert np.max(np.abs(table - 2.0**15 * np.tanh(x / 2.0 ** (15 - bits)))) < 40, bits
