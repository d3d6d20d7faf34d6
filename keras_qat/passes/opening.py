"""The passes that open models and layers into single operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_qat.passes import arguments
from keras_qat.passes.config import Setting
from keras_qat.passes.connect_masks import connect_masks
from keras_qat.passes.drop_biases import drop_bias
from keras_qat.passes.fuse_lstms import fuse_lstms
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.open_drop_ins import open_drop_ins
from keras_qat.passes.split_activations import split_activations
from keras_qat.passes.split_regularizers import split_regularizers
from keras_qat.passes.split_separables import split_separables
from keras_qat.passes.split_volumes import split_volumes
from keras_qat.passes.stages import Step

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


def inside(setting: Setting) -> Mapping[str, Any]:
    """Returns the arguments of `open_layers`."""
    steps = (step.bound(setting) for step in OPENING if step.kind != "named")
    return {"inside": tuple(rewrite for rewrite in steps if rewrite is not None)}
