"""Compares a rewritten model with its source: its outputs, then layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.backend import without_gradients
from keras_qat.errors import RewriteError
from keras_qat.graph import Edge, Graph, Node, read_model
from keras_qat.layers.core.modes import float_mode
from keras_qat.layers.core.registry import users_function
from keras_qat.passes import Rewrite
from keras_qat.passes.inline_models import inline_models
from keras_qat.proof.running import FIX, as_inputs, checked_run, is_float, run, samples_for

# Relative to the largest magnitude of a tensor; half precision rounds more.
_TOLERANCE = 1e-3
_ROUNDINGS = 16
_EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}


def check_ends(source: Graph, model: keras.Model) -> None:
    """Raises if the outputs of a rewritten model have other shapes or dtypes than the source's.

    A floating type may have become float32, and so may an integer type, since quantized integers
    represent real values. A size that was unknown may be known. Keras infers the shape of some
    layers wrongly, such as `Dense(activation="glu")`. The computed shapes decide in this case.

    Args:
        source: The graph of the source model.
        model: The rewritten model.

    Raises:
        RewriteError: With the name of the output.
    """
    wanted = [(source.shape(edge), source.dtype(edge)) for edge in source.output_edges]
    found = [(tuple(y.shape), str(y.dtype)) for y in model.outputs]
    if not all(map(_fits, wanted, found)):
        wanted = _computed_ends(source, model) or wanted
    for name, end, own in zip(source.output_names, wanted, found, strict=True):
        if not _fits(end, own):
            raise RewriteError(
                "The rewritten model has other outputs than the model.",
                layer=name,
                received=f"{own[1]} of shape {own[0]}",
                expected=f"{end[1]} of shape {end[0]}",
                fix=FIX,
            )


def _fits(wanted: tuple[Any, str], found: tuple[Any, str]) -> bool:
    """Returns whether an output has the wanted shape, and the wanted type or float32."""
    shapes, (dtype, own) = (wanted[0], found[0]), (wanted[1], found[1])
    is_like = len(shapes[0]) == len(shapes[1]) and all(
        None in sizes or sizes[0] == sizes[1] for sizes in zip(*shapes, strict=True)
    )
    return is_like and (dtype == own or is_float(own))


def _computed_ends(source: Graph, model: keras.Model) -> list[tuple[Any, str]] | None:
    """Returns the shapes and dtypes that a source model computes, or None if it cannot run."""
    samples = samples_for(source, read_model(model), model, None)
    with keras.StatelessScope(), without_gradients():
        try:
            tensors = run(source, samples)
        except Exception:  # models may raise anything on generated values
            return None
    ends = [(edge, tensors[edge]) for edge in source.output_edges]
    return [
        ((source.shape(edge)[:1] + tuple(x.shape)[1:]), keras.backend.standardize_dtype(x.dtype))
        for edge, x in ends
    ]


def check_values(
    source: Graph, model: keras.Model, log: Iterable[Rewrite], data: Any = None
) -> None:
    """Raises if a rewritten model computes other values in float than the source model.

    The outputs are compared on one or two samples. A network may amplify rounding errors of its
    first layers, so different outputs alone prove no defect. In this case each layer is compared
    by itself, on the values of the source model. Outputs of the source model that are not finite,
    or that are random, are not compared.

    Args:
        source: The graph of the source model.
        model: The rewritten model.
        log: The rewrites. Nothing is compared if one of them changes the function.
        data: Arrays or lists of data for the inputs, or None for generated samples.

    Raises:
        RewriteError: With the first layer that differs.
    """
    if any(rewrite.changes_function for rewrite in log):
        return
    rewritten, limit = read_model(model), _limit(source)
    samples = samples_for(source, rewritten, model, data)
    # Variables keep their values: those of batch normalizations, and states of random numbers.
    with keras.StatelessScope(), without_gradients(), float_mode():
        try:
            expected = _outputs(source, run(source, samples))
        except Exception:  # models may raise anything on generated values
            return
        found = _outputs(rewritten, checked_run(rewritten, as_inputs(samples, model)))
        if _worst(found, expected) <= limit:
            return
        again = _outputs(source, run(source, samples))
        if _worst(again, expected) > 0:
            return  # the model is random: it has other outputs for the same input
        _compare_layers(inline_models(source), rewritten, samples, model, limit, tuple(log))


def _compare_layers(
    source: Graph,
    rewritten: Graph,
    samples: Sequence[Any],
    model: keras.Model,
    limit: float,
    log: Sequence[Rewrite],
) -> None:
    """Compares each layer by itself, on the values that the source model computes before it."""
    kept: dict[Edge, Any] = {}
    run(source, samples, lambda edge, value: kept.setdefault(edge, value))
    known: dict[int, list[np.ndarray]] = {}
    for value in kept.values():
        array = ops.convert_to_numpy(value)
        known.setdefault(array.size, []).append(array)
    alike: set[str] = set()

    def replace(edge: Edge, value: Any) -> Any:
        """Returns the source model's value that equals a value within the limit, if any."""
        array = ops.convert_to_numpy(value)
        for other in known.get(array.size, ()):
            other = other.reshape(array.shape)
            if _difference(array, other) <= limit:
                alike.add(edge.node)
                return ops.convert_to_tensor(other, value.dtype)
        return value

    tensors = checked_run(rewritten, as_inputs(samples, model), replace)
    expected = [ops.convert_to_numpy(kept[edge]) for edge in source.output_edges]
    found = _outputs(rewritten, tensors)
    error = _worst(found, expected)
    if error > limit:
        name = _first_that_differs(rewritten, alike)
        origins = getattr(model, "origins", {}).get(name, (name,))
        _check_functions([source.nodes[each] for each in origins if each in source.nodes])
        about = [str(each) for each in log if not set(origins).isdisjoint(each.origins)]
        raise RewriteError(
            "The rewritten layer computes other values than the model.",
            layer=name if name in origins else origins[0],
            received=f"outputs of the model that differ by {error:.2g} of their largest value; it "
            f"was made of {list(origins)[:4]}, rewritten by {about[:4]}",
            expected=f"at most {limit:.2g}",
            fix=FIX,
        )


