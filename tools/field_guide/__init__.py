"""Draws the pictures of docs/masking.md: every strategy on the same four sounds."""
