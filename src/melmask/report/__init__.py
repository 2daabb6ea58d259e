"""Runs and their results as one HTML page."""
