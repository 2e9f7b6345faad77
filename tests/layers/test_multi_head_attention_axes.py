"""`hw3tf.layers.MultiHeadAttention` over other axes than one: `attention_axes`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from attention_layer_checks import assert_equals_keras, make_tensors, results, trio

from hw3tf.layers import MultiHeadAttention

# Sizes that differ, so that no axis is taken for another.
IMAGES = {"query": (2, 3, 4, 6), "value": (2, 3, 5, 6)}
COLUMNS = {"query": (2, 3, 4, 6), "value": (2, 5, 4, 6)}
BOTH = {"query": (2, 3, 4, 6), "value": (2, 5, 2, 6)}
VOLUMES = {"query": (2, 3, 4, 5, 6), "value": (2, 3, 2, 5, 6)}


def layers(shapes, **options):
    options = {"num_heads": 2, "key_dim": 4, **options}
    return trio(MultiHeadAttention, keras.layers.MultiHeadAttention, options, shapes)


def mask_of(*shape):
    """Booleans, without a pattern, some rows of which are empty."""
    mask = np.random.default_rng(5).random(shape) < 0.6
    mask[..., 1, :] = False
    return mask


CASES = {
    "rows": (IMAGES, 2, {}),
    "rows from the end": (IMAGES, -2, {}),
    "rows, mask of an image": (IMAGES, 2, {"attention_mask": mask_of(2, 4, 5)}),
    "rows, mask": (IMAGES, 2, {"attention_mask": mask_of(4, 5)}),
    "rows, mask of all": (IMAGES, 2, {"attention_mask": mask_of(2, 3, 4, 5)}),
    "rows, mask of heads": (IMAGES, 2, {"attention_mask": mask_of(2, 1, 2, 4, 5)}),
    "rows, mask of the height": (IMAGES, 2, {"attention_mask": mask_of(1, 3, 4, 5)}),
    "columns": (COLUMNS, 1, {}),
    "columns, causal": (COLUMNS, 1, {"use_causal_mask": True}),
    "columns, mask": (COLUMNS, 1, {"attention_mask": mask_of(2, 3, 5)}),
    "all": (BOTH, None, {}),
    "all, mask": (BOTH, None, {"attention_mask": mask_of(2, 3, 4, 5, 2)}),
    "all, mask of keys": (BOTH, None, {"attention_mask": mask_of(2, 1, 4, 5, 2)}),
    "turned": (BOTH, (2, 1), {}),
    "turned, mask": (BOTH, (2, 1), {"attention_mask": mask_of(2, 4, 3, 2, 5)}),
    "planes": (VOLUMES, (1, 2), {}),
    "two": (VOLUMES, (1, 2), {"attention_mask": mask_of(2, 3, 4, 3, 2)}),
}


@pytest.mark.parametrize("scores", [False, True], ids=["output", "scores"])
@pytest.mark.parametrize("case", CASES)
def test_result_is_as_exact_as_that_of_keras(case, scores, rng, kernel_calls):
    shapes, axes, call = CASES[case]
    made = layers(shapes, attention_axes=axes, use_gate=True)
    tensors = make_tensors(rng, shapes)
    assert_equals_keras(made, tensors, return_attention_scores=scores, **call)
    assert len(kernel_calls) == 1


@pytest.mark.parametrize(
    "shape", [(2, 1, 5, 4, 2), (1, 3, 5, 2, 4, 2), (2, 3, 1, 4, 2)]
)
def test_one_axis_of_a_volume_equals_keras_in_float64(shape, rng, kernel_calls):
    """TensorFlow's softmax on a CPU takes float32 scores of at most 5 axes."""
    *_, judge = layers(VOLUMES, attention_axes=2)
    layer = MultiHeadAttention(2, 4, attention_axes=2, dtype="float64")
    layer.build(*VOLUMES.values())
    layer.set_weights(judge.get_weights())
    tensors = make_tensors(rng, VOLUMES)
    got, want = (
        results(
            x, tensors, attention_mask=mask_of(*shape), return_attention_scores=True
        )
        for x in (layer, judge)
    )
    assert np.prod(kernel_calls[0][3].mask.shape) == np.prod(shape)
    for x, y in zip(got, want, strict=True):
        np.testing.assert_allclose(x, y, atol=1e-13)


def test_masks_reach_the_kernel_without_copies(rng, kernel_calls):
    """One per image for all rows, one per row for all images, one per head: of the
    size that they were given in."""
    tensors = make_tensors(rng, IMAGES)
    layer = MultiHeadAttention(2, 4, attention_axes=2)
    for shape in ((2, 4, 5), (4, 5), (1, 3, 4, 5), (2, 1, 2, 4, 5), (2, 3, 2, 4, 5)):
        layer(**tensors, attention_mask=mask_of(*shape))
        assert np.prod(kernel_calls[-1][3].mask.shape) == np.prod(shape), shape


def test_dropout_over_images_is_fused(rng, kernel_calls):
    tensors = make_tensors(rng, IMAGES)
    layer = MultiHeadAttention(2, 4, attention_axes=2, dropout=0.5)
    draws = [layer(**tensors, training=True).numpy() for _ in range(2)]
    assert (draws[0] != draws[1]).any()
    assert [call[3].dropout_rate for call in kernel_calls] == [0.5, 0.5]


