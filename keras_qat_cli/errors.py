"""What the command line itself refuses, before or beside the library."""

from __future__ import annotations


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
