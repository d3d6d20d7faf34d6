"""Segments: the index of an integer, and the interval of each index."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_qat.arithmetic.segments import Segments

SEGMENTS = st.builds(
    Segments, st.sampled_from([0, 2, 6]), st.sampled_from([16, 512]), st.integers(0, 2**31 - 1)
)


@given(SEGMENTS, st.data())
def test_segments_middles_are_near_and_increase(segments, data):
    integers = st.integers(0, segments.greatest)
    x = np.array(sorted(data.draw(st.lists(integers, min_size=1, max_size=20))), "int32")
    index = np.asarray(segments.index(x))
    assert (np.diff(index) >= 0).all()
    assert (np.diff(segments.middles) >= 0).all() and len(segments.middles) > index[-1]
    away = np.abs(segments.middles[index] - x)
    # Half of a step. A step is 4 / entries of the integer, or the first step.
    steps = np.maximum(x * (2.0 / segments.entries), segments.steps[0] / 2)
    assert (away <= steps).all()


@pytest.mark.parametrize("segments", [Segments(0, 4, 40), Segments(2, 8, 1000)])
def test_segments_middles_are_those_of_all_integers(segments):
    x = np.arange(segments.greatest + 1, dtype="int32")
    index = np.asarray(segments.index(x))
    for each in np.unique(index):
        own = x[index == each]
        assert segments.middles[each] == (own[0] + own[-1]) / 2
