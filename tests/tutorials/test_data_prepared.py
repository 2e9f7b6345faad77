"""Folders of TensorFlow Datasets that are prepared, damaged or missing, and the remedy
in the error. The sets have a few examples, and TFDS itself writes them."""

import os
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

from hw3tf.course import data
from hw3tf.course.data import network

tfds = pytest.importorskip("tensorflow_datasets")
pytestmark = pytest.mark.filterwarnings("default")  # TFDS has some of its own

EXAMPLES = {
    "imdb_reviews": {"text": "a fine film", "label": 1},
    "fashion_mnist": {"image": np.zeros((28, 28, 1), "uint8"), "label": 3},
    "mnist": {"image": np.zeros((28, 28, 1), "uint8"), "label": 3},
}


def load(name):
    source = "imdb" if name == "imdb_reviews" else name
    return (data.load_reviews if source == "imdb" else data.load_images)(source, 1)


def examples(name):
    return ((i, EXAMPLES[name]) for i in range(9))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder in which all three are prepared."""
    root = tmp_path_factory.mktemp("tfds")
    for name in EXAMPLES:
        builder = tfds.builder(name, data_dir=root)
        with pytest.MonkeyPatch.context() as patch:
            splits = {part: examples(name) for part in ("train", "test")}
            patch.setattr(type(builder), "_split_generators", lambda *_, s=splits: s)
            builder.download_and_prepare()
    return root


@pytest.fixture
def root(prepared, tmp_path, monkeypatch):
    """A copy of it, to be broken, without a network."""
    root = tmp_path / "tfds"
    shutil.copytree(prepared, root)
    monkeypatch.setenv("TFDS_DATA_DIR", str(root))

    def refuse(*_, **__):
        raise OSError("refused")

    monkeypatch.setattr(network.urllib.request, "urlopen", refuse)
    return root


@pytest.fixture(params=EXAMPLES)
def folder(request, root):
    """Of one data set, with its version."""
    (found,) = (root / request.param).rglob("dataset_info.json")
    return found.parent


def name_of(folder):
    return next(name for name in EXAMPLES if name in folder.parts)


def top_of(folder):
    """The folder of all versions."""
    while folder.name not in EXAMPLES:
        folder = folder.parent
    return folder


def rewrite(path, change):
    path.write_bytes(change(bytearray(path.read_bytes())))


def flip(content):
    content[len(content) // 2] ^= 0xFF
    return content


def shard(folder, part="test"):
    (path,) = folder.glob(f"*{part}.tfrecord*")
    return path


def replace_by_file(path):
    shutil.rmtree(path)
    path.write_text("no folder")


# What is done to a folder; what has to be deleted is the folder, or all versions.
DAMAGES = {
    "empty": lambda f: [p.unlink() for p in f.iterdir()],
    "no shards": lambda f: [p.unlink() for p in f.glob("*.tfrecord*")],
    "one shard missing": lambda f: shard(f).unlink(),
    "no metadata": lambda f: (f / "dataset_info.json").unlink(),
    "half a shard": lambda f: rewrite(shard(f), lambda b: b[: len(b) // 2]),
    "an empty shard": lambda f: rewrite(shard(f), lambda b: b[:0]),
    "a wrong checksum": lambda f: rewrite(shard(f, "train"), flip),
    "a folder for a shard": lambda f: (shard(f).unlink(), shard_folder(f).mkdir()),
    "a file in its place": replace_by_file,
}


def shard_folder(folder):
    return folder / f"{name_of(folder)}-test.tfrecord-00000-of-00001"


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_folder_to_delete_is_named(folder, damage):
    DAMAGES[damage](folder)
    with pytest.raises(RuntimeError) as caught:
        load(name_of(folder))
    message = str(caught.value)
    assert f"{folder} is damaged (" in message
    assert ". Delete it, then connect to a network and run again" in message
    assert "\n" not in message
    assert "function_node" not in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: rewrite(f / "dataset_info.json", lambda b: b[: len(b) // 2]),
        lambda f: (f / "dataset_info.json").write_text("{}"),
        lambda f: replace_by_file(top_of(f)),
    ],
    ids=["half the metadata", "other metadata", "a file for all versions"],
)
def test_all_versions_are_to_be_deleted_if_none_can_be_read(folder, damage):
    damage(folder)
    with pytest.raises(RuntimeError, match=r"is damaged .*Delete it") as caught:
        load(name_of(folder))
    assert f"{top_of(folder)} is damaged (" in str(caught.value)


@pytest.mark.parametrize("left", ["{}.incompleteAB12", "incomplete.AB12_{}"])
def test_what_an_interrupted_download_has_left_is_named(folder, left):
    left = folder.rename(folder.with_name(left.format(folder.name)))
    with pytest.raises(RuntimeError, match="download was interrupted") as caught:
        load(name_of(folder))
    assert f"(delete {left})" in str(caught.value)


@pytest.mark.parametrize("version", ["0.1.0", "99.0.0"])
def test_another_version_is_named_and_not_to_be_deleted(folder, version):
    wanted = folder.name
    folder.rename(folder.with_name(version))
    with pytest.raises(RuntimeError, match="connect to a network") as caught:
        load(name_of(folder))
    assert f"has version {version}, not {wanted}, and" in str(caught.value)
    assert "elete" not in str(caught.value)


def test_a_folder_without_rights_is_named(folder, monkeypatch):
    """Root has every right, so the error of the system is simulated."""
    closed, access = shard(folder, "train"), os.access

    def forbid(self, *_, **__):
        raise PermissionError(13, "Permission denied", str(closed))

    monkeypatch.setattr(tfds.core.DatasetBuilder, "as_dataset", forbid)
    monkeypatch.setattr(
        os, "access", lambda path, mode: path != closed and access(path, mode)
    )
    with pytest.raises(RuntimeError, match="Get that right, or set the") as caught:
        load(name_of(folder))
    assert f"no right to read {closed}." in str(caught.value)
    assert "elete" not in str(caught.value)
    assert "connect" not in str(caught.value)


def test_auto_says_what_to_delete_and_takes_what_is_at_hand(root):
    for name, load_auto, taken in (
        ("imdb_reviews", data.load_reviews, "sample"),
        ("fashion_mnist", data.load_images, "digits"),
    ):
        (info,) = (root / name).rglob("dataset_info.json")
        info.unlink()
        found = load_auto("auto", 1)
        assert found.name == taken
        assert f"{info.parent} is damaged (" in found.origin
        assert "Delete it" in found.origin
        assert "--data" not in found.origin


def test_a_download_that_fails_says_what_it_has_left(root, monkeypatch):
    shutil.rmtree(root / "mnist")
    monkeypatch.setattr(network, "require_answer", lambda *_: None)

    def fail(self):
        (root / "downloads").mkdir(exist_ok=True)
        raise ValueError("wrong checksum\nof a file")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    delete = re.escape(f"(ValueError: wrong checksum). Delete {root / 'downloads'}")
    with pytest.raises(RuntimeError, match=f"failed {delete}, then run again"):
        load("mnist")


def test_data_that_are_whole_are_read(root):
    for name in EXAMPLES:
        found = load(name)
        assert f"prepared in {root / name}" in found.origin
        assert len(found.train_labels) == len(found.test_labels) == 9
    shutil.rmtree(root)
    with pytest.raises(RuntimeError, match=f"it is not in {re.escape(str(root))}, and"):
        load("mnist")


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_tfds_the_extra_is_named(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(RuntimeError) as caught:
        load(name)
    assert f"{name} needs TensorFlow Datasets" in str(caught.value)
    assert "pip install 'hw3tf[tutorials]'" in str(caught.value)
    assert "network" not in str(caught.value)


def test_the_default_folder_is_that_of_tfds(monkeypatch, tmp_path):
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(network.urllib.request, "urlopen", lambda *_, **__: 1 / 0)
    with pytest.raises(RuntimeError, match="not in") as caught:
        load("mnist")
    assert f"not in {pathlib.Path(tmp_path, 'tensorflow_datasets')}," in str(
        caught.value
    )
