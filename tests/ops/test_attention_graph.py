"""The op in graphs: unknown shapes, functional models, saving, export."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from checks import attributes, make_inputs, run_python, with_gradients

from hw3tf import ops


def test_graph_with_unknown_sizes_gives_the_bits_of_eager(path, rng):
    @tf.function(input_signature=[tf.TensorSpec([None, None, 2, 8])] * 4)
    def run(query, key, value, grad_output):
        with tf.GradientTape() as tape:
            tape.watch([query, key, value])
            output = ops.dot_product_attention(query, key, value, is_causal=True)
            loss = tf.reduce_sum(output * grad_output)
        return [output, *tape.gradient(loss, [query, key, value])]

    for batch, query_length, key_length in [(1, 9, 20), (3, 100, 60)]:
        inputs = make_inputs(rng, batch, query_length, key_length, 2, 2, 8, 8)
        eager = with_gradients(ops.dot_product_attention, *inputs, is_causal=True)
        for x, y in zip(run(*inputs), eager, strict=True):
            np.testing.assert_array_equal(x, y)


def test_graph_knows_the_static_shape(kernel_path):
    @tf.function
    def run(query, key, value):
        output = ops.dot_product_attention(query, key, value)
        assert output.shape.as_list() == [None, 5, 4, 3]
        return output

    run.get_concrete_function(
        tf.TensorSpec([None, 5, 4, 8]),
        tf.TensorSpec([None, None, 2, 8]),
        tf.TensorSpec([None, None, 2, 3]),
    )


def test_the_gradient_of_a_bias_is_skipped_where_nobody_wants_it(monkeypatch, rng):
    monkeypatch.setenv("HW3TF_PATH", "op")
    *rows, upstream = map(tf.constant, make_inputs(rng, 2, 9, 20, 4, 2, 8, 8))
    bias = tf.constant(rng.standard_normal((1, 4, 9, 20)), "float32")

    def gradients(bias, wanted):
        sources = [*rows, bias] if wanted else rows
        with tf.GradientTape() as tape:
            tape.watch(sources)
            output = ops.dot_product_attention(*rows, bias)
            loss = tf.reduce_sum(output * upstream)
        return tape.gradient(loss, sources)

    found, skipped = [], []
    for wanted in (False, True):
        function = tf.function(gradients).get_concrete_function(bias, wanted)
        if wanted:
            assert function.structured_outputs[3].shape == bias.shape
        skipped += attributes(function.graph, "Hw3tfAttentionGrad", "skip_grad_bias")
        found.append(gradients(bias, wanted))
    assert skipped == [True, False]
    # One chunk of keys: the same sums.
    for skips, computes in zip(found[0], found[1][:3], strict=True):
        np.testing.assert_array_equal(skips, computes)
    assert np.abs(found[1][3]).max() > 1e-3


def test_a_second_derivative_beside_a_bias_that_nobody_differentiates(rng, recwarn):
    x, bias = (rng.standard_normal(shape) for shape in [(1, 5, 2, 4), (1, 2, 5, 5)])

    def second(path, dtype="float32"):
        y, constant = tf.constant(x, dtype), tf.constant(bias, dtype)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HW3TF_PATH", path)
            with tf.GradientTape() as outer:
                outer.watch(y)
                with tf.GradientTape() as inner:
                    inner.watch(y)
                    output = ops.dot_product_attention(y, y, y, constant)
                    loss = tf.reduce_sum(output**3)
                slope = tf.reduce_sum(inner.gradient(loss, y) ** 2)
            return np.asarray(outer.gradient(slope, y), "float64")

    judge, keras_own = second("reference", "float64"), second("reference")
    # As in test_attention_second_order.
    bound = 2 * np.abs(keras_own - judge).max() + 2**-19 * np.abs(judge).max()
    assert np.abs(second("op") - judge).max() <= bound


def test_tape_in_a_loop_and_a_vectorized_map_work(kernel_path):
    x = tf.random.normal((3, 6, 2, 4))

    @tf.function
    def loss(scale):
        total = tf.constant(0.0)
        y = x
        for _ in tf.range(3):
            y = ops.dot_product_attention(y * scale, y, y)
            total += tf.reduce_sum(y)
        return total

    scale = tf.constant(0.7)
    with tf.GradientTape() as tape:
        tape.watch(scale)
        value = loss(scale)
    slope = tape.gradient(value, scale)
    step = 1e-2
    around = (loss(scale + step) - loss(scale - step)) / (2 * step)
    # The step's own error, and float32's in a sum of 432 numbers of size 1.
    np.testing.assert_allclose(slope, around, atol=2e-2)


def functional_model():
    x = keras.Input((None, 2, 8))
    mask = keras.Input((1, 1, None), dtype="bool")
    y = ops.dot_product_attention(x, x, x, mask=mask, scale=0.5, is_causal=True)
    return keras.Model([x, mask], y)


def test_functional_model_saves_and_loads(path, rng, tmp_path):
    model = functional_model()
    assert model.output_shape == (None, None, 2, 8)
    x = rng.standard_normal((2, 9, 2, 8), np.float32)
    mask = rng.random((2, 1, 1, 9)) < 0.7
    want = ops.dot_product_attention(x, x, x, mask=mask, scale=0.5, is_causal=True)
    np.testing.assert_array_equal(model([x, mask]), want)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([x, mask]), want)


def test_symbolic_shapes_are_checked():
    x = keras.Input((9, 2, 8))
    with pytest.raises(ValueError, match="`key` must have the head size"):
        ops.dot_product_attention(x, keras.Input((9, 2, 7)), x)
    with pytest.raises(ValueError, match="`mask` must broadcast"):
        ops.dot_product_attention(x, x, x, mask=keras.Input((1, 1, 8)))


def test_exported_model_runs_in_a_fresh_process(rng, tmp_path):
    model = functional_model()
    x = rng.standard_normal((2, 9, 2, 8), np.float32)
    mask = rng.random((2, 1, 1, 9)) < 0.7
    want = model([x, mask])
    model.export(tmp_path / "exported", verbose=False)
    np.savez(tmp_path / "data.npz", x=x, mask=mask, want=want)
    code = f"""
