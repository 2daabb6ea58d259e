"""Networks: the vision transformer, its linear layers, and the file of an encoder."""
