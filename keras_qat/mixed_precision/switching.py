"""A quantized model with a switch for each layer: float, or the integers of a scheme."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops, tree

from keras_qat.graph import Edge, read_model
from keras_qat.layers import QuantizedLayer, QuantizedModel, QuantizeInput
from keras_qat.layers.core.modes import forward_by
from keras_qat.layers.core.moves_values import takers_of_values


class SwitchedModel(keras.Model):
    """Computes each layer in one of several forms, which a variable chooses.

    Form 0 is float. Form k is the integers of the k-th model. The forms are data of the compiled
    function, so one trace serves all combinations. An integer layer rounds its inputs and its
    output, as in a model whose other layers have the override None. An input of the model is
    rounded in the first model's scheme if an integer layer takes it.

    Args:
        models: Quantized models of the same float model in different schemes, with ranges. The
            graph is that of the first one.
        switches: The switch of each layer that has one, by the layer's name. Other layers compute
            in float.

    Attributes:
        forms: int32 variable of shape (switches,), the form of the layers of each switch.
    """

    def __init__(self, models: Sequence[QuantizedModel], switches: Mapping[str, int]):
        super().__init__(dtype="float32")
        self.models = list(models)
        self.switches = dict(switches)
        self.forms = self.add_weight(
            name="forms",
            shape=(max(switches.values(), default=0) + 1,),
            dtype="int32",
            initializer="zeros",
            trainable=False,
        )
        # Without the checks of `QuantizedModel.call`, and with a list of inputs.
        self.graph = keras.Model(list(models[0].inputs), list(models[0].outputs))
        by_name = [{layer.name: layer for layer in model.layers} for model in models]
        self._forms_of: dict[str, list[Any]] = {
            name: [each.get(name, by_name[0][name]) for each in by_name] for name in switches
        }
        self._takers = _takers_of_inputs(models[0], self.switches)
        # XLA compiles all branches, which takes minutes on TensorFlow. JAX knows nothing else.
        self.jit_compile = keras.backend.backend() == "jax"
        self.built = True

    def call(self, inputs, training=None):
        """Computes the outputs of the first model, each layer in its form."""
        del training
        with forward_by(self._forward):
            return self.graph(inputs, training=False)

    def compute_output_spec(self, inputs, *args, **kwargs):
        """Returns the shapes and types of the outputs."""
        return self.graph.compute_output_spec(inputs)

    def _forward(self, layer: QuantizedLayer, inputs: Any) -> Any:
        with forward_by(None):
            if layer.name in self._takers:
                forms = ops.take(self.forms, self._takers[layer.name])
                rounded = [functools.partial(each, layer) for each in (in_float, in_integers)]
                return ops.switch(ops.cast(ops.any(forms > 0), "int32"), rounded, inputs)
            if layer.name not in self.switches:
                return in_float(layer, inputs)
            integers = [functools.partial(in_integers, each) for each in self._forms_of[layer.name]]
            forms = [functools.partial(in_float, layer), *integers]
            return ops.switch(self.forms[self.switches[layer.name]], forms, inputs)


def _takers_of_inputs(model: QuantizedModel, switches: Mapping[str, int]) -> dict[str, list[int]]:
    """Returns the switches of the layers that take each input, by the input's quantization."""
    graph = read_model(model)
    consumers, found = graph.consumers(), {}
    for node in graph.nodes.values():
        if isinstance(node.head, QuantizeInput):
            takers = takers_of_values(consumers, Edge(node.name))
            own = {switches[each.head.name] for each in takers if each.head.name in switches}
            if own:
                found[node.head.name] = sorted(own)
    return found


def in_float(layer: QuantizedLayer, inputs: Any) -> Any:
    """Computes a layer in float, at inference."""
    return layer.float_forward(inputs, training=False)


def in_integers(layer: QuantizedLayer, inputs: Any) -> Any:
    """Computes a layer in integers. Inputs outside their range are clipped, as QUANTIZE does."""
    scheme, known = layer.scheme, layer.neighbours.inputs
    if scheme is None:
        return in_float(layer, inputs)
    clipped = []
    for x, parameters in zip(tree.flatten(inputs), known, strict=True):
        if parameters is not None:
            scale, zero_point = parameters.grid()
            zero_point = ops.cast(zero_point, "float32")
            low = (scheme.activation_low - zero_point) * scale
            x = ops.clip(x, low, (scheme.activation_high - zero_point) * scale)
        clipped.append(x)
    return layer.integer_forward(tree.pack_sequence_as(inputs, clipped))
