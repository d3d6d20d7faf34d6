"""The arguments that steps take from the options, or None if a step does not run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from keras_qat.layers import QLSTM
from keras_qat.passes.config import Setting
from keras_qat.passes.pixel_inputs import pixel_inputs
from keras_qat.targets import get_target

Arguments = Mapping[str, Any] | None


def for_inner_names(setting: Setting) -> Arguments:
    """Returns no arguments if options name layers of nested models, else None."""
    return {} if setting.config.skip_layers or setting.schemes else None


def for_removing(setting: Setting) -> Arguments:
    """Returns the arguments of `remove_layers`."""
    names = setting.config.skip_layers
    return {"names": names} if names else None


def for_splitting(setting: Setting) -> Arguments:
    """Returns the arguments of `split_activations`."""
    return {"split": setting.split}


def for_fusing_lstms(setting: Setting) -> Arguments:
    """Returns no arguments if the target prefers the operator of an LSTM, else None."""
    target = get_target(cast(str, setting.config.target))
    return None if target.preferred.isdisjoint(QLSTM.operators) else {}


def for_annotating(setting: Setting) -> Arguments:
    """Returns the arguments of `annotate_schemes`."""
    default = setting.default
    return None if default is None else {"schemes": setting.schemes, "default": default}


def for_clones(setting: Setting) -> Arguments:
    """Returns the arguments of `annotate_schemes` that move all nodes to float."""
    is_moved = setting.config.scheme is None and setting.default is not None
    return {"schemes": {}, "default": None} if is_moved else None


def for_followers(setting: Setting) -> Arguments:
    """Returns the arguments of `settle_followers`."""
    return {"named": setting.named} if setting.schemes else None


def for_no_operator(setting: Setting) -> Arguments:
    """Returns the arguments of `settle_without_operator`."""
    return {"default": setting.default} if setting.schemes else None


def for_stand_ins(setting: Setting) -> Arguments:
    """Returns no arguments if activations are substituted, else None."""
    return {} if setting.config.activations == "substitute" else None


def for_decomposing(setting: Setting) -> Arguments:
    """Returns no arguments if activations are decomposed, else None."""
    return None if setting.config.activations == "lookup" else {}


def for_lookups(setting: Setting) -> Arguments:
    """Returns the arguments of `check_no_lookups`."""
    refuses = setting.config.activations in ("substitute", "error")
    return {"scheme": setting.default} if refuses else None


def for_left_out(setting: Setting) -> Arguments:
    """Returns the arguments of `check_left_out`."""
    names = setting.config.rewrites
    return None if names is None else {"rewrites": names, "left_out": setting.left_out}


def for_making(setting: Setting) -> Arguments:
    """Returns the arguments of `make_layers`."""
    target = get_target(cast(str, setting.config.target))
    return {"lookup": setting.config.activations == "lookup", "target": target}


def for_kernels(setting: Setting) -> Arguments:
    """Returns the arguments of `choose_kernels`."""
    return {"target": setting.config.target}


def for_conversions(setting: Setting) -> Arguments:
    """Returns the arguments of the passes that insert conversions."""
    scheme = setting.config.scheme
    return None if scheme is None else {"scheme": scheme}


def for_widths(setting: Setting) -> Arguments:
    """Returns no arguments if the layers become integers, else None."""
    return None if setting.config.scheme is None else {}


def for_inputs(setting: Setting) -> Arguments:
    """Returns the arguments of `quantize_inputs`."""
    scheme, graph = setting.config.scheme, setting.rewritten
    if scheme is None or graph is None:
        return None
    stats, pixels = setting.config.quantized_input_stats, pixel_inputs(graph)
    return {"scheme": scheme, "quantized_input_stats": stats, "pixels": pixels}
