"""The model card of the encoder that comes with melmask: its figures are measured, its text and tables generated."""
