"""Runs Python programs in forks of a process that has imported Keras, so that each starts at once.

TensorFlow takes seconds to import, and can be forked until it is first used. `tests.processes`
starts `python -m tests.forks`. For each line of its input, a JSON object of `Popen`'s arguments,
it runs a program and prints the exit status.
"""

import atexit
import json
import os
import runpy
import sys
import traceback
import types

import keras  # noqa: F401, imports TensorFlow too


def serve():
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            _run(**request)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(arguments, stdout, stderr, cwd, env):
    """Runs a program in this process, as `python` with these arguments does, and exits."""
    for number, path, mode in ((0, os.devnull, "r"), (1, stdout, "w"), (2, stderr, "w")):
        with open(path, mode) as file:
            os.dup2(file.fileno(), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    status = _status(*arguments)
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _status(first, *rest):
    """Runs code after -c, a module after -m, or a script, and returns the exit status."""
    try:
        if first == "-c":
            sys.argv = [first, *rest[1:]]
            sys.modules["__main__"] = main = types.ModuleType("__main__")
            exec(compile(rest[0], "<string>", "exec"), vars(main))
        elif first == "-m":
            sys.argv = list(rest)
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        else:
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        return int(bool(error.code)) if not isinstance(error.code, int) else error.code
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    serve()
