"""`hw3tf.torch`, for plain PyTorch, against PyTorch's own functions and modules."""

import numpy as np
import pytest
import torch

import hw3tf.torch
from hw3tf.ops.fronts import torch_ops

OWN = torch.nn.functional.scaled_dot_product_attention
OURS = hw3tf.torch.scaled_dot_product_attention
N, HEADS, L, S, E, EV = 2, 4, 7, 9, 8, 5
TOLERANCE = {"float64": 1e-12, "float32": 2e-6, "bfloat16": 2**-6, "float16": 2**-9}
FLOATS = torch.randn(HEADS, L, S, generator=torch.Generator().manual_seed(3))
SEEN = torch.rand(N, 1, L, S, generator=torch.Generator().manual_seed(4)) > 0.4
SEEN[0, 0, 2] = False  # a query that sees no key
HIDDEN = torch.zeros(N, 1, L, S).masked_fill(~SEEN, -torch.inf)
CAUSAL = torch.ones(L, S, dtype=torch.bool).tril()
PADDING = (torch.arange(S) < torch.tensor([[S], [4]]))[:, None, None]
ALL_PADDING = (torch.arange(S) < torch.tensor([[S], [0]]))[:, None, None]
CALLS = {
    "plain": {},
    "causal": {"is_causal": True},
    "scale": {"scale": 0.3},
    "booleans": {"attn_mask": SEEN},
    "causal mask": {"attn_mask": CAUSAL},
    "floats": {"attn_mask": FLOATS},
    "-inf": {"attn_mask": HIDDEN},
    "lowest": {"attn_mask": HIDDEN.clamp(min=torch.finfo(torch.float32).min / 2)},
    "padding": {"attn_mask": PADDING},
    "-inf of keys": {
        "attn_mask": torch.zeros(N, 1, 1, S).masked_fill(~ALL_PADDING, -torch.inf)
    },
    "all padding": {"attn_mask": ALL_PADDING},
}


def make(*shape, dtype="float32", seed=0):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x.to(getattr(torch, dtype)).requires_grad_()


def inputs(dtype="float32", kv_heads=HEADS):
    return (
        make(N, HEADS, L, E, dtype=dtype, seed=0),
        make(N, kv_heads, S, E, dtype=dtype, seed=1),
        make(N, kv_heads, S, EV, dtype=dtype, seed=2),
    )


def close(got, want, tolerance):
    assert got.dtype == want.dtype
    size = max(1.0, float(want.detach().abs().max()))
    torch.testing.assert_close(got, want, rtol=0, atol=tolerance * size)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", CALLS)
def test_result_and_gradients_are_those_of_torch(name, dtype):
    call = dict(CALLS[name])
    if name == "lowest" and dtype == "float16":
        pytest.skip("float16 has no such number")
    if "attn_mask" in call and call["attn_mask"].is_floating_point():
        call["attn_mask"] = call["attn_mask"].to(getattr(torch, dtype))
    tensors = inputs(dtype)
    got, want = OURS(*tensors, **call), OWN(*tensors, **call)
    close(got, want, TOLERANCE[dtype])
    upstream = torch.randn(want.shape).to(want.dtype)
    for a, b in zip(
        torch.autograd.grad(got, tensors, upstream),
        torch.autograd.grad(want, tensors, upstream),
        strict=True,
    ):
        close(a, b, TOLERANCE[dtype])


def test_the_lowest_number_hides_nothing():
    """Scores and it are that number, and the weights of all keys are equal."""
    tensors = inputs()
    lowest = torch.full((L, S), torch.finfo(torch.float32).min)
    close(OURS(*tensors, lowest), OWN(*tensors, lowest), 2e-6)
    assert OURS(*tensors, lowest).abs().max() > 0


def test_gradient_of_a_float_mask():
    tensors, mask = inputs(), FLOATS.clone().requires_grad_()
    got = torch.autograd.grad(OURS(*tensors, mask).cos().sum(), mask)[0]
    want = torch.autograd.grad(OWN(*tensors, mask).cos().sum(), mask)[0]
    close(got, want, 2e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, HEADS)], ids=str)
@pytest.mark.parametrize("mask", [None, CAUSAL], ids=["", "mask"])
def test_other_numbers_of_axes(shape, mask):
    query, key = make(*shape, L, E), make(*shape, S, E, seed=1)
    close(OURS(query, key, key, mask), OWN(query, key, key, mask), 2e-6)
    if len(shape) == 3:
        mask = torch.rand(3, 1, L, S) > 0.3
        close(OURS(query, key, key, mask), OWN(query, key, key, mask), 2e-6)


def test_fewer_heads():
    tensors = inputs(kv_heads=2)
    close(OURS(*tensors, enable_gqa=True), OWN(*tensors, enable_gqa=True), 2e-6)


