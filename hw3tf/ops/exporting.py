"""Graphs that are made for other runtimes, which know no op of hw3tf.

TensorFlow and TensorFlow Serving can load the ops; ONNX, LiteRT and OpenVINO cannot.
Their converters trace the model and translate its ops one by one. So attention that
such a converter traces is computed in plain Keras, and the file needs nothing of hw3tf.
The integer recurrence is refused: they cannot compute it in any form.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

# Modules whose functions trace a model, and what they make of it.
CONVERTERS = {
    "keras.src.export.litert": "LiteRT",
    "keras.src.export.onnx": "ONNX",
    "keras.src.export.openvino": "OpenVINO",
    "openvino": "OpenVINO",
    "tensorflow.lite.python": "LiteRT",
    "litert_torch": "LiteRT",
    "tf2onnx": "ONNX",
    "torch.onnx": "ONNX",
}
TF2ONNX = "tf2onnx.tfonnx"  # the module that translates a graph
TRACED = (
    "ONNX has no {op}, the op of hw3tf, and this graph was traced with it. Call "
    "`hw3tf.restore(model)` first, or trace the model anew: `model.export` and "
    "`tf2onnx.convert.from_keras` do, and hw3tf then computes in plain Keras "
    "(docs/serving.md)"
)
INTEGERS = (
    "hw3tf's integer recurrence cannot be exported to {made}, which lacks the integer "
    "operations that it is made of. A SavedModel, `model.export(path)`, keeps it: "
    "TensorFlow runs that with hw3tf's op library (docs/serving.md)"
)


def export_format() -> str | None:
    """`"ONNX"`, `"LiteRT"` or `"OpenVINO"`, if the graph being traced is for it.

    Told by the functions that are being called: a converter has no other way to say it.
    """
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        name = frame.f_globals.get("__name__") or ""
        for converter, made in CONVERTERS.items():
            if name == converter or name.startswith(converter + "."):
                return made
    return None


def traced_by_torch() -> bool:
    """Whether PyTorch makes a graph of the call, to save it or to hand it on. That of
    `torch.compile` is run at once, and while it is made nobody can look at frames."""
    import torch

    exported = (
        torch.compiler.is_compiling() and not torch.compiler.is_dynamo_compiling()
    )
    return exported or torch.jit.is_tracing()


def refuse_integers() -> None:
    """Raises NotImplementedError if the graph being traced is for a runtime that cannot
    compute the integer recurrence."""
    if made := export_format():
        raise NotImplementedError(INTEGERS.format(made=made))


def refuse_in_tf2onnx() -> None:
    """From here on, tf2onnx raises where a graph has ops of hw3tf. By itself it writes
    what it does not know into the file as it is, and no runtime reads that."""
    if TF2ONNX in sys.modules:
        _refuse_ops(sys.modules[TF2ONNX])
    else:
        sys.meta_path.insert(0, _Watch())


def _refuse_ops(tfonnx: Any) -> None:
    translate = tfonnx.tensorflow_onnx_mapping

    @functools.wraps(translate)
    def refuse_or_translate(graph: Any, ops_mapping: Any, *args: Any, **kw: Any) -> Any:
        for node in graph.get_nodes():
            op = node.type
            if op.startswith("Hw3tf") and op not in ops_mapping:
                message = INTEGERS if op.startswith("Hw3tfInteger") else TRACED
                raise NotImplementedError(message.format(made="ONNX", op=op))
        return translate(graph, ops_mapping, *args, **kw)

    tfonnx.tensorflow_onnx_mapping = refuse_or_translate


class _Watch(importlib.abc.MetaPathFinder):
    """Sees tf2onnx being imported, once: hw3tf does not import it by itself."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != TF2ONNX:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                _refuse_ops(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec
