"""Log-softmax in int32 against double precision. Tests of layers use the interpreter."""

import numpy as np
import pytest

from keras_qat.arithmetic.log_softmax import (
    MOST_CLASSES,
    LogSoftmax,
    log_softmax,
    log_softmax_tables,
)
from tests.arithmetic import oracle


def rows_of(classes):
    """Returns rows with one large value, equal values, two apart, and noise."""
    rng, rows = np.random.default_rng(classes), np.full((6, classes), -128, "int32")
    rows[0, -1], rows[1], rows[2, : classes // 2] = 127, 5, -127
    rows[3:5] = rng.integers(-128, 128, (2, classes))
    rows[5] = np.clip(np.rint(rng.normal(20, 5, classes)), -128, 127)
    return rows


@pytest.mark.parametrize("classes", [1, 2, 3, 10, 1000, 32_768, MOST_CLASSES])
@pytest.mark.parametrize("scale", [1e-6, 0.02, 0.1, 3.0, 1e5])
def test_log_softmax_is_near_double(classes, scale):
    q, scale = rows_of(classes), np.float32(scale)
    real = (q - q.max(axis=1, keepdims=True)) * np.float64(scale)
    exact = real - np.log(np.exp(real).sum(axis=1, keepdims=True))
    output_scale = np.float32(max(-exact.min(), 1e-6) / 255)
    rule = LogSoftmax(classes)
    arguments = [*log_softmax_tables(scale, output_scale, rule=rule), 127]
    y = np.asarray(log_softmax(q, *arguments, rule=rule, low=-128, high=127)) - 127
    # Half a step of rounding, 1/1024 of the table of logarithms, and the exponentials' error.
    few = min(classes, 2**12)
    allowed = 0.51 + (1 / 1000 + classes / few * 2**-8 * (classes > few)) / output_scale
    assert (np.abs(y - exact / output_scale) <= allowed).all()


@pytest.mark.parametrize("classes", [1, 2, 10, 1000, MOST_CLASSES])
def test_log_softmax_stays_within_int32(classes):
    rule = LogSoftmax(classes)
    assert classes << rule.bits < 2**31
    for scales in ((1e5, 1e-5), (1e-5, 1e5), (0.1, 1e-9)):
        tables = [np.asarray(t) for t in log_softmax_tables(*scales, rule=rule)]
        assert tables[0].min() >= 0 and tables[0][-1] == 2**rule.bits == tables[0].max()
        assert tables[1].min() >= -(2**29) and tables[1].max() == 0
        assert np.abs(tables[2]).max() <= 2**29


def test_log_softmax_tables_are_rounded_from_doubles():
    for input_scale, output_scale in oracle.scales(np.random.default_rng(0), (20, 2)):
        table = log_softmax_tables(input_scale, output_scale, rule=LogSoftmax(10)).differences
        ratio = np.float64(input_scale) / np.float64(output_scale)
        exact = [oracle.round_half_away(k * ratio * 2**12) for k in range(-255, 1)]
        assert np.asarray(table).tolist() == np.maximum(exact, -(2**29)).tolist()
