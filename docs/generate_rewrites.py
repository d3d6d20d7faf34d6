"""Writes docs/rewrites.md: the effect of each pass of the pipeline on a small model.

Run it with `make docs-rewrites`. The models are in docs/rewrite_examples.py.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
from keras import ops, tree

import keras_qat
from docs.generate_supported import summary, table
from docs.rewrite_examples import EXAMPLES, TARGETS
from keras_qat.graph import Edge, Graph, Node, Parameter, label_of, read_model
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.name_outputs import name_outputs
from keras_qat.passes.pipeline import (
    DEFAULT_REWRITES,
    OPTIONAL,
    PIPELINE,
    STAGES,
    select_rewrites,
)
from keras_qat.passes.quantize_inputs import quantize_floats, quantize_inputs
from keras_qat.passes.running import run_pipeline
from keras_qat.passes.schemes import annotate_schemes
from keras_qat.passes.separate_ranges import separate_ranges
from keras_qat.passes.stages import Stage
from keras_qat.passes.substitute_activations import substitute_activations
from keras_qat.scheme import get_scheme

PAGE = Path(__file__).parent / "rewrites.md"

INTRODUCTION = """\
# Rewrites

Written by `make docs-rewrites` from the passes, run on small models: do not edit.

`clone_model`, `quantize_model` and `check` rewrite a model before its layers become quantized
ones. The passes run in this order, once each; `canonicalize` repeats its rules until none
applies. Every one of them preserves the function: in float,
what `clone_model` returns computes what the model computes, to rounding. `rewrite_log` of the
result lists what was done.

**A choice of them.** `clone_model(model, rewrites=["inline_models", "fold_batch_norms"])` applies
these alone, still in the order of the pipeline; `quantize_model` takes the same argument, and
`keras_qat.DEFAULT_REWRITES` has the names of all of them. What may be left out depends on the
model. Some rewrites only make the file smaller, faster or more accurate; others write what LiteRT
has no operator for, and a layer that needs one of those is refused with an error that names it.
The last column says what becomes of the example without the rewrite.

