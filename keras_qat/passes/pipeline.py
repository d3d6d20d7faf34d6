"""The order of the passes, and the record of what each one rewrote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from keras_qat.errors import InvalidGraphError, InvalidRewriteError, KerasQatError
from keras_qat.graph import Graph
from keras_qat.graph.statements import first_line
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
from keras_qat.passes.provenance import Rewrite, check_provenance, rewrites_of, untouched
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


def run_pass(rewrite: Pass, graph: Graph) -> Graph:
    """Runs a pass, and checks the graph that it makes.

    Args:
        rewrite: The pass.
        graph: The graph.

    Returns:
        The graph that the pass made of it. The `sources` of its nodes are nodes of `graph`.

    Raises:
        InvalidGraphError: If the pass fails, or leaves the graph inconsistent.
    """
    name = name_of(rewrite)
    try:
        made = rewrite(untouched(graph)).check(after=name)
        check_provenance(name, graph, made)
        return made
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
        before, graph = graph, run_pass(rewrite, graph)
        log += rewrites_of(name_of(rewrite), before, graph)
    return graph, tuple(log)
