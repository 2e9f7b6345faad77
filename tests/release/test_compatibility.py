"""Tests of the promises of docs/compatibility.md: names stay, saved models load."""

import importlib
import pathlib
import pkgutil

import keras
import numpy as np
import public_names
import pytest

import hw3tf

DATA = pathlib.Path(__file__).parents[1] / "data"
MODELS = sorted(DATA.glob("*-*.keras"))


def test_public_names_are_those_listed():
    listed = set(public_names.FILE.read_text().splitlines())
    found = set(public_names.public_names())
    lost = "\n  ".join(sorted(listed - found))
    added = "\n  ".join(sorted(found - listed))
    assert found == listed, (
        f"The public names differ from tests/data/public_names.txt.\nLost:\n  {lost}\n"
        f"Added:\n  {added}\nA lost or changed name breaks code of others: keep it, "
        "with a warning, as docs/compatibility.md says. If the change is meant, run "
        "`python tests/helpers/public_names.py` and say so in CHANGELOG.md."
    )


def test_every_module_is_promised_or_not():
    """A new one has to say which; `_core` and the libraries have no such names."""
    names = [m.name for m in pkgutil.iter_modules(hw3tf.__path__)]
    modules = {f"hw3tf.{n}" for n in names if not n.startswith(("_", "lib"))}
    assert {"hw3tf", *modules} == {*public_names.NOT_PROMISED, *public_names.PROMISED}


@pytest.mark.parametrize("path", public_names.PROMISED)
def test_every_listed_name_exists_and_is_sorted(path):
    module = importlib.import_module(path)
    assert list(module.__all__) == sorted(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_there_is_a_saved_model_of_each_kind():
    assert {p.name.split("-")[0] for p in MODELS} == {"attention", "integers"}


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_saved_model_of_an_earlier_version_gives_what_it_gave(path):
    """Integers are equal; floats to rounding, which may be that of another
    instruction set."""
    inputs, *wanted = np.load(path.with_suffix(".npz")).values()
    outputs = keras.saving.load_model(path)(inputs)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    assert len(outputs) == len(wanted)
    for got, want in zip(map(np.asarray, outputs), wanted, strict=True):
        assert got.dtype == want.dtype
        if want.dtype == "int64":
            np.testing.assert_array_equal(got, want)
        else:
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
