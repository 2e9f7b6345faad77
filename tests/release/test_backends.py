"""hw3tf with the other backends of Keras: the same numbers, on the kernels.

Each in a process of its own: the backend is chosen when Keras is imported."""

import importlib.util
import pathlib
import subprocess
import sys

import keras
import numpy as np
import processes
import pytest
from checks import run_python

import hw3tf

ROOT = pathlib.Path(__file__).parents[2]
PATHS = {
    "jax": "ffi (the kernel covers the call)",
    "torch": "torch (the kernel covers the call)",
}

CODE = """
import keras, numpy as np
import hw3tf
from hw3tf import ops

data = np.load(r"{file}")
assert keras.backend.backend() == "{backend}"
query, key, value = (keras.ops.convert_to_tensor(data[k]) for k in "qkv")
path = ops.attention_path(query, key, value)
assert str(path) == "{path}", path

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
assert report.num_fused == 1 and "{path}" in str(report), report
after = keras.ops.convert_to_numpy(model(x))
np.testing.assert_allclose(after, before, atol=1e-5)
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


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_tests_of_the_backend(backend, tmp_path):
    """Those of tests/backends, which need the process for themselves: two minutes of
    the processor for JAX. CI runs them always."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    options = ["-q", "-n0", "-p", "no:cacheprovider", "-c", ROOT / "pyproject.toml"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, ROOT / "tests/backends"],
        env=processes.environment_with({"KERAS_BACKEND": backend}),
        cwd=tmp_path,  # the checkout hides the package
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout.splitlines()[-1]


# Finders that find neither TensorFlow nor JAX.
WITHOUT = """
import importlib.machinery, sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *more):
        if name.partition(".")[0] in {names!r}:
            return None
        return self.finder.find_spec(name, *more)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Without, sys.meta_path)
"""


@pytest.mark.slow  # .ci/run runs it
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_without_tensorflow(backend):
    """Where it is not installed, and where it is."""
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    code = f"""
import sys
import hw3tf, keras, numpy as np
assert hw3tf.ops.runtime_info()["attention"] == "{PATHS[backend]}"
inputs = keras.Input((9, 8))
x = hw3tf.layers.MultiHeadAttention(2, 4)(inputs, inputs)
x = hw3tf.layers.LSTM(8, return_sequences=True)(x)
model = keras.Model(inputs, x)
model.compile("sgd", "mse")
assert hw3tf.accelerate(model).num_fused == 2
model.fit(np.ones((2, 9, 8)), np.ones((2, 9, 8)), verbose=0)
integers = keras.ops.convert_to_tensor([[[5], [3]]])
hw3tf.layers.IntegerRNN(1, dtype="int32")(integers)
assert "tensorflow" not in sys.modules
print("computed")
"""
    others = ("tensorflow", *(name for name in PATHS if name != backend))
    for names in (others, ()):
        text = WITHOUT.format(names=names) + code
        got = run_python(text, modules=(), KERAS_BACKEND=backend)
        assert got.endswith("computed\n")


def test_plain_torch_beside_another_backend():
    """hw3tf.torch does not ask for Keras, but for what Keras computes: it says so."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    code = """
import torch
import hw3tf.torch

function = hw3tf.torch.scaled_dot_product_attention
x = torch.randn(2, 3, 5, 4, requires_grad=True)
own = torch.nn.functional.scaled_dot_product_attention
torch.testing.assert_close(function(x, x, x), own(x, x, x))
grad, = torch.autograd.grad(function(x, x, x).square().sum(), x, create_graph=True)
for act in (
    lambda: grad.sum().backward(),
    lambda: torch.func.jvp(lambda x: function(x, x, x), (x,), (x,)),
):
    try:
        act()
    except NotImplementedError as error:
        assert "whose backend must be torch: KERAS_BACKEND=torch" in str(error)
    else:
        raise AssertionError("a derivative without Keras")
print("refused")
"""
    assert run_python(code, modules=()).endswith("refused\n")


def test_torch_that_is_not_installed():
    code = (
        WITHOUT.format(names=("torch",))
        + """
try:
    import hw3tf.torch
except ImportError as error:
    assert "pip install 'hw3tf[torch]'" in str(error)
    print("refused")
"""
    )
    assert run_python(code, modules=()).endswith("refused\n")


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
    code, last = CODE.format(file=file, backend=backend, path=PATHS[backend]), "equal"
    if backend == "jax":
        code, last = code + HALF, "and refused"
    variables = {"KERAS_BACKEND": backend, "JAX_ENABLE_X64": "0"}
    assert run_python(code, modules=(), **variables).splitlines()[-1] == last


def test_a_backend_that_is_not_installed_is_named():
    code = (
        WITHOUT.format(names=("tensorflow",))
        + """
try:
    import hw3tf
except ImportError as error:
    assert "tensorflow is not installed" in str(error)
    assert "KERAS_BACKEND" in str(error)
    print("refused")
"""
    )
    got = run_python(code, modules=(), KERAS_BACKEND="tensorflow")
    assert got.endswith("refused\n")