@pytest.mark.parametrize(("axes", "shapes"), [(2, IMAGES), (1, COLUMNS), (None, BOTH)])
def test_masks_of_positions_hold_over_any_axes(axes, shapes, rng, kernel_calls):
    """Keras combines them right for the last axis only: elsewhere it is given the
    attention mask that they mean."""
    made = layers(shapes, attention_axes=axes)
    query_mask, value_mask = (rng.random(s[:-1]) < 0.6 for s in shapes.values())
    if axes == 2:
        joined = query_mask[..., :, None] & value_mask[..., None, :]
    elif axes == 1:
        joined = np.swapaxes(query_mask, 1, 2)[..., :, None]
        joined = joined & np.swapaxes(value_mask, 1, 2)[..., None, :]
    else:
        joined = query_mask[..., None, None] & value_mask[:, None, None]
    theirs = {"attention_mask": joined, "query_mask": None, "value_mask": None}
    call = {"query_mask": query_mask, "value_mask": value_mask}
    assert_equals_keras(made, make_tensors(rng, shapes), theirs=theirs, **call)
    assert kernel_calls[0][3].mask is None


def test_mask_of_one_axis_holds_for_all_rows(rng):
    """As in Keras: `(batch, length)` where the values are images."""
    made = layers(IMAGES, attention_axes=2)
    mask = np.arange(5) < np.array([[3], [5]])
    assert_equals_keras(made, make_tensors(rng, IMAGES), value_mask=mask)


def test_causality_and_window_run_along_the_one_axis(rng):
    """Keras takes the length of axis 1, whatever attention runs over."""
    made = layers(IMAGES, attention_axes=2, sliding_window=2)
    plain, judge = layers(IMAGES, attention_axes=2)[1:]
    t, s = np.arange(4)[:, None], np.arange(5)
    theirs = {"attention_mask": (s <= t) & (t - s < 2), "use_causal_mask": False}
    layers_ = made[0], plain, judge
    call = {"use_causal_mask": True}
    assert_equals_keras(layers_, make_tensors(rng, IMAGES), theirs=theirs, **call)


@pytest.mark.parametrize("axes", [2, (1, 2)])
def test_unknown_sizes_in_a_graph_give_the_eager_result(axes, rng):
    x = rng.standard_normal((2, 3, 4, 6), np.float32)
    mask = mask_of(2, 3, 4, 4) if axes == 2 else mask_of(2, 3, 4, 3, 4)
    padding = rng.random((2, 3, 4)) < 0.7
    layer = MultiHeadAttention(2, 4, attention_axes=axes)

    def call(x, mask, padding):
        return layer(
            x, x, attention_mask=mask, value_mask=padding, return_attention_scores=True
        )

    want = call(x, mask, padding)
    specs = (
        tf.TensorSpec([None, None, None, 6]),
        tf.TensorSpec([None] * mask.ndim, "bool"),
        tf.TensorSpec([None] * 3, "bool"),
    )
    got = tf.function(call, input_signature=specs)(x, mask, padding)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_sizes_of_one_product_are_not_mixed_up(rng):
    """3 rows of 2 sequences against 2 rows of 3: known or not, no silent answer."""
    layer = MultiHeadAttention(2, 4, attention_axes=2)
    layer.build((None, None, None, 6), (None, None, None, 6))
    query, value = np.ones((2, 3, 4, 6), "float32"), np.ones((3, 2, 4, 6), "float32")
    with pytest.raises(ValueError, match="`value` must have the shape of `query`"):
        layer(query, value)
    unknown = tf.TensorSpec([None, None, None, 6])
    call = tf.function(lambda q, v: layer(q, v), input_signature=[unknown, unknown])
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(query, value)
    assert call(query, query).shape == (2, 3, 4, 6)


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({}, {"use_causal_mask": True}),
        ({"sliding_window": 2}, {}),
        ({"attention_axes": ()}, {}),
    ],
)
def test_what_means_nothing_over_these_axes_is_refused(options, call):
    layer = MultiHeadAttention(2, 4, **options)
    x = np.ones((2, 3, 4, 6), "float32")
    with pytest.raises(ValueError, match="`attention_axes` must be one axis"):
        layer(x, x, **call)


@pytest.mark.parametrize("shape", [(4,), (2, 3, 2, 1, 4, 5)])
def test_mask_of_too_few_or_too_many_axes_is_refused(shape):
    layer = MultiHeadAttention(2, 4, attention_axes=2)
    x, y = (np.ones(s, "float32") for s in IMAGES.values())
    with pytest.raises(ValueError, match="`attention_mask` must have from 2 to 5 axes"):
        layer(x, y, attention_mask=np.ones(shape, bool))


@pytest.mark.parametrize(("axes", "shapes"), [(2, IMAGES), (1, COLUMNS), (None, BOTH)])
def test_symbolic_shapes_are_the_eager_shapes(axes, shapes):
    layer = MultiHeadAttention(2, 4, attention_axes=axes, output_shape=5)
    query, value = (keras.Input(batch_shape=s) for s in shapes.values())
    symbolic = layer(query, value, return_attention_scores=True)
    eager = layer(*map(np.ones, shapes.values()), return_attention_scores=True)
    assert [x.shape for x in symbolic] == [tuple(x.shape) for x in eager]
