"""Runs and their evaluations, read together."""
