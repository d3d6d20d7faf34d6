"""Random models: programs drawn by hypothesis, and the models that they build."""

import dataclasses

import keras
import numpy as np
from hypothesis import strategies as st
from keras import layers

from tests import seeds
from tests.models import randomized
from tests.passes.random_blocks import BlockSteps
from tests.passes.random_steps import ImageSteps, MergeSteps, SequenceSteps

# Names stand for layers of the float model, so each name has to exist after the rewrite.
NAMED = (
    layers.Conv2D,
    layers.DepthwiseConv2D,
    layers.Conv2DTranspose,
    layers.Conv1D,
    layers.Dense,
    layers.Add,
    layers.Subtract,
    layers.Concatenate,
    layers.MaxPooling2D,
)
# Structures of the outputs. The inputs are a dict if the outputs are a dict.
STRUCTURES = ("list", "dict", "nested")


class Choices:
    """A number that encodes a series of choices."""

    def __init__(self, number: int):
        self.rest = number

    def among(self, *options):
        self.rest, place = divmod(self.rest, len(options))
        return options[place]


@dataclasses.dataclass
class Builder(ImageSteps, SequenceSteps, MergeSteps, BlockSteps):
    """Builds a model step by step. Each step takes some of the tensors that exist."""

    tensors: list
    shared: dict = dataclasses.field(default_factory=dict)
    count: int = 0

    def name(self, kind):
        self.count += 1
        return f"{kind}{self.count}"

    def step(self, kind, first, number):
        rank = 3 if kind.startswith("sequence") else 4
        fitting = [x for x in self.tensors if len(x.shape) == rank or kind in ANY_RANK]
        if not fitting:
            fitting = [self.flat(self.tensors[-1])]
        x = fitting[-1 - first % len(fitting)]
        self.tensors.append(getattr(self, f"{kind}_step")(x, Choices(number)))

    def like(self, x, choices):
        """Returns a tensor of the shape of `x`. It may be `x`."""
        return choices.among(*(y for y in self.tensors if y.shape == x.shape))

    def flat(self, x):
        """Returns an image as a sequence of its pixels."""
        return layers.Reshape((x.shape[1] * x.shape[2], x.shape[3]))(x)


STEPS = tuple(name.removesuffix("_step") for name in sorted(dir(Builder)) if name.endswith("_step"))
# Steps that take images and sequences.
ANY_RANK = frozenset(
    {
        *(name.removesuffix("_step") for name in dir(MergeSteps) if name.endswith("_step")),
        "block_dense",
        "dense",
        "function",
        "norm",
        "nothing",
        "prelu",
    }
)

steps = st.tuples(st.sampled_from(STEPS), st.integers(0, 99), st.integers(0, 2**20))
programs = st.tuples(
    st.lists(steps, min_size=2, max_size=9).map(tuple),
    st.integers(1, 3),  # inputs
    st.integers(1, 4),  # outputs
    st.sampled_from(STRUCTURES),
)


def build(program):
    """Returns the model of a program: (steps, inputs, outputs, structure of the outputs)."""
    instructions, inputs, outputs, structure = program
    seeds.seed(0)  # equal weights each time that an example is tried
    tensors = [keras.Input((6, 6, 2), name=f"image{i}") for i in range(inputs)]
    builder = Builder(list(tensors))
    for instruction in instructions:
        builder.step(*instruction)
    last = builder.tensors[-1]
    pool = layers.GlobalAveragePooling2D if len(last.shape) == 4 else layers.GlobalMaxPooling1D
    results = [layers.Dense(3, activation="softmax", name="head")(pool(name="mean")(last))]
    results += builder.tensors[inputs:][-outputs:] if outputs > 1 else []
    # Inputs that no output depends on are an error.
    used = [x for x in tensors if _reaches(x, results)]
    entries = used if structure == "list" else {x.name: x for x in reversed(used)}
    return randomized(keras.Model(entries, _arranged(results, structure)))


def _arranged(tensors, structure):
    if structure == "list":
        return tensors
    named = {f"key{len(tensors) - i}": x for i, x in enumerate(tensors)}
    return named if structure == "dict" else {"b": tensors[-1], "a": [tensors[0], named]}


def _reaches(tensor, results):
    """Returns whether a result depends on a tensor."""
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
    """Returns random data in the structure of the model's inputs."""
    rng = np.random.default_rng(0)

    def normal(x):
        return rng.normal(0, 2, (4, *x.shape[1:])).astype("float32")

    data = keras.tree.map_structure(normal, model.input)
    return tuple(data) if isinstance(data, list) else data


def named_layers(model):
    """Returns the names of the layers that the clone must have, also those of nested models."""
    for layer in model.layers:
        if isinstance(layer, keras.Model) and hasattr(layer, "_nodes"):
            yield from named_layers(layer)
        elif type(layer) in NAMED:
            yield layer.name


def relative_error(clone, model, data):
    """Returns the largest quotient of an output's difference and its largest value."""
    data = list(data) if isinstance(data, tuple) else data
    pairs = zip(keras.tree.flatten(clone(data)), keras.tree.flatten(model(data)), strict=True)
    errors = []
    for ours, theirs in pairs:
        ours, theirs = np.asarray(ours), np.asarray(theirs)
        errors.append(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), 1e-30))
    return max(errors)
