"""Old paths of modules that have moved, hw3tf/_moved.py: same objects, one warning."""

import importlib
import importlib.util
import pickle
import pkgutil
import subprocess
import sys
import warnings

import pytest
from checks import run_python

import hw3tf
import hw3tf.course.data
import hw3tf.course.sentiment
from hw3tf import _moved

# Said once more: an entry that is lost breaks code of others.
COURSE = ["data", "demo", "plots", "sentiment", "tutorial"]


def forget():
    """The process as if no old path had been imported."""
    for path in [p for p in sys.modules if _moved.new_path(p)]:
        del sys.modules[path]
    for path in _moved.MOVED:
        package, _, name = path.rpartition(".")
        vars(sys.modules[package]).pop(name, None)


@pytest.fixture(autouse=True)
def _forgotten():
    forget()
    yield
    forget()


def test_every_part_of_the_course_has_its_old_path():
    paths = {f"hw3tf.{name}": f"hw3tf.course.{name}" for name in COURSE}
    assert paths.items() <= _moved.MOVED.items()


def modules_of(path):
    """The module, and those in it if it is a package."""
    module = importlib.import_module(path)
    inside = pkgutil.iter_modules(getattr(module, "__path__", []), f"{path}.")
    return [path, *(found.name for found in inside)]


@pytest.mark.parametrize(("old", "new"), _moved.MOVED.items())
def test_old_path_gives_the_module_at_the_new_one(old, new):
    """The modules inside, too, with one warning for all, at the line that imports."""
    for path in reversed(modules_of(new)):
        wanted, spec = importlib.import_module(path), sys.modules[path].__spec__
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = importlib.import_module(path.replace(new, old, 1))
        assert found is wanted
        assert found.__spec__ is spec
        if path != new:
            parent, _, name = path.rpartition(".")
            assert getattr(sys.modules[parent], name) is wanted
    forget()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        importlib.import_module(modules_of(new)[-1].replace(new, old, 1))
    (warning,) = caught
    assert warning.category is DeprecationWarning
    assert str(warning.message).startswith(f"{old} is now {new};")
    assert warning.filename == __file__


@pytest.mark.parametrize("name", COURSE)
def test_old_path_is_an_attribute(name):
    """As before with `import hw3tf` alone; the warning is at the line that uses it."""
    new = importlib.import_module(f"hw3tf.course.{name}")
    with pytest.warns(DeprecationWarning, match=f"now hw3tf.course.{name};") as caught:
        assert getattr(hw3tf, name) is new
    assert [warning.filename for warning in caught] == [__file__]
    forget()
    names = {}
    with pytest.warns(DeprecationWarning, match=f"now hw3tf.course.{name};"):
        exec(f"from hw3tf import {name}", names)
    assert names[name] is new


def test_what_does_not_exist_is_not_found():
    with pytest.raises(AttributeError, match=r"module 'hw3tf' has no attribute 'dat'"):
        hw3tf.dat  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'dat' from 'hw3tf'"):
        exec("from hw3tf import dat")
    assert importlib.util.find_spec("hw3tf.dat") is None
    with (
        pytest.warns(DeprecationWarning, match=r"hw3tf\.data is now"),
        pytest.raises(ModuleNotFoundError, match=r"named 'hw3tf\.data\.nothing'"),
    ):
        importlib.import_module("hw3tf.data.nothing")


@pytest.mark.filterwarnings("ignore:hw3tf.data is now:DeprecationWarning")
def test_names_are_patched_under_both_paths(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("hw3tf.data.network.require_answer", 1)
        assert hw3tf.course.data.network.require_answer == 1
    assert callable(hw3tf.course.data.network.require_answer)


@pytest.mark.filterwarnings("ignore:hw3tf.data is now:DeprecationWarning")
def test_pickles_of_the_old_path_load():
    function = hw3tf.course.data.sample_reviews
    now = pickle.dumps(function, protocol=0)
    assert now.startswith(b"chw3tf.course.data.sample\nsample_reviews\n")
    assert pickle.loads(now.replace(b"hw3tf.course.data", b"hw3tf.data")) is function


@pytest.mark.filterwarnings("ignore:hw3tf.data is now:DeprecationWarning")
def test_reload_under_the_old_path():
    module = importlib.import_module("hw3tf.data.sample")
    function = module.sample_reviews
    try:
        assert importlib.reload(module) is hw3tf.course.data.sample
        assert module.sample_reviews is not function
    finally:
        module.sample_reviews = function


def test_module_that_moves_within_another_package(monkeypatch):
    """The table serves any package whose `__getattr__` asks it."""
    old, new = "hw3tf.layers.old_logistic", "hw3tf.layers.logistic"
    monkeypatch.setitem(_moved.MOVED, old, new)
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new};"):
        found = _moved.attribute("hw3tf.layers", "old_logistic")
    assert found is hw3tf.layers.logistic is importlib.import_module(old)
    forget()


def test_warning_as_an_error_stops_the_import_each_time():
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DeprecationWarning, match=r"hw3tf\.plots is now"):
                importlib.import_module("hw3tf.plots")


def test_program_runs_by_its_old_path(tmp_path):
    """And Python shows the warning, which it hides in modules but `__main__`."""
    done = subprocess.run(
        [sys.executable, "-m", "hw3tf.demo", "--help"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    assert done.stdout.startswith("usage: hw3tf-demo ")
    warning = "DeprecationWarning: hw3tf.demo is now hw3tf.course.demo;"
    assert done.stderr.count(warning) == 1


def test_package_imported_again():
    """There is one finder, that of the last import, and the modules are of it."""
    code = """
import importlib, sys, warnings
import hw3tf, hw3tf.course.data
warnings.simplefilter("ignore")
first = importlib.import_module("hw3tf.data.text")
assert first is hw3tf.course.data.text
again = importlib.reload(hw3tf)
assert again.data.text is first
for name in [n for n in sys.modules if n.partition(".")[0] == "hw3tf"]:
    del sys.modules[name]
again = importlib.import_module("hw3tf")
second = importlib.import_module("hw3tf.data.text")
assert second is not first
assert second is importlib.import_module("hw3tf.course.data.text")
ours = [f for f in sys.meta_path if type(f).__module__ == "hw3tf._moved"]
assert len(ours) == 1 and type(ours[0]) is sys.modules["hw3tf._moved"]._Finder
print("right")
"""
    assert run_python(code) == "right\n"
