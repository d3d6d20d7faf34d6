"""Steps beside real constants, against numpy's comparisons of the steps' real values."""

import numpy as np
import pytest

from keras_qat.arithmetic.thresholds import steps_around

STEPS = np.arange(-128, 128, dtype="float32")


@pytest.mark.parametrize("seed", range(20))
def test_steps_around_decide_as_real_values_do(seed):
    rng = np.random.default_rng(seed)
    scale = np.float32(np.exp(rng.uniform(-20, 10)))
    steps = STEPS * scale
    values = rng.uniform(2 * steps[0], 2 * steps[-1], 1000).astype("float32")
    near = [np.nextafter(steps[steps != 0], np.float32(end)) for end in (-np.inf, np.inf)]
    values = np.concatenate([values, steps, *near, [np.float32(1e30), np.float32(-1e30)]])
    below, above = (np.asarray(x) for x in steps_around(values, scale, -129.0, 128.0))
    k, real = STEPS[:, None], steps[:, None]
    np.testing.assert_array_equal(k > below, real > values)
    np.testing.assert_array_equal(k <= below, real <= values)
    np.testing.assert_array_equal(k < above, real < values)
    np.testing.assert_array_equal(k >= above, real >= values)
    on_step = (below == above) & (np.abs(below + 0.5) < 128)
    np.testing.assert_array_equal(on_step, np.isin(values, steps))
