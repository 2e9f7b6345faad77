"""KerasHub's models: the same results on the kernel, in as many calls as there are
attentions."""

import numpy as np
import pytest
from acceleration_checks import (
    assert_equal_up_to_rounding,
    moved_by_rounding,
    outputs,
    randomize,
)
from backbones import BACKBONES

import hw3tf

# KerasHub's T5 gives its attention a Keras mask, which that does not take; PyTorch
# warns of how its RoFormer indexes.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*was passed an input with a mask attached to it",
    "ignore:.*unbuilt state",
    "ignore:Using a non-tuple sequence",
)


@pytest.mark.parametrize("name", BACKBONES)
def test_backbone_is_fused_and_equals_stock(name, kernel_calls, rng):
    build, make_inputs, expected_calls = BACKBONES[name]
    model, inputs = build(), make_inputs()
    randomize(model, rng)
    config, weights = model.get_config(), model.get_weights()
    stock = outputs(model, inputs)
    moved = moved_by_rounding(model, inputs, rng, stock)
    assert not kernel_calls

    report = hw3tf.accelerate(model)
    fused = outputs(model, inputs)
    assert len(kernel_calls) == expected_calls, report
    assert all(layer.fused for layer in report.layers), report
    assert_equal_up_to_rounding(fused, stock, moved, name)
    assert model.get_config() == config
    assert all(map(np.array_equal, model.get_weights(), weights))

    assert hw3tf.restore(model) == len(report.layers)
    assert all(map(np.array_equal, outputs(model, inputs), stock))
    assert len(kernel_calls) == expected_calls


def test_there_are_at_least_40_backbones():
    assert len(BACKBONES) >= 40
