"""Output of the command line: results, errors, progress."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_SECONDS_BETWEEN_LINES = 10
_WIDTH = 100


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a command.

    Attributes:
        text: The result as text.
        data: The result as values, which `--json` prints.
        code: Exit code, 0 or 1.
    """

    text: str
    data: dict[str, Any]
    code: int = 0


def to_json(data: Any) -> str:
    """Formats values as JSON. Floats that JSON cannot represent become null."""
    return json.dumps(_plain(data), indent=2, allow_nan=False)


def error_parts(error: BaseException) -> dict[str, str]:
    """Splits an error into its parts.

    Args:
        error: An error of the library, of the command line, or any other.

    Returns:
        The texts of `what`, `layer`, `expected`, `received` and `fix` that the error has.
    """
    what = getattr(error, "what", None) or str(error) or type(error).__name__
    path = getattr(error, "path", None)
    named = {"what": what if path is None else f"{what} File: '{path}'."}
    for name in ("layer", "expected", "received", "fix"):
        if getattr(error, name, None) is not None:
            named[name] = str(getattr(error, name))
    return named


def error_block(error: BaseException) -> str:
    """Formats an error as one block of lines.

    Args:
        error: The error.

    Returns:
        The lines.

    Example:
    >>> from keras_qat_cli.errors import UsageError
    >>> print(error_block(UsageError("There is no such loss.", received="'mes'")))
    error: There is no such loss.
      received: 'mes'
    """
    parts = error_parts(error)
    lines = [f"error: {parts.pop('what')}"]
    for name, text in parts.items():
        label = "to fix it" if name == "fix" else name
        lines += textwrap.wrap(
            f"  {label}: {text}", _WIDTH, subsequent_indent="    ", break_on_hyphens=False
        )
    return "\n".join(lines)


def is_terminal() -> bool:
    """Whether stderr is a terminal."""
    return sys.stderr.isatty()


def say(line: str) -> None:
    """Writes a line to stderr, for messages that are not results."""
    print(line, file=sys.stderr, flush=True)


def tracked(items: Iterable[Any], label: str, total: int | None = None) -> Iterator[Any]:
    """Yields items and shows progress: a bar on a terminal, plain lines elsewhere.

    Args:
        items: The items.
        label: A name for the work.
        total: The number of items, or None if unknown.

    Yields:
        The items.
    """
    yield from (_with_bar if is_terminal() else _with_lines)(items, label, total)


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], texts: int) -> str:
    """Formats a table.

    Args:
        title: The title above the table.
        headings: One heading for each column.
        rows: The cells of each row.
        texts: The number of text columns. The other columns are numbers, aligned to the right.

    Returns:
        The text.
    """
    import io

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    written = Table(title=Text(title))
    for position, heading in enumerate(headings):
        written.add_column(
            heading, justify="left" if position < texts else "right", overflow="fold"
        )
    for row in rows:
        written.add_row(*map(Text, row))
    file = io.StringIO()
    Console(file=file, width=_WIDTH).print(written)
    return file.getvalue().rstrip("\n")


def _with_bar(items: Iterable[Any], label: str, total: int | None) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    start = time.monotonic()
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(label, total=total, rate="")
        for done, item in enumerate(items, 1):
            yield item
            rate = done / max(time.monotonic() - start, 1e-9)
            progress.update(task, advance=1, rate=f"{rate:.1f}/s")


def _with_lines(items: Iterable[Any], label: str, total: int | None) -> Iterator[Any]:
    """Yields items, and prints the progress from time to time."""
    start = last = now = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            say(_line(label, done, total, now - start))
    if not (done == total and last == now):
        say(_line(label, done, done, time.monotonic() - start))


def _line(label: str, done: int, total: int | None, seconds: float) -> str:
    rate = done / max(seconds, 1e-9)
    line = f"{label}: {done} of {'?' if total is None else total} batches, {rate:.1f}/s"
    if total is not None and done < total:
        return f"{line}, {(total - done) / rate:.0f} s left"
    return f"{line}, {seconds:.0f} s" if done == total else line


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
