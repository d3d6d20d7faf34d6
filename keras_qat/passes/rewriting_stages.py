"""The stages that rewrite the user's model, in float, into one node for each layer."""

from __future__ import annotations

from keras_qat.graph.soundness import check_float
from keras_qat.passes import arguments, invariants
from keras_qat.passes.canonicalize import canonicalize
from keras_qat.passes.check_batch import check_batch
from keras_qat.passes.decompose_activations import decompose_activations
from keras_qat.passes.drop_biases import drop_bias
from keras_qat.passes.fold_affines_forward import fold_affines_forward
from keras_qat.passes.fold_batch_norms import fold_batch_norms
from keras_qat.passes.fold_filled_tensors import fold_filled_tensors
from keras_qat.passes.fold_padding import fold_padding
from keras_qat.passes.fold_sample_constants import fold_sample_constants
from keras_qat.passes.fuse_activations import fuse_activations
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.left_out import check_left_out
from keras_qat.passes.merge_equal_operations import merge_equal_operations
from keras_qat.passes.move_batch_first import move_batch_first
from keras_qat.passes.move_channels_last import move_channels_last
from keras_qat.passes.move_normalized_axes import move_normalized_axes
from keras_qat.passes.open_layers import open_layers
from keras_qat.passes.opening import OPENING, inside
from keras_qat.passes.pad_maxima import pad_maxima
from keras_qat.passes.pool_whole_images import pool_whole_images
from keras_qat.passes.recognize_functions import recognize_functions
from keras_qat.passes.remove_identities import remove_identities
from keras_qat.passes.remove_layers import remove_layers
from keras_qat.passes.schemes import (
    annotate_schemes,
    settle_followers,
    settle_without_operator,
)
from keras_qat.passes.split_merges import split_merges
from keras_qat.passes.split_outputs import split_outputs
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
                arguments=inside,
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
