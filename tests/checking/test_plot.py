"""The plot of the ranges of a report."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import MissingPackageError, MissingRangeError
from tests.models import images, network


def linear():
    x = keras.Input((2,), name="x")
    y = layers.Dense(2, kernel_initializer="identity", name="same")(x)
    return keras.Model(x, layers.Flatten(name="flat")(y), name="linear")


def test_plot_has_a_bar_from_minimum_to_maximum_per_range():
    data = np.array([[0.0, 1.0], [2.0, -4.0]], "float32")
    [axes] = keras_qat.check(linear(), calibration_data=data).plot().axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    ends = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in axes.patches]
    assert dict(zip(names, ends, strict=True)) == {"x_quantize": (-4, 2), "same": (-4, 2)}
    assert axes.get_title() == "linear in int8"
    assert axes.yaxis_inverted()  # the first layer on top


def test_plot_colours_tensors_of_findings_differently():
    data = images(64)
    data[0, 0, 0, 0] = 1e4
    report = keras_qat.check(network(), calibration_data=data)
    [axes] = report.plot().axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    colours = {name: bar.get_facecolor() for name, bar in zip(names, axes.patches, strict=True)}
    named = {f.tensor for f in report.findings} | {f.layer for f in report.findings}
    red = {name for name, colour in colours.items() if colour[0] > colour[2]}
    assert red == named & set(names) and 0 < len(red) < len(names)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["has findings"]


def test_plot_of_a_calibrated_model_has_its_ranges(tmp_path):
    qat = keras_qat.quantize_model(linear(), calibration_data=np.zeros((4, 2), "float32"))
    figure = keras_qat.check(qat).plot()
    figure.savefig(tmp_path / "ranges.png")  # zeros have no logarithm
    assert (tmp_path / "ranges.png").read_bytes().startswith(b"\x89PNG")


def test_plot_without_ranges_is_an_error():
    with pytest.raises(MissingRangeError, match="no ranges to draw.*calibration_data"):
        keras_qat.check(linear()).plot()


def test_plot_without_matplotlib_names_the_extra(monkeypatch):
    report = keras_qat.check(linear(), calibration_data=np.ones((4, 2), "float32"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match=r"keras-qat\[plots\]") as error:
        report.plot()
    assert isinstance(error.value, ImportError)
