"""The order of operators with the lowest peak, against hand-computed bytes and brute force."""

import itertools
import random

import numpy as np
import pytest

from keras_qat.litert import Model, Operator, Tensor, to_bytes
from keras_qat.litert.writing.lifetimes import Lifetimes
from keras_qat.litert.writing.scheduling import lowest_peak_order, schedule
from keras_qat.litert.writing.validation import validate


def tensor(name, size, data=None):
    return Tensor(name, (1, size), "int8", None, data)


def operator(output, *inputs):
    return Operator("CONCATENATION", inputs, (output,))


def peak(model):
    return Lifetimes.of(model).peak()


def names(model):
    return [each.outputs[0].name for each in model.operators]


def two_branches(*order):
    """Makes two branches that widen 16 bytes to 160 and narrow them to 16 again."""
    x, y = tensor("x", 16), tensor("y", 32)
    a, b, c, d = (tensor(name, size) for name, size in zip("abcd", (160, 16, 160, 16), strict=True))
    operators = {
        "a": operator(a, x),
        "b": operator(b, a),
        "c": operator(c, x),
        "d": operator(d, c),
        "y": operator(y, b, d),
    }
    return Model({"x": x}, {"y": y}, tuple(operators[name] for name in order))


def test_lifetimes_peak_equals_hand_computed_bytes_of_interleaved_branches():
    # While c is computed: x, a and c.
    assert peak(two_branches(*"acbdy")) == 16 + 160 + 160


def test_lifetimes_peak_equals_hand_computed_bytes_of_successive_branches():
    # While d is computed: b, c and d. By then x is free.
    assert peak(two_branches(*"abcdy")) == 16 + 160 + 16


def test_lifetimes_peak_counts_aligned_bytes_of_each_element_type():
    x, y = Tensor("x", (None, 3), "int32"), Tensor("y", (None, 3), "int8")
    model = Model({"x": x}, {"y": y}, (Operator("CAST", (x,), (y,)),))
    assert peak(model) == 16 + 16  # 12 and 3 bytes


def test_lifetimes_peak_ignores_constants_and_keeps_outputs():
    x, w = tensor("x", 16), tensor("w", 800, np.zeros((1, 800), "int8"))
    y, z = tensor("y", 32), tensor("z", 48)
    model = Model({"x": x}, {"y": y, "z": z}, (operator(y, x, w), operator(z, x)))
    assert peak(model) == 16 + 32 + 48


def test_lifetimes_peak_frees_an_output_that_nothing_takes():
    x, y, z, unused = (tensor(name, 16) for name in ("x", "y", "z", "unused"))
    split = Operator("SPLIT", (x,), (y, unused))
    assert peak(Model({"x": x}, {"z": z}, (split, operator(z, y)))) == 3 * 16


def test_schedule_computes_one_branch_after_the_other():
    model = schedule(two_branches(*"acbdy"))
    assert names(model) in (list("abcdy"), list("cdaby"))
    assert peak(model) == 16 + 160 + 16


def test_schedule_keeps_a_model_that_has_the_lowest_peak():
    model = two_branches(*"abcdy")
    assert schedule(model) is model


def test_schedule_keeps_a_chain():
    tensors = [tensor(str(i), size) for i, size in enumerate((16, 160, 32, 320, 16))]
    steps = tuple(operator(b, a) for a, b in itertools.pairwise(tensors))
    model = Model({"x": tensors[0]}, {"y": tensors[-1]}, steps)
    assert schedule(model) is model


def test_schedule_gives_the_same_file_again():
    assert to_bytes(schedule(two_branches(*"acbdy"))) == to_bytes(schedule(two_branches(*"acbdy")))


def test_lowest_peak_order_gives_up_after_its_steps():
    lifetimes = Lifetimes.of(two_branches(*"acbdy"))
    assert lowest_peak_order(lifetimes, most_steps=1) is None


def random_model(seed):
    """Makes up to seven operators of one or two inputs and outputs. Any tensor may be an output."""
    rng = random.Random(seed)
    known = [tensor(f"x{i}", 16 * rng.randint(1, 9)) for i in range(rng.randint(1, 2))]
    inputs, operators = {x.name: x for x in known}, []
    for i in range(rng.randint(3, 7)):
        taken = [rng.choice(known) for _ in range(rng.randint(1, 3))]
        made = [tensor(f"t{i}_{j}", 16 * rng.randint(1, 9)) for j in range(rng.randint(1, 2))]
        operators.append(Operator("CONCATENATION", tuple(taken), tuple(made)))
        known += made
    outputs = {x.name: x for x in rng.sample(known, rng.randint(1, 2))}
    return Model(inputs, outputs, tuple(operators))


def orders(model):
    """Yields all orders in which the operators of a model can run."""
    for order in itertools.permutations(model.operators):
        if is_valid(order, model):
            yield Model(model.inputs, model.outputs, order)


def is_valid(order, model):
    known = set(model.inputs.values())
    for each in order:
        if not known.issuperset(each.inputs):
            return False
        known.update(each.outputs)
    return True


def live_bytes(model):
    """Returns the largest number of bytes that are computed already and still needed."""
    made = [set(model.inputs.values())] + [set(each.outputs) for each in model.operators]
    needed = [set(each.inputs) | set(each.outputs) for each in model.operators]
    most = sum(x.shape[1] for x in made[0])
    for i, own in enumerate(needed):
        there = set().union(*made[: i + 2])
        later = set().union(set(model.outputs.values()), *needed[i:])
        alive = (there & later) | own | (made[0] - _ended(model, i))
        most = max(most, sum(x.shape[1] for x in alive))
    return most


def _ended(model, index):
    """Returns the inputs whose last use is before an operator."""
    early = set().union(*(set(each.inputs) for each in model.operators[:index]))
    late = set().union(*(set(each.inputs) for each in model.operators[index:]))
    return early - late - set(model.outputs.values())


@pytest.mark.parametrize("seed", range(60))
def test_schedule_finds_the_lowest_peak_of_all_orders(seed):
    model = random_model(seed)
    scheduled = schedule(model)
    validate(scheduled)
    assert sorted(names(scheduled)) == sorted(names(model))
    assert scheduled.inputs == model.inputs and scheduled.outputs == model.outputs
    assert live_bytes(scheduled) == min(map(live_bytes, orders(model)))
    assert peak(scheduled) == live_bytes(scheduled)
