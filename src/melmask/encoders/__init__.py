"""Recordings to vectors: our encoders, those of others, and the baselines."""