import numpy as np, tensorflow as tf
import hw3tf
data = np.load(r"{tmp_path / "data.npz"}")
model = tf.saved_model.load(r"{tmp_path / "exported"}")
got = model.serve([data["x"], data["mask"]])
np.testing.assert_array_equal(got, data["want"])
graph = model.signatures["serving_default"].graph.as_graph_def()
names = {{n.op for f in graph.library.function for n in f.node_def}}
assert "Hw3tfAttention" in names | {{n.op for n in graph.node}}, names
print("equal")
"""
    assert run_python(code).endswith("equal\n")


def test_intra_op_parallelism_sets_the_threads_not_the_result():
    """TensorFlow's own setting reaches the kernel: the pool starts that many
    threads less the caller's. The bits stay."""
    code = """
import os, zlib
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads({threads})
from hw3tf import ops
x = tf.constant(np.random.default_rng(0).standard_normal((1, 600, 2, 32), "float32"))
ops.dot_product_attention(x[:, :2], x[:, :2], x[:, :2])  # serial: too small
before = len(os.listdir("/proc/self/task"))
y = ops.dot_product_attention(x, x, x).numpy()
print(len(os.listdir("/proc/self/task")) - before, zlib.crc32(y.tobytes()))
"""
    out = [
        run_python(code.format(threads=n), HW3TF_NUM_THREADS=None).split()[-2:]
        for n in (1, 3)
    ]
    assert [started for started, _ in out] == ["0", "2"]
    assert out[0][1] == out[1][1]


@pytest.mark.parametrize("layer", ["LSTM", "MultiHeadAttention"])
def test_set_num_threads_goes_before_intra_op_parallelism(layer):
    code = f"""
import os
import numpy as np, tensorflow as tf
tf.config.threading.set_intra_op_parallelism_threads(3)
import hw3tf
x = tf.constant(np.random.default_rng(0).standard_normal((16, 100, 64), "float32"))
if {layer!r} == "LSTM":
    call = hw3tf.layers.LSTM(64)
else:
    attention = hw3tf.layers.MultiHeadAttention(2, 32)
    call = lambda x: attention(x, x)
call(x[:1, :2])  # serial: too small
counts = [len(os.listdir("/proc/self/task"))]
for threads in (1, 0):
    hw3tf.ops.set_num_threads(threads)
    call(x)
    counts.append(len(os.listdir("/proc/self/task")))
print(counts[1] - counts[0], counts[2] - counts[1])
"""
    assert run_python(code, HW3TF_NUM_THREADS=None).split()[-2:] == ["0", "2"]
