"""Usage errors of the command line."""

from __future__ import annotations

import re
import textwrap

# Parts of TensorFlow's messages other than the sentence that names the problem.
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
    """Returns the message of a library's error, without its location in the library.

    Args:
        error: An error, for example of Keras or TensorFlow.

    Returns:
        One line.

    Example:
    >>> said_by(ValueError("{{function_node decode}} Input is empty. [Op:DecodeImage] name: "))
    'Input is empty.'
    """
    text = " ".join(_NOISE.sub("", str(error)).split())
    return textwrap.shorten(text, 600, placeholder=" ...") or type(error).__name__


class UsageError(Exception):
    """The command cannot be carried out with its arguments.

    Args:
        what: One sentence that names the problem.
        received: The received value.
        expected: The expected value.
        fix: One concrete remedy.

    Attributes:
        what: The argument `what`. `received`, `expected` and `fix` are attributes too.
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
