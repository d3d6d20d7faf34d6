"""Stages of the conversion: passes in order, reasons for the order, and invariants."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from keras_qat.errors import InvalidGraphError
from keras_qat.graph import Graph
from keras_qat.passes.config import Setting
from keras_qat.passes.running import Pass, name_of


def _no_arguments(setting: Setting) -> Mapping[str, Any] | None:
    del setting
    return {}


@dataclasses.dataclass(frozen=True)
class Step:
    """One pass of a stage.

    Attributes:
        rewrite: The pass.
        reason: The reason for the place of the pass in the order.
        kind: `"default"` for a rewrite that `rewrites` may leave out, `"named"` for a rewrite that
            runs only if `rewrites` names it, `"fixed"` for a pass that depends on other options.
        arguments: Returns the further arguments of the pass, or None if the pass does not run.
    """

    rewrite: Callable[..., Graph]
    reason: str
    kind: Literal["default", "named", "fixed"] = "default"
    arguments: Callable[[Setting], Mapping[str, Any] | None] = _no_arguments

    @property
    def name(self) -> str:
        """The name of the pass."""
        return name_of(self.rewrite)

    def bound(self, setting: Setting) -> Pass | None:
        """Returns the pass with its arguments, or None if it does not run."""
        if self.kind != "fixed" and self.name not in setting.chosen:
            return None
        arguments = self.arguments(setting)
        if not arguments:
            return None if arguments is None else self.rewrite
        return functools.partial(self.rewrite, **arguments)


@dataclasses.dataclass(frozen=True)
class Invariant:
    """A statement about each graph that leaves a stage.

    Attributes:
        text: The statement.
        violations: Yields the names of the nodes that violate the statement.
    """

    text: str
    violations: Callable[[Graph], Iterator[str]]


@dataclasses.dataclass(frozen=True)
class Stage:
    """Passes that run one after the other.

    Attributes:
        name: Name of the stage.
        reason: The reason for the place of the stage in the order.
        steps: The passes, in order.
        invariants: The invariants after the stage, unless `rewrites` leaves out one of its passes.
    """

    name: str
    reason: str
    steps: tuple[Step, ...]
    invariants: tuple[Invariant, ...]

    def passes(self, setting: Setting) -> Iterator[Pass]:
        """Yields the passes that run, and at the end one that checks the invariants."""
        for step in self.steps:
            bound = step.bound(setting)
            if bound is not None:
                yield bound
        if all(step.name in setting.chosen for step in self.steps if step.kind == "default"):
            yield functools.partial(check_invariants, stage=self)


def check_invariants(graph: Graph, stage: Stage) -> Graph:
    """Returns a graph if the invariants of a stage hold for it.

    Args:
        graph: The graph after the stage.
        stage: The stage.

    Raises:
        InvalidGraphError: With the first node that violates an invariant.
    """
    for invariant in stage.invariants:
        for name in invariant.violations(graph):
            operations = [type(operation).__name__ for operation in graph.nodes[name].operations]
            raise InvalidGraphError(
                f"The stage '{stage.name}' left an invariant violated.",
                layer=name,
                received=" + ".join(operations),
                expected=invariant.text.rstrip("."),
                fix="This is a defect of the package: please report it with the model.",
            )
    return graph


def verdict(check: Callable[..., None]) -> Callable[..., Graph]:
    """Makes a pass of a function that raises if a graph breaks a rule of the options.

    Args:
        check: The function.
    """

    @functools.wraps(check)
    def checked(graph: Graph, **arguments: Any) -> Graph:
        check(graph, **arguments)
        return graph

    return checked
