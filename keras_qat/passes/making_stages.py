"""The stages that make the layers of the new model."""

from __future__ import annotations

from keras_qat.passes import arguments, invariants
from keras_qat.passes.choose_kernels import choose_kernels
from keras_qat.passes.convert_widths import convert_widths
from keras_qat.passes.make_layers import make_layers
from keras_qat.passes.name_outputs import name_outputs
from keras_qat.passes.quantize_inputs import quantize_floats, quantize_inputs
from keras_qat.passes.separate_ranges import separate_ranges
from keras_qat.passes.stages import Stage, Step

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
                convert_widths,
                "After `quantize_floats`: it compares the types of integers.",
                "fixed",
                arguments.for_widths,
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
