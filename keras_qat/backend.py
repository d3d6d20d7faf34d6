"""The only file that touches a Keras backend: compilation of fused arithmetic, and dtypes.

Everything else in `keras_qat` is written with `keras.ops`. Backends are imported inside the
functions, so that importing this file costs nothing and pulls in none of them.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras

# Rules are fused for tensors of so many values: XLA takes about 0.05 s to compile a rule for a
# shape, and saves about 5 ns a value.
FUSED_SIZE = 2**16

# Stands for an unknown size when a graph is traced.
USUAL_BATCH = 32

# Inlined into a model's graph, the nodes of all rules would be optimized again and again.
_APART = {"experimental_attributes": {"_noinline": True}}

_IN_RULE = contextvars.ContextVar("keras_qat_in_rule", default=False)


def compiled(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes TensorFlow run a rule of arithmetic as one function, traced once for all shapes.

    A rule is dozens of small element-wise operations. TensorFlow would dispatch each of them from
    Python, and build a node for each wherever the rule is used. As a function the rule is one
    operation. For tensors of many values XLA fuses the rule into one loop; it compiles when the
    function first runs on them. For few values that would take longer than it saves. In a graph
    of an unknown batch size, the size of a usual batch decides.

    The other backends compile whole programs. There, and for symbolic `KerasTensor`s, `fn` itself
    is called. Inside another rule it is a `part`. It is for inference: no gradient flows through
    it.

    Args:
        fn: A function of tensors, written with `keras.ops`, that creates no variables. Its
            positional arguments are tensors (or convert to tensors) of any shape. Its keyword
            arguments are hashable Python options. An output has the shape that the arguments of
            its rank broadcast to, or a shape that does not depend on the arguments.

    Returns:
        The function with the same signature and the same values. It is traced once for each
        combination of options, and of the dtypes and ranks of the tensors.

    Example:
    >>> @compiled
    ... def scaled(x, *, by):
    ...     return x * by
    >>> scaled(keras.ops.array([1, 2], "int32"), by=3).numpy()
    array([3, 6], dtype=int32)
    """

    @functools.wraps(fn)
    def wrapper(*tensors: Any, **options: Any) -> Any:
        """Runs the rule for the dtypes and ranks of the tensors, or calls `fn` itself."""
        if not _is_traced(tensors):
            return fn(*tensors, **options)
        rule, inputs = _rule_for(fn, tensors, options)
        return rule.inlined(inputs) if _IN_RULE.get() else rule(inputs)

    return wrapper


