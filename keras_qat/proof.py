"""The proof of a rewrite: the rewritten model computes what the source model computes."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_qat.backend import without_gradients
from keras_qat.data import batches
from keras_qat.errors import RewriteError
from keras_qat.graph import Edge, Graph, Node, Parameter, read_model
from keras_qat.layers import float_mode
from keras_qat.layers.registry import users_function
from keras_qat.passes import Rewrite
from keras_qat.passes.inline_models import inline_models

# Relative to the largest magnitude of a tensor; half precision rounds more.
_TOLERANCE = 1e-3
_ROUNDINGS = 16
_EPSILONS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
# Values of an input up to which two samples are compared, which also shows whether they mix.
_SMALL = 2**12
_FIX = (
    "Please report it with the model: it is a defect of the package. Until it is mended, write the "
    "layer with others, or leave the rewrite out: `rewrites=[...]`."
)


def check_ends(source: Graph, model: keras.Model) -> None:
    """Raises if the outputs of a rewritten model have other shapes or dtypes than the source's.

    A floating type may have become float32, and so may an integer type: quantized integers stand
    for real values. A size that was not known may be known. Keras infers the shape of some layers
    wrongly, such as `Dense(activation="glu")`; what counts then is what the source computes.

    Args:
        source: The graph of the source model.
        model: The rewritten model.

    Raises:
        RewriteError: Naming the output.
    """
    wanted = [(source.shape(edge), source.dtype(edge)) for edge in source.output_edges]
    found = [(tuple(y.shape), str(y.dtype)) for y in model.outputs]
    if not all(map(_fits, wanted, found)):
        wanted = _computed_ends(source, model) or wanted
    for name, end, own in zip(source.output_names, wanted, found, strict=True):
        if not _fits(end, own):
            raise RewriteError(
                "The rewritten model has another output than the model.",
                layer=name,
                received=f"{own[1]} of shape {own[0]}",
                expected=f"{end[1]} of shape {end[0]}",
                fix=_FIX,
            )


def _fits(wanted: tuple[Any, str], found: tuple[Any, str]) -> bool:
    """Whether an output has the shape, and the type or float32 in its place."""
    shapes, (dtype, own) = (wanted[0], found[0]), (wanted[1], found[1])
    is_like = len(shapes[0]) == len(shapes[1]) and all(
        None in sizes or sizes[0] == sizes[1] for sizes in zip(*shapes, strict=True)
    )
    return is_like and (dtype == own or _is_float(own))


def _computed_ends(source: Graph, model: keras.Model) -> list[tuple[Any, str]] | None:
    """The shapes and dtypes that a source model computes; None if it cannot be run."""
    samples = _samples(source, read_model(model), model, None)
    with keras.StatelessScope(), without_gradients():
        try:
            tensors = _run(source, samples)
        except Exception:  # whatever a model raises on values that were made up
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

    The outputs are compared on one or two samples. A network may amplify the rounding of its
    first layers, so that outputs which differ are no proof: then each layer is compared by itself,
    on the values of the source model. Outputs that are not finite there, or that are random, are
    not compared.

    Args:
        source: The graph of the source model.
        model: The rewritten model.
        log: The rewrites. Nothing is compared if one of them changes the function.
        data: Arrays or lists of data for the inputs; otherwise the samples are made up.

    Raises:
        RewriteError: Naming the first layer that differs.
    """
    if any(rewrite.changes_function for rewrite in log):
        return
    rewritten, limit = read_model(model), _limit(source)
    samples = _samples(source, rewritten, model, data)
    # Variables keep their values: batch normalizations, and the states of random numbers.
    with keras.StatelessScope(), without_gradients(), float_mode():
        try:
            expected = _outputs(source, _run(source, samples))
        except Exception:  # whatever a model raises on values that were made up
            return
        found = _outputs(rewritten, _checked_run(rewritten, _as_inputs(samples, model)))
        if _worst(found, expected) <= limit:
            return
        again = _outputs(source, _run(source, samples))
        if _worst(again, expected) > 0:
            return  # random, for the same input
        _compare_layers(inline_models(source), rewritten, samples, model, limit, tuple(log))


def _compare_layers(
    source: Graph,
    rewritten: Graph,
    samples: Sequence[Any],
    model: keras.Model,
    limit: float,
    log: Sequence[Rewrite],
) -> None:
    """Compares layer by layer, each of what the source model computes up to there."""
    kept: dict[Edge, Any] = {}
    _run(source, samples, lambda edge, value: kept.setdefault(edge, value))
    known: dict[int, list[np.ndarray]] = {}
    for value in kept.values():
        array = ops.convert_to_numpy(value)
        known.setdefault(array.size, []).append(array)
    alike: set[str] = set()

    def replace(edge: Edge, value: Any) -> Any:
        array = ops.convert_to_numpy(value)
        for other in known.get(array.size, ()):
            other = other.reshape(array.shape)
            if _difference(array, other) <= limit:
                alike.add(edge.node)
                return ops.convert_to_tensor(other, value.dtype)
        return value

    tensors = _checked_run(rewritten, _as_inputs(samples, model), replace)
    expected = [ops.convert_to_numpy(kept[edge]) for edge in source.output_edges]
    found = _outputs(rewritten, tensors)
    error = _worst(found, expected)
    if error > limit:
        name = _first_that_differs(rewritten, alike)
        origins = getattr(model, "origins", {}).get(name, (name,))
        _check_functions([source.nodes[each] for each in origins if each in source.nodes])
        about = [str(each) for each in log if not set(origins).isdisjoint(each.origins)]
        raise RewriteError(
            "The rewritten layer computes something else than the model.",
            layer=name if name in origins else origins[0],
            received=f"outputs of the model that differ by {error:.2g} of their largest value; it "
            f"was made of {list(origins)[:4]}, rewritten by {about[:4]}",
            expected=f"at most {limit:.2g}",
            fix=_FIX,
        )


