"""Recordings -> a packed store of log-mel spectrograms -> training batches."""
