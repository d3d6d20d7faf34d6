"""What the command line itself refuses, before or beside the library."""

from __future__ import annotations

import re
import textwrap

# What TensorFlow says around the sentence that says what happened.
_NOISE = re.compile(
    r"""^\s*File\ ".*$              # each line of the stack that made the graph
    |^Graph\ execution\ error:$
    |^Detected\ at\ node.*$
    |^\s*\[\[\{\{node[^\]]*\]\]
    |\{\{function_node[^}]*\}\}
    |\[Op:[^\]]*\](\ name:.*)?
    """,
    flags=re.MULTILINE | re.VERBOSE,
)


def said_by(error: BaseException) -> str:
    """What an error of a library says, without where in it that was.

    Args:
        error: An error of Keras or TensorFlow, say.

    Returns:
        One line.

    Example:
    >>> said_by(ValueError("{{function_node decode}} Input is empty. [Op:DecodeImage] name: "))
    'Input is empty.'
    """
    text = " ".join(_NOISE.sub("", str(error)).split())
    return textwrap.shorten(text, 600, placeholder=" ...") or type(error).__name__


class UsageError(Exception):
    """The command cannot be carried out as it was given.

    Args:
        what: One sentence that says what happened.
        received: What was received.
        expected: What would have been right.
        fix: One concrete thing to do about it.

    Attributes:
        what: As given; so are `received`, `expected` and `fix`.
    """

    def __init__(
        self,
        what: str,
        *,
        received: object = None,
        expected: str | None = None,
        fix: str | None = None,
    ):
        super().__init__(what)
        self.what, self.received, self.expected, self.fix = what, received, expected, fix
