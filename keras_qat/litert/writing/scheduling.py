"""Orders operators to lower the memory that the tensors of a model need."""

from __future__ import annotations

import dataclasses
import heapq
from typing import NamedTuple

from keras_qat.litert.format.types import Model
from keras_qat.litert.writing.lifetimes import Lifetimes

# Number of operators that the search tries before it stops, which takes about a second.
_MOST_STEPS = 200_000


def schedule(model: Model) -> Model:
    """Reorders operators to lower the peak of live tensors.

    Runtimes place the tensors of a file in one arena. The size of the arena follows from the
    tensors that are needed at the same time. In a model with branches these depend on the order of
    the operators.

    Args:
        model: A valid model.

    Returns:
        The model with the order of the lowest peak. The model is returned unchanged if no order has
        a lower peak, or if the search found none in bounded time.

    Example:
        >>> from keras_qat.litert import Model, Operator, Tensor
        >>> from keras_qat.litert.writing.scheduling import schedule
        >>> x, y = Tensor("x", (1, 8), "int8"), Tensor("y", (1, 8), "int8")
        >>> model = Model({"x": x}, {"y": y}, (Operator("RELU", (x,), (y,)),))
        >>> schedule(model) is model
        True
    """
    order = lowest_peak_order(Lifetimes.of(model))
    if order is None:
        return model
    return dataclasses.replace(model, operators=tuple(model.operators[i] for i in order))


def lowest_peak_order(lifetimes: Lifetimes, most_steps: int = _MOST_STEPS) -> list[int] | None:
    """Finds the order of operators with the lowest peak.

    The search extends the partial order with the lowest peak first. The first complete order is the
    best.

    Args:
        lifetimes: The operators.
        most_steps: Number of operators to try as the next operator.

    Returns:
        The indices of the operators. None if no order is better than the model's order, or if the
        search found none.
    """
    search = _Search(lifetimes, most_steps)
    return search.run() if search.present > search.floor else None


class _Order(NamedTuple):
    """A linked list of the operators that have run, the last operator first."""

    before: _Order | None
    last: int


class _State(NamedTuple):
    """The operators that have run, the operators that can run next, and the order (linked list)."""

    done: int
    ready: tuple[int, ...]
    live: int
    peak: int
    order: _Order | None


class _Search:
    """Searches for the order of operators with the lowest peak."""

    def __init__(self, lifetimes: Lifetimes, most_steps: int):
        self.steps, self.left = lifetimes.steps, most_steps
        self.most_freed = [s.unused + sum(size for size, _ in s.taken) for s in self.steps]
        self.present = lifetimes.peak()
        ready = tuple(i for i, step in enumerate(self.steps) if not step.after)
        self.start = _State(0, ready, lifetimes.inputs, lifetimes.inputs, None)
        # The peak of every order is at least one operator with its inputs and outputs.
        self.floor = max((s.made + sum(n for n, _ in s.taken) for s in self.steps), default=0)

    def run(self) -> list[int] | None:
        """Returns the best order, or None if it is not found or not better."""
        first = self._settled(self.start)
        queue, seen, pushed = [(self._rank(first), 0, first)], set[int](), 0
        while queue and self.left > 0:
            *_, state = heapq.heappop(queue)
            if not state.ready:
                return _listed(state.order)
            if state.done in seen:
                continue
            seen.add(state.done)
            for index in state.ready:
                following = self._settled(self._after(state, index))
                if following.peak < self.present and following.done not in seen:
                    pushed += 1
                    heapq.heappush(queue, (self._rank(following), pushed, following))
        return None

    def _rank(self, state: _State) -> tuple[int, int]:
        """Returns the order in the queue: by peak, then by most operators done."""
        return max(state.peak, self.floor), -state.done.bit_count()

    def _settled(self, state: _State) -> _State:
        """Runs the operators that can run next without raising the peak of any order."""
        index = self._free(state)
        while index is not None:
            state = self._after(state, index)
            index = self._free(state)
        return state

    def _free(self, state: _State) -> int | None:
        """Returns an operator that takes no more memory than it frees, within the peak."""
        if len(state.ready) == 1:
            self.left -= 1
            return state.ready[0]
        room = max(state.peak, self.floor) - state.live
        for tried, index in enumerate(state.ready, 1):
            made = self.steps[index].made
            # Most operators make more than all their inputs: whether these are free is not asked.
            if made > room or made > self.most_freed[index]:
                continue
            if made <= self.steps[index].freed(state.done | 1 << index):
                self.left -= tried
                return index
        self.left -= len(state.ready)
        return None

    def _after(self, state: _State, index: int) -> _State:
        """Returns the state after one more operator has run."""
        step, done = self.steps[index], state.done | 1 << index
        most = state.live + step.made
        follow = [i for i in step.before if not self.steps[i].after & ~done]
        ready = tuple(sorted([*(i for i in state.ready if i != index), *follow]))
        live, peak = most - step.freed(done), max(state.peak, most)
        return _State(done, ready, live, peak, _Order(state.order, index))


def _listed(order: _Order | None) -> list[int]:
    indices: list[int] = []
    while order is not None:
        indices.append(order.last)
        order = order.before
    return indices[::-1]
