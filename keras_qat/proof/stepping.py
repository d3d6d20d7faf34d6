"""Compares a model of one step with the model of the whole sequence."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.errors import InvalidModelError
from keras_qat.graph import read_model
from keras_qat.proof.running import samples_for


def check_steps(model: keras.Model, step: keras.Model) -> None:
    """Runs a model of one step over a sequence, and raises if it differs from the whole model.

    Args:
        model: The model of the whole sequence. An input that `step` lacks is an initial state.
        step: The model of one step. Its further inputs, and outputs, are states.

    Raises:
        InvalidModelError: If an output differs in a bit.
    """
    names = [each.name for each in step.inputs]
    graph = read_model(model)
    samples = zip(graph.inputs, samples_for(graph, graph, model, None), strict=True)
    data = {name: ops.convert_to_numpy(x) for name, x in samples}
    data |= {name: 0 * x for name, x in data.items() if name not in names}
    wanted = _outputs(model, [data[each.name] for each in model.inputs])
    shapes = {each.name: tuple(each.shape[1:]) for each in step.inputs}
    sequences = {name for name, x in data.items() if name in shapes and x.shape[1:] != shapes[name]}
    count = len(next(iter(data.values())))
    states = {n: np.zeros((count, *shapes[n]), "float32") for n in names if n not in data}
    outputs: list[list[np.ndarray]] = []
    for place in range(max((data[name].shape[1] for name in sequences), default=0)):
        known = {n: x[:, place : place + 1] if n in sequences else x for n, x in data.items()}
        found = _outputs(step, [{**known, **states}[name] for name in names])
        outputs.append(found[: len(wanted)])
        states = dict(zip(states, found[len(wanted) :], strict=True))
    for i, whole in enumerate(wanted):
        parts = [found[i] for found in outputs]
        is_sequence = bool(parts) and parts[0].shape != whole.shape
        steps = [np.concatenate(parts, axis=1)] if is_sequence else parts[-1:]
        if not steps or not np.array_equal(steps[0], whole):
            raise _different(model.output_names[i])


def _outputs(model: keras.Model, inputs: list[Any]) -> list[np.ndarray]:
    arguments = inputs[0] if len(inputs) == 1 else inputs
    structure = tree.pack_sequence_as(model.input, tree.flatten(arguments))
    return [ops.convert_to_numpy(x) for x in tree.flatten(model(structure, training=False))]


def _different(name: str) -> InvalidModelError:
    return InvalidModelError(
        "One step after the other computes other values than the whole sequence.",
        layer=name,
        received="layers that look at several steps, or an initial state other than zero",
        expected="recurrent layers that start from zero, and layers that treat each step alone",
        fix="Put layers over several steps, such as `Conv1D` and poolings, into a separate model.",
    )
