"""One training: its recipe, its loop and its run folder."""