def _check_functions(nodes: Sequence[Node]) -> None:
    """Raises if functions that a user registered stand for some of these nodes."""
    for node in nodes:
        function = users_function(node.head)
        if function is None:
            continue
        kind = type(node.head).__name__
        raise RewriteError(
            f"A function that was registered for {kind} computes something else than the layer.",
            layer=node.name,
            received=f"`{function.__name__}`",
            expected=f"what `call` of each {kind} in the model computes",
            fix=f"Mend `{function.__name__}`. Its first argument is the layer: what differs from "
            f"one {kind} to another has to be read there, or each needs a class of its own.",
        )


def _first_that_differs(graph: Graph, alike: set[str]) -> str:
    """The first layer without a counterpart in the source, from which no such layer follows."""
    consumers = graph.consumers()
    reaches: set[str] = set(alike)
    for node in reversed(tuple(graph.nodes.values())):
        edges = (Edge(node.name, i) for i in range(len(node.shapes)))
        if any(each.name in reaches for edge in edges for each in consumers.get(edge, ())):
            reaches.add(node.name)
    lost = [node.name for node in graph.nodes.values() if node.name not in reaches]
    return next((name for name in lost if not graph.nodes[name].is_input), graph.output_names[0])


def _run(
    graph: Graph, inputs: Sequence[Any], see: Callable[[Edge, Any], Any] | None = None
) -> dict[Edge, Any]:
    """Computes a graph; tensors that nothing takes any more are dropped.

    Args:
        graph: The graph.
        inputs: A tensor for each input.
        see: Called with each tensor; returns what the layers behind it take.
    """
    tensors = dict(zip(map(Edge, graph.inputs), inputs, strict=True))
    left = Counter(graph.output_edges)
    for node in graph.nodes.values():
        left.update(node.inputs)
    if see is not None:
        tensors = {edge: see(edge, value) for edge, value in tensors.items()}
    for node in graph.nodes.values():
        if node.is_input:
            continue
        for i, value in enumerate(tree.flatten(_called(node, tensors))):
            edge = Edge(node.name, i)
            tensors[edge] = value if see is None else see(edge, value)
        for edge in node.inputs:
            left[edge] -= 1
            if not left[edge]:
                del tensors[edge]
    return tensors


def _called(node: Node, tensors: dict[Edge, Any]) -> Any:
    def argument(leaf: Any) -> Any:
        if isinstance(leaf, Edge):
            return tensors[leaf]
        return leaf.value if isinstance(leaf, Parameter) else leaf

    args, kwargs = tree.map_structure(argument, node.arguments)
    # `predict` does so too, whatever a layer was called with: random images have `training=True`.
    if "training" in inspect.signature(node.head.call).parameters:
        kwargs = {**kwargs, "training": False}
    return node.head(*args, **kwargs)


def _checked_run(
    graph: Graph, inputs: Sequence[Any], see: Callable[[Edge, Any], Any] | None = None
) -> dict[Edge, Any]:
    """Runs a rewritten graph; the source took the same inputs."""
    try:
        return _run(graph, inputs, see)
    except Exception as error:
        raise RewriteError(
            "The rewritten model cannot be run.",
            layer=graph.name,
            received=f"{type(error).__name__}: {error}",
            expected="a model that takes what the source model takes",
            fix=_FIX,
        ) from error


def _outputs(graph: Graph, tensors: dict[Edge, Any]) -> list[np.ndarray]:
    return [ops.convert_to_numpy(tensors[edge]) for edge in graph.output_edges]


def _worst(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    return max(_difference(a, b) for a, b in zip(found, expected, strict=True))


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference, relative to the largest magnitude; infinite for another shape."""
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


def _samples(source: Graph, rewritten: Graph, model: keras.Model, data: Any) -> list[Any]:
    """A tensor for each input of the source: the first samples of data, or made up."""
    nodes = [source.nodes[name] for name in source.inputs]
    sizes = [[size or 1 for size in node.shapes[0][1:]] for node in nodes]
    is_small = max(map(math.prod, sizes)) <= _SMALL
    count = nodes[0].shapes[0][0] or (2 if is_small else 1)
    if hasattr(data, "__getitem__"):
        arrays = next(batches(data, model, steps=1, batch_size=count))
        arrays = [array[:count] for array in arrays]
    else:
        rng = np.random.default_rng(0)
        arrays = [
            _made_up(rng, (count, *own), node.dtypes[0], _count_of_ids(rewritten, name))
            for node, own, name in zip(nodes, sizes, rewritten.inputs, strict=True)
        ]
    return [ops.cast(x, node.dtypes[0]) for x, node in zip(arrays, nodes, strict=True)]


def _count_of_ids(graph: Graph, name: str) -> int | None:
    """How many ids there are for an input; None for real values."""
    takers = graph.consumers().get(Edge(name), ())
    lookups = [each.head for each in takers if getattr(each.head, "takes_indices", False)]
    return min((layer.input_dim for layer in lookups), default=None)


def _made_up(rng: Any, shape: tuple[int, ...], dtype: str, ids: int | None) -> np.ndarray:
    if ids is not None:
        return rng.integers(0, ids, shape)
    if _is_float(dtype):
        return rng.normal(size=shape)
    return rng.integers(0, 2 if dtype == "bool" else 128, shape)


def _as_inputs(samples: Sequence[Any], model: keras.Model) -> list[Any]:
    return [ops.cast(x, each.dtype) for x, each in zip(samples, model.inputs, strict=True)]


def _is_float(dtype: str) -> bool:
    return keras.backend.is_float_dtype(dtype)
