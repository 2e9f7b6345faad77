"""The data sets of the tutorials."""
