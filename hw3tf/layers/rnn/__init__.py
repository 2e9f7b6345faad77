"""Keras's recurrent layers on the kernel: what they must hold, and their loop."""