@pytest.mark.parametrize("length", [0, 1])
def test_few_keys(length):
    query, key = make(N, HEADS, L, E), make(N, HEADS, length, E)
    close(OURS(query, key, key), OWN(query, key, key), 2e-6)


def test_views_are_not_copied(monkeypatch):
    joint = torch.randn(N, L, 3 * HEADS * E)
    heads = joint.view(N, L, 3, HEADS, E).permute(2, 0, 3, 1, 4)
    seen, forward = [], torch_ops.ATTENTION_KERNEL.function

    def spied(query, key, value, **more):
        seen.extend(x.__array_interface__["data"][0] for x in (query, key, value))
        return forward(query, key, value, **more)

    monkeypatch.setattr(torch_ops.ATTENTION_KERNEL, "function", spied)
    output = OURS(*heads)
    assert seen == [x.data_ptr() for x in heads]
    assert output.transpose(1, 2).is_contiguous()
    close(output, OWN(*heads), 2e-6)


def test_padding_masks_cost_no_matrix(monkeypatch):
    given, forward = [], torch_ops.ATTENTION_KERNEL.function

    def spied(**more):
        given.append(set(more))
        return forward(**more)

    monkeypatch.setattr(torch_ops.ATTENTION_KERNEL, "function", spied)
    OURS(*inputs(), PADDING)
    assert "key_mask" in given[0]
    assert "mask" not in given[0]


def test_output_is_copied_only_where_a_query_sees_nothing(monkeypatch):
    calls, fill = [], torch.Tensor.masked_fill

    def spied(*arguments):
        calls.append(arguments)
        return fill(*arguments)

    monkeypatch.setattr(torch.Tensor, "masked_fill", spied)
    OURS(*inputs(), PADDING)
    assert not calls
    OURS(*inputs(), ALL_PADDING)
    assert len(calls) == 1


def test_masks_may_be_mapped():
    """There the numbers cannot be looked at to learn whether a query sees nothing."""
    tensors = [torch.stack([x, x + 1]).detach() for x in inputs()]
    masks = torch.stack([PADDING, ALL_PADDING])
    got = torch.vmap(OURS)(*tensors, masks)
    for i in range(2):
        assert torch.equal(got[i], OURS(*(x[i] for x in tensors), masks[i]))


def test_dropout_follows_the_seed_of_torch():
    tensors = [x.detach() for x in inputs()]
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(OURS(*tensors, dropout_p=0.5))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert float(OURS(*tensors, dropout_p=1.0).abs().max()) == 0
    many = torch.ones(1, 1, 200, 200)
    kept = OURS(torch.zeros_like(many), many, torch.eye(200)[None, None], dropout_p=0.3)
    assert abs(float((kept > 0).float().mean()) - 0.7) < 0.01


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_that_of_torch(dtype):
    tensors = inputs()
    with torch.autocast("cpu", dtype=dtype):
        got, want = OURS(*tensors, FLOATS), OWN(*tensors, FLOATS)
        double = OURS(*(x.double() for x in tensors))
    close(got, want, 2**-6)
    assert double.dtype == torch.float64
    grads = torch.autograd.grad(got.float().sum(), tensors)
    assert {x.dtype for x in grads} == {torch.float32}


def test_compiled_and_exported(tmp_path):
    torch.compiler.reset()

    def call(query, key, value, mask):
        return OURS(query, key, value, mask, dropout_p=0.0)

    compiled = torch.compile(call, fullgraph=True, backend="aot_eager")
    tensors = inputs()
    for mask in (None, SEEN, HIDDEN, PADDING, ALL_PADDING):
        assert torch.equal(compiled(*tensors, mask), call(*tensors, mask))
    torch.manual_seed(0)
    dropping = torch.compile(
        lambda *x: OURS(*x, dropout_p=0.5), fullgraph=True, backend="aot_eager"
    )
    assert not torch.equal(dropping(*tensors), dropping(*tensors))

    class Model(torch.nn.Module):
        forward = staticmethod(call)

    tensors = [x.detach() for x in tensors]
    program = torch.export.export(Model(), (*tensors, SEEN))
    assert torch.equal(program.module()(*tensors, SEEN), call(*tensors, SEEN))