def traced_once(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes TensorFlow trace a function once for all shapes.

    A model calls such a function for each of its tensors, and Python takes about a millisecond for
    each operation of a graph. Unlike with `compiled`, XLA does not compile the function by itself,
    which it does no better than TensorFlow for minima and maxima.

    Args:
        fn: A function like those of `compiled`.

    Returns:
        The function with the same signature and the same values.

    Example:
    >>> @traced_once
    ... def extremes(x):
    ...     return keras.ops.stack([keras.ops.min(x), keras.ops.max(x)])
    >>> extremes(keras.ops.array([3.0, 1.0])).numpy().tolist()
    [1.0, 3.0]
    """

    @functools.wraps(fn)
    def wrapper(*tensors: Any, **options: Any) -> Any:
        """Calls the function for the dtypes and ranks of the tensors, or `fn` itself."""
        if not _is_traced(tensors):
            return fn(*tensors, **options)
        rule, inputs = _rule_for(fn, tensors, options)
        return rule.unfused(inputs)

    return wrapper


def _is_traced(tensors: Sequence[Any]) -> bool:
    """Returns whether a function of tensors runs as a TensorFlow function of its own."""
    is_symbolic = any(isinstance(tensor, keras.KerasTensor) for tensor in tensors)
    return not is_symbolic and keras.backend.backend() == "tensorflow"


def part(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Makes the rules of `compiled` share one trace of a function that they call many times.

    TensorFlow takes about a millisecond of Python to trace an operation, and a rule may multiply
    by a quantized multiplier a dozen times. TensorFlow inlines the function when it prepares a
    rule. Outside of rules and on other backends `fn` itself is called.

    Args:
        fn: A function like those of `compiled`.

    Returns:
        The function with the same signature and the same values.

    Example:
    >>> @part
    ... def squared(x):
    ...     return x * x
    >>> @compiled
    ... def distance(x, y):
    ...     return squared(x) + squared(y)
    >>> int(distance(3, 4))
    25
    """

    @functools.wraps(fn)
    def wrapper(*tensors: Any, **options: Any) -> Any:
        """Calls the function for the dtypes and ranks of the tensors, or `fn` itself."""
        if not _IN_RULE.get():
            return fn(*tensors, **options)
        rule, inputs = _rule_for(fn, tensors, options)
        return rule.inlined(inputs)

    return wrapper


def _rule_for(
    fn: Callable[..., Any], tensors: Sequence[Any], options: dict[str, Any]
) -> tuple[_Rule, list[Any]]:
    """Returns the rule for the dtypes and ranks of tensors, and the tensors."""
    inputs = [keras.ops.convert_to_tensor(_value(tensor)) for tensor in tensors]
    kinds = tuple((tensor.dtype, tensor.shape.rank) for tensor in inputs)
    return _traced(fn, tuple(sorted(options.items())), kinds), inputs


def _value(tensor: Any) -> Any:
    """A variable's value: `convert_to_tensor` would return the variable itself."""
    return tensor.value if isinstance(tensor, keras.Variable) else tensor


@contextlib.contextmanager
def without_gradients() -> Iterator[None]:
    """Makes PyTorch keep nothing for a backward pass; the other backends do not in eager code.

    Returns:
        A context manager.
    """
    if keras.backend.backend() != "torch":
        yield
        return
    import torch  # pyright: ignore[reportMissingImports] (an optional backend)

    with torch.no_grad():
        yield


@contextlib.contextmanager
def float64() -> Iterator[None]:
    """Makes `keras.ops.cast(x, "float64")` give real float64 on every backend.

    JAX has no 64-bit types unless asked; TensorFlow and PyTorch always have them. Cast the
    result to a 32-bit type before leaving the context.

    Returns:
        A context manager. It works in eager code and while a function is traced.

    Example:
    >>> with float64():
    ...     print(keras.ops.cast([1.0], "float64").dtype.name)
    float64
    """
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    with jax.enable_x64(True):
        yield


def across_replicas(x: Any) -> Any:
    """Stacks the values that a tensor has on the replicas of a `tf.distribute` strategy.

    Args:
        x: Tensor of the same shape on each replica.

    Returns:
        Tensor of shape (replicas, ...), the same on each replica. Outside a training step of a
        strategy, and on the other backends, whose tensors hold the whole batch, there is one
        replica.

    Example:
    >>> across_replicas(keras.ops.array([1, 2], "int32")).numpy()
    array([[1, 2]], dtype=int32)
    """
    x = keras.ops.expand_dims(x, 0)
    if keras.backend.backend() != "tensorflow":
        return x
    import tensorflow as tf

    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return x
    return replica.all_gather(x, axis=0)


def on_one_replica(
    model: keras.Model, *, trace_first: bool = True
) -> Callable[[Sequence[Any]], Any]:
    """Returns a function that computes a model's outputs for a batch, on one replica.

    `predict_on_batch` of a model under a `tf.distribute` strategy gives the whole batch to each
    replica, and concatenates what they return.

    Args:
        model: A built functional model.
        trace_first: Whether the first batch is computed by a compiled function too. On TensorFlow
            a trace takes longer than a batch does eagerly, and is of no use for a single one.

    Returns:
        A function from a list of inputs to the outputs as arrays, in the structure of the model's.

    Example:
    >>> x = keras.Input((2,))
    >>> model = keras.Model([x], keras.layers.ReLU()(x))
    >>> on_one_replica(model)([keras.ops.array([[-1.0, 2.0]])]).tolist()
    [[0.0, 2.0]]
    """
    is_tensorflow = keras.backend.backend() == "tensorflow"
    if not is_tensorflow or model.distribute_strategy.num_replicas_in_sync == 1:
        is_eager = is_tensorflow and not trace_first
        return _first_eager(model) if is_eager else model.predict_on_batch
    import tensorflow as tf

    predict = tf.function(model.predict_step, reduce_retracing=True)

    def predicted(batch: Sequence[Any]) -> Any:
        """Computes a batch of arrays. Returns arrays."""
        outputs = predict((list(map(tf.convert_to_tensor, batch)),))
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return predicted


def _first_eager(model: keras.Model) -> Callable[[Sequence[Any]], Any]:
    """Returns a function of batches, the first of which is computed eagerly."""
    compute = iter([functools.partial(model, training=False)])

    def predicted(batch: Sequence[Any]) -> Any:
        outputs = next(compute, model.predict_on_batch)(batch)
        return keras.tree.map_structure(keras.ops.convert_to_numpy, outputs)

    return predicted


def maximum(a: Any, b: Any) -> Any:
    """Returns the larger of two values, element by element, in the type that they have.

    On PyTorch `keras.ops.maximum` computes in float32 where it is given float64; so do `minimum`,
    `floor`, `ceil`, `floor_divide`, `prod`, `cumsum`, `matmul`, `dot` and `tensordot`.

    Args:
        a: float64 tensor; its NaN are kept.
        b: float64 tensor that broadcasts with `a`, or a number.

    Returns:
        float64 tensor.

    Example:
    >>> with float64():
    ...     print(maximum(keras.ops.cast([0.5, 2.0], "float64"), 1.0).numpy())
    [1. 2.]
    """
    return keras.ops.where(a < b, b, a)


class _Rule:
    """A rule as TensorFlow functions, for tensors of given dtypes and ranks.

    Args:
        fn: The rule, its options bound.
        kinds: The dtype and the rank of each argument.
    """

    def __init__(self, fn: Callable[..., Any], kinds: Sequence[tuple[Any, int]]):
        self._fn, self._kinds = fn, kinds

    def __call__(self, inputs: Sequence[Any]) -> Any:
        """Runs the rule, or adds it to the graph that is being traced."""
        size = max((math.prod(_sizes(x.shape)) for x in inputs), default=0)
        is_fused = size >= FUSED_SIZE and _xla_works()
        return _in_graph(self._fused(*inputs), inputs) if is_fused else self.unfused(inputs)

    def unfused(self, inputs: Sequence[Any]) -> Any:
        """Runs the rule without XLA, or adds it to the graph that is being traced."""
        return _in_graph(_called(self._plain, inputs), inputs)

    def inlined(self, inputs: Sequence[Any]) -> Any:
        """Adds the function to the graph of another rule."""
        return _shaped(_called(self._part, inputs), inputs)

    @functools.cached_property
    def _plain(self) -> Any:
        """The rule as one function for all shapes."""
        return self._function(self._fn, **_APART)

    @functools.cached_property
    def _part(self) -> Any:
        """The same, which TensorFlow inlines where it is called."""
        return self._function(self._fn)

    @functools.cached_property
    def _fused(self) -> Any:
        """The same, compiled by XLA for each shape that it runs on."""
        return self._function(self._plain, jit_compile=True)

    def _function(self, body: Callable[..., Any], **options: Any) -> Any:
        """Traces a body for tensors of any sizes, outside of the current graph."""
        import tensorflow as tf

        specs = [tf.TensorSpec([None] * rank, dtype) for dtype, rank in self._kinds]
        token = _IN_RULE.set(True)
        try:
            with tf.init_scope():  # out of any graph that is being traced
                function = tf.function(lambda *x: body(*x), autograph=False, **options)
                return function.get_concrete_function(*specs)
        finally:
            _IN_RULE.reset(token)


def _called(function: Any, inputs: Sequence[Any]) -> Any:
    """Calls a concrete function; its own `__call__` takes three times as long."""
    import tensorflow as tf

    kinds = [output.dtype for output in function.outputs]
    outputs = tf.raw_ops.PartitionedCall(
        args=inputs, Tout=kinds, f=function, config_proto=_as_written()
    )
    return tf.nest.pack_sequence_as(function.structured_outputs, outputs)


@functools.cache
def _as_written() -> bytes:
    """Returns a configuration without Grappler, TensorFlow's optimizer of graphs.

    It takes half of the time of a model's first inference, and saves about 5 % of later ones.
    XLA optimizes rules of large tensors.
    """
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config.SerializeToString()


# A model has up to about a hundred different rules, each of which takes 1.5 MB.
@functools.lru_cache(maxsize=256)
def _traced(
    fn: Callable[..., Any],
    options: tuple[tuple[str, Any], ...],
    kinds: tuple[tuple[Any, int], ...],
) -> _Rule:
    """Returns the functions of a rule, its options, and the dtypes and ranks of its arguments."""
    return _Rule(functools.partial(fn, **dict(options)), kinds)


def _in_graph(outputs: Any, inputs: Sequence[Any]) -> Any:
    """Sets the shapes of outputs, if a graph is being traced."""
    import tensorflow as tf

    return outputs if tf.executing_eagerly() else _shaped(outputs, inputs)


def _shaped(outputs: Any, inputs: Sequence[Any]) -> Any:
    """Sets the shapes of outputs in a graph."""
    import tensorflow as tf

    shapes = [x.shape for x in inputs]
    for output in tf.nest.flatten(outputs):
        output.set_shape(_known_shape(output.shape, shapes))
    return outputs


def _sizes(shape: Any) -> list[int]:
    """Returns the sizes of a shape, an unknown one as that of a usual batch."""
    return [USUAL_BATCH if size is None else size for size in shape.as_list()]


def _known_shape(shape: Any, inputs: Sequence[Any]) -> list[int | None]:
    """Returns a static shape, unknown sizes taken from the inputs of the same rank."""
    same = [x.as_list() for x in inputs if x.rank == shape.rank]
    sizes = zip(shape.as_list(), *same, strict=True)
    return [known if known is not None else _broadcast(others) for known, *others in sizes]


def _broadcast(sizes: Sequence[int | None]) -> int | None:
    """Returns the size that sizes of one axis broadcast to; None if that is not known."""
    larger = [size for size in sizes if size != 1]
    return next((size for size in larger if size is not None), None) if larger else 1


@functools.cache
def _xla_works() -> bool:
    """Returns whether TensorFlow can compile for the default device; tried once."""
    import tensorflow as tf

    probe = tf.function(lambda x: x + 1, jit_compile=True, autograph=False)
    with tf.init_scope():  # out of any graph that is being traced
        try:
            return int(probe(tf.constant(1))) == 2
        except tf.errors.OpError:
            return False