**What changes the function.** One rewrite is optional, [`drop_bias`](#drop_bias): it runs only if
it is named, `rewrites=[*keras_qat.DEFAULT_REWRITES, "drop_bias"]`, or alone. And
`skip_layers=["name"]` leaves layers out altogether, by name and of nested models too, each with one
input of the shape of its output. The result of either computes something else, and is trained
afterwards.
"""

FOLLOWING = """\
## What follows

After the rewrites each node becomes one layer of `keras_qat`. `make_layers` and `name_outputs` run
always, the others for `quantize_model` and `check` only.
"""

ORDER = """\
## The order

`quantize_model`, `clone_model` and `check` run these stages one after the other, and the passes of
a stage in the order of its list. Each line says why a pass stands where it stands. After each
stage the graph is checked: a statement that does not hold is an `InvalidGraphError` that names the
node. A stage of which `rewrites` leaves out a pass is not checked.
"""

# Passes outside of `rewrites`, with separate sections.
_FOLLOWING = (make_layers, quantize_inputs, quantize_floats, separate_ranges, name_outputs)

# The arguments of some examples.
_ARGUMENTS = ("activation", "axis", "newshape", "padding", "subscripts", "use_bias")


def page() -> str:
    """Returns the whole page."""
    rows = [
        (f"[`{name}`](#{name})", summary(rewrite), _without(name))
        for name, rewrite in ((each.__name__, each) for each in PIPELINE)
    ]
    headings = ("rewrite", "what it does", "the example without it")
    parts = [INTRODUCTION, *table(headings, rows), "", ORDER]
    for number, stage in enumerate(STAGES, 1):
        parts += _order(number, stage)
    for rewrite in PIPELINE:
        parts += _section(rewrite)
    for rewrite in OPTIONAL:
        parts += _section(rewrite)
        parts.append("It is optional: it runs only if it is named, after `open_drop_ins`.\n")
    parts += _text(substitute_activations, "##")
    parts.append('It is not part of the pipeline: `activations="substitute"` puts it after ')
    parts[-1] += "`recognize_functions`.\n"
    parts.append(FOLLOWING)
    for rewrite in _FOLLOWING:
        parts += _text(rewrite, "###")
    return "\n".join(parts)


def _order(number: int, stage: Stage) -> Iterable[str]:
    """Returns the lines about a stage: its reason, its passes, and its invariants."""
    described = {each.__name__ for each in (*PIPELINE, *OPTIONAL, substitute_activations)}
    described |= {each.__name__ for each in _FOLLOWING}
    yield f"### {number}. {stage.name}\n"
    yield f"{stage.reason}\n"
    for step in stage.steps:
        name = f"[`{step.name}`](#{step.name})" if step.name in described else f"`{step.name}`"
        yield f"- {name}: {step.reason}"
    for invariant in stage.invariants:
        yield f"- Afterwards: {invariant.text[0].lower()}{invariant.text[1:]}"
    yield ""


def sections(rewrite: Any) -> list[tuple[str, str]]:
    """Returns the parts Matches, Builds and Why of a pass's docstring, each in one line."""
    body = (inspect.getdoc(rewrite) or "").partition("\nArgs:")[0]
    pieces = re.split(r"^(Matches|Builds|Why): ", body, flags=re.MULTILINE)[1:]
    texts = (" ".join(piece.split()) for piece in pieces[1::2])
    return list(zip(pieces[::2], texts, strict=True))


def _text(rewrite: Any, level: str) -> Iterable[str]:
    yield f"{level} {rewrite.__name__}\n"
    yield f"{summary(rewrite)}\n"
    for part, text in sections(rewrite):
        yield f"- {part}: {text}"
    yield ""


def _section(rewrite: Any) -> Iterable[str]:
    yield from _text(rewrite, "##")
    before, after = _run(rewrite.__name__)
    shown = _names(before, after)
    yield "```"
    for title, graph in (("before", before), ("after", after)):
        yield f"# {title}"
        yield from _picture(graph, shown)
    yield "```\n"


def _run(name: str) -> tuple[Graph, Graph]:
    """Returns the graph of an example before and after a pass."""
    passes = select_rewrites([*DEFAULT_REWRITES, name])
    position = [rewrite.__name__ for rewrite in passes].index(name)
    graph = annotate_schemes(read_model(_example(name)), {}, get_scheme("int8"))
    before, _ = run_pipeline(graph, passes[:position])
    after, log = run_pipeline(before, passes[position : position + 1])
    if not log:
        raise ValueError(f"'{name}' does nothing to its example in docs/rewrite_examples.py.")
    return before, after


def _example(name: str) -> keras.Model:
    if name not in EXAMPLES:
        raise ValueError(f"'{name}' has no example in docs/rewrite_examples.py.")
    return EXAMPLES[name]()


def _without(name: str) -> str:
    """Returns the result of an example with all other rewrites."""
    others = [rewrite.__name__ for rewrite in PIPELINE if rewrite.__name__ != name]
    model = _example(name)
    target = TARGETS.get(name)
    make = keras_qat.clone_model
    if target is not None:
        make = functools.partial(keras_qat.quantize_model, target=target)
    usual = _layers(make(model))
    try:
        found = _layers(make(model, rewrites=others))
    except keras_qat.errors.UnsupportedLayerError:
        return "is refused"
    return "is the same" if found == usual else f"{found} instead of {usual}"


def _layers(model: keras.Model) -> str:
    names = [type(layer).__name__ for layer in model.layers]
    return ", ".join(f"`{name}`" for name in names if name != "InputLayer")


def _names(*graphs: Graph) -> dict[str, str]:
    """Returns names without the numbers that Keras counts over the whole process."""
    shown: dict[str, str] = {}
    for name in (name for graph in graphs for name in graph.nodes):
        if name in shown:
            continue
        short = re.sub(r"_\d+", "", name)
        same = sum(re.sub(r"_\d+$", "", other) == short for other in shown.values())
        shown[name] = f"{short}_{same}" if same else short
    return shown


def _picture(graph: Graph, shown: dict[str, str]) -> Iterable[str]:
    lines = [
        (f"{shown[node.name]} = {_expression(node, shown)}", _shapes(node))
        for node in graph.nodes.values()
        if not node.is_input
    ]
    width = max(len(line) for line, _ in lines)
    yield from (f"{line:{width}}  {shapes}" for line, shapes in lines)


def _shapes(node: Node) -> str:
    return " ".join(str(shape[1:]).replace(",)", ")") for shape in node.shapes)


def _expression(node: Node, shown: dict[str, str]) -> str:
    leaves = tree.flatten(node.arguments[0]) + tree.flatten(node.arguments[1])
    operands = [_operand(leaf, shown) for leaf in leaves if not isinstance(leaf, bool | None)]
    head, *others = node.operations
    texts = [f"{label_of(head)}({', '.join([*operands, *_options(head)])})"]
    return " + ".join([*texts, *map(_with_options, others)])


def _with_options(operation: Any) -> str:
    options = ", ".join(_options(operation))
    return label_of(operation) + (f"({options})" if options else "")


def _operand(leaf: Any, shown: dict[str, str]) -> str:
    if isinstance(leaf, Edge):
        return shown[leaf.node] + (f"[{leaf.index}]" if leaf.index else "")
    if isinstance(leaf, slice):
        return ":".join("" if part is None else str(part) for part in (leaf.start, leaf.stop))
    if callable(leaf):
        return f"ops.{leaf.__name__}"
    value = leaf.value if isinstance(leaf, Parameter) else leaf
    if ops.size(value) == 1:
        return f"{float(ops.convert_to_numpy(value).item()):g}"
    return leaf.name if isinstance(leaf, Parameter) else f"constant{tuple(ops.shape(value))}"


def _options(operation: Any) -> Iterable[str]:
    for name in _ARGUMENTS:
        value = getattr(operation, name, None)
        text = getattr(value, "__name__", value)
        if value is not None and value is not True and text not in ("linear", -1, [-1], "valid"):
            yield f"{name}={text}"


if __name__ == "__main__":
    PAGE.write_text(page())
