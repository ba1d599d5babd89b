"""Compares a fixture folder with a freshly exported one, file by file.

Usage: python compare.py COMMITTED FRESH

Prints one line per file. Numbers in .safetensors and .json files may differ by RELATIVE of the largest
number beside them, since another processor may add in another order; everything else has to be equal.
Exit code 1 when something differs.
"""

import json
import sys
from pathlib import Path

RELATIVE = 1e-4


def numbers(value, path=""):
    """Yields (path, leaf) for every leaf of a JSON value."""
    if isinstance(value, dict):
        for key in sorted(value):
            yield from numbers(value[key], f"{path}/{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from numbers(item, f"{path}/{index}")
    else:
        yield path, value


def is_real(value):
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool))


def compare_json(committed, fresh):
    old = dict(numbers(json.loads(committed.read_text())))
    new = dict(numbers(json.loads(fresh.read_text())))
    if old.keys() != new.keys():
        return f"has other keys, such as {sorted(old.keys() ^ new.keys())[0]}"
    worst = 0.0
    for path, before in old.items():
        after = new[path]
        # Whole numbers are ids and sizes: they have to be equal.
        if isinstance(before, float) and is_real(after):
            worst = max(worst, abs(before - after) / max(1.0, abs(before)))
        elif before != after:
            return f"differs at {path}: {before!r} became {after!r}"
    return verdict(worst)


def compare_safetensors(committed, fresh):
    import numpy
    from safetensors.numpy import load_file

    old, new = load_file(committed), load_file(fresh)
    if old.keys() != new.keys():
        return f"has other tensors, such as {sorted(old.keys() ^ new.keys())[0]}"
    worst = 0.0
    for name in old:
        before, after = old[name], new[name]
        if before.shape != after.shape or before.dtype != after.dtype:
            return f"{name} was {before.dtype}{before.shape}, is {after.dtype}{after.shape}"
        if before.size:
            difference = numpy.abs(before.astype("f8") - after.astype("f8")).max()
            worst = max(worst, float(difference / max(1e-6, numpy.abs(before).max())))
    return verdict(worst)


def verdict(worst):
    if worst == 0.0:
        return None
    if worst <= RELATIVE:
        return f"ok, largest relative difference {worst:.1e}"
    return f"differs, largest relative difference {worst:.1e}"


def compare(committed, fresh):
    if not committed.exists():
        return "is new: export.py writes it, but it is not committed"
    if committed.read_bytes() == fresh.read_bytes():
        return None
    if committed.suffix == ".json":
        return compare_json(committed, fresh)
    if committed.suffix == ".safetensors":
        return compare_safetensors(committed, fresh)
    return "differs"


def main():
    committed, fresh = Path(sys.argv[1]), Path(sys.argv[2])
    failed = False
    for path in sorted(fresh.rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        name = path.relative_to(fresh)
        message = compare(committed / name, path)
        print(f"  {name}: {message or 'same'}")
        failed = failed or (message is not None and not message.startswith("ok"))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
