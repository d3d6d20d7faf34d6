"""The order of all stages and passes, from the model as it was read to the layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keras_qat.errors import InvalidRewriteError
from keras_qat.passes.making_stages import MAKING
from keras_qat.passes.rewriting_stages import REWRITING
from keras_qat.passes.running import Pass
from keras_qat.passes.stages import Stage

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
