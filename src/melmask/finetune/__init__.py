"""Training a whole encoder on a labelled task."""
