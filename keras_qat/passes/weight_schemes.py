"""Which layers get weights of another scheme than the rest, once the graph is rewritten."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from keras_qat.graph import Graph
from keras_qat.passes.inline_models import inline_models
from keras_qat.passes.pipeline import Rewrite
from keras_qat.scheme import Scheme


def follow_schemes(
    before: Graph,
    after: Graph,
    log: Iterable[Rewrite],
    schemes: Mapping[int, Scheme | None],
    default: Scheme,
) -> dict[str, Scheme]:
    """Follows the operations of other integer schemes through what was rewritten.

    Such layers take and make the same integers as the others, so that no `Border` keeps them
    apart: they are rewritten and fused like any other, and the scheme is that of what has the
    weights, the first operation of a node.

    Args:
        before: The graph before the rewrites.
        after: The graph after them.
        log: What was rewritten.
        schemes: Scheme by the `id` of the operation, None for float.
        default: Scheme of all other operations.

    Returns:
        Scheme by the name of the node in `after`, for those that have another than the default.
    """
    sources = [node for node in inline_models(before).nodes.values() if not node.is_input]
    followed: dict[str, Scheme | None] = {}
    for node in sources:
        if id(node.head) in schemes:
            followed |= dict.fromkeys(_successors(node.name, log), schemes[id(node.head)])
    own = {id(node.head): schemes.get(id(node.head), default) for node in sources}
    found = {
        # What a pass made is none of the user's operations.
        node.name: own[id(node.head)] if id(node.head) in own else followed.get(node.name)
        for node in after.nodes.values()
    }
    return {name: each for name, each in found.items() if each not in (None, default)}


def _successors(name: str, log: Iterable[Rewrite]) -> set[str]:
    names = {name}
    for rewrite in log:
        if rewrite.rewrite != inline_models.__name__ and names & set(rewrite.layers_in):
            names = (names - set(rewrite.layers_in)) | set(rewrite.layers_out)
    return names
