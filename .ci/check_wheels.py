"""Check of the wheels of one source: small, complete, with a bill of materials, equal.

    python .ci/check_wheels.py FIRST.whl [SECOND.whl]

`nox -s wheels` runs it. Needs cyclonedx-python-lib[json-validation].
"""

import hashlib
import json
import pathlib
import re
import sys
import zipfile

LIMIT = 5 * 2**20
NAMES = r"_core|libhw3tf_kernels-\d[\w.]*?|libhw3tf_ops"
LIBRARIES = re.compile(rf"hw3tf/({NAMES})\.[\w.-]*(?:so|dylib)")


def digests(path):
    """SHA-256 by name of every file of a wheel."""
    with zipfile.ZipFile(path) as wheel:
        return {n: hashlib.sha256(wheel.read(n)).hexdigest() for n in wheel.namelist()}


def check_contents(path):
    """The size, the three libraries, and nothing beside package and metadata."""
    size = path.stat().st_size
    assert size < LIMIT, f"{path} has {size:,} bytes, of {LIMIT:,} at most"
    names = digests(path)
    libraries = {m[1] for m in map(LIBRARIES.fullmatch, names) if m}
    assert len(libraries) == 3, f"{path} has the libraries {libraries}"
    strange = [n for n in names if not re.match(r"hw3tf(/|-[\w.+]+\.dist-info/)", n)]
    assert not strange, f"{path} has {strange}"
    assert any(n.endswith("/licenses/LICENSE") for n in names), names
    return size


def check_materials(path):
    """The bill of materials is valid CycloneDX and names the code that is compiled
    in."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    with zipfile.ZipFile(path) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith("/sboms/hw3tf.cdx.json"))
        text = wheel.read(name).decode()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    assert error is None, error
    bill = json.loads(text)
    version = path.name.split("-")[1]
    assert bill["metadata"]["component"]["version"] == version
    versions = {c["name"]: c["version"] for c in bill["components"]}
    assert re.fullmatch(r"\d+\.\d+.*", versions["pybind11"]), versions
    return versions


def main():
    first, *others = map(pathlib.Path, sys.argv[1:])
    size, materials = check_contents(first), check_materials(first)
    ours = digests(first)
    for theirs in map(digests, others):
        different = sorted(n for n in ours | theirs if ours.get(n) != theirs.get(n))
        assert not different, f"Two builds differ in {different}"
    same = f", the same {1 + len(others)} times" if others else ""
    print(f"{first.name}: {size:,} bytes, {len(ours)} files{same}")
    print(f"compiled in: {materials}")


if __name__ == "__main__":
    main()
