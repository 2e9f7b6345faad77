"""Modules that the tutorials share and nobody else needs: data sets, pictures, the
runner of lessons, and a page to try a model.

`import hw3tf` does not load it; `hw3tf.course.data` and the others are loaded when they
are asked for first.
"""

import importlib
from types import ModuleType

__all__ = ["data", "demo", "lesson", "notebooks", "own_op", "plots", "sentiment"]
__all__ += ["tutorial"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
