"""When the tensors of a model are needed, and how many bytes that takes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from keras_qat.litert.element_types import dense_bytes
from keras_qat.litert.static_shapes import static_shape, unknown_sizes
from keras_qat.litert.types import Model, Tensor
from keras_qat.litert.validation import model_tensors

# TensorFlow Lite Micro aligns each tensor to so many bytes.
_ALIGNMENT = 16


@dataclass(frozen=True)
class Step:
    """An operator, as the memory of tensors sees it. Sets of operators are bits of an integer.

    Attributes:
        after: The operators whose outputs this one takes.
        before: The operators that take outputs of this one, in ascending order.
        made: The bytes of its outputs.
        unused: The bytes of those outputs that nothing takes.
        taken: For each input that is freed after its last use, its bytes and all its users.
    """

    after: int
    before: tuple[int, ...]
    made: int
    unused: int
    taken: tuple[tuple[int, int], ...]

    def freed(self, done: int) -> int:
        """Returns the bytes that are free when this operator ends.

        Args:
            done: The operators that ran, this one included.
        """
        return self.unused + sum(size for size, users in self.taken if not users & ~done)


@dataclass(frozen=True)
class Lifetimes:
    """The operators of a model, as the memory of tensors sees them.

    Attributes:
        steps: One for each operator, in the model's order.
        inputs: The bytes of the model's inputs, which are there before the first operator.
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
        steps = []
        for index, operator in enumerate(model.operators):
            inputs = dict.fromkeys(x for x in operator.inputs if x in users and x not in kept)
            unused = [x for x in operator.outputs if not users[x] and x not in kept]
            steps.append(
                Step(
                    after=after[index],
                    before=tuple(_members(before[index])),
                    made=sum(sizes[x] for x in operator.outputs),
                    unused=sum(sizes[x] for x in unused),
                    taken=tuple((sizes[x], users[x]) for x in inputs if x is not None),
                )
            )
        return cls(tuple(steps), sum(sizes[x] for x in dict.fromkeys(model.inputs.values())))

    def peak(self, order: Iterable[int] | None = None) -> int:
        """Returns the most bytes that tensors take at one time.

        Args:
            order: The operators in the order in which they run; the model's by default.
        """
        live, done, peak = self.inputs, 0, self.inputs
        for index in range(len(self.steps)) if order is None else order:
            step, done = self.steps[index], done | 1 << index
            live += step.made
            peak = max(peak, live)
            live -= step.freed(done)
        return peak


def _bytes(model: Model) -> dict[Tensor, int]:
    unknown, sizes = unknown_sizes(model), {}
    for tensor in model_tensors(model):
        size = dense_bytes(static_shape(tensor, unknown), tensor.dtype) or 0
        sizes[tensor] = -(-size // _ALIGNMENT) * _ALIGNMENT
    return sizes


def _makers(model: Model) -> dict[Tensor, int]:
    return {x: index for index, operator in enumerate(model.operators) for x in operator.outputs}


def _users(model: Model) -> dict[Tensor, int]:
    """The operators that take each tensor that is not a constant."""
    users = {x: 0 for x in model_tensors(model) if x.data is None}
    for index, operator in enumerate(model.operators):
        for x in operator.inputs:
            if x in users:
                users[x] |= 1 << index
    return users


def _members(operators: int) -> Iterable[int]:
    while operators:
        lowest = operators & -operators
        yield lowest.bit_length() - 1
        operators ^= lowest
