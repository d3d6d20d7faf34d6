"""The order of the passes, and the record of what each one rewrote."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence

from keras_qat.errors import InvalidGraphError, InvalidRewriteError, KerasQatError
from keras_qat.graph import Graph, Node, label_of
from keras_qat.graph.statements import first_line
from keras_qat.layers.functions import function_of
from keras_qat.passes.decompose_activations import decompose_activations
from keras_qat.passes.drop_biases import drop_bias
from keras_qat.passes.fold_affines_forward import fold_affines_forward
from keras_qat.passes.fold_batch_norms import fold_batch_norms
from keras_qat.passes.fold_padding import fold_padding
from keras_qat.passes.fuse_activations import fuse_activations
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.merge_equal_operations import merge_equal_operations
from keras_qat.passes.move_normalized_axes import move_normalized_axes
from keras_qat.passes.move_reshapes import move_reshapes
from keras_qat.passes.open_drop_ins import open_drop_ins
from keras_qat.passes.open_layers import open_layers
from keras_qat.passes.pool_whole_images import pool_whole_images
from keras_qat.passes.recognize_functions import recognize_functions
from keras_qat.passes.remove_identities import remove_identities
from keras_qat.passes.split_activations import split_activations
from keras_qat.passes.split_merges import split_merges
from keras_qat.passes.split_outputs import split_outputs
from keras_qat.passes.split_regularizers import split_regularizers
from keras_qat.passes.split_separables import split_separables
from keras_qat.passes.write_affines import write_affines
from keras_qat.passes.write_attention import write_attention
from keras_qat.passes.write_compositions import write_compositions
from keras_qat.passes.write_kernels import write_kernels
from keras_qat.passes.write_normalizations import write_normalizations
from keras_qat.passes.write_products import write_products
from keras_qat.passes.write_quotients import write_quotients
from keras_qat.passes.write_softmaxes import write_softmaxes
from keras_qat.passes.write_sums_as_means import write_sums_as_means

Pass = Callable[[Graph], Graph]

# The float rewrite: from the user's model to one node for each operator.
PIPELINE: tuple[Pass, ...] = (
    inline_models,
    open_drop_ins,
    split_separables,
    split_regularizers,
    split_activations,
    open_layers,
    move_normalized_axes,
    remove_identities,
    recognize_functions,
    merge_equal_operations,
    decompose_activations,
    write_compositions,
    split_outputs,
    write_normalizations,
    write_attention,
    write_quotients,
    write_softmaxes,
    write_kernels,
    write_products,
    move_reshapes,
    write_sums_as_means,
    write_affines,
    split_merges,
    pool_whole_images,
    fold_padding,
    fold_batch_norms,
    fold_affines_forward,
    fuse_activations,
)

# What changes the function runs only if it is named, as soon as the layers of the model are seen.
OPTIONAL: tuple[Pass, ...] = (drop_bias,)
_BEFORE_OPTIONAL = PIPELINE.index(open_drop_ins) + 1

# The names of what runs if none are given, for `rewrites=[*DEFAULT_REWRITES, "drop_bias"]`.
DEFAULT_REWRITES: tuple[str, ...] = tuple(rewrite.__name__ for rewrite in PIPELINE)


@dataclasses.dataclass(frozen=True)
class Rewrite:
    """One thing that a pass did.

    Attributes:
        rewrite: Name of the pass.
        layers_in: Names of the operations it took.
        layers_out: Names of the nodes they became.
        functions: What an element-wise function became, such as `"softplus -> relu"`.
    """

    rewrite: str
    layers_in: tuple[str, ...]
    layers_out: tuple[str, ...]
    functions: str = ""

    def __str__(self):
        functions = f" ({self.functions})" if self.functions else ""
        names = f"{' + '.join(self.layers_in)} -> {' + '.join(self.layers_out)}"
        return f"{self.rewrite}: {names}{functions}"


def name_of(rewrite: Pass) -> str:
    """Returns the name of a pass, which may be a `functools.partial` of a function."""
    return getattr(rewrite, "func", rewrite).__name__


def select_rewrites(names: Sequence[str] | None) -> tuple[Pass, ...]:
    """Returns the passes of some names, in the order of the pipeline.

    Args:
        names: Names of passes, optional ones too; None for all of the pipeline.

    Raises:
        InvalidRewriteError: If no pass has one of the names.

    Example:
    >>> [rewrite.__name__ for rewrite in select_rewrites(["fuse_activations", "inline_models"])]
    ['inline_models', 'fuse_activations']
    """
    if names is None:
        return PIPELINE
    passes = (*PIPELINE[:_BEFORE_OPTIONAL], *OPTIONAL, *PIPELINE[_BEFORE_OPTIONAL:])
    known = {rewrite.__name__: rewrite for rewrite in passes}
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    wanted = list(names) if is_list else [names]
    unknown = [name for name in wanted if not is_list or name not in list(known)]
    if unknown:
        raise InvalidRewriteError(
            "Unknown rewrite.",
            received=repr(unknown[0]),
            expected=f"a list of names among {list(DEFAULT_REWRITES)}, and of those that change "
            f"the function, {[rewrite.__name__ for rewrite in OPTIONAL]}",
            fix="docs/rewrites.md says what each one does; leave `rewrites` out for all of the "
            "first, and write `[*keras_qat.DEFAULT_REWRITES, ...]` for more.",
        )
    return tuple(rewrite for name, rewrite in known.items() if name in wanted)


def run_pass(rewrite: Pass, graph: Graph) -> tuple[Graph, Graph]:
    """Runs a pass, and checks the graph that it makes.

    Args:
        rewrite: The pass.
        graph: The graph.

    Returns:
        The graph itself, and the graph that the pass made of it.

    Raises:
        InvalidGraphError: If the pass fails, or leaves the graph inconsistent.
    """
    name = name_of(rewrite)
    try:
        return graph, rewrite(graph).check(after=name)
    except KerasQatError:
        raise
    except Exception as error:  # a defect here, or in what the user registered
        raise InvalidGraphError(
            f"The stage '{name}' fails on this model.",
            layer=graph.name,
            received=f"{type(error).__name__}: {first_line(error)}",
            fix="This is a defect of the package, unless a function or layer that you registered "
            "raised it: please report it with the model.",
        ) from error


def run_pipeline(graph: Graph, passes: Sequence[Pass]) -> tuple[Graph, tuple[Rewrite, ...]]:
    """Runs passes in order, checking the graph after each.

    Args:
        graph: The graph.
        passes: The passes.

    Returns:
        The rewritten graph, and what was rewritten.

    Raises:
        InvalidGraphError: If a pass fails, or leaves the graph inconsistent.
    """
    log: list[Rewrite] = []
    for rewrite in passes:
        before, graph = run_pass(rewrite, graph)
        log += compare_graphs(name_of(rewrite), before, graph)
    return graph, tuple(log)


def compare_graphs(name: str, before: Graph, after: Graph) -> list[Rewrite]:
    """Lists what a pass rewrote.

    Args:
        name: Name of the pass.
        before: The graph it took.
        after: The graph it returned.

    Returns:
        One `Rewrite` for each set of nodes that became others.
    """
    old = {key: node for key, node in before.nodes.items() if not _same(node, after.nodes.get(key))}
    new = {key: node for key, node in after.nodes.items() if not _same(node, before.nodes.get(key))}
    owner = {id(op): key for key, node in new.items() for op in node.operations}
    taken: dict[str, list[str]] = {key: [] for key in new}
    gone = []
    for key, node in old.items():
        # Calls of a shared layer have their operations in common: the nearest node comes first.
        sources = [edge.node for edge in node.inputs]
        near = (key, *sources, *(owner[id(op)] for op in node.operations if id(op) in owner))
        target = next((name for name in near if _shares_operation(node, new.get(name))), None)
        if target is None and key in new:
            target = key  # written anew, under its name
        (gone if target is None else taken[target]).append(key)
    added = tuple(key for key, sources in taken.items() if not sources)
    rewrites = []
    for target, sources in taken.items():
        if sources:
            made = (target, *_split_off(target, added, old, new))
            functions = _functions([old[key] for key in sources], [new[key] for key in made])
            rewrites.append(Rewrite(name, tuple(sources), made, functions))
    listed = {key for rewrite in rewrites for key in rewrite.layers_out}
    rest = tuple(key for key in added if key not in listed)
    if gone:
        return [*rewrites, Rewrite(name, tuple(gone), rest)]
    sources = [(new[key].inputs[0].node, key) for key in rest]
    return rewrites + [Rewrite(name, (source,), (source, key)) for source, key in sources]


def _functions(before: Sequence[Node], after: Sequence[Node]) -> str:
    """What a function of one tensor became; nothing for what was something else."""
    function = function_of(before[0].head) if len(before) == 1 else None
    # The last operation of what is written in its place has the node's name.
    made = [label_of(node.head).removeprefix("ops.") for node in (*after[1:], after[0])]
    return "" if function is None else f"{function.name} -> {' + '.join(made)}"


def _same(node: Node, other: Node | None) -> bool:
    return (
        other is not None
        and node.operations == other.operations
        and node.activation_split == other.activation_split
        and node.input_affine is other.input_affine
        and len(node.inputs) == len(other.inputs)
    )


def _shares_operation(node: Node, other: Node | None) -> bool:
    return other is not None and any(op in other.operations for op in node.operations)


def _named_after(key: str, names: Iterable[str]) -> str | None:
    """The name that another one is made of, such as `conv` for `conv_relu`."""
    return max((name for name in names if key.startswith(f"{name}_")), key=len, default=None)


def _split_off(
    target: str, added: tuple[str, ...], old: dict[str, Node], new: dict[str, Node]
) -> list[str]:
    """The new nodes split off a node: behind it; before it if it takes fewer, or is another."""
    node, before = new[target], old.get(target, new[target])
    if _shares_operation(before, node) and len(before.inputs) == len(node.inputs):
        return [key for key in added if any(edge.node == target for edge in new[key].inputs)]
    makers = {key: _named_after(key, set(new).difference(added)) for key in added}
    if target in makers.values():
        return [key for key in added if makers[key] == target]
    found = [target]
    for key in reversed([key for key in added if makers[key] is None]):
        if any(edge.node == key for name in found for edge in new[name].inputs):
            found.insert(1, key)
    return found[1:]