def _check_functions(nodes: Sequence[Node]) -> None:
    """Raises if the user registered a function for the operations of some of these nodes."""
    for node in nodes:
        function = users_function(node.head)
        if function is None:
            continue
        kind = type(node.head).__name__
        raise RewriteError(
            f"The function that is registered for {kind} computes other values than the layer.",
            layer=node.name,
            received=f"`{function.__name__}`",
            expected=f"the values that `call` of each {kind} in the model computes",
            fix=f"Correct `{function.__name__}`. Its first argument is the layer: read values that "
            f"differ from one {kind} to another from there, or give each a class of its own.",
        )


def _first_that_differs(graph: Graph, alike: set[str]) -> str:
    """Returns the first layer that, like all layers after it, has no counterpart in the source."""
    consumers = graph.consumers()
    reaches: set[str] = set(alike)
    for node in reversed(tuple(graph.nodes.values())):
        edges = (Edge(node.name, i) for i in range(len(node.shapes)))
        if any(each.name in reaches for edge in edges for each in consumers.get(edge, ())):
            reaches.add(node.name)
    lost = [node.name for node in graph.nodes.values() if node.name not in reaches]
    return next((name for name in lost if not graph.nodes[name].is_input), graph.output_names[0])


def _outputs(graph: Graph, tensors: dict[Edge, Any]) -> list[np.ndarray]:
    return [ops.convert_to_numpy(tensors[edge]) for edge in graph.output_edges]


def _worst(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return max(_difference(a, b) for a, b in zip(found, expected, strict=True))


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Returns the relative error of the largest difference; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    a, b = found.astype("float64"), expected.astype("float64")
    is_finite = np.isfinite(b)
    if not is_finite.any():
        return 0.0
    a, b = a[is_finite], b[is_finite]
    if not np.isfinite(a).all():
        return float("inf")
    error, largest = float(np.abs(a - b).max()), float(np.abs(b).max())
    return error / max(largest, 1e-30) if error else 0.0


def _limit(source: Graph) -> float:
    dtypes = {dtype for node in source.nodes.values() for dtype in node.dtypes}
    return max([_TOLERANCE, *(_ROUNDINGS * _EPSILONS.get(dtype, 0.0) for dtype in dtypes)])
