"""Small random models, and every method by which Keras runs them, drawn by Hypothesis
for acceleration/test_models_property.py and fuzz_models.py.

A case is run three times: in stock Keras, in stock Keras with float64, which is the
judge, and on the kernels; all with the same weights and data.
"""

import contextlib
import warnings

import keras
import numpy as np
import tensorflow as tf
from checks import assert_as_close_as_keras
from custom_attention import CUSTOM
from hypothesis import reject
from hypothesis import strategies as st

import hw3tf

# Optional features to draw. One of them may be switched off while it is known to fail.
DRAWN = {
    "batch of 1": True,  # beside a batch of B
    "no keys": True,
    "customised": True,
    "hidden rows of Attention": True,
}
STOCK = {
    "MultiHeadAttention": keras.layers.MultiHeadAttention,
    "GroupQueryAttention": keras.layers.GroupQueryAttention,
    "Attention": keras.layers.Attention,
    "AdditiveAttention": keras.layers.AdditiveAttention,
}
RECURRENT = ("LSTM", "GRU", "SimpleRNN")


class Learned(keras.layers.Layer):
    """A learned sequence, (1, length, size), whatever the batch of its input; or
    repeated for that batch, which every attention of Keras can take."""

    def __init__(self, length, size, repeated, **kwargs):
        super().__init__(**kwargs)
        self.length, self.size, self.repeated = length, size, repeated

    def build(self, _):
        self.sequence = self.add_weight(shape=(1, self.length, self.size))

    def call(self, x):
        times = keras.ops.shape(x)[0] if self.repeated else 1
        return keras.ops.tile(self.sequence, (times, 1, 1))

    def compute_output_shape(self, shape):
        return shape[0] if self.repeated else 1, self.length, self.size


def heads(draw, kind):
    """Arguments of an attention layer."""
    share = st.sampled_from([0.0, 0.0, 0.4])
    if kind == "AdditiveAttention":
        return {"use_scale": draw(st.booleans()), "dropout": draw(share)}
    if kind == "Attention":
        mode = draw(st.sampled_from(["dot", "dot", "concat"]))
        common = {"use_scale": draw(st.booleans()), "dropout": draw(share)}
        return {"score_mode": mode, **common}
    options = {
        "dropout": draw(share),
        "use_bias": draw(st.booleans()),
        "use_gate": draw(st.booleans()),
        "sliding_window": draw(st.sampled_from([None, None, 1, 3])),
    }
    groups, size = draw(st.integers(1, 2)), draw(st.integers(1, 5))
    if kind == "GroupQueryAttention":
        query_heads = groups * draw(st.integers(1, 3))
        counts = {"num_query_heads": query_heads, "num_key_value_heads": groups}
        return {"head_dim": size, **counts, **options}
    options["value_dim"] = draw(st.sampled_from([None, 1, 4]))
    options["output_shape"] = draw(st.sampled_from([None, 3]))
    return {"num_heads": groups, "key_dim": size, **options}


