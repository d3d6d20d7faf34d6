"""Random models: rewriting keeps the function, and quantizing is exact."""

import collections

import hypothesis
import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings

import keras_qat
from keras_qat.errors import TargetError, UnsupportedLayerError
from keras_qat.graph import read_model
from keras_qat.passes import PIPELINE
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.running import run_pass
from keras_qat.targets import get_target
from tests.micro import needs_micro
from tests.models import quantized
from tests.passes.random_models import build, data_for, named_layers, programs, relative_error

# The models are split into parts for the workers. Each part also has the smallest model.
PARTS, MODELS_IN_PART = 22, 25
REWRITES = [rewrite.__name__ for rewrite in PIPELINE]


def check_clone(model, data):
    clone = keras_qat.clone_model(model)
    assert relative_error(clone, model, data) <= 1e-4
    assert set(named_layers(model)) <= {layer.name for layer in clone.layers}


def check_quantized(model, data, path, targets=("litert", "reference")):
    """Checks that a model is exact to the kernels of targets. Returns those that run it."""
    qat, runs = quantized(model, data), []
    for target in targets:
        if target != qat.target:
            qat = keras_qat.quantize_model(qat, target=target)
        try:
            keras_qat.export_litert(qat, path)
        except TargetError:
            assert target == "tflite-micro"  # it lacks some operators
            continue
        kernels = get_target(target).interpreter
        report = keras_qat.verify(qat, path, data, kernels=kernels, verbose=0)
        assert report.exact, report
        runs.append(target)
    return runs


def check_origins(model):
    """Checks that each operation of the user becomes layers that contain it."""
    graph = run_pass(inline_models, read_model(model))
    heads = {name: node.head for name, node in graph.nodes.items()}
    calls = {name: {key for key in heads if heads[key] is heads[name]} for name in heads}
    clone = keras_qat.clone_model(model)
    dropped = {name for each in clone.rewrite_log if not each.layers_out for name in each.origins}
    for row in keras_qat.check(model).layers:
        becomes = {made.name for made in row.becomes} & clone.origins.keys()
        assert becomes == {
            name
            for name, origins in clone.origins.items()
            if not calls[row.name].isdisjoint(origins) and name not in graph.inputs
        }, row
        assert row.becomes or calls[row.name] & dropped, row
    with_weights = [name for name, head in heads.items() if getattr(head, "variables", ())]
    for name in with_weights[: len(with_weights) // 2 + 1][-2:]:
        changed = changed_layers(model, clone, heads[name])
        assert changed and all(calls[name] & {*clone.origins[each]} for each in changed), name


def changed_layers(model, clone, layer):
    """Returns the layers of a clone that change with the weights of a layer of the model."""
    before = layer.get_weights()
    layer.set_weights([value + 0.5 for value in before])
    other = keras_qat.clone_model(model)
    layer.set_weights(before)
    return [
        ours.name
        for ours, theirs in zip(clone.layers, other.layers, strict=True)
        if ours.get_config().get("input_affine") != theirs.get_config().get("input_affine")
        or any(map(differ, ours.get_weights(), theirs.get_weights()))
    ]


def differ(a, b):
    return np.any(a != b)


def try_models(check, count, seed=None):
    """Runs a check on a number of random models. Returns its result for each program."""
    results = {}

    def tried(program):
        results[program] = check(program)

    healthy = [HealthCheck.too_slow, HealthCheck.data_too_large]
    test = settings(max_examples=count, suppress_health_check=healthy)(given(programs)(tried))
    (test if seed is None else hypothesis.seed(seed)(test))()
    keras.backend.clear_session()
    return results


def test_random_models_are_at_least_500():
    assert PARTS * (MODELS_IN_PART - 1) >= 500


def test_random_clones_keep_function_and_names():
    def check(program):
        model = build(program)
        check_clone(model, data_for(model))

    assert len(try_models(check, 8)) == 8


def test_random_models_have_rows_with_the_layers_of_an_operation():
    assert len(try_models(lambda program: check_origins(build(program)), 3, seed=0)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 5))
def test_many_random_models_have_rows_with_the_layers_of_an_operation(part):
    results = try_models(lambda program: check_origins(build(program)), MODELS_IN_PART, seed=part)
    assert len(results) == MODELS_IN_PART


def test_random_quantized_models_are_exact(tmp_path):
    def check(program):
        model = build(program)
        check_quantized(model, data_for(model), tmp_path / "model.tflite")

    assert len(try_models(check, 3, seed=0)) == 3


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_many_random_models_keep_the_function_and_are_exact(tmp_path, part):
    def check(program):
        model = build(program)
        data = data_for(model)
        check_clone(model, data)
        check_quantized(model, data, tmp_path / "model.tflite")

    assert len(try_models(check, MODELS_IN_PART, seed=part)) == MODELS_IN_PART


@needs_micro
@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, PARTS + 1))
def test_many_random_models_are_exact_on_microcontrollers(tmp_path, part):
    def check(program):
        model = build(program)
        return check_quantized(model, data_for(model), tmp_path / "m.tflite", ["tflite-micro"])

    results = try_models(check, MODELS_IN_PART, seed=part)
    assert len(results) == MODELS_IN_PART
    assert sum(map(bool, results.values())) > MODELS_IN_PART / 2


def check_choices(program):
    """Clones with subsets of the rewrites that change the model. Returns their number per kind.

    Each rewrite is left out, is the last one applied, and is applied with only the rewrites
    that the model needs.
    """
    model = build(program)
    data, built = data_for(model), collections.Counter()

    def is_built(kind, names):
        try:
            clone = keras_qat.clone_model(model, rewrites=names)
        except UnsupportedLayerError:
            return False
        assert relative_error(clone, model, data) <= 1e-4, (kind, names)
        built[kind] += 1
        return True

    acting = {entry.rewrite for entry in keras_qat.clone_model(model).rewrite_log}
    others = {name: [other for other in REWRITES if other != name] for name in acting}
    needed = [name for name in sorted(acting) if not is_built("without", others[name])]
    for name in sorted(acting):
        is_built("up to", REWRITES[: REWRITES.index(name) + 1])
        is_built("alone", [*needed, name])
    return built


def check_all_kinds_were_built(results, least):
    total = sum(results.values(), collections.Counter())
    assert all(total[kind] >= least for kind in ("alone", "up to", "without")), total


def test_random_models_keep_the_function_with_each_rewrite():
    check_all_kinds_were_built(try_models(check_choices, 5, seed=0), least=1)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(1, 5))
def test_many_random_models_keep_the_function_with_each_rewrite(part):
    results = try_models(check_choices, 2 * MODELS_IN_PART, seed=part)
    check_all_kinds_were_built(results, least=20)
