"""Modules that `import hw3tf` loads, and names that Keras knows before that."""

import importlib
import json
import pkgutil
import re
import sys
import zipfile

import keras
import processes
import pytest
from checks import run_python

import hw3tf
from hw3tf import _saved_names
from hw3tf.course import data

LOADED = {"_core", "_moved", "_saved_names", "_startup", "_types"}
LOADED |= {"layers", "ops", "reference"}


def test_import_loads_nothing_but_the_kernels_and_their_layers():
    """It adds milliseconds to the import of Keras: not the course, not `acceleration`,
    nor any other package, such as matplotlib, scikit-learn or TensorFlow Datasets."""
    code = """
import json, sys
import keras, tensorflow
before = set(sys.modules)
import hw3tf
names = set(sys.modules) - before
print(json.dumps([sorted(names), dir(hw3tf)]))
"""
    names, attributes = json.loads(run_python(code, modules=processes.OTHERS))
    ours = {name for name in names if name.startswith("hw3tf.")}
    assert {name.split(".")[1] for name in ours} == LOADED
    others = (
        {name.split(".")[0] for name in names} - {"hw3tf"} - sys.stdlib_module_names
    )
    # TensorFlow names the module of an op library by a digest.
    assert {name for name in others if not re.fullmatch("[0-9a-f]{40}", name)} == set()
    assert {*hw3tf.__all__, "course"} <= set(attributes)


@pytest.mark.parametrize("name", [*hw3tf.__all__, "course"])
def test_every_name_is_there(name):
    assert name in dir(hw3tf)
    assert getattr(hw3tf, name) is getattr(importlib.import_module("hw3tf"), name)


def test_saved_names_are_those_of_the_layers_of_the_course():
    modules = pkgutil.walk_packages(hw3tf.course.__path__, "hw3tf.course.")
    for module in modules:
        importlib.import_module(module.name)
    found = {
        name: class_.__module__
        for name, class_ in keras.saving.get_custom_objects().items()
        if isinstance(class_, type) and class_.__module__.startswith("hw3tf.course.")
    }
    assert found == _saved_names.SAVED_NAMES


@pytest.mark.parametrize("module", ["hw3tf.course.data", "hw3tf.data"])
def test_saved_layers_of_the_course_load_after_import_hw3tf(module, tmp_path):
    """Of today, and with the paths that 0.1 wrote into the file."""
    texts = keras.Input((), dtype="string")
    tokenizer = data.ReviewTokenizer(9, 5)
    tokenizer.adapt(["a fine film", "a dull film"])
    features = data.NaiveBayesFeatures(9, 7)
    tokens = tokenizer.tokenize(["a fine film", "a dull film"])
    features.adapt(tokens, [1, 0])
    model = keras.Model(texts, features(tokenizer(texts)))
    model.save(tmp_path / "new.keras")
    replaced = 0
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "model.keras", "w") as file,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                replaced = content.count(b'"hw3tf.course.data.')
                path = f'"{module}.'.encode()
                content = content.replace(b'"hw3tf.course.data.', path)
            file.writestr(name, content)
    assert replaced == 2
    code = f"""
import sys
import keras, hw3tf
assert "hw3tf.course" not in sys.modules
model = keras.models.load_model({str(tmp_path / "model.keras")!r})
print(model(keras.ops.convert_to_tensor(["a fine film"])).numpy().tolist())
from hw3tf.course import data
assert [type(x) for x in model.layers[1:]] == [
    data.ReviewTokenizer, data.NaiveBayesFeatures
]
"""
    wanted = model(keras.ops.convert_to_tensor(["a fine film"])).numpy().tolist()
    assert json.loads(run_python(code, modules=processes.OTHERS)) == wanted
