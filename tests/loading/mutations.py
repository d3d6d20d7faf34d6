"""Damages files, loads them in its own process, and prints the outcome of each.

python mutations.py FOLDER FIRST LAST: for each seed, damages one of the files in FOLDER, and
prints `seed outcome`. After a crash or a hang the line is missing.
"""

import io
import json
import pathlib
import resource
import sys
import warnings
import zipfile

import numpy as np

ODD = (None, -1, 0, 1, 3, 2**31, 10**12, 1.5, float("nan"), "", "relu", "x" * 70000, True)
ODD += ([], [None], [0, 0], [[]], {}, {"class_name": "Dense"}, {"a": {"b": [1]}})


def damaged(path, seed):
    """Returns the bytes of a file with one to three changes.

    Changes that need a library come first, since the library might hang on damaged files.
    """
    generator = np.random.default_rng(seed)
    content = path.read_bytes()
    is_archive = path.suffix == ".keras"
    inside = int(generator.integers(0, 2 if is_archive else 3))
    for _ in range(inside):
        content = (change_zip if is_archive else change_hdf5)(content, generator)
    for _ in range(int(generator.integers(0 if inside else 1, 2))):
        content = BYTES[generator.integers(len(BYTES))](content, generator)
    return content


def flip_bytes(content, generator):
    array = np.frombuffer(content, "uint8").copy()
    # Most bytes with a meaning are at the beginning.
    reach = len(array) if generator.random() < 0.5 else min(len(array), 4096)
    places = generator.integers(0, max(reach, 1), int(generator.integers(1, 32)))
    array[places[places < len(array)]] ^= generator.integers(1, 256, dtype="uint8")
    return array.tobytes()


def cut_off(content, generator):
    return content[: int(generator.integers(0, len(content) + 1))]


def zero_block(content, generator):
    start = int(generator.integers(0, len(content) + 1))
    size = min(int(generator.integers(1, 2048)), len(content) - start)
    return content[:start] + bytes(size) + content[start + size :]


def write_block(content, generator):
    start = int(generator.integers(0, len(content) + 1))
    return content[:start] + generator.bytes(int(generator.integers(1, 512))) + content[start:]


BYTES = (flip_bytes, cut_off, zero_block, write_block)


def change_zip(content, generator):
    """Changes a member of an archive. The archive stays valid."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = sorted(members)[generator.integers(len(members))]
    if generator.random() < 0.15:
        del members[name]
    elif name.endswith(".json"):
        members[name] = change_json(members[name], generator)
    elif generator.random() < 0.5:
        members[name] = change_hdf5(members[name], generator)
    else:
        members[name] = flip_bytes(members[name], generator)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for each, inner in members.items():
            archive.writestr(each, inner)
    return buffer.getvalue()


def places_of(root):
    """Lists each value in JSON with its container and its key."""
    places = [(None, None, root)]
    for _, _, value in places:  # the list grows while it is read
        if isinstance(value, dict):
            places += [(value, key, inner) for key, inner in value.items()]
        elif isinstance(value, list):
            places += [(value, i, inner) for i, inner in enumerate(value)]
    return places


def change_json(text, generator):
    """Replaces a value by an odd one, removes it, or repeats it."""
    try:
        root = json.loads(text)
    except ValueError:  # an earlier change made it invalid JSON
        return text
    places = places_of(root)
    owner, key, value = places[generator.integers(len(places))]
    if owner is None:
        return json.dumps(ODD[generator.integers(len(ODD))]).encode()
    choice = generator.random()
    if choice < 0.2:
        del owner[key]
    elif choice < 0.35:
        owner[key] = places[generator.integers(len(places))][2]
    elif choice < 0.5 and isinstance(owner, list):
        owner.insert(int(generator.integers(len(owner) + 1)), value)
    elif choice < 0.6 and isinstance(value, int):
        owner[key] = int(value * generator.integers(-3, 1000))
    else:
        owner[key] = ODD[generator.integers(len(ODD))]
    try:
        return json.dumps(root).encode()
    except (ValueError, RecursionError):  # it contains itself now
        return text


def change_hdf5(content, generator):
    """Changes the contents of a valid HDF5 file: configuration, names, groups, shapes."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        objects = [file]
        file.visititems(lambda _, found: objects.append(found))
        text = file.attrs.get("model_config")
        if isinstance(text, str | bytes) and generator.random() < 0.6:
            text = text.encode() if isinstance(text, str) else text
            file.attrs["model_config"] = change_json(text, generator).decode()
        else:
            change_object(file, objects[generator.integers(len(objects))], generator)
    return buffer.getvalue()


def change_object(file, found, generator):
    import h5py

    name, attributes = found.name, list(found.attrs)
    choice = generator.random()
    if attributes and choice < 0.4:
        key = attributes[generator.integers(len(attributes))]
        odd = (b"\xff\xfe", "other", 3, np.array([b"a", b"b/c"]), np.zeros((2, 2)), h5py.Empty("f"))
        found.attrs[key] = odd[generator.integers(len(odd))]
    elif attributes and choice < 0.5:
        del found.attrs[attributes[generator.integers(len(attributes))]]
    elif name == "/":
        return
    elif choice < 0.65:
        del file[name]
    elif choice < 0.8:
        del file[name]
        odd = (np.zeros((3, 1, 2), "float32"), np.zeros((), "int8"), "text", np.zeros(5, "S3"))
        file[name] = odd[generator.integers(len(odd))]
    elif choice < 0.9:
        del file[name]
        file[name] = h5py.SoftLink("/") if generator.random() < 0.5 else h5py.ExternalLink("x", "/")
    else:
        del file[name]
        file.create_dataset(name, (2**20, 2**20), "float32", chunks=(64, 64))


def outcome(path, models):
    import keras_qat
    from keras_qat.errors import InvalidFileError

    try:
        keras_qat.load_model(path)
        result = "loaded"
    except InvalidFileError as error:
        result = "refused" if str(path) in str(error) else f"WITHOUT NAME: {error}"
    except BaseException as error:  # the test looks for such errors
        return f"RAISED by load_model {type(error).__name__}: {error}"
    for model in models:
        try:
            keras_qat.load_weights(model, path, skip_mismatch=True)
        except InvalidFileError:
            continue
        except BaseException as error:
            return f"RAISED by load_weights {type(error).__name__}: {error}"
    return result


def main(folder, first, last):
    import keras

    import keras_qat

    # A huge allocation raises an error instead of exhausting the machine.
    resource.setrlimit(resource.RLIMIT_AS, (2**35, 2**35))
    warnings.simplefilter("ignore")
    keras.utils.disable_interactive_logging()
    bases = sorted(path for path in folder.iterdir() if path.suffix in (".h5", ".keras"))
    source = keras_qat.load_model(folder / "network.keras")
    models = [source, keras_qat.clone_model(source)]
    for seed in range(first, last):
        base = bases[seed % len(bases)]
        path = folder / "damaged" / f"{seed}{base.suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(damaged(base, seed))
        text = outcome(path, models).replace("\n", " ")
        path.unlink()
        print(seed, text, flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
