"""Runs files in the LiteRT or TensorFlow Lite of its own Python, and prints JSON lines.

`releases.py` and `operator_releases.py` start it in other environments, so it imports nothing
but numpy and a runtime, and runs on Python 3.9.

    PYTHON releases_worker.py cases FILE.npz ...     compares tensors with the expected integers
    PYTHON releases_worker.py versions FILES.json    reports the operator versions that are known
"""

import base64
import importlib
import importlib.metadata
import json
import sys

import numpy as np

# The module and the package of each runtime, and the name for users.
RUNTIMES = (
    ("ai_edge_litert.interpreter", "ai-edge-litert", "LiteRT"),
    ("tflite_runtime.interpreter", "tflite-runtime", "TensorFlow Lite"),
    ("tensorflow.lite.python.interpreter", "tensorflow-cpu", "TensorFlow Lite"),
)
REFUSALS = ("Didn't find op for builtin opcode", "Op builtin_code out of range")


def runtime():
    """Returns the class of the interpreter that is installed, its name and its version."""
    for module, package, name in RUNTIMES:
        try:
            interpreter_class = importlib.import_module(module).Interpreter
        except ImportError:
            continue
        return interpreter_class, name, importlib.metadata.version(package)
    raise SystemExit("No runtime is installed.")


def outputs_of(interpreter_class, content, inputs):
    """Runs a file. Returns its outputs by name, in their order."""
    interpreter = interpreter_class(model_content=content)
    details = interpreter.get_input_details()
    for each in details:
        interpreter.resize_tensor_input(each["index"], inputs[each["name"]].shape)
    interpreter.allocate_tensors()
    for each in details:
        interpreter.set_tensor(each["index"], inputs[each["name"]])
    interpreter.invoke()
    outputs = interpreter.get_output_details()
    return {each["name"]: interpreter.get_tensor(each["index"]) for each in outputs}


def compare(interpreter_class, path):
    """Returns the differences of one case, or the error of the runtime."""
    case = np.load(path)
    inputs = {name[6:]: case[name] for name in case.files if name.startswith("input:")}
    expected = {name[9:]: case[name] for name in case.files if name.startswith("expected:")}
    makers = json.loads(str(case["makers"]))
    found = {"elements": 0, "differing": 0, "largest": 0, "first": None}
    try:
        for file in ("plain", "exposed"):
            outputs = outputs_of(interpreter_class, case[file].tobytes(), inputs)
            for name in makers:  # in execution order
                if name in outputs and name in expected:
                    away = np.abs(outputs[name].astype("int64") - expected[name])
                    found["elements"] += away.size
                    found["differing"] += int(np.count_nonzero(away))
                    found["largest"] = max(found["largest"], int(away.max(initial=0)))
                    if file == "exposed" and away.any() and found["first"] is None:
                        found["first"] = makers[name]
    except (RuntimeError, ValueError) as error:
        return {"error": str(error).strip()}
    return found


def registered(interpreter_class, files):
    """Returns the versions that the runtime registers, by operator."""
    known = {}
    for code, contents in files.items():
        for version, content in enumerate(contents, 1):
            try:
                interpreter_class(model_content=base64.b64decode(content))
            except (RuntimeError, ValueError) as error:
                if any(text in str(error) for text in REFUSALS):
                    continue
            known.setdefault(code, []).append(version)
    return known


def main():
    command, *paths = sys.argv[1:]
    interpreter_class, name, version = runtime()
    if command == "cases":
        for path in paths:
            print(json.dumps(compare(interpreter_class, path)), flush=True)
    else:
        with open(paths[0], encoding="utf-8") as file:
            known = registered(interpreter_class, json.load(file))
        print(json.dumps({"name": name, "version": version, "registered": known}), flush=True)


if __name__ == "__main__":
    main()
