"""A rule of arithmetic as TensorFlow functions."""

from __future__ import annotations

import contextvars
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

# Rules are fused for tensors of so many values: XLA takes about 0.15 s to compile a rule for a
# shape, and saves about 5 ns a value in each later call. MobileNetV2 has 23 such shapes at 96x96.
FUSED_SIZE = 2**16

# Stands for an unknown size when a graph is traced.
USUAL_BATCH = 32

# Inlined into a model's graph, the nodes of all rules would be optimized again and again.
_APART = {"experimental_attributes": {"_noinline": True}}

# Whether the body of a rule is being traced.
IN_RULE = contextvars.ContextVar("keras_qat_in_rule", default=False)


class Rule:
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
        token = IN_RULE.set(True)
        try:
            with tf.init_scope():  # out of any graph that is being traced
                function = tf.function(lambda *x: body(*x), autograph=False, **options)
                return function.get_concrete_function(*specs)
        finally:
            IN_RULE.reset(token)


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


# A rule takes 0.5 to 3 MB, most of it in TensorFlow's runtime. MobileNetV2 has 16 different rules,
# and ConvNeXtTiny has 29.
@functools.lru_cache(maxsize=96)
def traced_rule(
    fn: Callable[..., Any],
    options: tuple[tuple[str, Any], ...],
    kinds: tuple[tuple[Any, int], ...],
) -> Rule:
    """Returns the functions of a rule, its options, and the dtypes and ranks of its arguments."""
    return Rule(functools.partial(fn, **dict(options)), kinds)


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
