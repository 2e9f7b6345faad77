"""Existing models on the fused kernel: `accelerate` for one model, `enable` for Keras's
own function."""

from hw3tf.acceleration.accelerate import accelerate, restore
from hw3tf.acceleration.enabling import disable, enable
from hw3tf.acceleration.measurement import LayerMeasurement, Measurement
from hw3tf.acceleration.report import AccelerationReport, LayerReport

__all__ = [
    "AccelerationReport",
    "LayerMeasurement",
    "LayerReport",
    "Measurement",
    "accelerate",
    "disable",
    "enable",
    "restore",
]
