"""`hw3tf.ops.dot_product_attention` on PyTorch: options, types, layouts, errors.

The kernel is judged by the tests of the other folders. Here it is called once by
PyTorch and once by `hw3tf._core`: every bit must be the same.
"""

import importlib
import sys

import keras
import numpy as np
import numpy_attention
import pytest
import torch

import hw3tf
from hw3tf import _core, ops
from hw3tf.ops.fronts import torch_ops
from hw3tf.ops.paths import kernel_path as torch_path

B, T, S, N, K, H, V = 2, 19, 23, 4, 2, 8, 5
MASK = np.random.default_rng(1).random((B, 1, T, S)) > 0.3
MASK[0, 0, 3] = False  # a query that sees no key
KEYS, QUERIES = np.arange(S) < [[S], [7]], np.arange(T) < [[4], [T]]
LENGTHS = {
    "query_lengths": np.array([T, 5], "int32"),
    "key_lengths": np.array([3, S], "int32"),
}
# Arguments, and those of the kernel where they differ.
OPTIONS = {
    "plain": ({}, {}),
    "causal": ({"is_causal": True}, {}),
    "scale": ({"scale": 0.3}, {}),
    "mask": ({"mask": MASK}, {}),
    "mask-of-keys": ({"mask": KEYS[:, None, None]}, {"mask": None, "key_mask": KEYS}),
    "masks": ({"query_mask": QUERIES, "key_mask": KEYS}, {}),
    "lengths": (LENGTHS, {}),
    "window": (
        {"sliding_window": 4},
        {"window_before": 3, "window_after": 3, "sliding_window": None},
    ),
    "soft-cap": (
        {"attn_logits_soft_cap": 2.0},
        {"soft_cap": 2.0, "attn_logits_soft_cap": None},
    ),
    "dropout": ({"dropout_rate": 0.3, "dropout_seed": 5}, {}),
}
DTYPES = ("float32", "bfloat16", "float16")


def array(tensor):
    """A copy as an array, bit for bit."""
    return keras.ops.convert_to_numpy(tensor)


def make(rng, dtype="float32", bias=False, requires_grad=True):
    shapes = {"query": (B, T, N, H), "key": (B, S, K, H), "value": (B, S, K, V)}
    if bias:
        shapes["bias"] = (1, N, 1, S)
    return {
        name: torch.tensor(
            rng.standard_normal(shape),
            dtype=getattr(torch, "float32" if name == "bias" else dtype),
            requires_grad=requires_grad,
        )
        for name, shape in shapes.items()
    }


def by_core(tensors, upstream, options, of_kernel):
    given = {k: array(x) for k, x in tensors.items()}
    q, k, v = (given.pop(name) for name in ("query", "key", "value"))
    given |= {k: x for k, x in {**options, **of_kernel}.items() if x is not None}
    given.setdefault("scale", H**-0.5)
    output, statistics, logsumexp = _core.attention_forward(q, k, v, True, **given)
    g = [array(x) for x in upstream]
    grads = _core.attention_backward(q, k, v, output, statistics, *g, **given)
    return [output, logsumexp, *(x for x in grads if x is not None)]


def by_torch(tensors, upstream, options, function=ops.dot_product_attention):
    output, logsumexp = function(**tensors, **options, return_logsumexp=True)
    # The kernel's own, which is finite.
    logsumexp = logsumexp.clamp(min=torch.finfo(logsumexp.dtype).min)
    results = output, logsumexp
    grads = torch.autograd.grad(results, list(tensors.values()), upstream)
    return [array(x) for x in (*results, *grads)]


def made_upstream(rng, dtype="float32"):
    shapes = ((B, T, N, V), dtype), ((B, N, T), "float32")
    return [
        torch.tensor(rng.standard_normal(shape), dtype=getattr(torch, kind))
        for shape, kind in shapes
    ]


