"""The kernels inside JAX's transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hw3tf import ops, reference

attend = ops.dot_product_attention
plain = reference.dot_product_attention


@pytest.fixture
def inputs(rng):
    shapes = (2, 9, 4, 8), (2, 11, 2, 8), (2, 11, 2, 8)
    return [jnp.asarray(rng.standard_normal(s), "float32") for s in shapes]


def close(got, want):
    leaves = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    for a, b in leaves:
        # Two orders of a few dozen float32 additions of numbers up to 10.
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-5)


def loss(function, *inputs, **options):
    return jnp.sum(jnp.sin(function(*inputs, **options)))


def test_jit_and_eager_are_equal_to_the_bit(inputs):
    np.testing.assert_array_equal(jax.jit(attend)(*inputs), attend(*inputs))


@pytest.mark.parametrize("axes", [(0, None, None), (None, 0, 0), (0, 0, 0)], ids=str)
def test_vmap(axes, inputs, rng):
    stacked = [
        x if axis is None else jnp.stack([x, -2 * x, x / 3])
        for x, axis in zip(inputs, axes, strict=True)
    ]
    for function in (attend, jax.grad(functools.partial(loss, attend), (0, 1, 2))):
        got = jax.vmap(function, axes)(*stacked)
        each = [
            function(
                *(
                    x if axis is None else x[i]
                    for x, axis in zip(stacked, axes, strict=True)
                )
            )
            for i in range(3)
        ]
        jax.tree.map(
            lambda whole, *parts: np.testing.assert_array_equal(
                whole, jnp.stack(parts)
            ),
            got,
            *each,
        )


def test_vmap_of_masks_and_of_vmap(inputs, rng):
    masks = jnp.asarray(rng.random((3, 2, 2, 1, 9, 11)) > 0.3)
    query, key, value = inputs

    def run(query, mask):
        return attend(query, key, value, mask=mask)

    queries = jnp.stack([query, query + 1])
    got = jax.vmap(jax.vmap(run), (None, 0))(queries, masks)
    for i in range(3):
        for j in range(2):
            np.testing.assert_array_equal(got[i, j], run(queries[j], masks[i, j]))


def test_the_gradient_of_what_vmap_shares_is_summed(inputs):
    query, key, value = inputs
    queries = jnp.stack([query, -query, query / 2])

    def total(function, key):
        one = functools.partial(loss, function)
        return jax.vmap(one, (0, None, None))(queries, key, value).sum()

    close(*(jax.grad(functools.partial(total, f))(key) for f in (attend, plain)))


def test_scan_checkpoint_and_cond(inputs):
    query, key, value = inputs

    def total(function, query):
        @jax.checkpoint
        def step(x, _):
            y = jax.lax.cond(
                x.sum() > 0,
                lambda: function(x, key, value),
                lambda: function(x, value, key),
            )
            return x + y, None

        return jnp.sum(jax.lax.scan(step, query, None, length=3)[0])

    close(*(jax.grad(functools.partial(total, f))(query) for f in (attend, plain)))


def test_second_derivatives_are_those_of_keras(inputs):
    def squares(function, query, key):
        grads = jax.grad(functools.partial(loss, function), (0, 1))(
            query, key, inputs[2], is_causal=True
        )
        return sum(jnp.sum(g**2) for g in grads)

    got, want = (
        jax.grad(functools.partial(squares, f), (0, 1))(*inputs[:2])
        for f in (attend, plain)
    )
    close(got, want)


@pytest.fixture(autouse=True)
def _no_warning(monkeypatch, request):
    """That second derivatives are Keras's is said once per process."""
    from hw3tf.ops.fronts import ffi

    if "second" in request.node.name:
        monkeypatch.setattr(ffi, "say_once", lambda what: None)


def test_a_second_derivative_says_that_keras_computes_it(inputs, monkeypatch):
    from hw3tf.ops.fronts import derivatives, ffi

    monkeypatch.setattr(ffi, "say_once", derivatives.say_once)
    derivatives.say_once.cache_clear()
    one = functools.partial(loss, attend)
    with pytest.warns(RuntimeWarning, match=r"jax\.lax\.stop_gradient"):
        jax.grad(lambda q: jnp.sum(jax.grad(one)(q, *inputs[1:]) ** 2))(inputs[0])


def test_forward_mode_is_refused(inputs):
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda q: attend(q, *inputs[1:]), inputs[:1], inputs[:1])


@pytest.mark.skipif(not hasattr(jax, "shard_map"), reason="from JAX 0.7 on")
def test_shard_map_over_processors(inputs):
    mesh = jax.make_mesh((1,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))
    part = jax.sharding.PartitionSpec("batch")
    split = functools.partial(
        jax.shard_map, mesh=mesh, in_specs=(part,) * 3, out_specs=part
    )
    np.testing.assert_array_equal(split(attend)(*inputs), attend(*inputs))

    def total(function, *x):
        return loss(split(function), *x)

    close(
        *(
            jax.grad(functools.partial(total, f), (0, 1))(*inputs)
            for f in (attend, plain)
        )
    )


def test_exported_functions_run(inputs):
    pytest.importorskip("flatbuffers")
    from jax import export

    checks = [
        export.DisabledSafetyCheck.custom_call(f"hw3tf_{name}")
        for name in ("attention", "attention_grad")
    ]
    shapes = export.symbolic_args_specs(inputs, "b, _, _, _")
    function = jax.jit(lambda *x: attend(*x, is_causal=True))
    exported = export.export(function, disabled_checks=checks)(*shapes)
    loaded = export.deserialize(exported.serialize(vjp_order=1))
    np.testing.assert_array_equal(loaded.call(*inputs), function(*inputs))
    got = jax.grad(lambda *x: jnp.sum(jnp.sin(loaded.call(*x))))(*inputs)
    close(got, jax.grad(lambda *x: loss(plain, *x, is_causal=True))(*inputs))


def test_a_traced_seed_of_dropout(inputs):
    run = jax.jit(lambda seed: attend(*inputs, dropout_rate=0.5, dropout_seed=seed))
    for seed in (3, -3):
        want = attend(*inputs, dropout_rate=0.5, dropout_seed=seed)
        np.testing.assert_array_equal(run(jnp.int32(seed)), want)
