"""The choice of schemes as an integer program, and the best choices at other sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from keras_qat.mixed_precision.measuring import decibels
from keras_qat.mixed_precision.plan import Alternative
from keras_qat.mixed_precision.program import best_choice
from keras_qat.mixed_precision.sizes import FileSize

_POINTS = 16
# The limits of `Budget.limits`: bytes of weights and of flash, each None without a limit.
Limits = tuple[int | None, ...]
# The position of each layer's scheme.
Choice = Sequence[int]


@dataclasses.dataclass(frozen=True)
class Problem:
    """The layers that have several schemes to choose from, with their costs and sizes.

    The noise of a model is taken as the sum of the noises that its layers make alone. This is
    exact to first order for rounding errors that do not depend on each other.

    Attributes:
        layers: Names of the layers.
        names: Names of the schemes of each layer, that of the whole model first.
        noises: The noise power of each of them alone, divided by the power of the outputs.
        parts: The sizes of each of them.
        rest: Noise of all other layers.
        fixed: Size of the rest of the file.
    """

    layers: Sequence[str]
    names: Sequence[Sequence[str]]
    noises: Sequence[Sequence[float]]
    parts: Sequence[Sequence[FileSize]]
    rest: float
    fixed: FileSize

    def best(self, limits: Limits) -> Choice | None:
        """Returns the choice with the least noise within limits, or None."""
        kinds = [kind for kind, limit in enumerate(limits) if limit is not None]
        sizes = [[[part[kind] for part in own] for own in self.parts] for kind in kinds]
        left = [limit - self.fixed[kind] for kind, limit in enumerate(limits) if limit is not None]
        return best_choice(self.noises, sizes, left)

    def smallest(self, limits: Limits) -> Choice:
        """Returns the choice of the smallest file, by the last kind of size with a limit."""
        kind = max(kind for kind, limit in enumerate(limits) if limit is not None)
        return [min(range(len(own)), key=lambda i: own[i][kind]) for own in self.parts]

    def size(self, choice: Choice) -> FileSize:
        """Returns the sum of the sizes."""
        own = [parts[i] for parts, i in zip(self.parts, choice, strict=True)]
        return FileSize(*(sum(sizes) for sizes in zip(self.fixed, *own, strict=True)))

    def decibels(self, choice: Choice) -> float:
        """Returns the expected signal-to-noise ratio of the outputs in dB."""
        own = [noises[i] for noises, i in zip(self.noises, choice, strict=True)]
        return decibels(self.rest + sum(own))

    def schemes(self, choice: Choice) -> dict[str, str]:
        """Returns the scheme of each layer, as overrides."""
        own = [names[i] for names, i in zip(self.names, choice, strict=True)]
        return dict(zip(self.layers, own, strict=True))

    @staticmethod
    def excess(size: FileSize, limits: Limits) -> list[int]:
        """Returns how far a size is above each limit. Not positive within it."""
        return [0 if limit is None else s - limit for s, limit in zip(size, limits, strict=True)]


def alternatives_of(problem: Problem, chosen: Choice) -> Iterator[Alternative]:
    """Yields the best choices at sizes from the smallest to the largest, and the chosen one.

    Choices that are larger and noisier than another one are left out.

    Args:
        problem: The problem.
        chosen: The choice within the budget.
    """
    kind = 1 if problem.fixed.flash else 0
    smallest, largest = (
        sum(pick(part[kind] for part in own) for own in problem.parts) for pick in (min, max)
    )
    limits = np.linspace(smallest, largest, _POINTS).astype(int) + problem.fixed[kind]
    found = {tuple(chosen)}
    for limit in limits:
        choice = problem.best((None, int(limit)) if kind else (int(limit), None))
        found |= set() if choice is None else {tuple(choice)}
    best = -np.inf
    order = sorted(found, key=lambda each: (problem.size(each)[kind], problem.decibels(each)))
    for choice in order:
        is_chosen, ratio = choice == tuple(chosen), problem.decibels(choice)
        if ratio > best or is_chosen:
            size = problem.size(choice)
            flash = size.flash / 1024 if kind else None
            yield Alternative(size.weights, flash, ratio, problem.schemes(choice), is_chosen)
        best = max(best, ratio)
