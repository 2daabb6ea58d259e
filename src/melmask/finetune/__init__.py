"""Fine-tuning: training an encoder and a linear head on a labelled task."""
