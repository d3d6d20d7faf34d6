"""Rewriting keeps the function, quantizing is exact: on random graphs."""

import dataclasses

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

import keras_qat
from tests.models import quantized, randomized

# Names stand for layers of the float model, so each has to be there after the rewrite.
NAMED = (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense, layers.Add, layers.MaxPooling2D)

STEPS = (
    "conv",
    "depthwise",
    "dense",
    "norm",
    "relu",
    "relu6",
    "add",
    "sum of three",
    "plus",
    "pool",
    "average",
    "dropout",
    "nothing",
    "pad",
    "shared",
    "nested",
    "nested twice",
)
draws = st.integers(0, 99)
programs = st.lists(st.tuples(st.sampled_from(STEPS), draws, draws), min_size=2, max_size=9)


@dataclasses.dataclass
class Builder:
    """Builds a model step by step; each step picks its tensors among those there are."""

    tensors: list
    shared: dict = dataclasses.field(default_factory=dict)
    count: int = 0

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def pick(self, number):
        return self.tensors[-1 - number % len(self.tensors)]

    def like(self, x, number):
        """A tensor of the shape of `x`, which may be `x`."""
        same = [tensor for tensor in self.tensors if tensor.shape == x.shape]
        return same[number % len(same)]

    def conv(self, x, number):
        return layers.Conv2D(
            x.shape[-1] if number % 3 else 3,
            kernel_size=(1, 3)[number % 2],
            strides=(1, 2)[number % 5 == 0],
            padding="same",
            use_bias=number % 4 > 0,
            activation=(None, "relu", "relu6")[number % 3],
            name=self.name("conv"),
        )

    def step(self, kind, first, second):
        x = self.pick(first)
        y = getattr(self, kind.replace(" ", "_") + "_step")(x, second)
        self.tensors.append(y)

    def conv_step(self, x, number):
        return self.conv(x, number)(x)

    def depthwise_step(self, x, number):
        layer = layers.DepthwiseConv2D(
            3,
            padding="same",
            depth_multiplier=1 + (number % 7 == 0),
            activation=(None, "relu6")[number % 2],
            name=self.name("depthwise"),
        )
        return layer(x)

    def dense_step(self, x, number):
        return layers.Dense(2 + number % 2, name=self.name("dense"))(x)

    def norm_step(self, x, number):
        norm = layers.BatchNormalization(
            center=number % 3 > 0, scale=number % 5 > 0, name=self.name("norm")
        )
        return norm(x)

    def relu_step(self, x, number):
        if number % 3 == 0:
            return keras.ops.relu(x)
        name = self.name("relu")
        return (layers.ReLU(name=name) if number % 3 == 1 else layers.Activation("relu"))(x)

    def relu6_step(self, x, number):
        return layers.ReLU(max_value=6, name=self.name("relu"))(x)

    def add_step(self, x, number):
        return layers.Add(name=self.name("add"))([x, self.like(x, number)])

    def sum_of_three_step(self, x, number):
        others = [self.like(x, number), self.like(x, number // 2)]
        return layers.Add(name=self.name("add"))([x, *others])

    def plus_step(self, x, number):
        return x + self.like(x, number)

    def pool_step(self, x, number):
        layer = layers.MaxPooling2D(
            2, strides=1 + number % 2, padding="same", name=self.name("pool")
        )
        return layer(x)

    def average_step(self, x, number):
        return layers.AveragePooling2D(2, strides=1, padding=("same", "valid")[x.shape[1] > 2])(x)

    def dropout_step(self, x, number):
        kind = (layers.Dropout, layers.SpatialDropout2D, layers.GaussianDropout)[number % 3]
        return kind((0.0, 0.5)[number % 2])(x)

    def nothing_step(self, x, number):
        return (layers.Identity() if number % 2 else layers.Activation("linear"))(x)

    def pad_step(self, x, number):
        return layers.ZeroPadding2D(((0, number % 2), (1, 0)))(x)

    def shared_step(self, x, number):
        """Calls a layer that is called already, if it takes as many channels."""
        key = x.shape[-1], number % 2
        if key not in self.shared:
            self.shared[key] = self.conv(x, 1 + number % 2)
        return self.shared[key](x)

    def block(self, x, number, inner=None):
        inputs = keras.Input(x.shape[1:])
        y = self.conv(x, 6 * number + 1)(inputs) if inner is None else inner(inputs)
        y = layers.ReLU(name=self.name("relu"))(self.norm_step(y, number))
        outputs = layers.Add(name=self.name("add"))([y, inputs]) if y.shape == x.shape else y
        return keras.Model(inputs, outputs, name=self.name("block"))

    def nested_step(self, x, number):
        block = self.block(x, number)
        return (self.block(x, number, inner=block) if number % 2 else block)(x)

    def nested_twice_step(self, x, number):
        block = self.block(x, 6 * number)
        return layers.Add(name=self.name("add"))([block(x), block(self.like(x, number))])


def build(program, inputs, outputs):
    keras.utils.set_random_seed(0)  # the same weights each time an example is tried
    tensors = [keras.Input((6, 6, 2), name=f"image{i}") for i in range(inputs)]
    builder = Builder(list(tensors))
    for step in program:
        builder.step(*step)
    pooled = layers.GlobalAveragePooling2D(name="mean")(builder.tensors[-1])
    results = [layers.Dense(3, activation="softmax", name="head")(pooled)]
    results += builder.tensors[inputs:][-outputs:] if outputs > 1 else []
    # An input that no output depends on would be refused.
    return randomized(keras.Model([x for x in tensors if reaches(x, results)], results))


def reaches(tensor, results):
    """Whether a result depends on a tensor."""
    pending, seen = list(results), set()
    while pending:
        current = pending.pop()
        if current is tensor:
            return True
        if id(current) not in seen:
            seen.add(id(current))
            history = current._keras_history
            pending += history.operation._inbound_nodes[history.node_index].input_tensors
    return False


def data_for(model):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(0, 2, (4, *x.shape[1:])).astype("float32") for x in model.inputs)


def named_layers(model):
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from named_layers(layer)
        elif type(layer) in NAMED:
            yield layer.name


def check_clone(program, inputs, outputs):
    model = build(program, inputs, outputs)
    clone, data = keras_qat.clone_model(model), list(data_for(model))
    ours, theirs = keras.tree.flatten(clone(data)), keras.tree.flatten(model(data))
    for a, b in zip(ours, theirs, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.abs(a - b).max() <= 1e-4 * np.abs(b).max()
    assert set(named_layers(model)) <= {layer.name for layer in clone.layers}


def check_quantized(program, inputs, outputs, folder):
    model = build(program, inputs, outputs)
    data, path = data_for(model), folder / "model.tflite"
    qat = quantized(model, data)
    keras_qat.export_litert(qat, path)
    report = keras_qat.verify(qat, path, data, kernels=("reference",), verbose=0)
    assert report.exact, report


def examples(count):
    return settings(
        max_examples=count, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
    )


counts = st.integers(1, 2), st.integers(1, 3)


@examples(15)
@given(programs, *counts)
def test_cloning_keeps_function_and_names(program, inputs, outputs):
    check_clone(program, inputs, outputs)


@examples(4)
@given(programs, *counts)
def test_quantizing_is_exact(tmp_path_factory, program, inputs, outputs):
    check_quantized(program, inputs, outputs, tmp_path_factory.mktemp("model"))


@pytest.mark.slow
@examples(200)
@given(programs, *counts)
def test_cloning_keeps_function_and_names_of_many(program, inputs, outputs):
    check_clone(program, inputs, outputs)


@pytest.mark.slow
@examples(40)
@given(programs, *counts)
def test_quantizing_many_is_exact(tmp_path_factory, program, inputs, outputs):
    check_quantized(program, inputs, outputs, tmp_path_factory.mktemp("model"))
