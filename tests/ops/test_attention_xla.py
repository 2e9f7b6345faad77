"""The kernel under XLA, `tf.function(jit_compile=True)`: a custom call."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import run_python
from option_checks import EPS, check, make_arrays, rounded, run, scores_shape

from hw3tf import layers, ops
from hw3tf.ops.fronts import reference

SIZES = (2, 9, 7, 4, 2, 8, 5)  # B, T, S, N, K, H, size of value


@pytest.fixture(autouse=True)
def _kernel(monkeypatch):
    """Under XLA or not: in this file a call that takes the reference fails."""

    def refuse(*args, **kwargs):
        raise AssertionError("the reference ran")

    monkeypatch.delenv("HW3TF_PATH", raising=False)
    monkeypatch.setattr(reference, "attention", refuse)


def make_options(rng, arrays):
    """One of each option, as arrays."""
    batch, _, query_length, key_length = scores_shape(arrays)
    return {
        "mask": rng.random((1, 1, query_length, key_length)) < 0.7,
        "query_mask": rng.random((batch, query_length)) < 0.8,
        "key_mask": rng.random((batch, key_length)) < 0.8,
        "query_lengths": np.array([query_length, 3]),
        "key_lengths": np.array([4, key_length]),
        "is_causal": True,
        "sliding_window": 3,
        "attn_logits_soft_cap": 2.0,
        "dropout_rate": 0.3,
        "dropout_seed": 2**40 + 1,
    }


OPTIONS = ("mask", "query_mask", "key_mask", "query_lengths", "key_lengths")
OPTIONS += ("is_causal", "sliding_window", "attn_logits_soft_cap", "dropout_rate")


@pytest.mark.parametrize("name", ["nothing", "bias", "logsumexp", *OPTIONS])
def test_option_is_as_exact_as_keras(name, rng):
    """Output and gradients, with unknown batch size and lengths."""
    arrays = make_arrays(rng, *SIZES)
    if name != "logsumexp":
        del arrays["grad_logsumexp"]
    if name == "bias":
        arrays["bias"] = rng.standard_normal((4, 1, 7))
    chosen = {name, "dropout_seed" if name == "dropout_rate" else name}
    options = {n: x for n, x in make_options(rng, arrays).items() if n in chosen}
    check(arrays, options=options, graph=True, jit_compile=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
def test_all_options_give_the_bits_of_the_op(dtype, rng):
    arrays = make_arrays(rng, *SIZES) | {"bias": rng.standard_normal((1, 4, 9, 7))}
    arrays = rounded(arrays, dtype)
    options = make_options(rng, arrays)
    got, want = (
        run(ops.dot_product_attention, arrays, dtype, options, True, jit)
        for jit in (True, False)
    )
    for name, x in want.items():
        # XLA may leave out what rounds the bias and its gradient to 16 bits.
        unit = EPS[dtype] if name == "grad_bias" and "16" in dtype else 0
        np.testing.assert_allclose(got[name], x, rtol=unit, err_msg=name)


def compiled(function, *specs):
    return tf.function(function, specs or None, jit_compile=True)


def test_path_says_xla(rng):
    paths = []

    @tf.function(jit_compile=True)
    def call(x):
        paths.append(ops.attention_path(x, x, x))
        paths.append(ops.attention_path(x, x, x, scale=tf.constant(1.0)))
        return x

    call(tf.zeros((1, 4, 2, 8)))
    assert str(paths[0]) == "xla (the kernel covers the call, compiled by XLA)"
    assert paths[1].path == "reference"


@pytest.mark.parametrize("forced", ["pybind", "reference"])
def test_forced_paths_take_the_reference(forced, monkeypatch):
    monkeypatch.setenv("HW3TF_PATH", forced)
    paths = []
    compiled(lambda x: paths.append(ops.attention_path(x, x, x)) or x)(
        tf.zeros((1, 4, 2, 8))
    )
    assert paths[0].path == "reference"


def test_static_shapes_stay_known():
    @tf.function(jit_compile=True)
    def call(query, key, value):
        output, logsumexp = ops.dot_product_attention(
            query, key, value, return_logsumexp=True
        )
        assert output.shape.as_list() == [None, 5, 4, 3]
        assert logsumexp.shape.as_list() == [None, 4, 5]
        return output

    call.get_concrete_function(
        tf.TensorSpec([None, 5, 4, 8]),
        tf.TensorSpec([None, None, 2, 8]),
        tf.TensorSpec([None, None, 2, 3]),
    )


def test_seed_is_an_input_of_the_compiled_program(rng):
    """Another seed drops others, without another trace."""
    x = rng.standard_normal((2, 20, 2, 8), np.float32)
    traces = []

    def call(seed):
        traces.append(seed)
        return ops.dot_product_attention(x, x, x, dropout_rate=0.4, dropout_seed=seed)

    call_compiled = compiled(call)
    for seed in (3, 4):
        np.testing.assert_array_equal(
            call_compiled(tf.constant(seed)), call(tf.constant(seed))
        )
    assert len(traces) == 3  # one trace, two eager calls


def test_nan_is_neither_hidden_nor_spread(rng):
    x = rng.standard_normal((1, 6, 1, 4), np.float32)
    x[0, 3] = np.nan
    call = compiled(lambda x: ops.dot_product_attention(x, x, x, is_causal=True))
    output = call(x).numpy()
    assert np.isfinite(output[:, :3]).all()
    assert np.isnan(output[:, 3:]).all()


def test_empty_batch_and_no_queries_give_empty_results(rng):
    spec = tf.TensorSpec([None, None, 2, 8])
    call = compiled(lambda q, k: ops.dot_product_attention(q, k, k), spec, spec)
    x = rng.standard_normal((2, 9, 2, 8), np.float32)
    assert call(x[:0], x[:0]).shape == (0, 9, 2, 8)
    assert call(x[:, :0], x).shape == (2, 0, 2, 8)


def test_wrong_sizes_at_run_time_raise(rng):
    """And the process lives on: the same function serves the next call."""
    spec = tf.TensorSpec([None, None, 2, 8])
    lengths = tf.TensorSpec([None], tf.int32)

    @tf.function(input_signature=[spec, spec, lengths], jit_compile=True)
    def call(query, key, lengths):
        with tf.GradientTape() as tape:
            tape.watch(query)
            y = ops.dot_product_attention(query, key, key, key_lengths=lengths)
        return y, tape.gradient(y, query)

    x = rng.standard_normal((3, 9, 2, 8), np.float32)
    good = call(x, x, [9, 1, 4])
    for arguments, message in [
        ((x, x, [9, 10, 4]), r"`key_lengths` must be between.*key_lengths\[1\]=10"),
        ((x, x, [9, 1]), r"`key_lengths` must have shape \(3,\)"),
        ((x, x[:2], [9, 1]), "`key` must have the batch size of `query`, 3"),
    ]:
        with pytest.raises(tf.errors.OpError, match=message):
            call(*arguments)
    for y, again in zip(good, call(x, x, [9, 1, 4]), strict=True):
        np.testing.assert_array_equal(y, again)


@pytest.mark.parametrize("axis", [0, 1])
def test_sizes_that_depend_on_values_raise(axis):
    """XLA knows an upper bound of them only: the arrays are larger than they say.
    Later versions than 2.16 refuse them themselves."""

    @tf.function(jit_compile=True)
    def call(x, keep):
        y = tf.boolean_mask(x, keep, axis=axis)
        return ops.dot_product_attention(y, y, y)

    with pytest.raises(tf.errors.OpError, match=r"dynamic dimension|depend on values"):
        call(tf.zeros((2, 2, 2, 8)), tf.constant([True, False]))


def test_tape_outside_and_a_loop_inside_work(rng):
    x = tf.constant(rng.standard_normal((2, 6, 2, 4), np.float32))

    def steps(x):
        y = x
        for _ in range(3):
            y = ops.dot_product_attention(y, x, y)
        return y

    def loop(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            _, y = tf.while_loop(
                lambda i, _: i < 3,
                lambda i, y: (i + 1, ops.dot_product_attention(y, x, y)),
                [0, x],
                maximum_iterations=3,
            )
        return y, tape.gradient(y, x)

    results = []
    for function in (steps, compiled(steps)):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = function(x)
        results.append((y, tape.gradient(y, x)))
    results.append(compiled(loop)(x))
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            # The kernel gives the same bits; sums of gradients are XLA's own.
            np.testing.assert_allclose(got, want, atol=1e-6)


def test_ragged_attention_gives_the_bits_of_the_op(rng):
    values = rng.standard_normal((9, 2, 8), np.float32)
    x = tf.RaggedTensor.from_row_lengths(values, [4, 0, 5])
    paths = []

    def call(values, splits):
        x = tf.RaggedTensor.from_row_splits(values, splits, validate=False)
        with tf.GradientTape() as tape:
            tape.watch(values)
            x = x.with_values(values)
            paths.append(ops.attention_path(x, x, x))
            y = ops.ragged_dot_product_attention(x, x, x, is_causal=True).values
            loss = tf.reduce_sum(y * y)
        return y, tape.gradient(loss, values)

    got = compiled(call)(x.values, x.row_splits)
    for y, want in zip(got, call(x.values, x.row_splits), strict=True):
        np.testing.assert_allclose(y, want, atol=1e-6)
    assert [p.path for p in paths] == ["xla", "op"]


def test_ragged_value_of_other_lengths_raises():
    """XLA leaves assertions out."""

    def call(values, splits, others):
        x, v = (
            tf.RaggedTensor.from_row_splits(values, s, validate=False)
            for s in (splits, others)
        )
        return ops.ragged_dot_product_attention(x, x, v).values

    x = tf.zeros((9, 2, 8))
    with pytest.raises(tf.errors.OpError, match=r"`key_splits` must be.*=-1"):
        compiled(call)(x, tf.constant([0, 4, 9]), tf.constant([0, 5, 9]))


def make_model():
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(20, 16, mask_zero=True)(inputs)
    x = x + layers.MultiHeadAttention(2, 8)(x, x, use_causal_mask=True)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(1)(x))


def test_fit_with_jit_compile_is_fit(rng):
    """Training, the last batch of 2 included, evaluation and prediction."""
    tokens = rng.integers(1, 20, (10, 12)) * (rng.random((10, 1)) * 12 > range(12))
    tokens[:, 0] = 1
    target = np.mean(tokens % 3, axis=1, keepdims=True)
    results = {}
    for jit in (True, False):
        keras.utils.set_random_seed(1)
        model = make_model()
        model.compile("adam", "mse", jit_compile=jit)
        # Else the training step is traced twice: it would create these variables.
        model.optimizer.build(model.trainable_variables)
        history = model.fit(
            tokens, target, batch_size=4, epochs=3, shuffle=False, verbose=0
        )
        results[jit] = [
            history.history["loss"],
            model.evaluate(tokens, target, batch_size=4, verbose=0),
            model.predict(tokens, batch_size=4, verbose=0),
            *model.get_weights(),
        ]
        assert model.jit_compile is jit
    for got, want in zip(results[True], results[False], strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_compiled_saved_model_runs_in_a_fresh_process(rng, tmp_path):
    class Module(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec([None, None, 2, 8])], jit_compile=True
        )
        def __call__(self, x):
            return ops.dot_product_attention(x, x, x, is_causal=True)

    module, x = Module(), rng.standard_normal((2, 9, 2, 8), np.float32)
    tf.saved_model.save(module, tmp_path / "saved")
    np.savez(tmp_path / "data.npz", x=x, want=module(x))
    code = f"""
import numpy as np, tensorflow as tf
import hw3tf
data = np.load(r"{tmp_path / "data.npz"}")
module = tf.saved_model.load(r"{tmp_path / "saved"}")
np.testing.assert_array_equal(module(data["x"]), data["want"])
print("equal")
"""
    assert run_python(code).endswith("equal\n")


def test_intra_op_parallelism_sets_the_threads():
    """As in the op: the pool starts that many threads less the caller's."""
    code = """
import os
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(3)
from hw3tf import ops
x = tf.constant(np.ones((1, 600, 2, 32), "float32"))
spec = [tf.TensorSpec([1, None, 2, 32])]
run = tf.function(lambda x: ops.dot_product_attention(x, x, x), spec, jit_compile=True)
for length in (2, 3):  # serial: too small; XLA has its threads afterwards
    run(x[:, :length])
before = len(os.listdir("/proc/self/task"))
run(x)
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert run_python(code, HW3TF_NUM_THREADS=None).split()[-1] == "2"
