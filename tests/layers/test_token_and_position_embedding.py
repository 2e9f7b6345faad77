"""`hw3tf.layers.TokenAndPositionEmbedding`."""

import keras
import numpy as np
import pytest

from hw3tf.layers import TokenAndPositionEmbedding


def layer(**kwargs):
    return TokenAndPositionEmbedding(20, sequence_length=8, embed_dim=4, **kwargs)


def test_output_is_the_sum_of_two_vectors():
    embedding = layer()
    tokens = np.array([[3, 0, 7], [1, 1, 1]])
    out = embedding(tokens)
    words, positions = embedding.get_weights()
    np.testing.assert_array_equal(out, words[tokens] + positions[None, :3])


@pytest.mark.parametrize("mask_zero", [True, False])
def test_mask_says_where_tokens_are(mask_zero):
    tokens = np.array([[3, 5, 0], [1, 0, 0]])
    mask = layer(mask_zero=mask_zero).compute_mask(tokens)
    if mask_zero:
        np.testing.assert_array_equal(mask, tokens != 0)
    else:
        assert mask is None


def test_too_long_input_is_refused():
    with pytest.raises(ValueError, match="at most sequence_length=8"):
        layer()(np.ones((1, 9), "int32"))


def test_model_with_unknown_length_saves_and_loads(tmp_path):
    x = keras.Input((None,), dtype="int32")
    model = keras.Model(x, layer(name="embedding")(x))
    assert model.output_shape == (None, None, 4)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    tokens = np.array([[1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(loaded(tokens), model(tokens))
    assert loaded.get_layer("embedding").get_config() == (
        model.get_layer("embedding").get_config()
    )