@st.composite
def cases(draw):
    """A dict that `check` takes."""
    kinds = [*STOCK, "MultiHeadAttention", "IntegerRNN", *RECURRENT]
    kind = draw(st.sampled_from(kinds))
    case = {
        "kind": kind,
        "seed": draw(st.integers(0, 2**32)),
        "rows": draw(st.integers(1, 5)),
        "length": draw(st.integers(1, 7)),
        "size": draw(st.integers(1, 6)),
        "padded": draw(st.booleans()),
        "any length": draw(st.booleans()),
        "run": draw(st.sampled_from(["predict", "evaluate", "fit"])),
        "data": draw(st.sampled_from(["arrays", "data set", "whole batches"])),
        "eager": draw(st.sampled_from([False, False, True])),
        "steps at once": draw(st.sampled_from([1, 1, 2])),
    }
    case["batch"] = draw(st.integers(1, case["rows"]))
    if kind == "IntegerRNN":
        return case | {
            "options": integer_options(draw),
            "units": draw(st.integers(1, 3)),
        }
    if kind in RECURRENT:
        options, both = recurrent_options(draw, kind), draw(st.booleans())
        if both:  # Keras refuses to begin with the second direction
            options["go_backwards"] = False
        return case | {
            "options": options,
            "units": draw(st.integers(1, 6)),
            "both directions": both,
            "by": draw(st.sampled_from(["accelerate", "layers"])),
        }
    memories = ["self", "self", "other"]
    memories += ["learned query", "learned memory"] * DRAWN["batch of 1"]
    memories += ["none"] * DRAWN["no keys"]
    memory = draw(st.sampled_from(memories))
    heads_alike = kind in ("MultiHeadAttention", "GroupQueryAttention")
    custom = [None, None, *CUSTOM[kind]] if DRAWN["customised"] else [None]
    case |= {
        "options": heads(draw, kind),
        "custom": draw(st.sampled_from(custom)),
        "memory": memory,
        "keys": 0 if memory == "none" else draw(st.integers(1, 7)),
        "causal": draw(st.booleans()),
        "mask": heads_alike and draw(st.booleans()),
        "scores": draw(st.sampled_from([False, False, True])),
        "by": draw(
            st.sampled_from(
                ["accelerate", "layers", "enable"][: 3 if heads_alike else 1]
            )
        ),
    }
    if kind == "Attention" and not DRAWN["hidden rows of Attention"]:
        case["padded"] = False
    return case


def integer_options(draw):
    return {
        "return_sequences": draw(st.booleans()),
        "go_backwards": draw(st.booleans()),
        "activation": draw(st.sampled_from([None, "relu", "sign"])),
        "overflow": draw(st.sampled_from(["raise", "wrap", "saturate"])),
    }


def recurrent_options(draw, kind):
    share = st.sampled_from([0.0, 0.0, 0.4])
    options = {
        "return_sequences": draw(st.booleans()),
        "go_backwards": draw(st.booleans()),
        "zero_output_for_mask": draw(st.booleans()),
        "use_bias": draw(st.booleans()),
        "activation": draw(st.sampled_from(["tanh", "tanh", None, "relu", "gelu"])),
        "dropout": draw(share),
        "recurrent_dropout": draw(share),
    }
    if kind == "SimpleRNN":
        return options
    options["recurrent_activation"] = draw(
        st.sampled_from(["sigmoid", "sigmoid", "hard_sigmoid"])
    )
    # Keras cannot do both of a product per gate and dropout of inputs alone, unless:
    options |= {"implementation": draw(st.sampled_from([1, 2])), "use_cudnn": False}
    if kind == "GRU":
        options["reset_after"] = draw(st.booleans())
    return options


def attention_layer(case, dtype, fused):
    module = hw3tf.layers if fused and case["by"] == "layers" else keras.layers
    cls = getattr(module, case["kind"])
    if case["custom"]:
        cls = CUSTOM[case["kind"]][case["custom"]](cls)
    return cls(**case["options"], dtype=dtype)


def attention_model(case, dtype, fused, repeated):
    size, length = case["size"], None if case["any length"] else case["length"]
    inputs = {"x": keras.Input((length, size), dtype=dtype, name="x")}
    x = inputs["x"]
    if case["padded"]:
        x = keras.layers.Masking(0.0, dtype=dtype)(x)
    query = memory = x
    if case["memory"] == "learned query":
        query = Learned(case["keys"], size, repeated, dtype=dtype)(x)
    elif case["memory"] == "learned memory":
        memory = Learned(case["keys"], size, repeated, dtype=dtype)(x)
    elif case["memory"] in ("other", "none"):
        memory = keras.Input((case["keys"], size), dtype=dtype, name="memory")
        inputs["memory"] = memory
    call = {"use_causal_mask": case["causal"]}
    if case["mask"]:
        shape = score_shape(case)
        inputs["mask"] = keras.Input(shape, dtype="bool", name="mask")
        call["attention_mask"] = inputs["mask"]
    layer = attention_layer(case, dtype, fused)
    if case["scores"]:
        call["return_attention_scores"] = True
    together = isinstance(layer, keras.layers.Attention)
    result = (
        layer([query, memory], **call) if together else layer(query, memory, **call)
    )
    outputs = list(result) if case["scores"] else [result]
    outputs[0] = keras.layers.Dense(2, dtype=dtype)(outputs[0])
    return keras.Model(inputs, outputs if case["run"] == "predict" else outputs[0])


