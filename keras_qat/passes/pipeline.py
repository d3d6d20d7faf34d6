"""The order of all stages and passes, from the model as it was read to the layers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keras_qat.errors import InvalidRewriteError
from keras_qat.graph.soundness import check_float
from keras_qat.passes import arguments, invariants
from keras_qat.passes.canonicalize import canonicalize
from keras_qat.passes.check_batch import check_batch
from keras_qat.passes.choose_kernels import choose_kernels
from keras_qat.passes.config import Setting
from keras_qat.passes.connect_masks import connect_masks
from keras_qat.passes.decompose_activations import decompose_activations
from keras_qat.passes.drop_biases import drop_bias
from keras_qat.passes.fold_affines_forward import fold_affines_forward
from keras_qat.passes.fold_batch_norms import fold_batch_norms
from keras_qat.passes.fold_filled_tensors import fold_filled_tensors
from keras_qat.passes.fold_padding import fold_padding
from keras_qat.passes.fold_sample_constants import fold_sample_constants
from keras_qat.passes.fuse_activations import fuse_activations
from keras_qat.passes.fuse_lstms import fuse_lstms
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.left_out import check_left_out
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.merge_equal_operations import merge_equal_operations
from keras_qat.passes.move_batch_first import move_batch_first
from keras_qat.passes.move_channels_last import move_channels_last
from keras_qat.passes.move_normalized_axes import move_normalized_axes
from keras_qat.passes.name_outputs import name_outputs
from keras_qat.passes.open_drop_ins import open_drop_ins
from keras_qat.passes.open_layers import open_layers
from keras_qat.passes.pad_maxima import pad_maxima
from keras_qat.passes.pool_whole_images import pool_whole_images
from keras_qat.passes.quantize_inputs import quantize_floats, quantize_inputs
from keras_qat.passes.recognize_functions import recognize_functions
from keras_qat.passes.remove_identities import remove_identities
from keras_qat.passes.remove_layers import remove_layers
from keras_qat.passes.running import Pass
from keras_qat.passes.schemes import (
    annotate_schemes,
    settle_followers,
    settle_without_operator,
)
from keras_qat.passes.separate_ranges import separate_ranges
from keras_qat.passes.split_activations import split_activations
from keras_qat.passes.split_merges import split_merges
from keras_qat.passes.split_outputs import split_outputs
from keras_qat.passes.split_regularizers import split_regularizers
from keras_qat.passes.split_separables import split_separables
from keras_qat.passes.split_volumes import split_volumes
from keras_qat.passes.stages import Stage, Step, verdict
from keras_qat.passes.substitute_activations import check_no_lookups, substitute_activations
from keras_qat.passes.write_affines import write_affines
from keras_qat.passes.write_associative_scans import write_associative_scans
from keras_qat.passes.write_attention import write_attention
from keras_qat.passes.write_compositions import write_compositions
from keras_qat.passes.write_fourier_transforms import write_fourier_transforms
from keras_qat.passes.write_kernels import write_kernels
from keras_qat.passes.write_masks import write_masks
from keras_qat.passes.write_normalizations import write_normalizations
from keras_qat.passes.write_products import write_products
from keras_qat.passes.write_quotients import write_quotients
from keras_qat.passes.write_selections import write_selections
from keras_qat.passes.write_softmaxes import write_softmaxes
from keras_qat.passes.write_sums_as_means import write_sums_as_means

# The passes that run on the graph of the model, and on the operations inside a layer.
OPENING: tuple[Step, ...] = (
    Step(
        inline_models,
        "First: passes then see one flat graph and fuse across nested models.",
    ),
    Step(
        connect_masks,
        "After `inline_models`: masks pass the borders of nested models.",
        "fixed",
    ),
    Step(open_drop_ins, "Before the splits: it makes layers that may have to be split."),
    Step(
        fuse_lstms,
        "After `connect_masks`: the operator takes no mask. Before `open_layers`, which unrolls.",
        arguments=arguments.for_fusing_lstms,
    ),
    Step(drop_bias, "Before the splits: it finds each bias where the user put it.", "named"),
    Step(
        split_separables,
        "Before the other splits: the pointwise part inherits penalty and activation.",
    ),
    Step(
        split_volumes,
        "Before the other splits: the convolution over images inherits penalty and activation.",
    ),
    Step(
        split_regularizers,
        "Before `split_activations`, which puts the activation ahead of the penalty.",
    ),
    Step(
        split_activations,
        "Before all passes that match activations: they are separate nodes from here on.",
        arguments=arguments.for_splitting,
    ),
)


def _inside(setting: Setting) -> Mapping[str, Any]:
    """Returns the arguments of `open_layers`."""
    steps = (step.bound(setting) for step in OPENING if step.kind != "named")
    return {"inside": tuple(rewrite for rewrite in steps if rewrite is not None)}


# The float rewrite: from the user's model to one node for each layer.
REWRITING: tuple[Stage, ...] = (
    Stage(
        "read",
        "The calls of a functional model are its graph. Other models are traced.",
        (),
        (invariants.AS_WRITTEN,),
    ),
    Stage(
        "annotate",
        "Options name layers of the user's model, so they are applied before any is rewritten.",
        (
            Step(
                inline_models,
                "Runs here with `skip_layers` or `overrides`: they name layers of nested models.",
                "fixed",
                arguments.for_inner_names,
            ),
            Step(
                remove_layers,
                "Runs with `skip_layers`. Removed layers need no scheme and no integer form.",
                "fixed",
                arguments.for_removing,
            ),
            Step(
                annotate_schemes,
                "Every later rewrite passes on the scheme of the node that it replaces.",
                "fixed",
                arguments.for_annotating,
            ),
        ),
        (invariants.ONE_INTEGER_TYPE,),
    ),
    Stage(
        "open",
        "Later passes match single operations, so composite operations are opened first.",
        (
            *OPENING,
            Step(
                open_layers,
                "After the splits: it opens only layers that no rule takes, and runs the passes "
                "above inside.",
                arguments=_inside,
            ),
            Step(
                drop_bias,
                "Runs again, for layers inside other layers: `rewrite_log` then names them.",
                "named",
            ),
        ),
        (
            invariants.NO_NESTED_MODEL,
            invariants.NO_SEPARABLE,
            invariants.LINEAR_KERNELS,
        ),
    ),
    Stage(
        "simplify",
        "Functions are recognized before `decompose` takes their arithmetic apart.",
        (
            Step(
                write_associative_scans,
                "First: the operations of the function of a scan are like any others.",
            ),
            Step(
                move_channels_last,
                "After `open_layers`, which may uncover layouts. Before `move_normalized_axes`: it "
                "transposes each normalization that is left.",
            ),
            Step(
                move_normalized_axes, "After `open_layers`, which may uncover batch normalizations."
            ),
            Step(
                remove_identities,
                "Before patterns are matched, so that no identity stands between their nodes.",
            ),
            Step(
                recognize_functions,
                "Before `write_affines` and `write_quotients` rewrite the arithmetic that it "
                "matches.",
            ),
            Step(
                substitute_activations,
                'Runs with `activations="substitute"`, after functions written by hand are known.',
                "fixed",
                arguments.for_stand_ins,
            ),
            Step(
                merge_equal_operations,
                "After `recognize_functions`: recognized functions may be equal.",
            ),
            Step(
                decompose_activations,
                "After `recognize_functions`, whose swishes it writes as products.",
                arguments=arguments.for_decomposing,
            ),
        ),
        (invariants.LAST_AXIS,),
    ),
    Stage(
        "decompose",
        "Operations without a LiteRT operator are written in operations with one, before fusing.",
        (
            Step(
                move_batch_first,
                "Before `split_outputs`, which takes tensors with the batch as first axis.",
            ),
            Step(pad_maxima, "Before `write_compositions`. It depends on no other pass."),
            Step(
                fold_sample_constants,
                "Before passes that compose arithmetic: it matches what `open_layers` makes.",
            ),
            Step(
                write_fourier_transforms,
                "Before `fold_filled_tensors`, which hides imaginary parts of zeros. Before "
                "`write_kernels`, which takes the products.",
            ),
            Step(
                fold_filled_tensors,
                "Before passes that match arithmetic and selections with constants.",
            ),
            Step(
                write_compositions,
                "Before passes that rewrite the means, products and quotients that it makes.",
            ),
            Step(
                write_selections,
                "After `write_compositions`, which writes casts to booleans as comparisons.",
            ),
            Step(split_outputs, "Before passes that expect one output for each node."),
            Step(
                write_normalizations,
                "Before `write_affines`, which composes the factors and offsets that it makes.",
            ),
            Step(
                write_masks,
                "Before `write_affines`, which would take the addition of a mask.",
            ),
            Step(
                write_attention,
                "Before `write_products`, which puts the axes of its products in order.",
            ),
            Step(
                write_quotients,
                "Before `write_affines`: the products by constants that it makes are affine.",
            ),
            Step(write_softmaxes, "After `write_attention`, whose softmax may be over any axis."),
            Step(
                write_kernels,
                "Before `write_products`, which takes the products that have no kernel.",
            ),
            Step(
                write_products,
                "After `write_kernels` and `write_attention`, whose products it takes.",
            ),
            Step(
                canonicalize,
                "After all passes that write transposes and reshapes, before `write_affines` and "
                "the folds, which look at neighbors.",
            ),
            Step(
                write_sums_as_means, "Before `write_affines`, which takes the factor that it makes."
            ),
            Step(write_affines, "After all passes that make arithmetic with constants."),
            Step(
                split_merges,
                "After `write_affines`, which takes additions and products of constants.",
            ),
            Step(pool_whole_images, "Before layers fuse. It depends on no other pass."),
        ),
        (invariants.ONE_OUTPUT, invariants.MERGES_OF_TWO),
    ),
    Stage(
        "fuse",
        "All operations are known by now, so operations that can be fused are adjacent.",
        (
            Step(
                fold_padding,
                "Before `fold_batch_norms`: it replaces a convolution that is not yet fused.",
            ),
            Step(
                settle_followers,
                "Runs with `overrides`. It decides what may be fused, so it comes before fusing.",
                "fixed",
                arguments.for_followers,
            ),
            Step(
                fold_batch_norms,
                "Before `fuse_activations`: the normalization stands before the activation.",
            ),
            Step(
                fold_affines_forward,
                "After `fold_batch_norms`: it folds affines that no layer before them absorbed.",
            ),
            Step(fuse_activations, "Last: the activation is the last operation of a fused layer."),
        ),
        (invariants.FUSED_HAVE_SLICES,),
    ),
    Stage(
        "settle",
        "Schemes and refusals depend on the nodes that are left after fusing.",
        (
            Step(
                settle_without_operator,
                "Runs with `overrides`, once fusing has shown which nodes make operators.",
                "fixed",
                arguments.for_no_operator,
            ),
            Step(
                verdict(check_float),
                "Quantized layers inside nested models and custom layers are visible by now.",
                "fixed",
            ),
            Step(
                verdict(check_batch),
                "After `canonicalize`: reshapes that cancel each other are gone.",
                "fixed",
            ),
            Step(
                verdict(check_no_lookups),
                "Runs if `activations` forbids lookups, for the functions that are left.",
                "fixed",
                arguments.for_lookups,
            ),
            Step(
                verdict(check_left_out),
                "Runs with `rewrites`, so that an error can name the rewrite that is missing.",
                "fixed",
                arguments.for_left_out,
            ),
            Step(
                annotate_schemes,
                "Runs for `clone_model` with `overrides`, which decide what is fused: all of a "
                "clone is in float.",
                "fixed",
                arguments.for_clones,
            ),
        ),
        (invariants.ONE_INTEGER_TYPE,),
    ),
)

# The stages from one node for each layer to the layers themselves.
MAKING: tuple[Stage, ...] = (
    Stage(
        "make layers",
        "After the last rewrite: a layer is made once for all operations that it computes.",
        (Step(make_layers, "The only pass of its stage.", "fixed", arguments.for_making),),
        (invariants.ONE_LAYER_EACH,),
    ),
    Stage(
        "insert conversions",
        "Layers know whether they take ids, stay in float, or have a prescribed range. Runs for "
        "`quantize_model` and `check`.",
        (
            Step(
                quantize_inputs,
                "First: the layers after it see integers.",
                "fixed",
                arguments.for_inputs,
            ),
            Step(
                quantize_floats,
                "After `quantize_inputs`, which lets float layers take inputs as they are.",
                "fixed",
                arguments.for_conversions,
            ),
            Step(
                separate_ranges,
                "Last: only now is it known which tensors share a range.",
                "fixed",
                arguments.for_conversions,
            ),
        ),
        (invariants.CONVERTED, invariants.RANGED),
    ),
    Stage(
        "name outputs",
        "After the last pass that changes which layer makes an output.",
        (Step(name_outputs, "The only pass of its stage.", "fixed"),),
        (),
    ),
    Stage(
        "choose kernels",
        "Last: every layer has been made.",
        (Step(choose_kernels, "The only pass of its stage.", "fixed", arguments.for_kernels),),
        (),
    ),
)

STAGES: tuple[Stage, ...] = (*REWRITING, *MAKING)
_STEPS = tuple(step for stage in STAGES for step in stage.steps)

# The rewrites that run by default, unless `rewrites` leaves them out.
PIPELINE: tuple[Pass, ...] = tuple(step.rewrite for step in _STEPS if step.kind == "default")

# Rewrites that change the function run only if `rewrites` names them.
OPTIONAL: tuple[Pass, ...] = tuple(
    dict.fromkeys(step.rewrite for step in _STEPS if step.kind == "named")
)

# The names of the default rewrites, for `rewrites=[*DEFAULT_REWRITES, "drop_bias"]`.
DEFAULT_REWRITES: tuple[str, ...] = tuple(rewrite.__name__ for rewrite in PIPELINE)


def select_rewrites(names: Sequence[str] | None) -> tuple[Pass, ...]:
    """Returns the passes with the given names, in the order of the pipeline.

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
    known = {step.name: step.rewrite for step in _STEPS if step.kind != "fixed"}
    is_list = isinstance(names, Iterable) and not isinstance(names, str)
    wanted = list(names) if is_list else [names]
    unknown = [name for name in wanted if not is_list or name not in list(known)]
    if unknown:
        raise InvalidRewriteError(
            "Unknown rewrite.",
            received=repr(unknown[0]),
            expected=f"a list of names among {list(DEFAULT_REWRITES)}, and the rewrites that "
            f"change the function, {[rewrite.__name__ for rewrite in OPTIONAL]}",
            fix="Leave `rewrites` out for all of the first, or write "
            "`[*keras_qat.DEFAULT_REWRITES, ...]` for more. docs/rewrites.md explains each.",
        )
    return tuple(rewrite for name, rewrite in known.items() if name in wanted)
