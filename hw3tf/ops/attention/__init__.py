"""Attention: the functions, what they check, and one call on its way to a front."""