def score_shape(case):
    """Queries and keys."""
    queries = case["keys"] if case["memory"] == "learned query" else case["length"]
    same = case["memory"] in ("self", "learned query")
    return queries, case["length"] if same else case["keys"]


def data_of(case):
    """Inputs and targets, as dicts of arrays."""
    rng = np.random.default_rng(case["seed"])
    rows, length, size = case["rows"], case["length"], case["size"]
    x = rng.standard_normal((rows, length, size))
    if case["padded"]:
        x *= np.arange(length)[:, None] < rng.integers(0, length + 1, (rows, 1, 1))
    queries, keys = score_shape(case)
    return {
        "x": x,
        "memory": rng.standard_normal((rows, keys, size)),
        "mask": rng.random((rows, queries, keys)) < 0.6,
    }, rng.standard_normal((rows, queries, 2))


def weights_of(model, seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(w.shape) / 2 for w in model.weights]


def run(model, case, inputs, targets):
    """Arrays: what predict returns; the loss; or the loss and the new weights."""
    dtype = model.compute_dtype
    inputs = {
        x.name: inputs[x.name].astype(x.dtype if x.dtype != "float32" else dtype)
        for x in model.inputs
    }
    steps = 1 if case["eager"] else case["steps at once"]
    model.compile(
        keras.optimizers.SGD(0.1),
        "mse",
        run_eagerly=case["eager"],
        jit_compile=False,
        steps_per_execution=steps,
    )
    batch = case["rows"] if case["run"] == "fit" else case["batch"]
    given = {"x": inputs, "batch_size": batch, "verbose": 0}
    if case["data"] != "arrays":
        pairs = tf.data.Dataset.from_tensor_slices((inputs, targets.astype(dtype)))
        whole = case["data"] == "whole batches"
        given = {"x": pairs.batch(batch, drop_remainder=whole), "verbose": 0}
    elif case["run"] != "predict":
        given["y"] = targets.astype(dtype)
    if case["run"] == "predict":
        return keras.tree.flatten(model.predict(**given))
    if case["run"] == "evaluate":
        return [np.asarray(model.evaluate(**given))]
    history = model.fit(**given, shuffle=False)
    return [np.asarray(history.history["loss"]), *model.get_weights()]


def check_attention(case):
    inputs, targets = data_of(case)
    try:
        got = fused_results(case, inputs, targets)
    except Exception:
        refused_by_keras(case, inputs, targets)
        raise
    stock, exact = (
        stock_results(case, dtype, inputs, targets, repeated=True)
        for dtype in ("float32", "float64")
    )
    assert len(got) == len(stock)
    if case["run"] == "fit" and case["options"]["dropout"]:
        # Other weights are dropped than Keras's random numbers would.
        for x, y in zip(got, stock, strict=True):
            assert x.shape == y.shape
            assert np.isfinite(x).all() == np.isfinite(y).all()
        return
    compare(case, got, stock, exact)


def fused_results(case, inputs, targets):
    model = attention_model(case, "float32", fused=True, repeated=False)
    model.set_weights(weights_of(model, case["seed"]))
    if case["by"] == "accelerate":
        hw3tf.accelerate(model)
    with hw3tf.enable() if case["by"] == "enable" else contextlib.nullcontext():
        return run(model, case, inputs, targets)


def refused_by_keras(case, inputs, targets):
    """Gives the case up if stock Keras cannot compute it either."""
    try:
        stock_results(case, "float32", inputs, targets, repeated=False)
    except Exception:
        reject()


def stock_results(case, dtype, inputs, targets, repeated):
    model = attention_model(case, dtype, fused=False, repeated=repeated)
    model.set_weights(weights_of(model, case["seed"]))
    return run(model, case, inputs, targets)