def test_meta_tensors_have_shapes():
    x = torch.ones(2, 3, 4, 8, device="meta")
    output = OURS(x, x, x, is_causal=True)
    assert output.is_meta
    assert output.shape == x.shape


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"key": np.ones((N, HEADS, S, E))}, "`key` must be a torch.Tensor"),
        ({"key": torch.ones(N, HEADS, S, E).to_sparse()}, "`key` must be a dense"),
        ({"key": torch.ones(N, HEADS, S, E + 1)}, "same last axis"),
        ({"key": torch.ones(N, HEADS, S + 1, E)}, "same axes but for the last"),
        ({"key": torch.ones(N, HEADS, S, E).double()}, "`key` must have the dtype"),
        ({"query": torch.ones(L, E)}, "as many axes"),
        ({"query": torch.ones(3, HEADS, L, E)}, "the first axes"),
        ({"query": torch.ones(N, 8, L, E)}, "enable_gqa=True"),
        ({"query": torch.ones(N, 6, L, E), "enable_gqa": True}, "must divide"),
        ({"query": torch.ones(N, HEADS, L, E).int()}, "`query` must have dtype float"),
        ({"attn_mask": SEEN[..., :-1]}, "`attn_mask` must broadcast"),
        ({"attn_mask": SEEN.int()}, "`attn_mask` must have dtype bool"),
        ({"attn_mask": SEEN, "is_causal": True}, "exclude each other"),
        ({"dropout_p": 1.5}, "`dropout_p` must be from 0 to 1"),
    ],
)
def test_errors(changes, error):
    query, key, value = (x.detach() for x in inputs())
    call = {"query": query, "key": key, "value": value} | changes
    with pytest.raises(ValueError, match=error):
        OURS(**call)


def test_another_device_is_an_error(monkeypatch):
    """As far as it can be tried without one."""

    class Elsewhere(torch.Tensor):
        device = torch.device("cuda:0")

    x = torch.ones(1, 1, 2, 4)
    there = x.as_subclass(Elsewhere)
    with pytest.raises(ValueError, match="`key` must be on the CPU"):
        OURS(x, there, x)


# ---------------------------------------------------------------- recurrent layers


def parameters(module, suffix=""):
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    return [getattr(module, name + suffix, None) for name in names]


@pytest.mark.parametrize("bias", [True, False], ids=["bias", ""])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_recurrent_layers_are_those_of_torch(cell, batch_first, bias):
    """Both directions, with states, results and all gradients."""
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    function = getattr(hw3tf.torch, cell)
    torch.manual_seed(0)
    module = kind(5, 6, batch_first=batch_first, bidirectional=True, bias=bias)
    x = make(7, 3, 5)
    batch = 7 if batch_first else 3
    h, c = torch.randn(2, batch, 6), torch.randn(2, batch, 6)
    states = [(h[i], c[i]) if cell == "lstm" else h[i] for i in (0, 1)]
    want, last = module(x, (h, c) if cell == "lstm" else h)
    there, after = function(x, states[0], *parameters(module), batch_first)
    back, before = function(
        x, states[1], *parameters(module, "_reverse"), batch_first, reverse=True
    )
    got = torch.cat((there, back), -1)
    close(got, want, 2e-6)
    for i, state in enumerate((after, before)):
        pairs = zip(state, last, strict=True) if cell == "lstm" else [(state, last)]
        for a, b in pairs:
            close(a, b[i], 2e-6)
    sources, upstream = [x, *module.parameters()], torch.randn(want.shape)
    for a, b in zip(
        torch.autograd.grad(got, sources, upstream),
        torch.autograd.grad(want, sources, upstream),
        strict=True,
    ):
        close(a, b, 5e-6)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_lengths_are_packed_sequences(cell, reverse):
    kind = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU}[cell]
    torch.manual_seed(0)
    module = kind(5, 6, bidirectional=True)
    x, lengths = make(7, 3, 5), torch.tensor([7, 2, 4], dtype=torch.int32)
    pack = torch.nn.utils.rnn.pack_padded_sequence
    packed, last = module(pack(x, lengths.long(), enforce_sorted=False))
    want = torch.nn.utils.rnn.pad_packed_sequence(packed)[0]
    half = slice(6, None) if reverse else slice(None, 6)
    weights = parameters(module, "_reverse" if reverse else "")
    function = getattr(hw3tf.torch, cell)
    got, state = function(x, None, *weights, lengths=lengths, reverse=reverse)
    close(got, want[..., half], 2e-6)
    if cell == "lstm":
        state, last = state[0], last[0]
    close(state, last[int(reverse)], 2e-6)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"input": torch.ones(3, 5)}, "`input` must have three axes"),
        ({"weight_ih": torch.ones(18, 5)}, "`weight_ih` must have shape"),
        ({"weight_hh": torch.ones(24, 6).double()}, "`weight_hh` must have the dtype"),
        ({"hx": (torch.ones(2, 6), torch.ones(3, 6))}, "`h_0` must have shape"),
        ({"bias_ih": torch.ones(24)}, "must both be given"),
        ({"lengths": torch.tensor([1, 2, 3])}, "`lengths` must have dtype int32"),
        ({"lengths": torch.tensor([1, 2, 9]).int()}, "lengths"),
    ],
)
def test_errors_of_recurrent_layers(changes, error):
    call = {"input": torch.ones(7, 3, 5), "hx": None}
    call |= {"weight_ih": torch.ones(24, 5), "weight_hh": torch.ones(24, 6)} | changes
    with pytest.raises(ValueError, match=error):
        hw3tf.torch.lstm(**call)
