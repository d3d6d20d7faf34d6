"""Damaged files, equal in each run, and a process that reads and runs them.

    python -m tests.litert.mutants PATH KERNELS FIRST LAST

prints two lines for each mutant of a file: its number and "begin", its number and the outcome.
"""

import pathlib
import resource
import signal
import struct
import sys

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from keras_qat.errors import KerasQatError, LiteRTFormatError
from keras_qat.litert import Runner, read
from keras_qat.litert.reading.runnable import check_runnable
from tests.litert.foreign import packed, unpacked

SECONDS = 120  # of native code for one file. Then the process ends, which counts as a hang.
MEMORY = 3 * 2**30  # the limit for one file
EXTREMES = [0, 1, 2, 3, 4, 127, 128, 255, 256, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]
NUMBERS = [0, 1, -1, 2, 3, 127, 128, -128, 255, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**62]
NUMBERS += [1e-30, 1e30, float("nan"), float("inf")]
_MOST_ELEMENTS = 64  # of a constant that is changed: shapes and axes matter, weights do not


def mutant(content, number):
    """Makes a damaged copy. A generator with this seed draws the kind and the place of damage."""
    rng = np.random.default_rng([2026, len(content), number])
    return KINDS[rng.integers(len(KINDS))](content, rng)


def cut(content, rng):
    return content[: rng.integers(len(content))]


def flip(content, rng):
    data = bytearray(content)
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        data[at] ^= 1 << rng.integers(8)
    return bytes(data)


def overwrite(content, rng):
    data = bytearray(content)
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        data[at] = rng.integers(256)
    return bytes(data)


def splice_offsets(content, rng):
    data = bytearray(content)
    for at in rng.integers(0, len(data) // 4 - 1, rng.integers(1, 4)):
        drawn = EXTREMES[rng.integers(len(EXTREMES))] if rng.random() < 0.7 else None
        value = int(rng.integers(len(data))) if drawn is None else drawn
        struct.pack_into("<I", data, int(at) * 4, value)
    return bytes(data)


def copy_within(content, rng):
    data = bytearray(content)
    length = int(rng.integers(1, 64))
    to, source = rng.integers(0, len(data) - length, 2)
    data[to : to + length] = data[source : source + length]
    return bytes(data)


def randomize(content, rng):
    data = bytearray(content)
    at, length = int(rng.integers(8, len(data))), int(rng.integers(1, 33))
    end = min(at + length, len(data))
    data[at:end] = rng.bytes(end - at)
    return bytes(data)


def change_values(content, rng):
    """Changes numbers in valid tables. The bytes alone do not show this damage."""
    while True:
        table = unpacked(content)
        places = list(_numbers(table))
        for place in rng.integers(0, len(places), rng.integers(1, 4)):
            holder, key = places[place]
            wanted = NUMBERS[rng.integers(len(NUMBERS))]
            value = wanted if rng.random() < 0.6 else int(rng.integers(-3, 20))
            old = holder[key] if isinstance(holder, list) else getattr(holder, key)
            if isinstance(old, int):
                value = int(value) if abs(value) < 1e18 else 7
            if isinstance(holder, list):
                holder[key] = value
            else:
                setattr(holder, key, value)
        try:
            return packed(table)
        except (TypeError, ValueError, AttributeError, struct.error):  # not a value of its field
            continue


KINDS = (cut, flip, overwrite, splice_offsets, copy_within, randomize, change_values, change_values)


def _numbers(holder):
    """Yields the place of each number in an object-API table: a table or list, and a key."""
    if isinstance(holder, list):
        items = list(enumerate(holder))
    elif isinstance(holder, schema.BufferT):
        data = [] if holder.data is None else [int(n) for n in holder.data]
        holder.data = data or None
        yield from ((data, i) for i in range(min(len(data), _MOST_ELEMENTS)))
        items = [(name, getattr(holder, name)) for name in ("offset", "size")]
    else:
        for key, value in vars(holder).items():
            if isinstance(value, np.ndarray):
                setattr(holder, key, value.tolist())
        items = list(vars(holder).items())
    for key, value in items:
        if isinstance(value, int | float):
            yield holder, key
        elif isinstance(value, list) or hasattr(value, "Pack"):
            yield from _numbers(value)


def outcome(content, kernels):
    """Returns the outcome of the reader, the checks before the interpreter, and the interpreter."""
    try:
        file = read(content)
    except LiteRTFormatError:
        return "refused"
    try:
        check_runnable(file)
    except LiteRTFormatError:
        return "not given to the interpreter"
    loops = any(
        file.operator_name(operator) == "WHILE"
        for subgraph in file.model["subgraphs"]
        for operator in subgraph["operators"] or ()
    )
    try:
        runner = Runner(content, kernels=kernels)
        arrays = [np.zeros([n or 1 for n in t.shape], t.dtype) for t in runner.inputs]
        if not loops:  # a loop may never end
            runner.run(arrays)
    except (KerasQatError, MemoryError):
        return "native error"
    except Exception as error:
        return f"untyped error: {type(error).__name__} {error}".replace("\n", " ")
    return "loaded" if loops else "ran"


def main(path, kernels, first, last):
    content = pathlib.Path(path).read_bytes()
    taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    for number in range(int(first), int(last)):
        print(number, "begin", flush=True)
        signal.alarm(SECONDS)
        ending = outcome(mutant(content, number), kernels)
        signal.alarm(0)
        print(number, ending, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
