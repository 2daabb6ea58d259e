"""The networks that all frameworks are built from."""
