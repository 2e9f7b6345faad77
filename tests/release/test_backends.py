"""hw3tf with Keras's other backends: the kernels on JAX, the reference elsewhere.

Each in a process of its own: the backend is chosen when Keras is imported."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from checks import run_python

import hw3tf

CODE = """
import keras, numpy as np
import hw3tf
from hw3tf import ops

data = np.load(r"{file}")
assert keras.backend.backend() == "{backend}"
query, key, value = (keras.ops.convert_to_tensor(data[k]) for k in "qkv")
path = ops.attention_path(query, key, value)
kernel = "{backend}" == "jax"
if kernel:
    assert str(path) == "ffi (the kernel covers the call)", path
else:
    assert str(path) == "reference (the backend is {backend})", path

def check(name, got):
    # Sums of at most 12 float32 products of size 1, in another order.
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(got), data[name], atol=1e-5, err_msg=name
    )

options = dict(is_causal=True, sliding_window=3, key_mask=data["mask"])
check("output", ops.dot_product_attention(query, key, value, **options))
layer = hw3tf.layers.MultiHeadAttention(2, 4)
layer.build((2, 9, 8), (2, 9, 8))
layer.set_weights([data[f"weight_{{i}}"] for i in range(len(layer.weights))])
x = keras.ops.convert_to_tensor(data["x"])
mask = keras.ops.convert_to_tensor(data["mask"])
check("layer", layer(x, x, value_mask=mask, use_causal_mask=True))
attending = keras.Input((9, 8))
attention = keras.layers.MultiHeadAttention(2, 4)
model = keras.Model(attending, attention(attending, attending))
before = keras.ops.convert_to_numpy(model(x))
report = hw3tf.accelerate(model)
assert report.num_fused == kernel, report
assert kernel or "the backend is {backend}" in str(report), report
np.testing.assert_allclose(
    keras.ops.convert_to_numpy(model(x)), before, atol=1e-6 if kernel else 0
)
integers = keras.ops.convert_to_tensor([[[5], [3], [4], [1]]])
minus_one = keras.initializers.Constant(-1)
recurrent = hw3tf.layers.IntegerRNN(
    1, recurrent_initializer=minus_one, overflow="wrap", dtype="int32"
)
assert keras.ops.convert_to_numpy(recurrent(integers)).tolist() == [[-5]]
inputs = keras.Input((9, 8))
fitted = keras.Model(inputs, hw3tf.layers.MultiHeadAttention(2, 4)(inputs, inputs))
fitted.compile("sgd", "mse")
losses = fitted.fit(data["x"], data["x"], epochs=3, verbose=0).history["loss"]
assert losses[-1] < losses[0], losses
print("equal")
"""


INTEGERS = """
import keras, numpy as np
from hw3tf import ops

data = np.load(r"{file}")
for dtype in ("int32", "int64"):
    for overflow in ("raise", "wrap", "saturate"):
        name = f"{{dtype}}-{{overflow}}"
        got = ops.integer_rnn(
            data[f"{{name}}-x"], data[dtype + "-w"], data[dtype + "-u"],
            overflow=overflow, return_sequences=True,
        )
        got = keras.ops.convert_to_numpy(got)
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, data[name], err_msg=name)
print("equal")
"""

# JAX as it is by default.
HALF = """
steps, weights = np.ones((1, 2, 3), "int64"), np.ones((3, 3), "int64")
for act in (
    lambda: ops.integer_rnn(steps, weights, weights),
    lambda: hw3tf.layers.IntegerRNN(2, dtype="int64")(steps.astype("int32")),
):
    try:
        act()
    except NotImplementedError as error:
        assert "JAX_ENABLE_X64=1" in str(error)
    else:
        raise AssertionError("64 bits of which JAX drops half")
print("and refused")
"""


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_integers_are_exact_on_another_backend(backend, rng, tmp_path):
    """Sums far above 2**24, beyond which float32 rounds."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    data = {}
    for dtype in ("int32", "int64"):
        top = int(np.iinfo(dtype).max)
        w, u = (rng.integers(-5, 6, (rows, 2)).astype(dtype) for rows in (3, 2))
        data |= {dtype + "-w": w, dtype + "-u": u}
        for overflow in ("raise", "wrap", "saturate"):
            limit = top // 10**6 if overflow == "raise" else top
            x = rng.integers(-limit, limit, (2, 5, 3)).astype(dtype)
            data[f"{dtype}-{overflow}-x"] = x
            data[f"{dtype}-{overflow}"] = hw3tf.ops.integer_rnn(
                x, w, u, overflow=overflow, return_sequences=True
            )
    file = tmp_path / "integers.npz"
    np.savez(file, **data)
    code = INTEGERS.format(file=file)
    variables = {"KERAS_BACKEND": backend, "JAX_ENABLE_X64": "1"}
    assert run_python(code, modules=(), **variables).endswith("equal\n")


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_layers_and_functions_are_right_on_another_backend(backend, rng, tmp_path):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    query, key, value = rng.standard_normal((3, 2, 9, 2, 4), np.float32)
    x = rng.standard_normal((2, 9, 8), np.float32)
    mask = np.arange(9) < np.array([[9], [5]])
    layer = keras.layers.MultiHeadAttention(2, 4)
    layer.build((2, 9, 8), (2, 9, 8))
    output = hw3tf.ops.dot_product_attention(
        query, key, value, is_causal=True, sliding_window=3, key_mask=mask
    )
    weights = {f"weight_{i}": w for i, w in enumerate(layer.get_weights())}
    file = tmp_path / "data.npz"
    np.savez(
        file, q=query, k=key, v=value, x=x, mask=mask, output=output,
        layer=layer(x, x, value_mask=mask, use_causal_mask=True), **weights,
    )  # fmt: skip
    code, last = CODE.format(file=file, backend=backend), "equal"
    if backend == "jax":
        code, last = code + HALF, "and refused"
    variables = {"KERAS_BACKEND": backend, "JAX_ENABLE_X64": "0"}
    assert run_python(code, modules=(), **variables).splitlines()[-1] == last


def test_short_tests_of_the_kernels_on_jax(tmp_path):
    """tests/backends, in one process."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    folder = pathlib.Path(__file__).parents[1] / "backends"
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-c", folder.parents[1]]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, folder],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout.splitlines()[-1]


WITHOUT_TENSORFLOW = """
import sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "tensorflow":
            raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

sys.meta_path.insert(0, Blocked())
try:
    import hw3tf
except ImportError as error:
    print(error)
else:
    import numpy as np
    import hw3tf.jax
    x = np.ones((1, 3, 2, 4), "float32")
    print(hw3tf.ops.attention_path(x, x, x).path, *hw3tf.jax.__all__[1:2])
print("tensorflow" in sys.modules, "torch" in sys.modules)
"""


def test_jax_needs_no_tensorflow():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    out = run_python(WITHOUT_TENSORFLOW, modules=(), KERAS_BACKEND="jax")
    assert out.splitlines() == ["ffi dot_product_attention", "False False"]


def test_a_backend_that_is_not_installed_is_named():
    out = run_python(WITHOUT_TENSORFLOW, modules=(), KERAS_BACKEND="tensorflow")
    assert "tensorflow is not installed" in out
    assert "KERAS_BACKEND" in out
