"""Self-supervised audio representations by masked prediction on log-mel spectrograms."""
