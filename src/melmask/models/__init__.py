"""Trained models: an encoder with what predicts labels or events, in a folder, and its use on new recordings."""
