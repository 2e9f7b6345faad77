"""Keras's attention layers on the kernel: their call, and one product of attention."""
