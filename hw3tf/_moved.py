"""Modules that have moved: for a while the old path leads to the module at the new one.

It is the same module object, so that no class exists twice, a patched name is patched
under both paths, and pickles that name the old path load. The first import of an old
path, or its first use as an attribute, warns (docs/compatibility.md, "Deprecation").
"""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

# Old path -> new path, of a module, or of a package with all that is in it.
MOVED = {
    "hw3tf.data": "hw3tf.course.data",
    "hw3tf.demo": "hw3tf.course.demo",
    "hw3tf.plots": "hw3tf.course.plots",
    "hw3tf.sentiment": "hw3tf.course.sentiment",
    "hw3tf.tutorial": "hw3tf.course.tutorial",
}


def new_path(path: str) -> str | None:
    """Where the module of an old path is now; None if it has not moved.

    >>> new_path("hw3tf.data.text")
    'hw3tf.course.data.text'
    """
    package, inside = path, ""
    while package not in MOVED:
        package, dot, name = package.rpartition(".")
        if not dot:
            return None
        inside = f".{name}{inside}"
    return MOVED[package] + inside


def attribute(package: str, name: str) -> ModuleType:
    """The body of `__getattr__` in a package from which modules have moved.

    Args:
        package: Its `__name__`.
        name: The attribute.

    Raises:
        AttributeError: If no module of that name has moved.
    """
    path = f"{package}.{name}"
    if path in MOVED:
        return importlib.import_module(path)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


class _Loader(Loader):
    """Answers the import of an old path with the module at the new one."""

    def __init__(self, found: ModuleSpec) -> None:
        self.found = found

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        _warn(spec.name, self.found.name)
        module = importlib.import_module(self.found.name)
        self.own_spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # It has been executed. Python has just given it the spec of the old path,
        # with which `importlib.reload` would look for another module.
        module.__spec__ = self.own_spec

    def get_code(self, path: str) -> CodeType | None:
        """For `python -m`, which runs the code and imports nothing."""
        _warn(path, self.found.name)
        return self.found.loader.get_code(self.found.name)  # type: ignore[union-attr]


class _Finder(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        new = new_path(fullname)
        found = importlib.util.find_spec(new) if new else None
        if found is None:
            return None
        is_package = found.submodule_search_locations is not None
        return ModuleSpec(
            fullname, _Loader(found), origin=found.origin, is_package=is_package
        )


def _warn(old: str, new: str) -> None:
    """One warning for each entry of `MOVED`, at the line that names the old path."""
    if old not in MOVED:
        return  # a module inside a package that has moved, which has warned
    between = {__name__, old.rpartition(".")[0], "runpy"}
    between |= {"importlib", "importlib._bootstrap"}
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") in between:
        frame = frame.f_back
    # Without a name, as in `exec`, Python would drop the warning.
    module = frame.f_globals.get("__name__") or "<unknown>"
    warnings.warn_explicit(
        f"{old} is now {new}; the old path goes in a later version",
        DeprecationWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        # Nobody's line: `python -m` with the old path. Python shows it for __main__.
        module="__main__" if module == "runpy" else module,
        registry=frame.f_globals.setdefault("__warningregistry__", {}),
    )


def install() -> None:
    """Puts the finder before all others: Python's own would find what is inside a
    moved package under its old path, and load it a second time."""
    # An earlier import of hw3tf in this process has left its own.
    others = [f for f in sys.meta_path if type(f).__module__ != __name__]
    sys.meta_path[:] = [_Finder(), *others]
