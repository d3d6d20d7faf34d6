"""The symbolic tensors on which a layer is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from typing import Any, Self

import keras
from keras import ops

from keras_qat.graph.batch import factor_of
from keras_qat.graph.keras_internals import (
    producer_of,
    set_shape,
    unwatch_consumers,
    watch_consumers,
)
from keras_qat.graph.patterns import operation_named

_RANK = operation_named("Ndim")
_RESHAPE = operation_named("Reshape")

_contexts: list[Callable[[], contextlib.AbstractContextManager[None]]] = []


class BatchNumberError(TypeError):
    """`call` computes with the size of the batch in another way than multiplying it."""

    def __init__(self):
        super().__init__("The size of the batch is not known before the model runs.")


class BatchSize(int):
    """The size of the batch, times an integer: the first size of a traced tensor.

    Multiples are sizes too, and so are sums of them. Other sums and fractions would be numbers that
    depend on the batch.
    """

    batch: int

    @classmethod
    def of(cls, size: Any, batch: int) -> Any:
        """Returns a size, as a `BatchSize` if it is a multiple of the size of the batch.

        Args:
            size: The size.
            batch: The number that stands for the size of the batch.
        """
        if factor_of(size, batch) is None:
            return size
        made = cls(size)
        made.batch = batch
        return made

    def __mul__(self, other: Any) -> Any:
        return BatchSize.of(int(self) * other, self.batch)

    def __rmul__(self, other: Any) -> Any:
        return self * other

    def __floordiv__(self, other: Any) -> Any:
        quotient, rest = divmod(int(self), int(other))
        if rest:
            raise BatchNumberError
        return BatchSize.of(quotient, self.batch)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, BatchSize) or other == 0:  # Keras adds a padding of 0
            return BatchSize.of(int(self) + int(other), self.batch)
        raise BatchNumberError

    def __sub__(self, other: Any) -> Any:
        if isinstance(other, BatchSize) or other == 0:
            return BatchSize.of(int(self) - int(other), self.batch)
        raise BatchNumberError

    def __float__(self) -> float:
        raise BatchNumberError

    def __truediv__(self, other: Any) -> Any:
        raise BatchNumberError

    __radd__: Any = __add__
    __rsub__: Any = __truediv__
    __rtruediv__: Any = __truediv__
    __rfloordiv__: Any = __truediv__


class TracedShape(tuple[Any, ...]):
    """The sizes of a traced tensor, with the attributes of TensorFlow's shapes."""

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self)

    def as_list(self) -> list[Any]:
        """Returns the sizes in a list."""
        return list(self)


class TracedTensor(keras.KerasTensor):
    """A symbolic tensor that takes keys as arrays do, and whose first size is a `BatchSize`."""

    batch: int

    @classmethod
    def adopt(cls, tensor: Any, batch: int) -> Self:
        """Makes a symbolic tensor a traced one.

        Args:
            tensor: A `KerasTensor`.
            batch: The number that stands for the size of the batch.
        """
        tensor.__class__ = cls
        tensor.batch = batch
        return tensor

    @property
    def shape(self) -> TracedShape:
        """The shape."""
        untraced: Any = super()
        return TracedShape(
            BatchSize.of(size, self.batch) if axis == 0 else size
            for axis, size in enumerate(untraced.shape)
        )

    def set_shape(self, shape: Any) -> None:
        """Does nothing. In TensorFlow it tells a tensor sizes, which a traced tensor knows."""

    def __getitem__(self, key: Any) -> Any:
        """Returns a part. Keras itself takes neither `x[None]` nor `x[:3]` nor `x[...]`."""
        is_taken = isinstance(key, int | list | tuple | keras.KerasTensor)
        untraced: Any = super()
        return untraced.__getitem__(key if is_taken else (key,))


class Rank(keras.KerasTensor):
    """The symbolic result of `ops.ndim`, with which `call` may compute as with an integer."""

    rank: int

    @classmethod
    def adopt(cls, tensor: Any, rank: int) -> None:
        """Makes a symbolic tensor a rank.

        Args:
            tensor: A `KerasTensor`.
            rank: The number of axes.
        """
        tensor.__class__ = cls
        tensor.rank = rank

    def __bool__(self) -> bool:
        return bool(self.rank)

    def __index__(self) -> int:
        return self.rank

    def __hash__(self) -> int:
        return hash(self.rank)


def _of_rank(name: str) -> Callable[..., Any]:
    """Returns a method of integers for a `Rank`."""

    def compute(self: Rank, *others: Any) -> Any:
        """Applies the method to numbers of axes."""
        return getattr(self.rank, name)(*(getattr(each, "rank", each) for each in others))

    return compute


for _name in (
    *("eq", "ne", "lt", "le", "gt", "ge", "add", "radd", "sub", "rsub", "mul", "rmul"),
    *("floordiv", "rfloordiv", "mod", "rmod", "neg", "int"),
):
    setattr(Rank, f"__{_name}__", _of_rank(f"__{_name}__"))


class Lookup:
    """An `Embedding` inside a traced layer. Of constant ids it takes rows of a symbolic table.

    So the rows become a weight of the traced layer, such as one vector for each position.

    Args:
        layer: The `Embedding`.
        table: The symbolic tensor that stands for its table.
    """

    def __init__(self, layer: Any, table: Any):
        self._layer, self._table = layer, table

    def __call__(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        """Looks up ids."""
        if isinstance(ids, keras.KerasTensor):
            return self._layer(ids, *args, **kwargs)
        return ops.take(self._table, ids, axis=0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)


def _complete(node: Any) -> None:
    """Computes sizes that Keras leaves unknown, and makes integers of ranks."""
    operation, x, output = node.operation, node.input_tensors[0], node.outputs[0]
    _make_ranks_integers(operation)
    if None not in output.shape or None in x.shape:
        return
    whole = keras.KerasTensor(tuple(map(int, x.shape)))
    if isinstance(operation, keras.layers.EinsumDense):  # was built without them
        kernel = keras.KerasTensor(tuple(operation.kernel.shape))
        set_shape(output, ops.einsum(operation.equation, whole, kernel).shape)
    if _RESHAPE(operation):  # `call` has computed sizes as tensors of constants
        known = (int(ops.convert_to_numpy(n)) if _is_constant(n) else n for n in operation.newshape)
        operation.newshape = tuple(known)
        set_shape(output, operation.compute_output_spec(whole).shape)


def _make_ranks_integers(operation: object) -> None:
    attributes: dict[str, Any] = vars(operation)
    attributes |= {name: x.rank for name, x in attributes.items() if isinstance(x, Rank)}


def _is_constant(size: Any) -> bool:
    return hasattr(size, "shape") and not isinstance(size, keras.KerasTensor)


def trace_within(context: Callable[[], contextlib.AbstractContextManager[None]]) -> None:
    """Adds a context to those in which layers of the user are traced.

    Args:
        context: Makes the context. It is entered in the thread that traces.
    """
    _contexts.append(context)


def _enter_contexts(entered: contextlib.ExitStack) -> None:
    for context in _contexts:
        entered.enter_context(context())


@contextlib.contextmanager
def traced(tensors: list[Any], batch: int) -> Generator[None]:
    """Makes symbolic tensors, and all that is computed from them, `TracedTensor`s.

    Args:
        tensors: The symbolic tensors.
        batch: The number that stands for the size of the batch.
    """
    watched: dict[int, Any] = {}

    def watch(operation: Any) -> None:
        """Calls `added` for each new call that takes an output of an operation."""
        if id(operation) not in watched:
            watched[id(operation)] = operation
            watch_consumers(operation, added)

    def added(node: Any) -> None:
        """Makes the outputs of a call `TracedTensor`s if one of its inputs is one."""
        if any(isinstance(tensor, TracedTensor) for tensor in node.input_tensors):
            _complete(node)
            for tensor in node.outputs:
                TracedTensor.adopt(tensor, batch)
            if _RANK(node.operation):
                Rank.adopt(node.outputs[0], len(node.input_tensors[0].shape))
            watch(node.operation)

    try:
        for tensor in tensors:
            producer = producer_of(TracedTensor.adopt(tensor, batch))
            if producer is not None:
                watch(producer[0])
        with contextlib.ExitStack() as entered:
            _enter_contexts(entered)
            yield
    finally:
        for operation in watched.values():
            unwatch_consumers(operation)
