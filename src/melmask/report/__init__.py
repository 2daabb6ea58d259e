"""Runs and their results as HTML, PNG, Markdown and CSV."""
