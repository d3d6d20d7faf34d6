"""Parses the command line, runs a command, and returns its exit code."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

from keras_qat_cli.commands import (
    check,
    compare,
    demo,
    export,
    inspect,
    quantize,
    sensitivity,
    verify,
)
from keras_qat_cli.console import Outcome, error_block, error_parts, say, to_json
from keras_qat_cli.errors import UsageError

COMMANDS = {
    "check": check,
    "sensitivity": sensitivity,
    "quantize": quantize,
    "export": export,
    "verify": verify,
    "inspect": inspect,
    "compare": compare,
    "demo": demo,
}
BAD_INPUT, UNEXPECTED, INTERRUPTED, PIPE_CLOSED = 2, 3, 130, 141  # 128 and the signal
EXIT_CODES = """\
exit codes:
  0    success
  1    a negative result: errors of `check`, a file that is not exact, a threshold that is missed
  2    the command, a file or the data is invalid; the message says what to do
  3    an unexpected error; --debug shows where
  130  interrupted

Results go to stdout, as JSON with --json; progress, warnings and errors go to stderr.
"""


class _Parser(argparse.ArgumentParser):
    """A parser that raises an error where argparse would end the process."""

    def error(self, message):
        """Prints the usage and raises the message."""
        self.print_usage(sys.stderr)
        raise UsageError(message)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the whole command line."""
    common = _Parser(add_help=False)
    common.add_argument("--json", action="store_true", help="print the result as JSON")
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    whole = _Parser(
        "keras-qat",
        description="Quantizes Keras models, exports them to LiteRT, compares what they compute.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    whole.add_argument(
        "--version", action="version", version=importlib.metadata.version("keras-qat")
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        added = commands.add_parser(
            name,
            parents=[common],
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(added)
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        arguments: The arguments. By default the arguments of the process.

    Returns:
        The exit code.
    """
    given = sys.argv[1:] if arguments is None else arguments
    printed = io.StringIO()  # argparse ignores that it cannot write
    try:
        with contextlib.redirect_stdout(printed):
            options = parser().parse_args(given)
    except SystemExit:  # argparse printed the help
        print(printed.getvalue(), end="")
        return 0
    except UsageError as error:
        return _failed(error, argparse.Namespace(json="--json" in given, debug="--debug" in given))
    try:
        # Output of Keras is not a result.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            outcome: Outcome = COMMANDS[options.command].run(options)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except Exception as error:  # last chance for a readable message
        return _failed(error, options)
    print(to_json(outcome.data) if options.json else outcome.text)
    return outcome.code


def run() -> None:
    """Entry point: `keras-qat`, `python -m keras_qat`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = main()
        if sys.stdout is not None:  # stdout may be closed
            sys.stdout.flush()
    except BrokenPipeError:  # such as `| head`
        code = PIPE_CLOSED
        _discard_output()
    except OSError as error:
        say(f"error: The result cannot be written: {error.strerror}.")
        code = BAD_INPUT
        _discard_output()
    sys.exit(code)


def _discard_output() -> None:
    """Redirects stdout to nowhere, because Python tries to write pending output when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _failed(error: Exception, options: argparse.Namespace) -> int:
    if options.debug:
        traceback.print_exception(error)
    is_expected = _is_expected(error)
    parts = {"type": type(error).__name__, **error_parts(error)}
    say(error_block(error))
    if not is_expected:
        say(f"  This {parts['type']} was not expected; --debug shows where it was raised.")
    if options.json:
        print(to_json({"error": parts}))
    return BAD_INPUT if is_expected else UNEXPECTED


def _is_expected(error: Exception) -> bool:
    """Whether an error concerns the input of the command."""
    if isinstance(error, UsageError | OSError):
        return True
    errors = sys.modules.get("keras_qat.errors")  # not imported: not an error of the library
    return errors is not None and isinstance(error, errors.KerasQatError)


def _show_warning(message, category, filename, lineno, file=None, line=None):
    say(f"warning: {message}")
