"""Training accelerated models."""

import keras
import keras_hub
import numpy as np
import pytest
from acceleration_checks import assert_equal_up_to_rounding
from backbones import GROUPED, HEADS, models, segments, tokens

import hw3tf

LABELS = np.array([0, 1])


def classifier(dropout):
    backbone = models.BertBackbone(**HEADS, dropout=dropout)
    model = keras_hub.models.BertTextClassifier(
        backbone, num_classes=2, preprocessor=None, dropout=dropout
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model


def train(model, steps):
    logs = [
        model.train_on_batch(segments(), LABELS, return_dict=True) for _ in range(steps)
    ]
    return [float(log["loss"]) for log in logs]


def test_steps_without_dropout_equal_those_of_the_stock_model(kernel_calls):
    model = classifier(dropout=0.0)
    before = model.get_weights()
    losses, weights = train(model, 3), model.get_weights()
    assert not kernel_calls
    model.set_weights(before)
    hw3tf.accelerate(model)
    # Three steps of rate 0.1: rounding in the gradients, far below their size.
    np.testing.assert_allclose(train(model, 3), losses, rtol=1e-5)
    assert_equal_up_to_rounding(model.get_weights(), weights, terms=1.0)
    assert len(kernel_calls) == 2  # traced once


def test_training_with_dropout_is_fused_and_learns(kernel_calls):
    """BERT's default, 0.1, in the attention weights of both layers."""
    model = classifier(dropout=0.1)
    hw3tf.accelerate(model)
    losses = train(model, 40)
    assert len(kernel_calls) == 2
    assert [call[3].dropout_rate for call in kernel_calls] == [0.1, 0.1]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    model.predict(segments(), verbose=0)
    assert [call[3].dropout_rate for call in kernel_calls[2:]] == [0.0, 0.0]


FAMILIES = {
    "falcon": lambda: models.FalconBackbone(
        vocabulary_size=13, num_layers=1, num_attention_heads=2, hidden_dim=8,
        intermediate_dim=12, attention_dropout_rate=0.2,
    ),
    "bloom": lambda: models.BloomBackbone(**HEADS | {"num_layers": 1}, dropout=0.2),
    "gpt_neo_x": lambda: models.GPTNeoXBackbone(
        **HEADS | {"num_layers": 1}, dropout=0.2, rotary_percentage=0.5
    ),
    "gemma": lambda: models.GemmaBackbone(
        **GROUPED | {"num_layers": 1}, head_dim=4, dropout=0.2
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_dropout_of_a_family_is_that_of_training(name, kernel_calls):
    """Falcon and Bloom have no argument `training`: it comes with the call."""
    model = FAMILIES[name]()
    stock = model(tokens())
    hw3tf.accelerate(model)
    model(tokens(), training=True)
    assert_equal_up_to_rounding([np.array(model(tokens()))], [np.array(stock)])
    assert [call[3].dropout_rate for call in kernel_calls] == [0.2, 0.0]


def test_dropout_seed_changes_from_step_to_step(kernel_calls):
    model = FAMILIES["gpt_neo_x"]()
    hw3tf.accelerate(model)
    for _ in range(3):
        model(tokens(), training=True)
    assert len({int(call[3].dropout_seed) for call in kernel_calls}) == 3