def assert_same_bits(got, want):
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.dtype == b.dtype, i
        np.testing.assert_array_equal(a, b, err_msg=str(i))


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPTIONS)
def test_every_bit_is_the_kernels(name, dtype, bias, rng):
    options, of_kernel = OPTIONS[name]
    tensors, upstream = make(rng, dtype, bias), made_upstream(rng, dtype)
    wanted = by_core(tensors, upstream, options, of_kernel)
    if bias and dtype in ("bfloat16", "float16"):  # rounded to it, as in Keras
        rounded = tensors["bias"].detach().to(getattr(torch, dtype)).float()
        wanted = by_core({**tensors, "bias": rounded}, upstream, options, of_kernel)
        wanted[-1] = array(torch.tensor(wanted[-1]).to(getattr(torch, dtype)).float())
    assert_same_bits(by_torch(tensors, upstream, options), wanted)


@pytest.mark.parametrize("name", ["plain", "causal", "mask", "soft-cap"])
def test_error_is_at_most_twice_that_of_keras(name, rng):
    """Against the formula in float64; Keras's own float32 sets the bound."""
    options, of_kernel = OPTIONS[name]
    tensors, upstream = make(rng), made_upstream(rng)
    upstream[1].zero_()
    given = {k: x for k, x in {**options, **of_kernel}.items() if x is not None}
    exact = numpy_attention.attention(
        *(array(x).astype("float64") for x in (*tensors.values(), upstream[0])),
        scale=given.pop("scale", H**-0.5),
        **given,
    )
    exact.pop(1)  # Keras has no logsumexp
    got = by_torch(tensors, upstream, options)
    got.pop(1)
    if name == "soft-cap":  # Keras refuses it on PyTorch
        function = hw3tf.reference.dot_product_attention
    else:
        function = keras.ops.dot_product_attention
    output = function(**tensors, **options)
    plain = [output, *torch.autograd.grad(output, list(tensors.values()), upstream[0])]
    for x, own, truth in zip(got, map(array, plain), exact, strict=False):
        bound = 2 * abs(own - truth).max() + 4 * np.finfo("float32").eps
        assert abs(x - truth).max() <= bound


def test_float64_becomes_float32_as_in_keras(rng):
    """Keras on PyTorch promotes to float32. hw3tf.torch computes in float64."""
    tensors = {k: x.double() for k, x in make(rng, requires_grad=False).items()}
    got = ops.dot_product_attention(**tensors)
    assert got.dtype == keras.ops.dot_product_attention(**tensors).dtype
    assert got.dtype == torch.float32


def test_path_is_named():
    x = torch.ones(1, 2, 1, 4)
    path = ops.attention_path(x, x, x)
    assert str(path) == "torch (the kernel covers the call)"
    assert ops.runtime_info()["attention"] == str(path)


def test_on_another_device_keras_computes(monkeypatch):
    core = importlib.import_module("keras.src.backend.torch.core")
    monkeypatch.setattr(core, "get_device", lambda: "cuda:0")
    path = torch_path()
    assert str(path) == "reference (PyTorch computes on the device cuda)"


def test_forced_paths(monkeypatch):
    x = torch.ones(1, 2, 1, 4)
    monkeypatch.setenv("HW3TF_PATH", "reference")
    path = ops.attention_path(x, x, x)
    assert str(path) == "reference (HW3TF_PATH forces it)"
    for forced in ("op", "pybind"):
        monkeypatch.setenv("HW3TF_PATH", forced)
        with pytest.raises(RuntimeError, match="needs the backend tensorflow"):
            ops.dot_product_attention(x, x, x)


def test_a_torch_without_what_the_ops_need(monkeypatch):
    monkeypatch.setitem(sys.modules, "hw3tf.ops.fronts.torch_ops", None)
    monkeypatch.delattr("hw3tf.ops.fronts.torch_ops")
    x = torch.ones(1, 2, 1, 4)
    path = ops.attention_path(x, x, x)
    assert path.path == "reference"
    assert path.reason.startswith("PyTorch cannot call us: ")
    assert ops.dot_product_attention(x, x, x).shape == x.shape


def test_on_meta_there_are_shapes():
    with keras.device("meta"):
        x = torch.ones(1, 2, 1, 4, device="meta")
        assert ops.attention_path(x, x, x).path == "torch"
        output = ops.dot_product_attention(x, x, x)
    assert output.is_meta
    assert output.shape == x.shape


