"""Encoders on labelled tasks: scores with intervals, and comparisons."""
