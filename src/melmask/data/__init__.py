"""Recordings to a packed store of log-mel spectrograms, and from there to batches."""