def test_a_layer_of_ones_own_is_built_symbolically():
    class Layer(keras.layers.Layer):
        def call(self, x):
            return ops.dot_product_attention(x, x, x, is_causal=True)

    inputs = keras.Input((None, 2, 4))
    assert Layer()(inputs).shape == (None, None, 2, 4)


def test_views_are_read_in_place(rng, monkeypatch):
    """Of the layout (batch, heads, length, size), and of one product of all three."""
    joint = torch.tensor(rng.standard_normal((B, N, T, 3 * H)), dtype=torch.float32)
    query, key, value = (x.transpose(1, 2) for x in joint.split(H, -1))
    seen, forward = [], torch_ops.ATTENTION_KERNEL.function

    def spied(query, key, value, **more):
        seen.extend(x.__array_interface__["data"][0] for x in (query, key, value))
        return forward(query, key, value, **more)

    monkeypatch.setattr(torch_ops.ATTENTION_KERNEL, "function", spied)
    got = ops.dot_product_attention(query, key, value)
    assert seen == [x.data_ptr() for x in (query, key, value)]
    copies = (x.contiguous() for x in (query, key, value))
    assert torch.equal(got, ops.dot_product_attention(*copies))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_types_are_not_copied(dtype, rng, monkeypatch):
    x = make(rng, dtype, requires_grad=False)["query"]
    seen, forward = [], torch_ops.ATTENTION_KERNEL.function

    def spied(query, key, value, **more):
        seen.append((query.__array_interface__["data"][0], query.dtype.name))
        return forward(query, key, value, **more)

    monkeypatch.setattr(torch_ops.ATTENTION_KERNEL, "function", spied)
    ops.dot_product_attention(x, x, x)
    assert seen == [(x.data_ptr(), dtype)]


def test_what_is_not_contiguous_along_its_last_axis_is_right(rng):
    x = torch.tensor(rng.standard_normal((B, T, H, N))).mT
    query, key, value = x, x[:, ::2], torch.ones(1, 1, 1, 1).double().expand(x.shape)
    got = ops.dot_product_attention(query, key, value[:, ::2])
    np.testing.assert_allclose(got, np.ones(x.shape), rtol=1e-6)


def test_gradients_of_stride_zero(rng):
    tensors = make(rng)
    output = ops.dot_product_attention(**tensors)
    got = torch.autograd.grad(output.sum(), list(tensors.values()), retain_graph=True)
    ones = torch.ones_like(output)
    wanted = torch.autograd.grad(output, list(tensors.values()), ones)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("names", [["query"], ["value"], ["key", "bias"], ["bias"]])
def test_any_subset_has_gradients(names, rng):
    tensors = make(rng, bias=True)
    output = ops.dot_product_attention(**tensors)
    wanted = dict(
        zip(tensors, torch.autograd.grad(output.sum(), tensors.values()), strict=True)
    )
    some = {k: x.detach().requires_grad_(k in names) for k, x in tensors.items()}
    ops.dot_product_attention(**some).sum().backward()
    for name, x in some.items():
        assert (x.grad is not None) == (name in names)
        if name in names:
            assert torch.equal(x.grad, wanted[name])


def test_without_gradients_nothing_is_kept(rng):
    tensors = make(rng)
    with torch.no_grad():
        output = ops.dot_product_attention(**tensors)
    assert output.grad_fn is None
    with torch.inference_mode():
        ops.dot_product_attention(**tensors)


def test_a_change_in_place_after_the_call_is_an_error(rng):
    tensors = make(rng)
    query = tensors["query"] * 1
    output = ops.dot_product_attention(query, tensors["key"], tensors["value"])
    query.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_batch_of_one_serves_all(rng):
    tensors = make(rng)
    key = tensors["key"].detach()[:1].requires_grad_()
    value = tensors["value"].detach()[:1].requires_grad_()
    query = tensors["query"]
    one = ops.dot_product_attention(query, key, value)
    g = torch.autograd.grad(one.sum(), (key, value))
    many = [x.expand(B, -1, -1, -1) for x in (key, value)]
    wanted = ops.dot_product_attention(query, *many)
    assert torch.equal(one, wanted)
    h = torch.autograd.grad(wanted.sum(), (key, value))
    for a, b in zip(g, h, strict=True):
        torch.testing.assert_close(a, b)


