"""From a loop in Python to a C++ kernel inside a Keras layer."""
