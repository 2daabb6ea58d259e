"""Run folders and their evaluations, read together."""