def test_seeds(rng):
    """The same integers of 64 bits, as numbers and as tensors."""
    tensors = make(rng)

    def run(seed):
        return ops.dot_product_attention(**tensors, dropout_rate=0.5, dropout_seed=seed)

    for number in (0, 3, -3, 2**40 + 7):
        assert torch.equal(run(number), run(torch.tensor(number)))
    assert torch.equal(run(2**64 - 3), run(-3))
    assert not torch.equal(run(3), run(2**40 + 3))


def test_scores_and_logsumexp(rng):
    tensors = make(rng, requires_grad=False)
    got = ops.dot_product_attention(
        **tensors, mask=MASK, return_logsumexp=True, return_attention_scores=True
    )
    wanted = hw3tf.reference.dot_product_attention(
        **tensors, mask=MASK, return_logsumexp=True, return_attention_scores=True
    )
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b)
    assert got[1][0, 0, 3] == -torch.inf


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            {"key": torch.ones(B, S, K, H + 1)},
            "`key` must have the head size of `query`, 8",
        ),
        ({"key": torch.ones(B, S, 3, H)}, "heads"),
        ({"query": torch.ones(B, T, H)}, "rank|axes|shape"),
        ({"query": torch.ones(B, T, N, H, dtype=torch.int32)}, "dtype"),
        ({"mask": torch.ones(B, 1, T, S + 1) > 0}, "`mask`"),
        ({"key_lengths": torch.tensor([1, S + 1])}, "`key_lengths`"),
        ({"dropout_rate": 0.5}, "seed"),
    ],
)
def test_errors_are_ours(change, error, rng):
    tensors = make(rng) | change
    with pytest.raises(ValueError, match=error):
        ops.dot_product_attention(**tensors)


def test_threads_change_no_bit(rng):
    tensors, upstream = make(rng, bias=True), made_upstream(rng)
    before = ops.num_threads()
    runs = []
    for threads in (1, 2, 5):
        ops.set_num_threads(threads)
        runs.append(by_torch(tensors, upstream, {"is_causal": True}))
    ops.set_num_threads(0)
    assert ops.num_threads() == before
    for run in runs[1:]:
        assert_same_bits(run, runs[0])


def test_empty_batches():
    x = torch.ones(0, 3, 2, 4, requires_grad=True)
    output = ops.dot_product_attention(x, x, x)
    output.sum().backward()
    assert output.shape == x.shape == x.grad.shape


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "op"])
def test_a_constant_bias_takes_no_gradient(compiled, rng, monkeypatch):
    kernel, skipped = torch_ops.ATTENTION_GRAD_KERNEL, []

    def counted(named):
        skipped.append(named["skip_grad_bias"])
        return kernel(named)

    monkeypatch.setattr(torch_ops, "ATTENTION_GRAD_KERNEL", counted)
    if compiled:  # what a compiled or exported graph calls
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    shapes = (B, T, N, 8), (B, S, K, 8), (B, S, K, V), (1, N, T, S)
    *rows, bias = (
        torch.tensor(rng.standard_normal(shape), dtype=torch.float32)
        for shape in shapes
    )
    for row in rows:
        row.requires_grad_()
    grads = []
    for wanted in (False, True):
        bias.requires_grad_(wanted)
        output = ops.dot_product_attention(*rows, bias)
        sources = [*rows, bias] if wanted else rows
        grads.append(torch.autograd.grad(output.sin().sum(), sources))
    assert skipped == [True, False]
    # One chunk of keys: the same sums.
    for a, b in zip(grads[0], grads[1][:3], strict=True):
        assert torch.equal(a, b)
    assert grads[1][3].abs().max() > 1e-3
