"""The promised names of the package (docs/compatibility.md), one line per name.

    python tests/helpers/public_names.py

writes it into tests/data/public_names.txt, which tests/release/test_compatibility.py
compares. To run this is to add to the promise, or to break it: say so in CHANGELOG.md.
"""

import importlib
import inspect
import pathlib

FILE = pathlib.Path(__file__).parents[1] / "data/public_names.txt"
PROMISED = (
    "hw3tf",
    "hw3tf.acceleration",
    "hw3tf.layers",
    "hw3tf.ops",
    "hw3tf.reference",
)
# The course changes with the tutorials; the others are new.
NOT_PROMISED = {"hw3tf.course", "hw3tf.jax", "hw3tf.torch"}
OPS = (
    "hw3tf_attention",
    "hw3tf_attention_grad",
    "hw3tf_integer_rnn",
    "hw3tf_integer_rnn_sequence",
    "hw3tf_lstm",
    "hw3tf_lstm_grad",
    "hw3tf_gru",
    "hw3tf_gru_grad",
    "hw3tf_simple_rnn",
    "hw3tf_simple_rnn_grad",
)


def parameters(function):
    """The parameters of a function as text: names, kinds and defaults, no types."""
    signature = inspect.signature(function)
    plain = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return str(inspect.Signature(plain))


def is_own(class_):
    return class_.__module__.partition(".")[0] == "hw3tf"


def own_methods(class_):
    """`call`, and the public methods that Keras's classes do not have."""
    theirs = {name for c in class_.__mro__ if not is_own(c) for name in vars(c)}
    for base in reversed(class_.__mro__):
        if is_own(base):
            for name in vars(base):
                if name.startswith("_") or not callable(getattr(class_, name)):
                    continue
                if name == "call" or name not in theirs:
                    yield name


def lines_of_class(class_, name):
    """Its parameters, unless they are those of the installed Keras; its name in
    saved models; its methods."""
    import keras

    bases = class_.__mro__
    if is_own(next(c for c in bases if "__init__" in vars(c))):
        yield f"{name}{parameters(class_.__init__)}"
    else:
        yield f"{name} with Keras's parameters"
    if issubclass(class_, keras.Operation):
        yield f"{name} is saved as {keras.saving.get_registered_name(class_)}"
    for method in dict.fromkeys(own_methods(class_)):
        yield f"{name}.{method}{parameters(getattr(class_, method))}"


def lines_of(module, name):
    """The lines of one name of a module."""
    thing, name = getattr(module, name), f"{module.__name__}.{name}"
    if inspect.isclass(thing):
        yield from lines_of_class(thing, name)
    elif callable(thing):
        yield f"{name}{parameters(thing)}"
    else:
        yield name


def public_names():
    """All lines, sorted; one for each TensorFlow op, too: graphs contain them."""
    import hw3tf

    lines = set()
    for module in map(importlib.import_module, PROMISED):
        for name in module.__all__:
            lines.update(lines_of(module, name))
    library = hw3tf.load_op_library()
    for name in OPS:
        lines.add(f"op {name}{parameters(getattr(library, name))}")
    return sorted(lines)


if __name__ == "__main__":
    FILE.write_text("\n".join(public_names()) + "\n")
