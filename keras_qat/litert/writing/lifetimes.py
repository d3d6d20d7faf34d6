"""Lifetimes of a model's tensors, and the memory that the tensors need."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_qat.litert.format.element_types import dense_bytes
from keras_qat.litert.format.types import Model, Tensor
from keras_qat.litert.writing.static_shapes import static_shape, unknown_sizes
from keras_qat.litert.writing.validation import model_tensors

# TensorFlow Lite Micro aligns each tensor to this number of bytes.
_ALIGNMENT = 16


@dataclass(frozen=True)
class Step:
    """An operator with the memory of its tensors. Sets of operators are bits of an integer.

    Attributes:
        after: The operators that compute inputs of this operator.
        before: The operators that take outputs of this operator, in ascending order.
        made: Bytes of the outputs.
        unused: Bytes of the outputs that no operator takes.
        taken: Bytes and users of each input that is freed after its last use.
    """

    after: int
    before: tuple[int, ...]
    made: int
    unused: int
    taken: tuple[tuple[int, int], ...]

    def freed(self, done: int) -> int:
        """Returns the number of bytes that become free when this operator ends.

        Args:
            done: The operators that have run, including this operator.
        """
        return self.unused + sum(size for size, users in self.taken if not users & ~done)


@dataclass(frozen=True)
class Lifetimes:
    """The operators of a model with the memory of their tensors.

    Attributes:
        steps: One step for each operator, in the model's order.
        inputs: Bytes of the model's inputs, which exist before the first operator.
    """

    steps: tuple[Step, ...]
    inputs: int

    @classmethod
    def of(cls, model: Model) -> Lifetimes:
        """Returns the lifetimes of a model's tensors, for a batch of one if the size is unknown.

        Args:
            model: A model with valid operators.
        """
        sizes, users, makers = _bytes(model), _users(model), _makers(model)
        kept = set(model.outputs.values())
        before = [0] * len(model.operators)
        after = [0] * len(model.operators)
        for tensor, maker in makers.items():
            before[maker] |= users[tensor]
            for user in _members(users[tensor]):
                after[user] |= 1 << maker
        steps: list[Step] = []
        for index, operator in enumerate(model.operators):
            inputs = dict.fromkeys(
                x for x in operator.inputs if x is not None and x in users and x not in kept
            )
            unused = [x for x in operator.outputs if not users[x] and x not in kept]
            steps.append(
                Step(
                    after=after[index],
                    before=tuple(_members(before[index])),
                    made=sum(sizes[x] for x in operator.outputs),
                    unused=sum(sizes[x] for x in unused),
                    taken=tuple((sizes[x], users[x]) for x in inputs),
                )
            )
        return cls(tuple(steps), sum(sizes[x] for x in dict.fromkeys(model.inputs.values())))

    def peak(self, order: Iterable[int] | None = None) -> int:
        """Returns the largest number of bytes that tensors need at one time.

        Args:
            order: The operators in the order in which they run; the model's order by default.
        """
        live, done, peak = self.inputs, 0, self.inputs
        for index in range(len(self.steps)) if order is None else order:
            step, done = self.steps[index], done | 1 << index
            live += step.made
            peak = max(peak, live)
            live -= step.freed(done)
        return peak


def _bytes(model: Model) -> dict[Tensor, int]:
    """Returns the size of each tensor in the arena."""
    unknown = unknown_sizes(model)
    sizes: dict[Tensor, int] = {}
    for tensor in model_tensors(model):
        size = dense_bytes(static_shape(tensor, unknown), tensor.dtype) or 0
        sizes[tensor] = -(-size // _ALIGNMENT) * _ALIGNMENT
    return sizes


def _makers(model: Model) -> dict[Tensor, int]:
    return {x: index for index, operator in enumerate(model.operators) for x in operator.outputs}


def _users(model: Model) -> dict[Tensor, int]:
    """Returns the operators that take each tensor that is not a constant."""
    users = {x: 0 for x in model_tensors(model) if x.data is None}
    for index, operator in enumerate(model.operators):
        for x in operator.inputs:
            if x in users:
                users[x] |= 1 << index
    return users


def _members(operators: int) -> Iterable[int]:
    """Yields the indices of a set of operators, in ascending order."""
    while operators:
        lowest = operators & -operators
        yield lowest.bit_length() - 1
        operators ^= lowest
