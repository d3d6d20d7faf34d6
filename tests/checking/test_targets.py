"""check(target=...): operators that would not run on the target."""

import re

import keras
import pytest
from keras import layers

import keras_qat
from keras_qat.errors import InvalidTargetError
from keras_qat.lowering import lower_model
from keras_qat.targets import DEFAULT_TARGET, TARGETS, get_target, violations
from tests.layers.contract import Prepared
from tests.layers.test_contract import CASES
from tests.models import images, network


def of_target(report):
    return [each for each in report.findings if each.code.startswith("target-")]


def lookup():
    x = keras.Input((8, 8, 3))
    return keras.Model(x, layers.Activation("softplus", name="act")(layers.Conv2D(4, 3)(x)))


def test_check_without_a_target_has_no_finding_about_targets():
    assert not of_target(keras_qat.check(network()))


def test_check_for_a_target_has_an_error_that_quantize_model_lacks():
    report = keras_qat.check(network(), target="edgetpu")
    (finding,) = of_target(report)
    assert (finding.level, finding.code, finding.layer) == ("error", "target-limit", "head")
    assert finding.fix and "int8_per_tensor" in finding.fix and not report.ok
    keras_qat.quantize_model(network())


def test_check_for_a_target_warns_of_operators_on_the_cpu():
    report = keras_qat.check(lookup(), target="ethos-u")
    assert report.ok
    assert [(each.level, each.code, each.tensor) for each in of_target(report)] == [
        ("warning", "target-operator", "act/wide"),
        ("warning", "target-operator", "act"),
    ]
    assert all("runs on the CPU" in str(each) for each in of_target(report))
    assert not of_target(keras_qat.check(lookup(), target="tflite-micro"))


def test_check_for_a_target_lists_each_limit_of_a_layer_once():
    x = keras.Input((8, 8, 3))
    report = keras_qat.check(
        keras.Model(x, layers.LayerNormalization(name="norm")(x)), target="tflite-micro"
    )
    found = [each.message.partition(" ")[0] for each in of_target(report)]
    assert sorted(found) == sorted(set(found)) and {"BATCH_MATMUL"} <= set(found)


def test_check_for_a_target_takes_a_quantized_model():
    qat = keras_qat.quantize_model(network(), overrides={layers.Dense: "int8_per_tensor"})
    keras_qat.calibrate(qat, images(), verbose=0)
    assert not of_target(keras_qat.check(qat, target="edgetpu"))
    assert of_target(keras_qat.check(keras_qat.quantize_model(network()), target="edgetpu"))


def test_check_for_a_target_depends_on_the_scheme():
    assert not of_target(keras_qat.check(network(), "int8_per_tensor", target="edgetpu"))
    assert of_target(keras_qat.check(network(), "uint8", target="tflite-micro"))


def test_check_refuses_an_unknown_target():
    with pytest.raises(InvalidTargetError):
        keras_qat.check(network(), target="coral")


def kind(layer):
    """Returns a layer's name without numbers: two layers may share an operator of the file."""
    return re.sub(r"(_\d+)+$", "", layer)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_check_for_a_target_finds_what_export_refuses(case):
    """The operators are known before calibration. Only RELU6 depends on ranges."""
    prepared = Prepared(case)
    data = tuple(prepared.arrays) if case.name == "relu" else None
    # The names of unrolled layers in a file and in a report have other numbers.
    for target in TARGETS if case.target == DEFAULT_TARGET else (case.target,):
        exported = lower_model(prepared.quantize(target=target))
        expected = {(kind(v.layer), v.operator) for v in violations(exported, get_target(target))}
        report = keras_qat.check(
            prepared.keras_model,
            calibration_data=data,
            activations=case.activations,
            target=target,
        )
        found = of_target(report)
        assert {(kind(f.layer), f.message.partition(" ")[0]) for f in found} == expected, target


def test_target_without_an_operator_gets_a_lookup():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="gelu", name="dense")])
    options = {"target": "tflite-micro", "default_ranges_stats": (-4, 4)}
    assert keras_qat.check(model, **options).ok
    quantized = keras_qat.quantize_model(model, **options)
    assert not violations(lower_model(quantized), get_target("tflite-micro"))


def test_check_of_a_model_for_another_target_suggests_a_lookup():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="gelu", name="dense")])
    quantized = keras_qat.quantize_model(model, target="litert", default_ranges_stats=(-4, 4))
    (finding,) = keras_qat.check(quantized, target="tflite-micro").errors
    assert finding.code == "target-operator" and 'activations="lookup"' in str(finding.fix)