def compare(case, *results):
    for i, arrays in enumerate(zip(*results, strict=True)):
        got, stock, exact = (np.asarray(x, "float64") for x in arrays)
        # Losses, and weights after a step, are sums of terms that cancel.
        terms = 1.0 if case["run"] == "predict" else 8.0
        np.testing.assert_array_equal(np.isnan(got), np.isnan(stock), f"result {i}")
        known = ~np.isnan(exact)
        assert_as_close_as_keras(
            [np.where(known, got, 0)],
            [np.where(known, exact, 0)],
            [np.where(known, stock, 0)],
            f"result {i}",
            terms,
        )


def recurrent_model(case, dtype, fused):
    ours = fused and case["by"] == "layers"
    keras.utils.set_random_seed(0)  # of dropout: Keras copies layers without their seed
    layer = getattr(hw3tf.layers if ours else keras.layers, case["kind"])(
        case["units"], dtype=dtype, **case["options"]
    )
    if case["both directions"]:
        layer = keras.layers.Bidirectional(layer, dtype=dtype)
    length = None if case["any length"] else case["length"]
    x = keras.Input((length, case["size"]), name="x", dtype=dtype)
    y = keras.layers.Masking(0.0, dtype=dtype)(x) if case["padded"] else x
    return keras.Model(x, keras.layers.Dense(2, dtype=dtype)(layer(y)))


def check_recurrent(case):
    inputs, targets = data_of({**case, "memory": "self"})
    if not case["options"]["return_sequences"]:
        targets = targets[:, 0]
    results = []
    for dtype, fused in (("float32", True), ("float32", False), ("float64", False)):
        model = recurrent_model(case, dtype, fused)
        model.set_weights(weights_of(model, case["seed"]))
        if fused and case["by"] == "accelerate":
            hw3tf.accelerate(model)
        results.append(run(model, case, inputs, targets))
    drops = case["options"]["dropout"] or case["options"]["recurrent_dropout"]
    if case["run"] == "fit" and drops:  # other numbers in float64
        for x, y in zip(*results[:2], strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5)
    else:
        compare(case, *results)


def integer_model(case, layer):
    x = keras.Input((None, case["size"]), dtype="int32", name="x")
    y = keras.layers.Lambda(lambda h: keras.ops.cast(h, "float32") / 16)(layer(x))
    return keras.Model(x, keras.layers.Dense(2)(y))


def check_integers(case):
    """The layer against the cell of the reference, which Keras runs step by step."""
    rng = np.random.default_rng(case["seed"])
    shape = case["rows"], case["length"], case["size"]
    inputs = {"x": rng.integers(-4, 5, shape)}
    options, units = dict(case["options"]), case["units"]
    sequence = {k: options.pop(k) for k in ("return_sequences", "go_backwards")}
    layers = [
        hw3tf.layers.IntegerRNN(units, **sequence, **options),
        keras.layers.RNN(
            hw3tf.reference.IntegerRNNCell(units, **cell_options(options)), **sequence
        ),
    ]
    models = [integer_model(case, layer) for layer in layers]
    recurrent = [rng.integers(-2, 3, w.shape) for w in layers[0].weights]
    dense = [rng.standard_normal(w.shape) for w in models[0].weights[len(recurrent) :]]
    steps = (case["length"],) if sequence["return_sequences"] else ()
    targets = rng.standard_normal((case["rows"], *steps, 2))
    results = []
    for model in models:
        model.set_weights(recurrent + dense)
        results.append(run(model, case, inputs, targets))
    for x, y in zip(*results, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


def cell_options(options):
    return {k: x for k, x in options.items() if k != "overflow"}


def check(case):
    """Raises AssertionError, or what a model raises."""
    try:
        with warnings.catch_warnings():
            # Keras warns of a single key, and of masks that layers pass on.
            warnings.simplefilter("ignore")
            checks = {"IntegerRNN": check_integers}
            checks |= dict.fromkeys(RECURRENT, check_recurrent)
            checks.get(case["kind"], check_attention)(case)
    finally:
        keras.backend.clear_session()
